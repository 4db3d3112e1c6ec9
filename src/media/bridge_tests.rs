//! Stories of bridge (written below).
