//! What people and programs may say to the gateway and see of it: the one vocabulary that REST, CLI, MCP and
//! the page are renderings of.

use super::live::Live;
use super::requests::Owner;
use super::{CallKey, Gateway, LineOrder, Output};
use crate::call::leg::{Direction, Why};
use crate::call::record::{PlacedBy, Record, Running};
use crate::clock::{Now, Wall};
use crate::config::Destination;
use crate::sip::TrunkView;
use crate::whatsapp::callee::Callee;
use crate::whatsapp::graph::{Action, Verdict};
use crate::whatsapp::permit::{Denied, Permission};
use crate::whatsapp::settings::{Settings as CallingSettings, SettingsChange, SubscribedApp};

/// One question to the desk, numbered by whoever asks; the answer carries the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// What may be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Call a WhatsApp user, and connect the destination once the user has answered. Answered when Meta has
    /// taken the call: [`Answer::Placed`].
    Call(Box<Place>),
    /// End a running call: [`Answer::Ending`].
    HangUp {
        /// Our id of the call, or Meta's.
        id: String,
    },
    /// Hand a talking call to another destination (blind): [`Answer::Transferring`].
    Transfer {
        /// Our id of the call.
        id: String,
        /// Where to.
        to: Destination,
    },
    /// Pause a call's recording, or go on with it: [`Answer::Recording`].
    Record {
        /// Our id of the call.
        id: String,
        /// Whether what is said from now on is taken down.
        on: bool,
    },
    /// The running calls: [`Answer::Calls`].
    Calls,
    /// The trunks: [`Answer::Trunks`].
    Trunks,
    /// Keep what SIP says from now on, or no more; `None`: only ask. [`Answer::Tracing`].
    Tracing {
        /// Whether to.
        on: Option<bool>,
    },
    /// What SIP said in this call, running or over: [`Answer::Trace`].
    Trace {
        /// Our id of the call.
        id: String,
    },
    /// Everything on one screen: [`Answer::Status`].
    Status,
    /// May this user be called? Meta is asked, or was asked seconds ago: [`Answer::Permission`].
    Permission {
        /// The configured number's `id`.
        number: String,
        /// The user.
        user: Callee,
    },
    /// Send the user a message that asks for consent: [`Answer::Requested`].
    RequestPermission {
        /// The configured number's `id`.
        number: String,
        /// The user.
        user: Callee,
        /// The words above the button; at most 1,024 characters.
        text: Option<String>,
    },
    /// The number's calling settings at Meta: [`Answer::Settings`].
    ReadSettings {
        /// The configured number's `id`.
        number: String,
    },
    /// Change them: [`Answer::Changed`].
    WriteSettings {
        /// The configured number's `id`.
        number: String,
        /// What.
        change: SettingsChange,
    },
    /// The apps that hear of this account's calls: [`Answer::Apps`].
    SubscribedApps {
        /// The WhatsApp Business Account.
        waba: String,
        /// A configured number's `id`: whose token and log line it is.
        number: String,
    },
}

/// A call that a program asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The configured number's `id`.
    pub number: String,
    /// Whom.
    pub to: Callee,
    /// Where the user is connected to; `None`: the number's own destination.
    pub destination: Option<Destination>,
    /// Whether to record, if not as the number says.
    pub record: Option<bool>,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Meta has taken the call; the user's phone rings soon.
    Placed {
        /// Our id of the call.
        id: String,
        /// Where the user will be connected to.
        destination: String,
        /// Whether it is recorded.
        recording: bool,
    },
    /// The call is being ended.
    Ending {
        /// Our id of the call.
        id: String,
    },
    /// The call is being handed over.
    Transferring {
        /// Our id of the call.
        id: String,
        /// Where to.
        to: String,
    },
    /// Whether the call's recording is paused now.
    Recording {
        /// Our id of the call.
        id: String,
        /// Whether it is.
        paused: bool,
    },
    /// The running calls, oldest first.
    Calls(Vec<CallView>),
    /// The trunks, by name.
    Trunks(Vec<TrunkLine>),
    /// Whether what SIP says is kept.
    Tracing(bool),
    /// The messages, the oldest first.
    Trace(Vec<super::Traced>),
    /// Everything on one screen.
    Status(StatusView),
    /// What Meta says about calling this user.
    Permission(Permission),
    /// The message is on its way; Meta's id of it.
    Requested(Option<String>),
    /// The number's calling settings at Meta.
    Settings(Box<CallingSettings>),
    /// Meta has taken the change.
    Changed,
    /// The subscribed apps.
    Apps(Vec<SubscribedApp>),
}

