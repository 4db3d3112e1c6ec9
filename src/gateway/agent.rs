//! The hall's far side where it is a voice agent: it is called by the line itself, which owns its socket.

use std::time::Duration;

use super::live::FarState;
use super::port::AgentSetup;
use super::route::AgentRoute;
use super::{CallKey, Gateway, LineOrder, Output};
use crate::agent::{AgentEvent, Key, Session};
use crate::call::leg::{Event, Side, Why};
use crate::clock::Now;
use crate::config::Destination;

impl Gateway {
    /// The agent is called. On the user's own call it must be there before the call is accepted.
    pub(super) fn dial_agent(&mut self, key: CallKey, route: AgentRoute, now: Now) {
        let settings = &self.settings.agent;
        let Some(live) = self.calls.get_mut(&key) else { return };
        let session = Session {
            dialect: route.dialect,
            call_id: live.id.clone(),
            wacid: live.wacid.clone(),
            from: live.from.clone(),
            to: live.to.clone(),
            direction: live.call.direction(),
            account: live.account.clone(),
            parameters: route.parameters,
            key: settings.key.as_ref().map(|key| Key::new(key.expose())),
        };
        let headers = settings.headers.iter().map(|(name, value)| (name.clone(), value.clone()));
        let setup = AgentSetup {
            url: route.url,
            session,
            headers: headers.collect(),
            allow_private: self.settings.allow_private,
            ca: settings.ca_file.clone(),
            patience: Duration::from_secs(settings.connect_seconds),
            answered: live.call.connected().is_some(),
        };
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
                let why = if *ready { Why::FarSilent } else { Why::FarUnreachable };
                live.explain(&format!("the agent: {reason}"));
                live.went_wrong(0, &reason);
                self.far_ended(key, why, now);
            }
            AgentEvent::Transfer(to) => {
                let id = live.id.clone();
                let handed = match Destination::parse(&to) {
                    Ok(to) => {
                        self.transfer(&id, &to, now).map(|_| ()).map_err(|refusal| format!("{refusal:?}"))
                    }
                    Err(fault) => Err(fault),
                };
                if let Err(fault) = handed {
                    tracing::warn!(call = %id, %fault, "the agent wanted to hand the call over: it can't");
                }
            }
            // WhatsApp takes no digits from a business; what was said is kept by the line.
            AgentEvent::Digits(_) | AgentEvent::Transcript { .. } => {}
        }
    }
}
