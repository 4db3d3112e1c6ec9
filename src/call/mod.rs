//! THE HEART: one call as a value. Two legs, one machine; direction is data.

pub mod consent;
pub mod leg;
pub mod record;
pub mod recording;
pub mod state;
mod words;

pub use leg::Direction;
pub use state::{CONFIRMING, Call, Limits, Step};
pub use words::without_numbers;
