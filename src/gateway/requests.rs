//! What Graph is asked, for whom, and what becomes of the answers.

use super::desk::{Answer, Refusal, Ticket};
use super::{CallKey, Gateway, Output, RequestId};
use crate::call::leg::Why;
use crate::call::record::Record;
use crate::clock::{Now, Tick};
use crate::whatsapp::callee::Callee;
use crate::whatsapp::graph::{self, Action, Attempt, Next, Reply, Verdict, VerdictKind};
use crate::whatsapp::permit::Permission;
use crate::whatsapp::settings;

/// Questions of people and programs that may be under way at once.
const QUESTIONS: usize = 64;

/// Whom an answer is for.
#[derive(Debug)]
pub(super) enum Owner {
    /// The WhatsApp leg of a call.
    Leg(CallKey),
    /// A call that waits to know whether it may be placed.
    Permission(CallKey),
    /// A person or a program.
    Desk {
        ticket: Ticket,
        /// Whose permission it is about, to be remembered or forgotten.
        user: Option<(String, Callee)>,
    },
    /// A call of an earlier life of this process: it is closed at Meta before its record is.
    Interrupted(CallKey, Box<Record>),
}

impl Owner {
    fn call(&self) -> Option<CallKey> {
        match self {
            Owner::Leg(key) | Owner::Permission(key) => Some(*key),
            Owner::Desk { .. } | Owner::Interrupted(..) => None,
        }
    }
}

/// One question, with all its tries.
pub(super) struct Request {
    owner: Owner,
    phone_number_id: String,
    name: &'static str,
    attempt: Attempt,
    pub retry_at: Option<Tick>,
}

impl Request {
    /// Whether it is asked for this call, and for nothing else.
    pub fn is_of(&self, key: CallKey) -> bool {
        self.owner.call() == Some(key)
    }
}

impl Gateway {
    pub(super) fn ask_graph(&mut self, owner: Owner, phone_number_id: String, action: Action, now: Now) {
        self.next += 1;
        let id = RequestId(self.next);
        tracing::debug!(action = action.name(), "asking Graph");
        let request = Request {
            owner,
            phone_number_id,
            name: action.name(),
            attempt: Attempt::new(action, now),
            retry_at: None,
        };
        self.requests.insert(id, request);
        self.send_request(id, now);
    }

    /// A question of a person or a program.
    pub(super) fn ask_for_desk(
        &mut self,
        ticket: Ticket,
        user: Option<(String, Callee)>,
        phone_number_id: String,
        action: Action,
        now: Now,
    ) -> Result<(), Refusal> {
        let asked = self.requests.values().filter(|one| matches!(one.owner, Owner::Desk { .. })).count();
        if asked >= QUESTIONS {
            return Err(Refusal::Full);
        }
        self.ask_graph(Owner::Desk { ticket, user }, phone_number_id, action, now);
        Ok(())
    }

    pub(super) fn send_request(&mut self, id: RequestId, now: Now) {
        let Some(request) = self.requests.get_mut(&id) else { return };
        request.retry_at = None;
        let patience = request.attempt.timeout(now);
        let request = request.attempt.request(&request.phone_number_id);
        self.outputs.push_back(Output::Graph { id, request, patience });
    }

    pub(super) fn graph_replied(&mut self, id: RequestId, reply: &Reply, now: Now) {
        let jitter = self.random.next();
        let Some(request) = self.requests.get_mut(&id) else { return };
        let result = match request.attempt.replied(reply, now, jitter) {
            Next::Retry { at } => {
                tracing::debug!(action = request.name, "Graph is asked again");
                request.retry_at = Some(at);
                return;
            }
            Next::Done(body) => Ok(body),
            Next::Failed(verdict) => Err(verdict),
        };
        let Some(request) = self.requests.remove(&id) else { return };
        if let Err(verdict) = &result {
            self.lament(&request, verdict);
        }
        match request.owner {
            Owner::Leg(key) => self.leg_replied(key, request.name, request.attempt.action(), result, now),
            Owner::Permission(key) => {
                let result = result.and_then(|body| permission(&body));
                self.permission_told(key, result, now);
            }
            Owner::Desk { ticket, user } => {
                let answer = result.and_then(|body| answer(request.attempt.action(), &body));
                if let (Some((number, user)), Ok(Answer::Permission(permission))) = (&user, &answer) {
                    self.permits.put(number, user.clone(), permission.clone(), now);
                }
                if let (Some((number, user)), Ok(Answer::Requested(_))) = (&user, &answer) {
                    self.permits.forget_callee(number, user.clone());
                }
                let answer = answer.map_err(|verdict| Refusal::Graph(Box::new(verdict)));
                self.outputs.push_back(Output::Told { ticket, answer });
            }
            // Refused or not, nothing more can be done about it.
            Owner::Interrupted(call, record) => self.outputs.push_back(Output::Record { call, record }),
        }
    }

