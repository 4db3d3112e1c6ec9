//! The rooms that read what strangers send, without the edge: nothing here opens a socket or asks for the time.
//!
//! They are compiled from their own files, so that the edge and its 300 crates need not be.
#![allow(dead_code, unused_imports)]

// `rtc` is a facade: here are those of its crates that are used, under its name.
extern crate self as rtc;
pub use {rtc_shared as shared, rtc_srtp as srtp};

#[path = "../../src/agent/mod.rs"]
pub mod agent;
#[path = "../../src/call/mod.rs"]
pub mod call;
#[path = "../../src/clock.rs"]
pub mod clock;
#[path = "../../src/config/mod.rs"]
pub mod config;
#[path = "../../src/io/dns/message.rs"]
pub mod dns;
#[path = "../../src/media/mod.rs"]
pub mod media;
#[path = "../../src/sip/mod.rs"]
pub mod sip;
#[path = "../../src/io/stun.rs"]
pub mod stun;
#[path = "../../src/whatsapp/mod.rs"]
pub mod whatsapp;

/// What a play is made of: acts, parted by `%%`.
pub fn acts(play: &[u8]) -> Vec<&[u8]> {
    let mut acts = Vec::new();
    let mut rest = play;
    while let Some(at) = rest.windows(2).position(|two| two == b"%%") {
        acts.push(&rest[..at]);
        rest = &rest[at + 2..];
    }
    acts.push(rest);
    acts
}

/// A stage direction: an act `~x123` is the letter and the number, 0 where there is none.
pub fn direction(act: &[u8]) -> Option<(u8, u64)> {
    let [b'~', letter, number @ ..] = act else { return None };
    let digits = number.iter().take(8).take_while(|octet| octet.is_ascii_digit());
    Some((*letter, digits.fold(0, |sum, octet| sum * 10 + u64::from(octet - b'0'))))
}
