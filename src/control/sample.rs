//! Events that never happened, for testing a webhook: the real shapes with made-up contents.

use serde_json::{Value, json};

use super::Told;
use super::events::{self, Event};
use crate::call::leg::{Direction, Why};
use crate::call::record::{PlacedBy, Quality, Record, Running};
use crate::clock::Wall;
use crate::config::{EventName, NumberConfig};
use crate::ledger::Billing;
use crate::whatsapp::notice::{PermissionReply, User};

/// A user whom nobody can reach: reserved for fiction.
const USER: &str = "12025550123";
/// How long the call that never was has taken, in milliseconds.
const LASTED: i64 = 61_000;

/// A sample of this event. It says `"test": true`.
pub fn event(name: EventName, id: String, number: Option<&NumberConfig>, now: Wall) -> Event {
    let event = match name {
        EventName::CallReceived => events::received(id, &running(number, now), now),
        EventName::CallEnded => events::over(
            id,
            &record(number, Why::UserHungUp, now),
            &Billing::default(),
            &Told::default(),
            now,
        ),
        EventName::CallFailed => events::over(
            id,
            &record(number, Why::MediaFailed, now),
            &Billing::default(),
            &Told::default(),
            now,
        ),
        EventName::CallPermissionRequest => match number {
            Some(number) => events::permission(id, &reply(number, now), number, now),
            None => events::test(id, now),
        },
    };
    marked(event)
}

fn marked(event: Event) -> Event {
    let mut body: Value = serde_json::from_str(&event.body).unwrap_or_default();
    if let Some(fields) = body.as_object_mut() {
        fields.insert("test".to_owned(), json!(true));
    }
    Event { body: body.to_string(), ..event }
}

fn running(number: Option<&NumberConfig>, now: Wall) -> Running {
    let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
    let destination = number.and_then(|number| number.forward_to.as_ref()).map(ToString::to_string);
    Running {
        id: "call_000000000000000000000000".to_owned(),
        wacid: "wacid.TEST".to_owned(),
        number: text(number.map(|number| number.id.as_str())),
        account: text(number.map(|number| number.account_id.as_str())),
        phone_number_id: text(number.map(|number| number.phone_number_id.as_str())),
        direction: Direction::Inbound,
        from: format!("+{USER}"),
        profile_name: None,
        user_id: None,
        to: text(number.map(|number| number.phone_number.as_str())),
        destination: destination.unwrap_or_default(),
        offered_at: Wall(now.0.saturating_sub(LASTED)),
        ringing: false,
        answered_at: None,
        transferred_at: None,
        recording: false,
        placed_by: PlacedBy::User,
    }
}

fn record(number: Option<&NumberConfig>, why: Why, now: Wall) -> Record {
    let call = running(number, now);
    let answered = matches!(why, Why::UserHungUp).then_some(Wall(now.0.saturating_sub(60_000)));
    let talked = if answered.is_some() { 60.0 } else { 0.0 };
    Record {
        id: call.id,
        wacid: call.wacid,
        number: call.number,
        account: call.account,
        phone_number_id: call.phone_number_id,
        direction: call.direction,
        from: call.from,
        profile_name: call.profile_name,
        user_id: call.user_id,
        to: call.to,
        destination: call.destination,
        offered_at: call.offered_at,
        answered_at: answered,
        connected_at: answered,
        transferred_at: None,
        ended_at: now,
        talk_seconds: talked,
        billed_seconds: talked,
        recording: false,
        placed_by: call.placed_by,
        why,
        detail: "a test of the webhook: no call was made".to_owned(),
        sip_code: None,
        meta_code: None,
        errors: Vec::new(),
        whatsapp: Quality::default(),
        far: Quality::default(),
        agent: None,
        trunk: None,
        tape: None,
    }
}

fn reply(number: &NumberConfig, now: Wall) -> PermissionReply {
    PermissionReply {
        phone_number_id: number.phone_number_id.clone(),
        user: User { phone: Some(USER.to_owned()), ..User::default() },
        accepted: true,
        permanent: false,
        expires_at: Some(now.unix_seconds().saturating_add(7 * 24 * 3_600)),
        source: Some("user_action".to_owned()),
        context_id: None,
        timestamp: Some(now.unix_seconds()),
    }
}
