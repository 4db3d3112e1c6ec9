//! THE HEART: one call as a value. Two legs, one machine; direction is data.

pub mod consent;
pub mod leg;
pub mod record;
pub mod recording;
pub mod state;

pub use leg::Direction;
pub use state::{CONFIRMING, Call, Limits, Step};
