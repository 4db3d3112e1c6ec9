//! What a webhook says, as values: a call that rings, a call that is over, a step of an outgoing call.
//!
//! Meta adds fields and events monthly and disagrees with its own tables, so every field but the id
//! is optional and every scalar is taken in whatever JSON type it comes.

use std::fmt;

use serde_json::{Map, Value};

use super::redact::scrub;
use super::settings::SettingsNotice;

pub use crate::call::leg::Direction;

/// Longest id of a call or message that is believed, in bytes. Meta's have about 60.
const MAX_ID: usize = 512;
/// Longest name, username or payload that is kept, in characters. Meta's own limit on payloads is 512.
const MAX_TEXT: usize = 512;
/// Most elements that are kept of a list inside of something.
pub(super) const MAX_ITEMS: usize = 64;

/// One thing that a webhook tells: about one call, about one user's permission, or about the number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// Inbound: a user rings. Outbound: Meta's media relay is ready (not yet picked up).
    Connect(Box<Connect>),
    /// The call is over, whoever ended it.
    Terminate(Box<Terminate>),
    /// A step of an outgoing call.
    Status(Status),
    /// A user allows calls, or no longer does.
    Permission(Box<PermissionReply>),
    /// The number's calling settings changed, or Meta warns or restricts it.
    Settings(Box<SettingsNotice>),
}

impl Notice {
    /// Meta's id of the call, if it is about one.
    pub fn wacid(&self) -> Option<&str> {
        match self {
            Notice::Connect(connect) => Some(&connect.wacid),
            Notice::Terminate(terminate) => Some(&terminate.wacid),
            Notice::Status(status) => Some(&status.wacid),
            Notice::Permission(_) | Notice::Settings(_) => None,
        }
    }

    /// What we gave Meta when we placed the call: says which call it is before the wacid is known.
    pub fn opaque(&self) -> Option<&str> {
        match self {
            Notice::Connect(connect) => connect.opaque.as_deref(),
            Notice::Terminate(terminate) => terminate.opaque.as_deref(),
            Notice::Status(status) => status.opaque.as_deref(),
            Notice::Permission(_) | Notice::Settings(_) => None,
        }
    }

    /// The business number's id that it was sent for; empty if the webhook did not say.
    pub fn phone_number_id(&self) -> &str {
        match self {
            Notice::Connect(connect) => &connect.phone_number_id,
            Notice::Terminate(terminate) => &terminate.phone_number_id,
            Notice::Status(status) => &status.phone_number_id,
            Notice::Permission(reply) => &reply.phone_number_id,
            Notice::Settings(notice) => &notice.phone_number_id,
        }
    }
}

/// `calls[].event = "connect"`.
#[derive(Clone, PartialEq, Eq)]
pub struct Connect {
    /// Meta's id of the call.
    pub wacid: String,
    /// The business number's id; empty if the webhook did not say.
    pub phone_number_id: String,
    /// Who asked for the call. Where Meta leaves it out, an offer means inbound.
    pub direction: Direction,
    /// The WhatsApp user, whichever way the call goes.
    pub user: User,
    /// When it happened, in seconds since the Unix epoch.
    pub timestamp: Option<i64>,
    /// `offer` or `answer`, lower case; empty if missing.
    pub sdp_type: String,
    /// The session description as it came; empty if missing.
    pub sdp: String,
    /// What the deep link or the call button carried.
    pub payload: Option<String>,
    /// What we gave Meta when we placed the call.
    pub opaque: Option<String>,
}

impl fmt::Debug for Connect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connect")
            .field("wacid", &self.wacid)
            .field("phone_number_id", &self.phone_number_id)
            .field("direction", &self.direction)
            .field("user", &self.user)
            .field("timestamp", &self.timestamp)
            .field("sdp_type", &self.sdp_type)
            .field("sdp_bytes", &self.sdp.len())
            .field("payload", &self.payload.is_some())
            .field("opaque", &self.opaque)
            .finish()
    }
}

/// Who is at the WhatsApp end. Users with a username may hide their phone number.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct User {
    /// Phone number in international form, digits only.
    pub phone: Option<String>,
    /// Business-scoped user id, such as `BR.1502576394655843`.
    pub bsuid: Option<String>,
    /// The same, scoped to the business portfolio.
    pub parent_bsuid: Option<String>,
    /// The chosen username.
    pub username: Option<String>,
    /// The profile's display name.
    pub name: Option<String>,
}

