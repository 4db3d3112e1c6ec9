//! The file as operators write it: what loads, what is refused, and what they are told.
