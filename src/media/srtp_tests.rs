//! SRTP: what is protected is opened, what is forged or replayed is not.