impl User {
    /// The user part that a PBX can show and call back: `+` and the number, else the business-scoped
    /// id, else `anonymous`.
    pub fn caller_user(&self) -> String {
        match (&self.phone, &self.bsuid) {
            (Some(phone), _) => format!("+{phone}"),
            (None, Some(bsuid)) => bsuid.clone(),
            (None, None) => String::from("anonymous"),
        }
    }

    /// What to show to a person: the profile's name, else the username.
    pub fn display(&self) -> Option<&str> {
        self.name.as_deref().or(self.username.as_deref())
    }
}

/// Says which parts are known, never what they are: a log line may hold a `{:?}`.
impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known: Vec<&str> = [
            ("phone", &self.phone),
            ("bsuid", &self.bsuid),
            ("parent_bsuid", &self.parent_bsuid),
            ("username", &self.username),
            ("name", &self.name),
        ]
        .into_iter()
        .filter(|(_, part)| part.is_some())
        .map(|(what, _)| what)
        .collect();
        f.debug_tuple("User").field(&known).finish()
    }
}

/// `calls[].event = "terminate"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terminate {
    /// Meta's id of the call.
    pub wacid: String,
    /// The business number's id; empty if the webhook did not say.
    pub phone_number_id: String,
    /// Who asked for the call, if it can be told.
    pub direction: Option<Direction>,
    /// The WhatsApp user.
    pub user: User,
    /// When it happened, in seconds since the Unix epoch.
    pub timestamp: Option<i64>,
    /// It was picked up: a start time or a duration is there. (`status` does not tell: unanswered
    /// calls are `COMPLETED` too.)
    pub answered: bool,
    /// `COMPLETED`, `FAILED`, …, upper case.
    pub status: Option<String>,
    /// When it was picked up, in seconds since the Unix epoch.
    pub start_time: Option<i64>,
    /// When it ended, in seconds since the Unix epoch.
    pub end_time: Option<i64>,
    /// Length as Meta counts it, in seconds.
    pub duration: Option<u32>,
    /// Free text that some accounts get.
    pub reason: Option<String>,
    /// What we gave Meta when we placed the call.
    pub opaque: Option<String>,
    /// Why it failed. [`crate::whatsapp::verdict::Verdict::of_call_fault`] turns it into a verdict.
    pub error: Option<CallFault>,
}

/// A step of an outgoing call: `statuses[]` with `type: "call"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Meta's id of the call.
    pub wacid: String,
    /// The business number's id; empty if the webhook did not say.
    pub phone_number_id: String,
    /// Which step.
    pub status: CallStatus,
    /// When it happened, in seconds since the Unix epoch.
    pub timestamp: Option<i64>,
    /// What we gave Meta when we placed the call.
    pub opaque: Option<String>,
}

/// The steps of an outgoing call that Meta reports.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CallStatus {
    /// The user's device rings.
    Ringing,
    /// The user picked up.
    Accepted,
    /// The user declined; a terminate follows.
    Rejected,
    /// Something newer than this program, upper case.
    Other(String),
}

/// A user's word on being called by the business: a message of type `call_permission_reply`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PermissionReply {
    /// The business number's id; empty if the webhook did not say.
    pub phone_number_id: String,
    /// The WhatsApp user.
    pub user: User,
    /// Calls are allowed.
    pub accepted: bool,
    /// They are allowed until the user says otherwise.
    pub permanent: bool,
    /// Until when they are allowed, in seconds since the Unix epoch. There is no notice when that comes.
    pub expires_at: Option<i64>,
    /// `user_action`, or `automatic`: after the user's own call, or taken back after four calls that were
    /// not answered.
    pub source: Option<String>,
    /// The message (`wamid…`) or the call (`wacid…`) that it answers.
    pub context_id: Option<String>,
    /// When it happened, in seconds since the Unix epoch.
    pub timestamp: Option<i64>,
}

/// An entry of `errors[]`: what went wrong with a call, in Meta's numbers and words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallFault {
    /// Meta's error code, such as 138021.
    pub code: i64,
    /// Message and details, fit for a log.
    pub message: String,
}

