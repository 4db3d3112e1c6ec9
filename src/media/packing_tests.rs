//! Opus packets, cut and joined: every kind of packet in, 20 ms out, the sound untouched.
