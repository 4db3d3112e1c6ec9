//! One living call: the machine, its two legs, its line, and what its record will say.

use std::net::SocketAddr;
use std::time::Duration;

use super::desk::Ticket;
use super::port::{FarSound, Secret};
use super::refer::Referrer;
use super::route::Route;
use super::taping::TapeState;
use crate::call::leg::{Side, Why};
use crate::call::record::{AgentPart, MAX_ERRORS, PlacedBy, Quality, Record, Running, TrunkPart};
use crate::call::recording::RecordingPart;
use crate::call::{Call, Step};
use crate::clock::{Now, Tick, Wall};
use crate::sip::{LegId, Refer};
use crate::whatsapp::callee::Callee;
use crate::whatsapp::graph::Verdict;
use crate::whatsapp::leg::Leg;
use crate::whatsapp::notice::User;
use crate::whatsapp::permit::Denied;
use crate::whatsapp::sdp::Offer;

/// One call of this process, in the order of arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallKey(pub u64);

/// Where the sound of a call is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineState {
    /// Never asked for.
    None,
    /// Asked for.
    Opening,
    /// There.
    Open {
        /// Where the PBX can send RTP.
        rtp: SocketAddr,
        /// For SRTP towards the PBX.
        secret: Secret,
    },
    /// Told to close.
    Closing {
        /// Not waited for any longer than this.
        until: Tick,
    },
    /// Gone.
    Closed,
}

/// The far leg, as far as the hall must know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FarState {
    /// Nobody was dialled, nobody has dialled us.
    Idle,
    /// The PBX has called us, and waits for an answer.
    Invited(LegId),
    /// Dialled, or answered: the user agent will say `Ended` once.
    Up(LegId),
    /// A voice agent, by the line's own socket.
    Agent {
        /// It is there.
        ready: bool,
    },
    /// Over.
    Ended,
}

/// One living call.
pub struct Live {
    pub id: String,
    pub wacid: String,
    pub number: String,
    pub account: String,
    pub phone_number_id: String,
    pub placed_by: PlacedBy,
    pub user: User,
    /// Whom we call; `None` where the user called us.
    pub callee: Option<Callee>,
    pub from: String,
    pub to: String,
    pub destination: String,
    pub route: Option<Route>,
    pub payload: Option<String>,
    pub offer: Option<Offer>,
    pub call: Call,
    /// Orders that wait for the line to be open.
    pub waiting: Vec<Step>,
    pub leg: Option<Leg>,
    pub far: FarState,
    /// The trunk that carries the far end now.
    pub trunk: Option<String>,
    /// The trunks that are still to be tried; `None`: nobody has been tried yet.
    pub hunt: Option<Vec<String>>,
    /// What the last trunk that failed said, if nobody else takes the call.
    pub unheard: Option<(Why, String)>,
    /// The far end that is there now has answered.
    pub far_answered: bool,
    /// Where and how it talks.
    pub far_sound: Option<FarSound>,
    /// The far end that has handed the call over and is still there.
    pub referrer: Option<Referrer>,
    /// The leg of a far end that has handed the call over for good, and until when it may hang up by itself.
    pub parting: Option<(LegId, Tick)>,
    /// A transfer that was asked for before the two talked.
    pub refer_waits: Option<(LegId, Box<Refer>)>,
    /// Whom it has handed the call to.
    pub refer: Option<Refer>,
    pub line: LineState,
    pub quality: (Quality, Quality),
    pub recording: bool,
    pub transferred: Option<Wall>,
    pub detail: Option<String>,
    pub sip_code: Option<u16>,
    pub meta_code: Option<i64>,
    pub errors: Vec<(i64, String)>,
    /// The program that waits to hear what became of its call.
    pub ticket: Option<Ticket>,
    /// What kept Meta from taking the call, for whoever placed it.
    pub verdict: Option<Verdict>,
    pub denied: Option<Denied>,
    pub rang: bool,
    /// What is to be remembered of the PBX's part.
    pub trunk_part: TrunkPart,
    /// What became of its recording, if it is to be recorded.
    pub tape: Option<Box<RecordingPart>>,
    /// Its file is to be `wav` or `ogg`, and encrypted or not: as it was configured when the user was asked.
    pub tape_file: (&'static str, bool),
    /// Where its recording is, and how long its end is waited for.
    pub taping: TapeState,
    pub tape_until: Option<Tick>,
    pub recorded: bool,
    /// What the voice agents of this call have done.
    pub agent: Option<Box<AgentPart>>,
    /// Its voice agent has failed, and how; the call has gone on elsewhere.
    pub fell_back: Option<String>,
    /// What a service has made for the user part of a SIP destination.
    pub minted: Option<String>,
}

impl Live {
    /// A call about which nothing but itself is known.
    pub fn new(id: String, call: Call, placed_by: PlacedBy) -> Live {
        Live {
            id,
            wacid: String::new(),
            number: String::new(),
            account: String::new(),
            phone_number_id: String::new(),
            placed_by,
            user: User::default(),
            callee: None,
            from: String::new(),
            to: String::new(),
            destination: String::new(),
            route: None,
            payload: None,
            offer: None,
            call,
            waiting: Vec::new(),
            leg: None,
            far: FarState::Idle,
            trunk: None,
            hunt: None,
            unheard: None,
            far_answered: false,
            far_sound: None,
            referrer: None,
            parting: None,
            refer_waits: None,
            refer: None,
            line: LineState::None,
            quality: (Quality::default(), Quality::default()),
            recording: false,
            transferred: None,
            detail: None,
            sip_code: None,
            meta_code: None,
            errors: Vec::new(),
            ticket: None,
            verdict: None,
            denied: None,
            rang: false,
            trunk_part: TrunkPart::default(),
            tape: None,
            tape_file: ("", false),
            taping: TapeState::None,
            tape_until: None,
            recorded: false,
            agent: None,
            fell_back: None,
            minted: None,
        }
    }

