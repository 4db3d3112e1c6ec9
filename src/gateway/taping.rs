//! Recording a call: who may be recorded, and what a key or a program does to it.

use super::{CallKey, Gateway};
use crate::clock::Now;

impl Gateway {
    /// Whoever talks at the PBX has pressed a key, and the PBX has told it by INFO.
    pub(super) fn far_digit(&mut self, key: CallKey, _digit: char, _now: Now) {
        let Some(live) = self.calls.get(&key) else { return };
        // Which key it was may be part of a PIN.
        tracing::debug!(call = %live.id, "a key was pressed at the PBX");
    }
}
