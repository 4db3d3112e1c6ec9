//! The PBX: a small SIP user agent (RFC 3261) without a socket.
pub mod sdp;
mod words;

use std::net::SocketAddr;

use crate::clock::{Now, Tick};

pub use words::{
    Cause, Cidr, CidrError, Counters, Dial, DialError, EndedBy, Ending, Event, LegId, Output, Settings,
    TrunkSettings, TrunkState, TrunkView,
};

/// The user agent: told datagrams, orders and the time; drained by [`poll`](UserAgent::poll).
#[derive(Debug)]
pub struct UserAgent {
    settings: Settings,
}

impl UserAgent {
    /// A user agent without a trunk.
    pub fn new(settings: Settings) -> UserAgent {
        UserAgent { settings }
    }
    /// Adds a trunk; registering or asking by OPTIONS begins as soon as its address is known.
    pub fn add_trunk(&mut self, _trunk: TrunkSettings, _now: Now) {}
    /// The trunk's name was resolved (again).
    pub fn set_peer(&mut self, _trunk: &str, _peer: SocketAddr, _local: SocketAddr, _now: Now) {}
    /// A datagram came in.
    pub fn receive(&mut self, _datagram: &[u8], _from: SocketAddr, _now: Now) {}
    /// Calls somebody behind the PBX.
    pub fn dial(&mut self, _leg: LegId, _dial: Dial, _now: Now) -> Result<(), DialError> {
        Err(DialError::UnknownTrunk)
    }
    /// Ends a call.
    pub fn hang_up(&mut self, _leg: LegId, _cause: Cause, _now: Now) {}
    /// Leaves: unregisters everywhere.
    pub fn shutdown(&mut self, _now: Now) {}
    /// The time of [`poll_timeout`](UserAgent::poll_timeout) has come.
    pub fn handle_timeout(&mut self, _now: Now) {}
    /// When to call [`handle_timeout`](UserAgent::handle_timeout).
    pub fn poll_timeout(&self) -> Option<Tick> {
        None
    }
    /// What to do next.
    pub fn poll(&mut self) -> Option<Output> {
        None
    }
    /// The trunks, by name.
    pub fn trunks(&self) -> Vec<TrunkView> {
        Vec::new()
    }
    /// What was counted.
    pub fn counters(&self) -> Counters {
        Counters::default()
    }
}