    /// What an operator should hear about a refusal.
    fn lament(&self, request: &Request, verdict: &Verdict) {
        let live = request.owner.call().and_then(|key| self.calls.get(&key));
        let call = live.map(|live| live.id.as_str()).unwrap_or_default();
        match verdict.kind {
            VerdictKind::AlreadyOver => tracing::debug!(call, "Graph: the call is over already"),
            VerdictKind::Misconfigured => {
                tracing::warn!(call, action = request.name, code = verdict.code, text = %verdict.text,
                    cure = verdict.cure, "Graph refuses: this is a matter of configuration");
            }
            VerdictKind::Refused | VerdictKind::Throttled | VerdictKind::Unreachable => {
                tracing::info!(call, action = request.name, code = verdict.code, text = %verdict.text,
                    "Graph refuses");
            }
        }
    }

    fn leg_replied(
        &mut self,
        key: CallKey,
        name: &'static str,
        action: &Action,
        result: Result<Vec<u8>, Verdict>,
        now: Now,
    ) {
        let Some(live) = self.calls.get_mut(&key) else { return };
        if let Err(verdict) = &result {
            live.meta_code = live.meta_code.or(verdict.code);
            if verdict.kind != VerdictKind::AlreadyOver && !live.call.ending() {
                live.explain(&format!("Graph {name}: {}", verdict.text));
                live.went_wrong(verdict.code.unwrap_or(0), &verdict.text);
                live.verdict = Some(verdict.clone());
            }
        }
        // The PBX need not ring on while Meta is told `reject` or `terminate`.
        let refused = matches!(&result, Err(verdict) if verdict.kind != VerdictKind::AlreadyOver);
        let answers = matches!(action, Action::PreAccept { .. } | Action::Accept { .. });
        let connects = matches!(action, Action::Connect { .. });
        let wacid = result.as_ref().ok().filter(|_| connects).and_then(|body| graph::connected_wacid(body));
        if let Some(wacid) = &wacid {
            self.adopted(key, wacid, now);
        }
        if let Some(leg) = self.calls.get_mut(&key).and_then(|live| live.leg.as_mut()) {
            leg.graph_replied(name, result.map(|_| wacid));
        }
        self.drain_leg(key, now);
        self.leave_with_leg(key, now);
        if refused && answers {
            self.end(key, Why::GraphRefused, "Graph refused", now);
        }
    }
}

fn permission(body: &[u8]) -> Result<Permission, Verdict> {
    Permission::parse(body).ok_or_else(|| Verdict::of_nonsense("call_permissions"))
}

/// What an answer of Graph's says to whoever asked.
fn answer(action: &Action, body: &[u8]) -> Result<Answer, Verdict> {
    match action {
        Action::Permissions { .. } => permission(body).map(Answer::Permission),
        Action::RequestPermission { .. } => Ok(Answer::Requested(graph::message_id(body))),
        Action::ReadSettings => settings::Settings::parse(body)
            .map(|settings| Answer::Settings(Box::new(settings)))
            .ok_or_else(|| Verdict::of_nonsense("settings")),
        Action::SubscribedApps { .. } => settings::subscribed_apps(body)
            .map(Answer::Apps)
            .ok_or_else(|| Verdict::of_nonsense("subscribed_apps")),
        Action::WriteSettings { .. }
        | Action::Connect { .. }
        | Action::PreAccept { .. }
        | Action::Accept { .. }
        | Action::Reject { .. }
        | Action::Terminate { .. } => Ok(Answer::Changed),
    }
}
