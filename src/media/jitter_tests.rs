//! Stories of jitter (written below).
