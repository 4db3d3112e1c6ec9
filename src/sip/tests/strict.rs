//! What we send is never of an invalid form, whatever we are told to send.
