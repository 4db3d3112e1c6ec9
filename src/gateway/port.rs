//! All that may happen to the gateway, and all that it may ask for.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::desk::{Answer, Command, Refusal, Ticket};
use super::line::{FarPath, TapeNews, TapeTerms};
use super::live::CallKey;
use super::route::Settings;
use crate::agent::{self, AgentEvent, Mint, Summary};
use crate::call::leg::Why;
use crate::call::record::{Quality, Record, Running, Speaker};
use crate::call::recording::{Finished, RecordingPart};
use crate::config::{DtlsRole, RecordingConfig};
use crate::media::{Alone, FarMedia};
use crate::sip;
use crate::whatsapp::graph::{Reply, Request};
use crate::whatsapp::notice::{Notice, PermissionReply};
use crate::whatsapp::sdp::Place;

/// One request to Graph, with all its retries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// What happened.
#[derive(Debug)]
pub enum Input {
    /// A webhook of Meta's, its signature checked.
    Notices(Vec<Notice>),
    /// A SIP message came in.
    Sip {
        /// By which way.
        from: sip::Way,
        /// All of it.
        bytes: Vec<u8>,
    },
    /// A trunk's server name was resolved.
    PeerResolved {
        /// The trunk's name.
        trunk: String,
        /// Where its server is, in the order in which they are to be tried; never empty.
        found: Vec<sip::Found>,
    },
    /// A connection could not be made, or broke.
    SipUnreachable {
        /// The way that does not work.
        way: sip::Way,
        /// Why, in words.
        why: String,
    },
    /// Graph answered, or did not.
    GraphReplied {
        /// The request.
        request: RequestId,
        /// The answer.
        reply: Reply,
    },
    /// The sound of a call has something to say.
    Line {
        /// The call.
        call: CallKey,
        /// What it says.
        event: LineEvent,
    },
    /// The recorder has something to say of a call's recording.
    Tape {
        /// The call.
        call: CallKey,
        /// What.
        event: TapeEvent,
    },
    /// A service has made an id for a call, or has not: why.
    Minted {
        /// The call.
        call: CallKey,
        /// The id.
        result: Result<String, String>,
    },
    /// A record is on the disk, or was given up: the call is closed.
    Written {
        /// The call.
        call: CallKey,
    },
    /// Somebody asks something at the desk; answer with [`Output::Told`].
    Asked {
        /// Its number.
        ticket: Ticket,
        /// What.
        command: Command,
    },
    /// Calls of an earlier life of this process that were never closed: told once, at the start.
    Interrupted(Vec<Running>),
    /// The configuration was read again: numbers, trunks and limits are as it says now.
    Reload(Box<Settings>),
    /// No new calls; running calls may finish for a while. Said twice: at once.
    Drain,
}

