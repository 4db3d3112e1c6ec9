//! watrunk: WhatsApp Business calls on your own PBX.
//!
//! A customer taps the call button in WhatsApp, and a phone behind the PBX rings. Meta speaks WebRTC and
//! HTTPS, the PBX speaks SIP and G.711; this crate is what stands between them, as one process.
//!
//! # The tour
//!
//! Begin at [`gateway`], the hall. Everything that can happen to it is an [`Input`](gateway::Input), all it
//! can ask for is an [`Output`](gateway::Output), and it holds no socket, no clock and no thread. It keeps
//! the calls, and turns what each room below says into what the others must hear:
//!
//! * [`call`] is the heart: one call as a value. Two legs, a handful of states, one function that steps
//!   between them, one way out. Which leg asked for the call is data, so there are no inbound and outbound
//!   twins.
//! * [`whatsapp`] is Meta's side: webhooks in ([`webhook`](whatsapp::webhook), [`seen`](whatsapp::seen)),
//!   Graph actions out ([`graph`](whatsapp::graph)), and the two SDPs ([`sdp`](whatsapp::sdp)).
//! * [`sip`] is the PBX's side: a small user agent, sans-I/O, from bytes to dialogs.
//! * [`agent`] is the voice agent's side: one leg over a WebSocket, many dialects.
//! * [`media`] is sound, 20 ms at a time and in fixed memory: jitter buffer, codecs, digits, and the
//!   [`Bridge`](media::Bridge) that crosses two ports on one tick.
//! * [`ledger`] is memory: one row for every call that ever was.
//! * [`control`] is the doors: the REST API with its description, live events, who may ask what. It renders the
//!   hall's vocabulary ([`gateway::desk`]) and the ledger; whatever goes wrong leaves in one envelope.
//! * [`config`] is the TOML file, with a line and a key for every fault in it; [`clock`] is time, told and
//!   never asked.
//!
//! All of that is pure: told the time and the input, it returns what to do. [`io`] is the edge that does
//! it: the loop that feeds the hall, the sound threads (each owns some calls; signalling never runs there),
//! the HTTP door, the Graph client, the disk's thread. [`cli`] is what a person types.
//!
//! # A call, from end to end
//!
//! ```text
//! io::http        POST webhook: signature over the raw body, queue, 200
//! whatsapp        ours? seen before? too old? -> Connect { wacid, offer }
//! gateway         number -> route; the sound is opened first: ports are bound, our SDP answer is made
//! call            Calling: WhatsApp leg Prepare, far leg Dial
//! whatsapp / sip  Graph pre_accept(answer) and INVITE at the same time; 180; 200, ACK
//! call            Answering: WhatsApp leg Answer -> Graph accept(the same answer) -> 200 opens the gate
//! gateway::line   Opus <-> G.711 crosses, every 20 ms, on a sound thread
//! call            BYE, terminate, silence, a limit: Ending, both legs, then the record, then closed
//! ```
//!
//! # Lexicon
//!
//! * **leg**: one end of a call: the WhatsApp user, or the *far* end behind the PBX.
//! * **line**: the sound of one call: WebRTC peer, RTP ports and the bridge between them.
//! * **gate**: shut until Meta has confirmed `accept`; sound sent earlier would start the caller's timer.
//! * **wacid**: Meta's id of a call. **BSUID**: Meta's id of a user for one business, where there may be no
//!   phone number.
//! * **tick**: monotonic time, for deadlines. **wall**: wall-clock time, for stamps.
//!
//! # Floors
//!
//! A room uses rooms below it only: `clock`, `config` < `call`, `media` < `whatsapp`, `sip`, `agent`, `ledger` <
//! `gateway` < `control` < `io` < `cli`. Each foreign crate has one door: `webrtc` in `io::peer` and
//! `io::mux`, `rsip` in `sip::wire`, `rtp-rs` in `media::rtp`, `audiopus` in `media::opus`, SQLite in `ledger`.

pub mod agent;
pub mod call;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
#[cfg(all(feature = "demo", not(target_env = "musl")))]
pub mod demo;
pub mod gateway;
pub mod io;
pub mod ledger;
pub mod media;
pub mod sip;
pub mod whatsapp;
