//! watrunk (tour to be written)
pub mod call;
pub mod clock;
pub mod io;
