//! Permissions as Graph tells them.
