//! What an operator may see of the gateway.

use super::Gateway;
use crate::sip::TrunkView;

/// A running call, for people and programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallView {
    /// Our id.
    pub id: String,
    /// Meta's id.
    pub wacid: String,
    /// The number's id.
    pub number: String,
    /// `calling`, `ringing`, `answering`, `talking`, `ending`, `over`.
    pub state: &'static str,
    /// Where it goes.
    pub destination: String,
}

/// A trunk, for people and programs.
pub type TrunkLine = TrunkView;

impl Gateway {
    /// The running calls, oldest first.
    pub fn view_calls(&self) -> Vec<CallView> {
        self.calls
            .values()
            .map(|live| CallView {
                id: live.id.clone(),
                wacid: live.wacid.clone(),
                number: live.number.clone(),
                state: live.call.word(),
                destination: live.destination.clone(),
            })
            .collect()
    }

    /// The trunks, by name.
    pub fn view_trunks(&self) -> Vec<TrunkLine> {
        self.agent.trunks()
    }

    /// Whether at least one trunk can take calls and we are not draining.
    pub fn ready(&self) -> bool {
        self.drain_until.is_none() && self.agent.trunks().iter().any(|trunk| trunk.state.is_up())
    }
}
