//! Settings as Graph tells them.
