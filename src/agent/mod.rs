//! The voice agent: what the far end of a call is when the destination is a WebSocket.
//!
//! [`Leg`] is one call's agent as a value: messages in, sound in, messages and events out. No socket: whoever
//! owns one carries [`Message`]s both ways, and stops reading while [`Leg::wants_input`] says no.
//!
//! ```text
//!  heard ─► outlet (codec, rate, packet) ─► dialect ─► LegOutput::Send
//!  received ─► dialect ─► inlet (odd bytes, codec, rate) ─► play queue ─► next
//!                 └─► marks, clear, hang-up, transfer, transcript: the leg, once for every dialect
//! ```
//!
//! A dialect (one file each in `dialect/`) knows only what things are called. It is told what happened and
//! says which messages that makes; it reads a message and says what was meant.

mod audio;
mod dialect;
mod ids;
mod leg;
mod mint;
mod queue;
mod record;
mod session;
#[cfg(test)]
mod tests;

pub use dialect::{Dialect, HttpRequest, UnknownDialect};
pub use ids::{account_sid, call_sid};
pub use leg::{AgentEvent, Leg, LegOutput};
pub use mint::Mint;
pub use record::{Line, Noted, Summary};
pub use session::{Key, Message, Session};
