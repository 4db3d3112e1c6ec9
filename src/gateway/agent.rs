//! The hall's far side where it is a voice agent: it is called by the line itself, which owns its socket. And where a
//! service has to be asked before it can be called by SIP.

use std::collections::BTreeMap;
use std::time::Duration;

use super::desk::Refusal;
use super::live::{FarState, Live};
use super::port::AgentSetup;
use super::route::{self, AgentRoute};
use super::{CallKey, Gateway, LineOrder, Output};
use crate::agent::{self, AgentEvent, Key, Mint, Session, Summary};
use crate::call::leg::{Event, Side, Why};
use crate::call::record::{AgentPart, Line, Noted, Speaker};
use crate::clock::Now;
use crate::config::{self, Destination, NumberConfig, Placeholder, Secret};
use crate::media::Alone;

/// How long a service may take to make an id, in whole.
const MINTING: Duration = Duration::from_secs(10);
/// What a hand-over that can't be done is called on the record.
const NOT_HANDED: &str = "transfer_failed";
/// How many of them are kept.
const HANDINGS: usize = 10;

impl Gateway {
    /// The agent is called. On the user's own call it must be there before the call is accepted.
    pub(super) fn dial_agent(&mut self, key: CallKey, route: AgentRoute, now: Now) {
        let settings = &self.settings.agent;
        let Some(live) = self.calls.get_mut(&key) else { return };
        let number = self.settings.numbers.iter().find(|number| number.id == live.number);
        let part = AgentPart {
            name: host_of(&route.url).to_owned(),
            dialect: route.dialect.to_string(),
            ..AgentPart::default()
        };
        let session = Session {
            dialect: route.dialect,
            call_id: live.id.clone(),
            wacid: live.wacid.clone(),
            from: live.from.clone(),
            to: live.to.clone(),
            direction: live.call.direction(),
            account: live.account.clone(),
            parameters: parameters(&settings.parameters, number, route.parameters),
            key: key_of(number.and_then(|number| number.agent_key.as_ref()).or(settings.key.as_ref())),
            auth_token: key_of(
                number.and_then(|number| number.agent_auth_token.as_ref()).or(settings.auth_token.as_ref()),
            ),
            silence: settings.silence_seconds.map(Duration::from_secs),
        };
        let setup = AgentSetup {
            url: route.url,
            session,
            headers: headers(&settings.headers, number),
            allow_private: self.settings.allow_private,
            ca: settings.ca_file.clone(),
            patience: Duration::from_secs(settings.connect_seconds),
            retry: Duration::from_secs(settings.retry_seconds),
            answered: live.call.connected().is_some(),
        };
        match &mut live.agent {
            Some(agent) => agent.add(part),
            None => live.agent = Some(Box::new(part)),
        }
        live.far = FarState::Agent { ready: false };
        live.rang = true;
        self.outputs.push_back(Output::Line { call: key, order: LineOrder::Agent(Box::new(setup)) });
        self.heard(key, Side::Far, Event::Ringing, now);
    }

    /// The agent says something, or is gone.
    pub(super) fn agent_event(&mut self, key: CallKey, event: AgentEvent, now: Now) {
        let Some(live) = self.calls.get_mut(&key) else { return };
        // The last words of an agent whose part is over.
        let FarState::Agent { ready } = &mut live.far else { return };
        match event {
            AgentEvent::Ready => {
                if !std::mem::replace(ready, true) {
                    self.heard(key, Side::Far, Event::Answered, now);
                    self.note(key, false);
                }
            }
            AgentEvent::HungUp(reason) => {
                live.explain(&format!("the agent hung up: {reason}"));
                self.far_ended(key, Why::FarHungUp, now);
            }
            AgentEvent::Failed(reason) => {
                let why = if *ready { Why::AgentFailed } else { Why::FarUnreachable };
                self.agent_failed(key, why, &reason, now);
            }
            AgentEvent::Transfer(to) => {
                let id = live.id.clone();
                let trunk =
                    self.settings.number(&live.phone_number_id).and_then(|number| number.trunk.as_deref());
                let handed = handed_to(&to, trunk).and_then(|to| {
                    self.transfer(&id, &to, now).map(|_| ()).map_err(|refusal| in_the_way(&refusal))
                });
                if let Err(fault) = handed {
                    self.not_handed(key, &fault, now);
                }
            }
            AgentEvent::Transcript { agent, text } => {
                let who = if agent { Speaker::Agent } else { Speaker::User };
                let running = Box::new(live.running());
                self.outputs.push_back(Output::Spoken { running, who, text });
            }
        }
    }

