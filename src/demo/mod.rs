//! `watrunk demo`: a whole call on loopback, either way, with the real gateway between two stand-ins.
//!
//! ```text
//!   phone.rs  WebRTC, Opus ──┐                          ┌── pbx.rs  SIP, G.711
//!   cloud.rs  Graph, webhooks┴── sockets ── io::Running ┴── agent.rs  WebSocket, instead of the PBX
//!                        ladder.rs shows it, measure.rs measures it
//! ```
//! The stand-ins share no SIP, SDP, HTTP or digit code with the gateway: what both get wrong would not be seen.

mod agent;
mod call;
mod cloud;
mod gateway;
mod ladder;
mod measure;
mod message;
mod pbx;
mod phone;
mod report;
mod tone;

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use crate::clock::Tick;
use crate::io::clock;

/// 20 ms at 8 kHz, the frame of everything here.
const FRAME: usize = 160;
const FRAME_TIME: Duration = Duration::from_millis(20);

/// What went wrong, for people.
type Fault = String;

/// What `watrunk demo` was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DemoOptions {
    /// A WAV file to write: left what the WhatsApp user heard, right what the PBX heard.
    pub record: Option<PathBuf>,
    /// The result as one JSON object on stdout, and nothing else there.
    pub json: bool,
    /// The PBX calls the WhatsApp user; else the user calls.
    pub outbound: bool,
    /// The user calls a voice agent that says back what it hears, and there is no PBX.
    pub agent: bool,
}

/// Where the stand-ins say what they saw, each with its moment.
type Events = tokio::sync::mpsc::Sender<(Tick, Event)>;

/// Says it now. There is room for everything that one call can bring; what is more is a flood, and lost.
fn tell(events: &Events, event: Event) {
    let _ = events.try_send((clock::tick(), event));
}

/// What the stand-ins saw.
#[derive(Debug)]
enum Event {
    /// The gateway registered at the PBX.
    Registered,
    /// The gateway took its registration back.
    Unregistered,
    /// Graph took `pre_accept`, with this answer.
    PreAccepted(String),
    /// Graph took `accept`, with this answer.
    Accepted(String),
    /// Graph took `reject` or `terminate`.
    Ended,
    /// Graph was asked whether the user may be called.
    Asked,
    /// Graph took `connect`, with this offer.
    Dialled(String),
    /// Graph was asked for something else.
    Looked,
    /// The phone that is called, or the relay before it, answers with this SDP.
    Described(String),
    /// An INVITE came to the PBX.
    Invited { uri: String, from: String, wacid: String, payload: String },
    /// The PBX said 180, or was told so.
    Ringing,
    /// The PBX said 200, or was told so.
    Answered,
    /// The voice agent was told of the call.
    SessionBegun,
    /// The called side's 200 was confirmed with ACK.
    Acknowledged,
    /// The gateway refused the PBX's call, in these words.
    Refused(String),
    /// The PBX's BYE was answered.
    HungUp,
    /// ICE and DTLS are up.
    Connected,
    /// The user has said and pressed everything.
    Said,
    /// Something that must not happen.
    Fault(Fault),
}

/// Makes a call, shows it and measures it. True if sound arrived both ways and nothing went wrong.
///
/// The gateway's own log goes to stderr if `WATRUNK_LOG` is set (`info`, `debug`, `watrunk::sip=trace` …).
///
/// # Errors
/// When the call could not even be tried, or the WAV file can't be written; in words.
pub fn run(options: DemoOptions) -> Result<bool, String> {
    if std::env::var_os("WATRUNK_LOG").is_some() {
        crate::cli::log_to_stderr();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("stand-in")
        .enable_all()
        .build()
        .map_err(|error| format!("the stand-ins' runtime can't be built: {error}"))?;
    let outcome = runtime.block_on(async {
        tokio::select! {
            outcome = call::make(&options) => outcome,
            _ = tokio::signal::ctrl_c() => Err("interrupted".to_owned()),
        }
    });
    runtime.shutdown_timeout(Duration::from_millis(200));
    let outcome = outcome?;
    if let Some(path) = &options.record {
        report::write_wav(path, &outcome).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    let mut text =
        if options.json { format!("{}\n", report::json(&outcome)) } else { report::text(&outcome) };
    if let (Some(path), false) = (&options.record, options.json) {
        let far = outcome.far_end();
        text.push_str(&format!("{}: left what the user heard, right what the {far} heard\n", path.display()));
    }
    std::io::stdout().write_all(text.as_bytes()).map_err(|error| format!("stdout: {error}"))?;
    Ok(outcome.ok())
}
