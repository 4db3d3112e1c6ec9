//! META: its signalling as values. What a webhook says, what Graph is told, what Graph answers, and
//! the SDP that both need.
//!
//! Nothing here opens a socket, reads a clock or knows the access token: the shell carries the bytes,
//! the hall owns the machines. The way in is [`webhook::read`] then [`seen::Seen::admit`]; the way out
//! is [`leg::Leg`], whose actions become requests in [`graph`].

pub mod callee;
pub mod graph;
pub mod leg;
pub mod notice;
pub mod permit;
mod redact;
pub mod sdp;
pub mod seen;
pub mod settings;
pub mod verdict;
pub mod webhook;