    /// The agent wanted to hand the call over, and it can't: the call stays with it, and its part of the record says so.
    fn not_handed(&mut self, key: CallKey, fault: &str, now: Now) {
        let Some(live) = self.calls.get_mut(&key) else { return };
        // Stamps of the wall clock, which may have gone back.
        let at_ms =
            live.call.answered().map_or(0, |answered| u64::try_from(now.wall.0 - answered.0).unwrap_or(0));
        let noted = Noted { name: NOT_HANDED.to_owned(), detail: fault.to_owned(), at_ms };
        let (id, part) = (&live.id, live.agent.get_or_insert_default());
        // The fault may hold a number.
        tracing::debug!(call = %id, fault, "the agent can't hand the call over");
        let before = part.events.iter().filter(|noted| noted.name == NOT_HANDED).count();
        if before == 0 {
            tracing::warn!(call = %id, "the agent wanted to hand the call over: it can't, see the call's record");
        }
        if before < HANDINGS {
            part.events.push(noted);
        }
    }

    /// A voice agent was never there, broke off, or kept silent: the call goes on to where the number says, or ends.
    fn agent_failed(&mut self, key: CallKey, why: Why, reason: &str, now: Now) {
        let Some(live) = self.calls.get_mut(&key) else { return };
        live.went_wrong(0, reason);
        let failure = format!("the agent: {reason}");
        if let Some(agent) = &mut live.agent {
            agent.failure.get_or_insert_with(|| reason.to_owned());
        }
        let wanted = self.fallback(key);
        let Some(live) = self.calls.get_mut(&key) else { return };
        let route = match wanted {
            Some(Ok((to, route))) => (route, route::shown(&to)),
            Some(Err(fault)) => {
                tracing::warn!(call = %live.id, %fault, "a voice agent has failed, and fallback_to can't be called");
                live.explain(&format!("{failure}; fallback_to can't be called: {fault}"));
                return self.far_ended(key, why, now);
            }
            None => {
                live.explain(&failure);
                return self.far_ended(key, why, now);
            }
        };
        let (route, destination) = route;
        live.head_for(route, destination);
        tracing::warn!(call = %live.id, reason, to = live.destination_class(), "a voice agent has failed: the call goes on");
        live.fell_back = Some(format!("{failure}; the call went on to {}", live.destination));
        live.far = FarState::Idle;
        // The machine of a call that talks counts the time until somebody else is there; a call that does not yet
        // talk goes on ringing.
        let steps = live.call.transfer(now);
        if steps.is_some() {
            live.transferred = Some(now.wall);
        }
        for order in [LineOrder::AgentEnd(Why::AgentFailed), LineOrder::Alone(Alone::RingBack)] {
            self.outputs.push_back(Output::Line { call: key, order });
        }
        self.note(key, false);
        match steps {
            Some(steps) => self.follow(key, steps, now),
            None => self.dial_far(key, now),
        }
    }

    /// Where a call goes on whose agent has failed: once only. `None` if there is no such place; else what is in the
    /// way, if something is.
    fn fallback(&self, key: CallKey) -> Option<Result<(Destination, route::Route), String>> {
        let live = self.calls.get(&key)?;
        if live.call.ending() || live.fell_back.is_some() {
            return None;
        }
        let number = self.settings.number(&live.phone_number_id)?;
        let to = number.fallback_to.clone()?;
        let route = self.route_for(number, &to);
        Some(route.map(|route| (to, route)).map_err(|refusal| in_the_way(&refusal)))
    }

    /// What is to be remembered of an agent whose part is over.
    pub(super) fn agent_over(&mut self, key: CallKey, summary: Summary) {
        let Some(live) = self.calls.get_mut(&key) else { return };
        tracing::debug!(call = %live.id, attempts = summary.attempts, barge_ins = summary.barge_ins,
            first_audio = ?summary.first_audio, unread = summary.unsent, unreadable = summary.unreadable,
            "the agent's part is over");
        let part = live.agent.get_or_insert_default();
        let (name, dialect) = (std::mem::take(&mut part.name), std::mem::take(&mut part.dialect));
        part.add(AgentPart { name, dialect, ..part_of(summary) });
    }

    /// The user part of a SIP destination for one call. `None` if a service has to make it first: then the far end is
    /// dialled once it has, or the call ends.
    pub(super) fn user_for(&mut self, key: CallKey, user: String, now: Now) -> Option<String> {
        let live = self.calls.get_mut(&key)?;
        let number = self.settings.number(&live.phone_number_id)?;
        if live.minted.is_none() && config::placeholders(&user).any(|place| place == Placeholder::Minted) {
            let Some(wanted) = &number.mint else {
                live.explain("the destination has {minted}, but nothing says how to come by it");
                self.far_ended(key, Why::NotRouted, now);
                return None;
            };
            let mint = Mint {
                url: wanted.url.clone(),
                body: config::filled_json(&wanted.body, |place| live.fills(place, number)),
                key: Key::new(wanted.key.expose()),
                field: wanted.field.clone(),
            };
            self.outputs.push_back(Output::Mint {
                call: key,
                mint: Box::new(mint),
                patience: MINTING,
                allow_private: self.settings.allow_private,
                ca: self.settings.agent.ca_file.clone(),
            });
            return None;
        }
        let to = Destination::Sip { user, host: String::new() }.for_call(|place| live.fills(place, number));
        match to {
            Destination::Sip { user, .. } => Some(user),
            Destination::Tel(_) | Destination::Wss(_) => None,
        }
    }