/// What stands beside `calls[]` in the same change and is needed to read them.
pub(super) struct Around<'a> {
    pub phone_number_id: String,
    pub business_phone: Option<String>,
    pub contacts: &'a [Value],
    pub errors: &'a [Value],
    /// How many calls share `errors`.
    pub calls: usize,
}

/// Why an element could not be read. It is counted and left out; its neighbours are not harmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Skipped {
    /// An event or type that this program does not use: normal.
    NotUsed,
    /// Not an object, or without an id.
    Bad(&'static str),
}

/// Reads one element of `calls[]`.
pub(super) fn call(element: &Value, around: &Around<'_>) -> Result<Notice, Skipped> {
    let call = element.as_object().ok_or(Skipped::Bad("a call is not an object"))?;
    let event = word(call.get("event")).unwrap_or_default();
    if event.eq_ignore_ascii_case("connect") {
        Ok(Notice::Connect(Box::new(connect(wacid(call)?, call, around))))
    } else if event.eq_ignore_ascii_case("terminate") {
        Ok(Notice::Terminate(Box::new(terminate(wacid(call)?, call, around))))
    } else {
        Err(Skipped::NotUsed)
    }
}

/// Reads one element of `statuses[]`.
pub(super) fn status(element: &Value, around: &Around<'_>) -> Result<Notice, Skipped> {
    let step = element.as_object().ok_or(Skipped::Bad("a status is not an object"))?;
    if word(step.get("type")).as_deref() != Some("call") {
        return Err(Skipped::NotUsed);
    }
    let wacid = wacid(step)?;
    let word = word(step.get("status")).ok_or(Skipped::Bad("a call status has no status"))?;
    let status = match word.to_ascii_uppercase().as_str() {
        "RINGING" => CallStatus::Ringing,
        "ACCEPTED" => CallStatus::Accepted,
        "REJECTED" => CallStatus::Rejected,
        other => CallStatus::Other(other.chars().take(64).collect()),
    };
    Ok(Notice::Status(Status {
        wacid,
        phone_number_id: around.phone_number_id.clone(),
        status,
        timestamp: whole(step.get("timestamp")),
        opaque: text(step.get("biz_opaque_callback_data")),
    }))
}

/// Reads one element of `messages[]`: all but a reply to a permission request is somebody else's.
pub(super) fn message(element: &Value, around: &Around<'_>) -> Result<Notice, Skipped> {
    let message = element.as_object().ok_or(Skipped::NotUsed)?;
    let interactive = message.get("interactive").and_then(Value::as_object).ok_or(Skipped::NotUsed)?;
    let kind = word(interactive.get("type")).unwrap_or_default();
    if !kind.eq_ignore_ascii_case("call_permission_reply") {
        return Err(Skipped::NotUsed);
    }
    let reply = interactive
        .get("call_permission_reply")
        .and_then(Value::as_object)
        .ok_or(Skipped::Bad("a permission reply is empty"))?;
    let response = word(reply.get("response")).unwrap_or_default();
    let accepted = response.eq_ignore_ascii_case("accept");
    if !accepted && !response.eq_ignore_ascii_case("reject") {
        return Err(Skipped::Bad("a permission reply is neither accept nor reject"));
    }
    let user = user(message, Direction::Inbound, around);
    if user.phone.is_none() && user.bsuid.is_none() {
        return Err(Skipped::Bad("a permission reply has no user"));
    }
    let context = message.get("context").and_then(Value::as_object);
    Ok(Notice::Permission(Box::new(PermissionReply {
        phone_number_id: around.phone_number_id.clone(),
        user,
        accepted,
        permanent: accepted && truth(reply.get("is_permanent")),
        expires_at: whole(reply.get("expiration_timestamp")),
        source: text(reply.get("response_source")),
        context_id: call_id(context.and_then(|context| context.get("id"))),
        timestamp: whole(message.get("timestamp")),
    })))
}

