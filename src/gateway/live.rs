//! One living call: the machine, its two legs, its line, and what its record will say.

use std::net::SocketAddr;
use std::time::Duration;

use crate::call::leg::{Direction, Why};
use crate::call::record::{PlacedBy, Quality, Record};
use crate::call::{Call, Step};
use crate::clock::{Now, Tick};
use crate::whatsapp::leg::Leg;
use crate::whatsapp::notice::User;
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
    /// Never dialled.
    Idle,
    /// Dialled: the user agent will say `Ended` once.
    Dialled,
    /// Over.
    Ended,
}

/// One living call.
pub struct Live {
    pub id: String,
    pub wacid: String,
    pub number: String,
    pub phone_number_id: String,
    pub user: User,
    pub from: String,
    pub to: String,
    pub destination: String,
    pub payload: Option<String>,
    pub offer: Option<Offer>,
    pub call: Call,
    /// Orders that wait for the line to be open.
    pub waiting: Vec<Step>,
    pub leg: Option<Leg>,
    pub far: FarState,
    pub line: LineState,
    pub quality: (Quality, Quality),
    pub detail: Option<String>,
    pub sip_code: Option<u16>,
    pub meta_code: Option<i64>,
    pub recorded: bool,
}

impl Live {
    /// The next moment at which something must be done about this call.
    pub fn deadline(&self) -> Option<Tick> {
        let line = match self.line {
            LineState::Closing { until } => Some(until),
            LineState::None | LineState::Opening | LineState::Open { .. } | LineState::Closed => None,
        };
        match (self.call.deadline(), line) {
            (Some(call), Some(line)) => Some(call.min(line)),
            (call, line) => call.or(line),
        }
    }

    /// The kind of destination, for logs: a phone number is nobody's business there.
    pub fn destination_class(&self) -> &str {
        if self.destination.starts_with("tel:") { "tel:" } else { &self.destination }
    }

    /// What an operator should know about the ending. The first word stays.
    pub fn explain(&mut self, detail: &str) {
        if self.detail.is_none() {
            self.detail = Some(detail.to_owned());
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
        }
    }

    /// Both legs are over and the sound has reported: only the record is missing.
    pub fn ready_to_record(&self) -> bool {
        let quiet = matches!(self.line, LineState::None | LineState::Closed);
        self.call.over().is_some() && quiet && !self.recorded
    }

    /// What remains.
    pub fn record(&mut self, now: Now) -> Record {
        self.recorded = true;
        let why = self.call.why().unwrap_or(Why::Fault);
        Record {
            id: self.id.clone(),
            wacid: self.wacid.clone(),
            number: self.number.clone(),
            account: String::new(),
            phone_number_id: self.phone_number_id.clone(),
            direction: self.call.direction(),
            from: self.from.clone(),
            profile_name: self.user.display().map(str::to_owned),
            user_id: self.user.bsuid.clone(),
            to: self.to.clone(),
            destination: self.destination.clone(),
            offered_at: self.call.offered().wall,
            answered_at: self.call.answered(),
            connected_at: self.call.connected(),
            transferred_at: None,
            ended_at: now.wall,
            talk_seconds: self.call.over().unwrap_or_default().as_secs_f64(),
            billed_seconds: self.call.billed().as_secs_f64(),
            recording: false,
            placed_by: match self.call.direction() {
                Direction::Inbound => PlacedBy::User,
                Direction::Outbound => PlacedBy::Pbx,
            },
            why,
            detail: self.detail.clone().unwrap_or_else(|| why.as_str().to_owned()),
            sip_code: self.sip_code,
            meta_code: self.meta_code,
            errors: Vec::new(),
            whatsapp: self.quality.0,
            far: self.quality.1,
        }
    }
}