/// What the sound of a call says.
#[derive(Debug)]
pub enum LineEvent {
    /// The ports are bound and the WebRTC stack has answered the offer, or made one.
    Opened {
        /// The stack's own SDP.
        described: String,
        /// Where Meta can reach us: the candidates to write into what Meta gets to see.
        places: Vec<Place>,
        /// Where the PBX can send RTP; an unspecified address stands for all of ours.
        rtp: SocketAddr,
        /// For SRTP towards the PBX.
        secret: Secret,
    },
    /// It could not be set up.
    OpenFailed(String),
    /// ICE and DTLS are up.
    Connected,
    /// ICE or DTLS failed or ended.
    Lost(&'static str),
    /// Nothing from WhatsApp for 30 s.
    UserSilent,
    /// Nothing from the PBX for the configured time.
    FarSilent,
    /// Nothing from the PBX for three seconds: told once in each pause.
    FarPauses,
    /// The user has pressed a key that the PBX hears of by INFO, and how long, in ms.
    Digit(char, u32),
    /// The voice agent says something.
    Agent(AgentEvent),
    /// A voice agent's part is over: after [`LineOrder::AgentEnd`] and before [`LineEvent::Closed`].
    AgentOver(Box<Summary>),
    /// A bug: this line is gone.
    Fault(String),
    /// News of the recording.
    Tape(TapeNews),
    /// Closed, after [`LineOrder::Close`].
    Closed {
        /// What was heard from WhatsApp.
        whatsapp: Quality,
        /// What was heard from the PBX.
        far: Quality,
    },
}

/// What a line needs to know to open.
#[derive(Debug, Clone)]
pub struct LineSetup {
    /// The call's id, for traces.
    pub id: String,
    /// Who offers.
    pub webrtc: WebRtc,
    /// The PBX's address, to find our own address towards it; `None` if there is no PBX in this call.
    pub far: Option<SocketAddr>,
}

/// What a line needs to know to call a voice agent.
#[derive(Debug, Clone)]
pub struct AgentSetup {
    /// `wss://…`
    pub url: String,
    /// What the agent is told about the call.
    pub session: agent::Session,
    /// Headers of the request for the connection, the operator's own.
    pub headers: Vec<(String, String)>,
    /// Whether it may be on this machine or in a private network.
    pub allow_private: bool,
    /// Certificates (PEM) to believe beside the usual ones.
    pub ca: Option<PathBuf>,
    /// How long it may take to be there.
    pub patience: Duration,
    /// For how long a connection that failed is tried again.
    pub retry: Duration,
    /// The user is connected already: it may begin at once.
    pub answered: bool,
}

/// Which side of WebRTC describes itself first.
#[derive(Debug, Clone)]
pub enum WebRtc {
    /// Meta has offered.
    Answer {
        /// The offer as our WebRTC stack should see it.
        offer: String,
        /// Meta's candidates: where this call's packets will come from.
        remotes: Vec<SocketAddr>,
        /// Opus' payload type.
        opus_pt: u8,
        /// telephone-event/8000's payload type.
        dtmf_pt: Option<u8>,
    },
    /// We offer; Meta's answer comes with [`LineOrder::Remote`].
    Offer {
        /// The DTLS role to offer.
        role: DtlsRole,
    },
}

/// Where and how the PBX talks.
#[derive(Debug, Clone)]
pub struct FarSound {
    /// What it speaks.
    pub media: FarMedia,
    /// Where, and under which keys.
    pub path: Box<FarPath>,
}

/// What the keys of a call's SRTP are made of: random, of this call alone. Never printed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Secret(pub [u8; 32]);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

/// What the sound of a call is told.
#[derive(Debug)]
pub enum LineOrder {
    /// Bind, build, answer.
    Open(Box<LineSetup>),
    /// The PBX has said where and how it talks.
    Far(FarSound),
    /// Meta's answer to our offer. Meta keeps the payload types that we offered.
    Remote {
        /// As our WebRTC stack should see it.
        sdp: String,
        /// Meta's candidates.
        remotes: Vec<SocketAddr>,
    },
    /// The far end is a voice agent: connect.
    Agent(Box<AgentSetup>),
    /// The voice agent's part is over: its goodbye, and its socket closed.
    AgentEnd(Why),
    /// There is no far end, or not yet another one: what the user hears meanwhile.
    Alone(Alone),
    /// Something may leave for WhatsApp from now on.
    OpenGate {
        /// The user has not answered yet: comfort noise keeps the path warm, and silence is no fault.
        early: bool,
    },
    /// Both ends talk, and the call is to be recorded: ask.
    Record(Box<TapeSetup>),
    /// Silence is to be recorded instead of what is said, or no more.
    PauseTape(bool),
    /// A key was pressed on the destination's phone, told by signalling.
    FarDigit(char),
    /// Stop, report, forget.
    Close,
}

/// What is needed to record a call.
#[derive(Debug, Clone)]
pub struct TapeSetup {
    /// How the user is asked, and what happens while it is recorded.
    pub terms: TapeTerms,
    /// The language of a built-in prompt.
    pub language: String,
    /// The configured number's `id` and its account, for the file's description and the history.
    pub number: String,
    /// `account_id`
    pub account: String,
    /// What `[recording]` and the number say at this moment.
    pub config: Box<RecordingConfig>,
}

/// What becomes of a recording's file.
#[derive(Debug)]
pub enum TapeEvent {
    /// It is there.
    Begun,
    /// There is none, and why.
    Failed(String),
    /// It is finished.
    Finished(Box<Finished>),
}

/// What the gateway asks for.
#[derive(Debug)]
pub enum Output {
    /// Send a SIP message.
    Sip {
        /// To whom, and by what.
        to: sip::Way,
        /// What.
        bytes: Vec<u8>,
    },
    /// Send a request to Graph; answer with [`Input::GraphReplied`].
    Graph {
        /// Its id.
        id: RequestId,
        /// Path below the Graph URL, and body.
        request: Request,
        /// How long to wait for the answer.
        patience: Duration,
    },
    /// Tell the sound of a call something.
    Line {
        /// The call.
        call: CallKey,
        /// What.
        order: LineOrder,
    },
    /// A call has begun or has come further: keep it where a power cut can't take it.
    Note {
        /// What is known so far.
        running: Box<Running>,
        /// A user's call was routed just now: `call.received`.
        received: bool,
    },
    /// The answer to a question at the desk.
    Told {
        /// The question.
        ticket: Ticket,
        /// The answer.
        answer: Result<Answer, Refusal>,
    },
    /// A user has given or taken back consent.
    Consent {
        /// The configured number's `id`.
        number: String,
        /// What Meta said.
        reply: Box<PermissionReply>,
    },
    /// A service is to make an id for a call; answer with [`Input::Minted`].
    Mint {
        /// The call.
        call: CallKey,
        /// The request, and where its answer has the id.
        mint: Box<Mint>,
        /// How long to wait for the answer.
        patience: Duration,
        /// Whether the service may be on this machine or in a private network.
        allow_private: bool,
        /// Certificates (PEM) to believe beside the usual ones.
        ca: Option<PathBuf>,
    },
    /// A user has agreed to be recorded: keep that where a power cut can't take it.
    Agreed {
        /// Our id of the call.
        id: String,
        /// What was played, and what was answered.
        part: Box<RecordingPart>,
    },
    /// Something was said in a call: for live screens.
    Spoken {
        /// The call.
        running: Box<Running>,
        /// Who said it.
        who: Speaker,
        /// The words.
        text: String,
    },
    /// Write this down; answer with [`Input::Written`].
    Record {
        /// The call.
        call: CallKey,
        /// What remains of it.
        record: Box<Record>,
    },
    /// A trunk is no longer in the configuration: its server need not be looked up any more.
    Forget {
        /// Its name.
        trunk: String,
    },
    /// A trunk was added or changed while running: its server is to be looked up, as those of the others.
    Find {
        /// Its name.
        trunk: String,
    },
    /// Drained: the process may exit.
    Finished,
}