/// Reads one element of `errors[]`.
pub(super) fn fault(element: &Value) -> Option<CallFault> {
    let error = element.as_object()?;
    let code = whole(error.get("code"))?;
    let mut message = word(error.get("message")).or_else(|| word(error.get("title"))).unwrap_or_default();
    let details = match error.get("error_data") {
        Some(Value::Object(data)) => word(data.get("details")),
        other => word(other),
    };
    if let Some(details) = details.filter(|details| *details != message) {
        if !message.is_empty() {
            message.push_str(": ");
        }
        message.push_str(&details);
    }
    Some(CallFault { code, message: scrub(&message) })
}

fn connect(wacid: String, call: &Map<String, Value>, around: &Around<'_>) -> Connect {
    let session = call.get("session").and_then(Value::as_object);
    let part = |key| session.and_then(|session| session.get(key));
    let sdp_type = word(part("sdp_type")).unwrap_or_default().to_ascii_lowercase();
    let direction = direction(call, around).unwrap_or(match sdp_type.as_str() {
        "answer" => Direction::Outbound,
        _ => Direction::Inbound,
    });
    Connect {
        wacid,
        phone_number_id: around.phone_number_id.clone(),
        direction,
        user: user(call, direction, around),
        timestamp: whole(call.get("timestamp")),
        sdp_type,
        sdp: part("sdp").and_then(Value::as_str).unwrap_or_default().to_owned(),
        payload: text(call.get("deeplink_payload")).or_else(|| text(call.get("cta_payload"))),
        opaque: text(call.get("biz_opaque_callback_data")),
    }
}

fn terminate(wacid: String, call: &Map<String, Value>, around: &Around<'_>) -> Terminate {
    let direction = direction(call, around);
    let status = word(call.get("status")).map(|status| status.to_ascii_uppercase());
    let start_time = whole(call.get("start_time"));
    let duration = whole(call.get("duration")).and_then(|length| u32::try_from(length).ok());
    let own = call.get("errors").and_then(Value::as_array).into_iter().flatten().find_map(fault);
    // Errors beside several calls don't say whose they are: they can only be of those that failed.
    let shared = || {
        let mine = around.calls == 1 || status.as_deref() == Some("FAILED");
        around.errors.iter().find_map(fault).filter(|_| mine)
    };
    Terminate {
        wacid,
        phone_number_id: around.phone_number_id.clone(),
        direction,
        user: user(call, direction.unwrap_or(Direction::Inbound), around),
        timestamp: whole(call.get("timestamp")),
        answered: start_time.is_some() || duration.is_some(),
        start_time,
        end_time: whole(call.get("end_time")),
        duration,
        reason: text(call.get("terminate_reason")),
        opaque: text(call.get("biz_opaque_callback_data")),
        error: own.or_else(shared),
        status,
    }
}

/// Who asked for the call: said, or told by which end has a user's id, or by which end is the business.
fn direction(call: &Map<String, Value>, around: &Around<'_>) -> Option<Direction> {
    match word(call.get("direction")).unwrap_or_default().to_ascii_uppercase().as_str() {
        "USER_INITIATED" => return Some(Direction::Inbound),
        "BUSINESS_INITIATED" => return Some(Direction::Outbound),
        _ => {}
    }
    if bsuid(call.get("from_user_id")).is_some() {
        return Some(Direction::Inbound);
    }
    if bsuid(call.get("to_user_id")).is_some() {
        return Some(Direction::Outbound);
    }
    let business = around.business_phone.as_ref()?;
    if phone(call.get("from")).as_ref() == Some(business) {
        Some(Direction::Outbound)
    } else if phone(call.get("to")).as_ref() == Some(business) {
        Some(Direction::Inbound)
    } else {
        None
    }
}

fn user(call: &Map<String, Value>, direction: Direction, around: &Around<'_>) -> User {
    let (number, id, parent) = match direction {
        Direction::Inbound => ("from", "from_user_id", "from_parent_user_id"),
        Direction::Outbound => ("to", "to_user_id", "to_parent_user_id"),
    };
    let mut user = User {
        phone: phone(call.get(number)),
        bsuid: bsuid(call.get(id)).or_else(|| bsuid(call.get(number))),
        parent_bsuid: bsuid(call.get(parent)),
        username: None,
        name: None,
    };
    if let Some(contact) = contact(&user, around) {
        let profile = contact.get("profile").and_then(Value::as_object);
        user.phone = user.phone.or_else(|| phone(contact.get("wa_id")));
        user.bsuid = user.bsuid.or_else(|| bsuid(contact.get("user_id")));
        user.parent_bsuid = user.parent_bsuid.or_else(|| bsuid(contact.get("parent_user_id")));
        user.name = text(profile.and_then(|profile| profile.get("name")));
        user.username = text(profile.and_then(|profile| profile.get("username")));
    }
    user
}

