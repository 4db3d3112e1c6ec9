//! Stories of dtmf (written below).
