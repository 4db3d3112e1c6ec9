//! The PBX's side of the sound as it is on the wire, kept in memory while somebody wants to see it.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::clock;
use crate::control::Packet;

/// Bytes that are kept at most: about a quarter of an hour of one call with G.711. The oldest go first.
const BYTES: usize = 16 << 20;
/// What a packet costs beside its bytes.
const BESIDE: usize = 96;

/// Packets of all calls, while it is on. Off, it costs one look at a flag per packet.
#[derive(Default)]
pub struct Capture {
    on: AtomicBool,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    packets: VecDeque<(Arc<str>, Packet)>,
    size: usize,
}

impl Capture {
    /// Whether packets are kept.
    pub fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// From now on they are kept, or not any more: then those that were are let go of.
    pub fn switch(&self, on: bool) {
        self.on.store(on, Ordering::Relaxed);
        if !on {
            *self.kept() = Kept::default();
        }
    }

    /// A packet of this call went or came.
    pub fn take(&self, call: &Arc<str>, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        if !self.is_on() {
            return;
        }
        let packet = Packet { at: clock::now().wall, from, to, bytes: bytes.to_vec() };
        let mut kept = self.kept();
        kept.size += bytes.len() + BESIDE;
        kept.packets.push_back((Arc::clone(call), packet));
        while kept.size > BYTES {
            let Some((_, gone)) = kept.packets.pop_front() else { break };
            kept.size = kept.size.saturating_sub(gone.bytes.len() + BESIDE);
        }
    }

    /// The packets of this call that are still there, the oldest first.
    pub fn of(&self, call: &str) -> Vec<Packet> {
        let kept = self.kept();
        kept.packets.iter().filter(|(id, _)| **id == *call).map(|(_, packet)| packet.clone()).collect()
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here() -> SocketAddr {
        "192.0.2.1:20000".parse().unwrap()
    }

    #[test]
    fn each_call_has_its_own_packets_and_nothing_is_kept_while_it_is_off() {
        let capture = Capture::default();
        let (one, two): (Arc<str>, Arc<str>) = ("call_1".into(), "call_2".into());
        capture.take(&one, here(), here(), b"before");
        capture.switch(true);
        capture.take(&one, here(), here(), b"first");
        capture.take(&two, here(), here(), b"other");
        capture.take(&one, here(), here(), b"second");
        let seen: Vec<Vec<u8>> = capture.of("call_1").into_iter().map(|packet| packet.bytes).collect();
        assert_eq!(seen, [b"first".to_vec(), b"second".to_vec()]);
        capture.switch(false);
        assert_eq!(capture.of("call_1"), []);
    }

    #[test]
    fn what_is_kept_has_an_end_and_the_latest_stays() {
        let capture = Capture::default();
        capture.switch(true);
        let call: Arc<str> = "call_1".into();
        for number in 0..40_000_u32 {
            let mut bytes = [0; 1_000];
            bytes[..4].copy_from_slice(&number.to_be_bytes());
            capture.take(&call, here(), here(), &bytes);
        }
        let seen = capture.of("call_1");
        assert!(seen.len() * (1_000 + BESIDE) <= BYTES);
        assert_eq!(
            seen.last().map(|packet| packet.bytes[..4].to_vec()),
            Some(39_999_u32.to_be_bytes().to_vec())
        );
    }
}