/// Why the desk says no.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// No running call has this id. It may have been one: ask the history.
    NoSuchCall,
    /// No number is configured with this id.
    NoSuchNumber,
    /// The number is not enabled.
    NotEnabled,
    /// There is no destination, or none that this version can call.
    NoDestination,
    /// The destination is the business number itself.
    ToItself,
    /// The trunk that would carry it is not up.
    TrunkDown {
        /// Its name; empty if the destination names none.
        trunk: String,
    },
    /// The call is not in a state for this: `ringing`, `ending`, …
    NotNow {
        /// The state.
        state: &'static str,
    },
    /// This user is being called or talked to already from this number.
    Busy,
    /// Consent is missing, or a limit of Meta's is reached.
    Denied(Denied),
    /// Graph said no, or nothing.
    Graph(Box<Verdict>),
    /// `max_calls` is reached, or too many questions wait for Graph.
    Full,
    /// Shutting down.
    Draining,
    /// It could not be set up; the record says why.
    Failed {
        /// Our id of the call.
        id: String,
        /// Why.
        why: Why,
        /// One sentence for an operator.
        detail: String,
    },
}

/// A running call, for people and programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallView {
    /// Our id.
    pub id: String,
    /// Meta's id; empty as long as Meta has not told it.
    pub wacid: String,
    /// The number's id.
    pub number: String,
    /// Who asked for it.
    pub direction: Direction,
    /// Who placed it.
    pub placed_by: PlacedBy,
    /// `calling`, `ringing`, `answering`, `talking`, `transferring`, `ending`, `over`.
    pub state: &'static str,
    /// The caller.
    pub from: String,
    /// The callee.
    pub to: String,
    /// Where it goes.
    pub destination: String,
    /// When it was offered.
    pub offered_at: Wall,
    /// When both ends could first hear each other.
    pub answered_at: Option<Wall>,
    /// How its recording goes: `asking`, `running`, `paused`.
    pub recording: Option<&'static str>,
}

/// A trunk, for people and programs.
pub type TrunkLine = TrunkView;

/// Everything on one screen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusView {
    /// Calls that are not ending.
    pub calls: usize,
    /// Most at a time.
    pub max_calls: usize,
    /// At least one trunk can take calls, and we are not draining.
    pub ready: bool,
    /// No new calls are taken.
    pub draining: bool,
    /// The trunks, by name.
    pub trunks: Vec<TrunkLine>,
    /// What SIP has counted since the start.
    pub sip: crate::sip::Counters,
}

impl Gateway {
    /// Somebody asks something.
    pub(super) fn asked(&mut self, ticket: Ticket, command: Command, now: Now) {
        if let Some(answer) = self.consider(ticket, command, now).transpose() {
            self.outputs.push_back(Output::Told { ticket, answer });
        }
    }

    /// The answer, or nothing as long as it has to come from elsewhere.
    fn consider(&mut self, ticket: Ticket, command: Command, now: Now) -> Result<Option<Answer>, Refusal> {
        let to_graph = match command {
            Command::Call(place) => return self.place_for(ticket, *place, now).map(|()| None),
            Command::HangUp { id } => return self.hang_up(&id, now).map(Some),
            Command::Transfer { id, to } => return self.transfer(&id, &to, now).map(Some),
            Command::Record { id, on } => return self.pause_tape(&id, on).map(Some),
            Command::Calls => return Ok(Some(Answer::Calls(self.view_calls()))),
            Command::Trunks => return Ok(Some(Answer::Trunks(self.view_trunks()))),
            Command::Tracing { on } => {
                if let Some(on) = on.filter(|on| *on != self.trace.is_on()) {
                    tracing::info!(on, "SIP tracing");
                    self.trace.switch(on);
                }
                return Ok(Some(Answer::Tracing(self.trace.is_on())));
            }
            Command::Trace { id } => {
                let trace = self.trace.of(&id).ok_or(Refusal::NoSuchCall)?;
                return Ok(Some(Answer::Trace(trace)));
            }
            Command::Status => return Ok(Some(Answer::Status(self.view_status()))),
            Command::Permission { number, user } => {
                let id = self.meta_id(&number)?;
                if let Some(known) = self.permits.get(&id, &user, now) {
                    return Ok(Some(Answer::Permission(known.clone())));
                }
                (id.clone(), Some((id, user.clone())), Action::Permissions { user })
            }
            Command::RequestPermission { number, user, text } => {
                let id = self.meta_id(&number)?;
                (id.clone(), Some((id, user.clone())), Action::RequestPermission { to: user, text })
            }
            Command::ReadSettings { number } => (self.meta_id(&number)?, None, Action::ReadSettings),
            Command::WriteSettings { number, change } => {
                (self.meta_id(&number)?, None, Action::WriteSettings { body: change })
            }
            Command::SubscribedApps { waba, number } => {
                (self.meta_id(&number)?, None, Action::SubscribedApps { waba })
            }
        };
        let (id, user, action) = to_graph;
        self.ask_for_desk(ticket, user, id, action, now).map(|()| None)
    }