/// The contact that belongs to this user: the same number or id, or the only one there is, unless it
/// is plainly somebody else.
fn contact<'a>(user: &User, around: &Around<'a>) -> Option<&'a Map<String, Value>> {
    let same = |ours: &Option<String>, theirs: Option<String>| match (ours, theirs) {
        (Some(ours), Some(theirs)) => Some(*ours == theirs),
        _ => None,
    };
    let likeness = |contact: &Map<String, Value>| {
        let number = same(&user.phone, phone(contact.get("wa_id")));
        let id = same(&user.bsuid, bsuid(contact.get("user_id")));
        number == Some(true)
            || id == Some(true)
            || (number.is_none() && id.is_none() && around.contacts.len() == 1)
    };
    around.contacts.iter().filter_map(Value::as_object).find(|contact| likeness(contact))
}

fn wacid(element: &Map<String, Value>) -> Result<String, Skipped> {
    let id = element.get("id");
    word(id).ok_or(Skipped::Bad("an element has no id"))?;
    call_id(id).ok_or(Skipped::Bad("an id is too long or has characters that no id has"))
}

/// An id of Meta's. It goes into a SIP header, into JSON and into logs as it is.
pub(super) fn call_id(value: Option<&Value>) -> Option<String> {
    let id = word(value)?;
    if id.len() <= MAX_ID && id.bytes().all(|byte| byte.is_ascii_graphic()) { Some(id) } else { None }
}

/// A scalar as text: a string, a number, or the first element of an array of them. Empty is none.
pub(super) fn word(value: Option<&Value>) -> Option<String> {
    match value? {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Array(many) => match many.first() {
            Some(first @ (Value::String(_) | Value::Number(_))) => word(Some(first)),
            _ => None,
        },
        _ => None,
    }
}

/// The objects of an array; a missing or foreign value has none.
pub(super) fn objects(list: Option<&Value>) -> impl Iterator<Item = &Map<String, Value>> {
    list.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_object).take(MAX_ITEMS)
}

/// A yes, in whatever JSON type it comes.
pub(super) fn truth(value: Option<&Value>) -> bool {
    match value {
        Some(Value::Bool(truth)) => *truth,
        other => word(other).is_some_and(|word| word == "1" || word.eq_ignore_ascii_case("true")),
    }
}

/// Text for people and headers: control characters become spaces, and it is not longer than it should be.
pub(super) fn text(value: Option<&Value>) -> Option<String> {
    let plain = |letter: char| if letter.is_control() { ' ' } else { letter };
    let text: String = word(value)?.chars().map(plain).take(MAX_TEXT).collect();
    let text = text.trim();
    if text.is_empty() { None } else { Some(text.to_owned()) }
}

/// A whole number, given as a number or as text.
pub(super) fn whole(value: Option<&Value>) -> Option<i64> {
    let word = word(value)?;
    let word = word.trim();
    word.parse().ok().or_else(|| {
        let number = word.parse::<f64>().ok().filter(|number| number.is_finite())?.trunc();
        // Within what an f64 holds exactly, so the cast loses nothing.
        if number.abs() < 9.0e15 { Some(number as i64) } else { None }
    })
}

/// Digits of a phone number; none if it is anything else.
pub(super) fn phone(value: Option<&Value>) -> Option<String> {
    let word = word(value)?;
    let mut digits = String::new();
    for letter in word.chars() {
        match letter {
            '0'..='9' => digits.push(letter),
            '+' | ' ' | '-' | '(' | ')' => {}
            _ => return None,
        }
    }
    if (3..=20).contains(&digits.len()) { Some(digits) } else { None }
}

/// A business-scoped id: country, dot, letters and digits (`US.ENT.…` for the parent form).
fn bsuid(value: Option<&Value>) -> Option<String> {
    let id = word(value)?;
    let plain = id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.');
    if plain && id.contains('.') && id.len() <= 160 { Some(id) } else { None }
}
