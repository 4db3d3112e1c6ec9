//! Recordings as they are heard.
