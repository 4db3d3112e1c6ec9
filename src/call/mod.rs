//! THE HEART: one call as a value.

pub mod leg;
pub mod record;