    /// The service has answered.
    pub(super) fn minted(&mut self, key: CallKey, result: Result<String, String>, now: Now) {
        let Some(live) = self.calls.get_mut(&key) else { return };
        if live.call.ending() || live.far != FarState::Idle {
            return;
        }
        match result {
            Ok(id) => {
                live.minted = Some(id);
                self.dial_far(key, now);
            }
            Err(why) => {
                live.explain(&why);
                live.went_wrong(0, &why);
                self.far_ended(key, Why::FarUnreachable, now);
            }
        }
    }
}

impl Live {
    /// What a placeholder stands for in this call.
    fn fills(&self, place: Placeholder, number: &NumberConfig) -> String {
        match place {
            Placeholder::CallId => self.id.clone(),
            Placeholder::Caller => self.from.clone(),
            Placeholder::Number => number.phone_number.clone(),
            Placeholder::Minted => self.minted.clone().unwrap_or_default(),
        }
    }

    /// The headers that the number's INVITEs have, filled in.
    pub(super) fn sip_headers(&self, number: &NumberConfig) -> Vec<(String, String)> {
        let filled = |(name, value): (&String, &String)| {
            (name.clone(), config::filled(value, |place| self.fills(place, number)))
        };
        number.sip_headers.iter().map(filled).collect()
    }

    /// Whether this is the call that somebody means by an id: ours, Meta's, or the one in Twilio's shape that agents
    /// are told.
    pub(super) fn is_named(&self, id: &str) -> bool {
        self.id == id
            || (!id.is_empty() && self.wacid == id)
            || (id.starts_with("CA") && agent::call_sid(&self.id) == id)
    }
}

fn key_of(secret: Option<&Secret>) -> Option<Key> {
    secret.map(|secret| Key::new(secret.expose()))
}

/// The headers of the request for a connection: this number's over those of all.
fn headers(all: &BTreeMap<String, String>, number: Option<&NumberConfig>) -> Vec<(String, String)> {
    let own: Vec<(String, String)> = number
        .iter()
        .flat_map(|number| number.agent_headers.iter())
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    let general = all.iter().filter(|(name, _)| !own.iter().any(|(ours, _)| ours.eq_ignore_ascii_case(name)));
    let general: Vec<_> = general.map(|(name, value)| (name.clone(), value.clone())).collect();
    [general, own].concat()
}

/// Where an agent hands a call to: what may be dialled, or an extension that the number's own PBX knows.
fn handed_to(to: &str, trunk: Option<&str>) -> Result<Destination, String> {
    let extension = to.strip_prefix("tel:").filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    match (extension, trunk) {
        (Some(user), Some(host)) => Ok(Destination::Sip { user: user.to_owned(), host: host.to_owned() }),
        (Some(_), None) | (None, Some(_) | None) => Destination::parse(to),
    }
}

/// What an agent is told: of all agents, of this number's, of this address, the later over the earlier.
fn parameters(
    all: &config::NamedTexts,
    number: Option<&NumberConfig>,
    own: Vec<(String, String)>,
) -> Vec<(String, String)> {
    let mut told: Vec<(String, String)> = Vec::new();
    let general = all.iter().chain(number.iter().flat_map(|number| number.agent_parameters.iter()));
    let general = general.map(|(name, value)| (name.clone(), value.clone()));
    for (name, value) in general.chain(own) {
        told.retain(|(known, _)| *known != name);
        told.push((name, value));
    }
    told
}

/// Why a destination can't be called, for an operator.
fn in_the_way(refusal: &Refusal) -> String {
    match refusal {
        Refusal::TrunkDown { trunk } => format!("the trunk {trunk} is down"),
        Refusal::NoDestination => "no trunk leads there".to_owned(),
        Refusal::ToItself => "it is the business number itself".to_owned(),
        Refusal::NoSuchNumber
        | Refusal::NotEnabled
        | Refusal::NoSuchCall
        | Refusal::NotNow { .. }
        | Refusal::Busy
        | Refusal::Denied(_)
        | Refusal::Graph(_)
        | Refusal::Full
        | Refusal::Draining
        | Refusal::Failed { .. } => format!("{refusal:?}"),
    }
}

/// The host of `wss://host:port/…`.
fn host_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split(['/', '?']).next().unwrap_or_default()
}

fn millis(at: Duration) -> u64 {
    u64::try_from(at.as_millis()).unwrap_or(u64::MAX)
}

fn part_of(summary: Summary) -> AgentPart {
    AgentPart {
        name: String::new(),
        dialect: String::new(),
        attempts: summary.attempts,
        first_audio_ms: summary.first_audio.map(millis),
        barge_ins: summary.barge_ins,
        unread: summary.unsent,
        unreadable: summary.unreadable,
        failure: None,
        transcript: summary
            .transcript
            .into_iter()
            .map(|line| Line { who: line.who, text: line.text, at_ms: millis(line.at) })
            .collect(),
        events: summary
            .events
            .into_iter()
            .map(|noted| Noted { name: noted.name, detail: noted.detail, at_ms: millis(noted.at) })
            .collect(),
    }
}