    /// The next moment at which something must be done about this call.
    pub fn deadline(&self) -> Option<Tick> {
        let line = match self.line {
            LineState::Closing { until } => Some(until),
            LineState::None | LineState::Opening | LineState::Open { .. } | LineState::Closed => None,
        };
        let parting = self.parting.map(|(_, until)| until);
        [self.call.deadline(), line, parting, self.tape_deadline()].into_iter().flatten().min()
    }

    /// The call goes there from now on: nobody has been tried yet.
    pub fn head_for(&mut self, route: Route, destination: String) {
        self.route = Some(route);
        self.destination = destination;
        self.hunt = None;
        self.trunk = None;
        self.unheard = None;
        self.far_answered = false;
        self.refer = None;
    }

    /// The kind of destination, for logs: a phone number is nobody's business there.
    pub fn destination_class(&self) -> &str {
        self.destination.split(':').next().unwrap_or_default()
    }

    /// What an operator should know about the ending. The first word stays.
    pub fn explain(&mut self, detail: &str) {
        if self.detail.is_none() {
            self.detail = Some(detail.to_owned());
        }
    }

    /// Something that went wrong, with Meta's or SIP's code; the first few are kept.
    pub fn went_wrong(&mut self, code: i64, message: &str) {
        if self.errors.len() < MAX_ERRORS {
            self.errors.push((code, message.to_owned()));
        }
    }

    /// Asks for the line to close; false if there is nothing to close.
    pub fn close_line(&mut self, now: Now, patience: Duration) -> bool {
        match self.line {
            LineState::Opening | LineState::Open { .. } => {
                self.line = LineState::Closing { until: now.tick + patience };
                true
            }
            LineState::None | LineState::Closing { .. } | LineState::Closed => false,
        }
    }

    /// A line that never said goodbye is not waited for.
    pub fn line_overdue(&mut self, now: Now) {
        if let LineState::Closing { until } = self.line
            && until <= now.tick
        {
            tracing::error!(call = %self.id, "a sound thread did not close a line in time: this is a bug");
            self.line = LineState::Closed;
            self.tape_ends(now);
        }
    }

    /// Both legs are over and the sound has reported: only the record is missing.
    pub fn ready_to_record(&self) -> bool {
        let quiet = matches!(self.line, LineState::None | LineState::Closed);
        self.call.over().is_some() && quiet && !self.recorded && !self.tape_pending()
    }

    /// What is known of it so far.
    pub fn running(&self) -> Running {
        Running {
            id: self.id.clone(),
            wacid: self.wacid.clone(),
            number: self.number.clone(),
            account: self.account.clone(),
            phone_number_id: self.phone_number_id.clone(),
            direction: self.call.direction(),
            from: self.from.clone(),
            profile_name: self.user.display().map(str::to_owned),
            user_id: self.user.bsuid.clone(),
            to: self.to.clone(),
            destination: self.destination.clone(),
            offered_at: self.call.offered().wall,
            ringing: self.rang,
            answered_at: self.call.answered(),
            transferred_at: self.transferred,
            recording: self.recording,
            placed_by: self.placed_by,
        }
    }

    /// What remains.
    pub fn record(&mut self, now: Now) -> Record {
        self.recorded = true;
        let why = self.call.why().unwrap_or(Why::Fault);
        Record {
            connected_at: self.call.connected(),
            talk_seconds: self.call.over().unwrap_or_default().as_secs_f64(),
            billed_seconds: self.call.billed().as_secs_f64(),
            sip_code: self.sip_code,
            meta_code: self.meta_code,
            errors: std::mem::take(&mut self.errors),
            whatsapp: self.quality.0,
            far: self.quality.1,
            agent: self.agent.take(),
            trunk: (!self.trunk_part.name.is_empty()).then(|| Box::new(std::mem::take(&mut self.trunk_part))),
            tape: self.tape.take(),
            ..Record::of(self.running(), now.wall, why, self.detail_of(why))
        }
    }

    /// One sentence for an operator. An agent that failed comes first, whatever followed.
    fn detail_of(&self, why: Why) -> String {
        let detail = self.detail.as_deref().unwrap_or(why.as_str());
        match &self.fell_back {
            Some(failure) => format!("{failure}; then: {detail}"),
            None => detail.to_owned(),
        }
    }

    /// Meta tells more about a user than we knew when we called.
    pub fn learn(&mut self, user: &User) {
        let ours = &mut self.user;
        ours.phone = ours.phone.take().or_else(|| user.phone.clone());
        ours.bsuid = ours.bsuid.take().or_else(|| user.bsuid.clone());
        ours.parent_bsuid = ours.parent_bsuid.take().or_else(|| user.parent_bsuid.clone());
        ours.username = ours.username.take().or_else(|| user.username.clone());
        ours.name = ours.name.take().or_else(|| user.name.clone());
    }

    /// Whether this call was asked for by the far side, and it is still waiting for an answer.
    pub fn invited(&self) -> Option<LegId> {
        match self.far {
            FarState::Invited(leg) if self.call.origin() == Side::Far => Some(leg),
            FarState::Idle
            | FarState::Invited(_)
            | FarState::Up(_)
            | FarState::Agent { .. }
            | FarState::Ended => None,
        }
    }
}
