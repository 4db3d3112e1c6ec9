//! The leg with every dialect, under a virtual clock.

mod cloud;
mod harness;
mod lessons;
mod others;
mod platform;
