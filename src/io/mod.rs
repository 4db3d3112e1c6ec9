//! The edge: the only room with tokio, nix, sockets, files, clocks and randomness.

pub mod mux;
pub mod peer;
pub mod sock;