    fn meta_id(&self, number: &str) -> Result<String, Refusal> {
        let known = self.settings.numbers.iter().find(|known| known.id == number);
        known.map(|known| known.phone_number_id.clone()).ok_or(Refusal::NoSuchNumber)
    }

    pub(super) fn find(&self, id: &str) -> Result<(CallKey, &Live), Refusal> {
        let found = self.calls.iter().find(|(_, live)| live.is_named(id));
        found.map(|(key, live)| (*key, live)).ok_or(Refusal::NoSuchCall)
    }

    fn hang_up(&mut self, id: &str, now: Now) -> Result<Answer, Refusal> {
        let (key, live) = self.find(id)?;
        let id = live.id.clone();
        self.end(key, Why::Operator, "ended by an operator", now);
        Ok(Answer::Ending { id })
    }

    pub(super) fn transfer(&mut self, id: &str, to: &Destination, now: Now) -> Result<Answer, Refusal> {
        let (key, live) = self.find(id)?;
        let number = self.settings.number(&live.phone_number_id).cloned().ok_or(Refusal::NoSuchNumber)?;
        let route = self.route_for(&number, to)?;
        let Some(live) = self.calls.get_mut(&key) else { return Err(Refusal::NoSuchCall) };
        let Some(steps) = live.call.transfer(now) else {
            return Err(Refusal::NotNow { state: live.call.word() });
        };
        live.head_for(route, super::route::shown(to));
        live.transferred = Some(now.wall);
        let id = live.id.clone();
        tracing::info!(call = %id, to = live.destination_class(), "the call is handed over");
        self.let_go_of_far(key, now);
        let order = LineOrder::Alone(crate::media::Alone::RingBack);
        self.outputs.push_back(Output::Line { call: key, order });
        self.note(key, false);
        self.follow(key, steps, now);
        Ok(Answer::Transferring { id, to: super::route::shown(to) })
    }

    /// Calls that were under way when the process stopped: none may stay open at Meta, and each gets its record.
    pub(super) fn close_interrupted(&mut self, calls: Vec<Running>, now: Now) {
        for running in calls {
            tracing::warn!(call = %running.id, "a call was interrupted when the gateway stopped: closing it");
            self.next += 1;
            let key = CallKey(self.next);
            let (id, wacid) = (running.phone_number_id.clone(), running.wacid.clone());
            let record = Box::new(Record::interrupted(running, now.wall));
            if wacid.is_empty() {
                self.outputs.push_back(Output::Record { call: key, record });
            } else {
                self.seen.bury(&wacid, now);
                let action = Action::Terminate { wacid };
                self.ask_graph(Owner::Interrupted(key, record), id, action, now);
            }
        }
    }

    /// The running calls, oldest first.
    pub fn view_calls(&self) -> Vec<CallView> {
        self.calls
            .values()
            .map(|live| CallView {
                id: live.id.clone(),
                wacid: live.wacid.clone(),
                number: live.number.clone(),
                direction: live.call.direction(),
                placed_by: live.placed_by,
                state: live.call.word(),
                from: live.from.clone(),
                to: live.to.clone(),
                destination: live.destination.clone(),
                offered_at: live.call.offered().wall,
                answered_at: live.call.answered(),
                recording: live.taping.word(),
            })
            .collect()
    }

    /// The trunks, by name.
    pub fn view_trunks(&self) -> Vec<TrunkLine> {
        self.agent.trunks()
    }

    /// Who may send us SIP: the trunks' servers, and whom the configuration allows.
    pub fn admitted(&self) -> Vec<crate::sip::Cidr> {
        self.agent.admitted()
    }

    /// Everything on one screen.
    pub fn view_status(&self) -> StatusView {
        StatusView {
            calls: self.calls.values().filter(|live| !live.call.ending()).count(),
            max_calls: self.settings.max_calls,
            ready: self.ready(),
            draining: self.drain_until.is_some(),
            trunks: self.view_trunks(),
            sip: self.agent.counters(),
        }
    }

    /// Whether at least one trunk can take calls, if there are any: calls may all go to voice agents. And we are not
    /// draining.
    pub fn ready(&self) -> bool {
        let trunks = self.agent.trunks();
        let up = trunks.is_empty() || trunks.iter().any(|trunk| trunk.state.is_up());
        self.drain_until.is_none() && up
    }
}
