//! Stories of the doors.
