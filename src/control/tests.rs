//! Stories of the doors: a fake hall, a real ledger and a real file behind the real router. Every answer in them is
//! held against the description.

mod described;
mod doors;
pub(in crate::control) mod fake;
mod history;
mod hooks;
mod hostile;
mod numbers;
mod placing;
mod recordings;
mod traces;
