//! G.722 against the levels that it must keep, and against vectors of another implementation.
