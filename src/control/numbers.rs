//! The numbers: their calling configuration read, enabled at Meta and in the file, changed, disabled.

use axum::http::StatusCode;
use serde_json::{Map, Value, json};

use super::ask::{Fields, Given, Query};
use super::fault::{Fault, Kind};
use super::reach;
use super::refusal::{graph, refused, strange};
use super::serve::{Ask, Outcome, Reply};
use super::{Backend, EditFault};
use crate::config::edit::{Edit, EditValue};
use crate::config::{CallerId, Config, Destination, HostPort, NumberConfig, Secret};
use crate::gateway::desk::{Answer, Command, Refusal};
use crate::whatsapp::graph::VerdictKind;
use crate::whatsapp::settings::SettingsChange;

/// Most characters of an id in a request.
pub const MAX_ID: usize = 128;
/// Most characters of a destination.
pub const MAX_DESTINATION: usize = 512;
/// What one call may last, in seconds.
const DURATION: std::ops::RangeInclusive<u64> = 30..=14_400;
/// Most countries in a list: there are 249.
const COUNTRIES: usize = 250;

/// `GET /v1/whatsapp/calling`
pub async fn by_account<B: Backend>(_backend: &B, ask: &Ask) -> Outcome {
    let number = of_account(&ask.config, ask.query.required("accountId")?, pick(&ask.query))?;
    let mut body = Map::new();
    body.insert("phoneNumberDocId".to_owned(), json!(number.id));
    body.extend(facts(number));
    body.remove("outboundDisabled");
    Ok(Reply::ok(Value::Object(body)))
}

/// `GET /v1/phone-numbers/{id}/whatsapp/calling`
pub async fn get<B: Backend>(_backend: &B, ask: &Ask) -> Outcome {
    Ok(Reply::ok(Value::Object(facts(by_id(&ask.config, ask.param("id"))?))))
}

/// `GET /v1/phone-numbers`
pub async fn list<B: Backend>(_backend: &B, ask: &Ask) -> Outcome {
    let wanted = ask.query.get("accountId");
    let numbers: Vec<Value> = ask
        .config
        .numbers
        .iter()
        .filter(|number| wanted.is_none_or(|account| account == number.account_id))
        .map(|number| {
            let mut row = Map::new();
            row.insert("id".to_owned(), json!(number.id));
            row.insert("accountId".to_owned(), json!(number.account_id));
            row.insert("phoneNumberId".to_owned(), json!(number.phone_number_id));
            row.insert("trunk".to_owned(), json!(number.trunk));
            row.extend(facts(number));
            Value::Object(row)
        })
        .collect();
    Ok(Reply::ok(json!({ "numbers": numbers })))
}

/// The configuration of one number, flat.
fn facts(number: &NumberConfig) -> Map<String, Value> {
    let digits = number.phone_number.trim_start_matches('+');
    let link = number.enabled.then(|| format!("https://wa.me/call/{digits}"));
    let facts = [
        ("phoneNumber", json!(number.phone_number)),
        ("callingEnabled", json!(number.enabled)),
        ("callDeepLink", json!(link)),
        ("forwardTo", json!(number.forward_to.as_ref().map(ToString::to_string))),
        ("recordingEnabled", json!(number.recording)),
        ("sipAuthUsername", json!(number.sip_auth_username)),
        ("sipAuthPasswordConfigured", json!(number.sip_auth_password.is_some())),
        ("callIconCountries", json!(number.call_icon_countries)),
        ("outboundDisabled", json!(super::country::blocks_outbound(&number.phone_number))),
        ("callerIdMode", json!("business")),
        ("callerIdVerified", json!(true)),
        ("maxCallDurationSeconds", json!(number.max_call_seconds)),
        ("forwardCallerId", json!(number.caller_id.as_str())),
    ];
    facts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// The number with this id, ours or Meta's.
///
/// # Errors
/// 404.
pub fn by_id<'c>(config: &'c Config, id: &str) -> Result<&'c NumberConfig, Fault> {
    let found = config.number(id).or_else(|| config.numbers.iter().find(|n| n.phone_number_id == id));
    found.ok_or_else(|| Fault::not_found(format!("no number is configured with the id \"{id}\"")).at("id"))
}

/// Which of an account's numbers is meant, if the request says.
#[derive(Debug, Clone, Default)]
pub struct Pick {
    phone_number_id: Option<String>,
    number: Option<String>,
}

/// Which of an account's numbers a query means.
pub fn pick(query: &Query) -> Pick {
    let text = |name: &str| query.get(name).map(str::to_owned);
    Pick { phone_number_id: text("phoneNumberId"), number: text("number") }
}

/// Which of an account's numbers a body means.
///
/// # Errors
/// 400 if a field is no text.
pub fn pick_of(fields: &Fields) -> Result<Pick, Fault> {
    let text = |name: &str| fields.text(name, MAX_ID).map(Given::value);
    Ok(Pick { phone_number_id: text("phoneNumberId")?, number: text("number")? })
}

/// The number of this account: the one that is picked, else the first that is enabled, else the first.
///
/// # Errors
/// 404 if the account has none, or not the picked one.
pub fn of_account<'c>(config: &'c Config, account: &str, pick: Pick) -> Result<&'c NumberConfig, Fault> {
    let all: Vec<&NumberConfig> = config.numbers.iter().filter(|n| n.account_id == account).collect();
    if all.is_empty() {
        return Err(Fault::not_found("no number is configured for this account").at("accountId"));
    }
    if let Some(id) = pick.phone_number_id {
        let found = all.into_iter().find(|n| n.phone_number_id == id || n.id == id);
        return found
            .ok_or_else(|| Fault::not_found("this account has no number with this id").at("phoneNumberId"));
    }
    if let Some(wanted) = pick.number {
        // The `+` of a query that was not escaped has become a blank.
        let digits = wanted.trim().trim_start_matches('+');
        let found = all.into_iter().find(|n| n.phone_number.trim_start_matches('+') == digits);
        return found.ok_or_else(|| Fault::not_found("this account has no such number").at("number"));
    }
    let first = all.iter().find(|number| number.enabled).or(all.first()).copied();
    first.ok_or_else(|| Fault::not_found("no number is configured for this account").at("accountId"))
}

/// The number of the path; the account must be its own.
fn owned<'c>(config: &'c Config, id: &str, account: &str) -> Result<&'c NumberConfig, Fault> {
    let number = by_id(config, id)?;
    if number.account_id == account {
        return Ok(number);
    }
    Err(Fault::not_found("this account has no number with this id").at("accountId"))
}

/// A destination of a request that this version can call.
///
/// # Errors
/// 400 if it is none, or the number itself; 422 if nobody here can carry it.
pub fn destination(
    config: &Config,
    number: &NumberConfig,
    param: &str,
    text: &str,
) -> Result<Destination, Fault> {
    let text = text.trim();
    let bare = text.strip_prefix('+').is_some();
    let full = if bare { format!("tel:{text}") } else { text.to_owned() };
    let destination = Destination::parse(&full).map_err(|what| Fault::invalid(param, what))?;
    match &destination {
        Destination::Wss(url) => {
            reach::checked(config, param, url)?;
            if url.starts_with("ws:") && !config.http.allow_private {
                return Err(Fault::invalid(param, "must begin with wss://: ws:// is not encrypted"));
            }
        }
        Destination::Tel(tel) => {
            if *tel == number.phone_number {
                return Err(Fault::invalid(param, "is the business number itself"));
            }
            if number.trunk.is_none() {
                let what = "needs a trunk that carries tel:, and this number has none: use sip:user@trunk";
                return Err(Fault::unfit(param, what));
            }
        }
        Destination::Sip { host, .. } => {
            let real = HostPort::parse(host).is_ok_and(|h| h.port.is_some() || h.host.contains(['.', ':']));
            if !real && config.trunks_named(host).is_empty() {
                return Err(Fault::unfit(param, format!("names the trunk \"{host}\", which there is not")));
            }
        }
    }
    Ok(destination)
}

/// What a body wants changed, as keys of the file.
fn changes(
    config: &Config,
    number: &NumberConfig,
    fields: &Fields,
) -> Result<Vec<(&'static str, Option<EditValue>)>, Fault> {
    let mut set = Vec::new();
    match fields.text("forwardTo", MAX_DESTINATION)? {
        Given::Absent => {}
        Given::Null => return Err(Fault::invalid("forwardTo", "can't be cleared: disable calling instead")),
        Given::Value(text) => {
            let destination = destination(config, number, "forwardTo", &text)?;
            set.push(("forward_to", Some(EditValue::Text(destination.to_string()))));
        }
    }
    for (field, key) in [("sipAuthUsername", "sip_auth_username"), ("sipAuthPassword", "sip_auth_password")] {
        match fields.text(field, 256)? {
            Given::Absent => {}
            Given::Null => set.push((key, None)),
            Given::Value(text) if text.is_empty() => set.push((key, None)),
            Given::Value(text) if key == "sip_auth_password" => {
                if text.chars().any(char::is_control) {
                    return Err(Fault::invalid(field, "must not hold control characters"));
                }
                set.push((key, Some(EditValue::Secret(Secret::new(text)))));
            }
            Given::Value(text) => {
                // RFC 3261 §25.1, user, without escapes.
                let fits = |b: u8| b.is_ascii_alphanumeric() || b"-_.!~*'()&=+$,;?/".contains(&b);
                if text.len() > 128 || !text.bytes().all(fits) {
                    let what = "must be a SIP user without \"@\" and blanks, at most 128 characters";
                    return Err(Fault::invalid(field, what));
                }
                set.push((key, Some(EditValue::Text(text))));
            }
        }
    }
    match fields.boolean("recordingEnabled")? {
        Given::Absent => {}
        Given::Null => return Err(Fault::invalid("recordingEnabled", "must be true or false")),
        Given::Value(on) => set.push(("recording", Some(EditValue::Flag(on)))),
    }
    match fields.list("callIconCountries", COUNTRIES)? {
        Given::Absent => {}
        Given::Null => set.push(("call_icon_countries", None)),
        Given::Value(countries) => {
            let list = icon_countries(&countries)?;
            let list = Some(list).filter(|list| !list.is_empty()).map(EditValue::Texts);
            set.push(("call_icon_countries", list));
        }
    }
    match fields.integer("maxCallDurationSeconds", DURATION)? {
        Given::Absent => {}
        // In the file 0 is no cap; without the key the default would count.
        Given::Null => set.push(("max_call_seconds", Some(EditValue::Whole(0)))),
        Given::Value(seconds) => {
            set.push(("max_call_seconds", Some(EditValue::Whole(seconds))));
        }
    }
    match fields.word("forwardCallerId", CallerId::WORDS)? {
        Given::Absent => {}
        Given::Null => return Err(Fault::invalid("forwardCallerId", "must be business or caller")),
        Given::Value(id) => set.push(("caller_id", Some(EditValue::Text(id.as_str().to_owned())))),
    }
    Ok(set)
}

/// Two letters each, in upper case, none twice. None at all are all.
fn icon_countries(countries: &[String]) -> Result<Vec<String>, Fault> {
    let mut list = Vec::new();
    for (at, country) in countries.iter().enumerate() {
        let country = country.to_ascii_uppercase();
        if country.len() != 2 || !country.bytes().all(|b| b.is_ascii_uppercase()) {
            let param = format!("callIconCountries[{at}]");
            return Err(Fault::invalid(&param, "must be a country like \"DE\" (ISO 3166-1)"));
        }
        if !list.contains(&country) {
            list.push(country);
        }
    }
    Ok(list)
}

/// Keys of the file that a body can set, by their names there.
const KEYS: [(&str, &str); 12] = [
    (".forward_to", "forwardTo"),
    (".sip_auth_username", "sipAuthUsername"),
    (".sip_auth_password", "sipAuthPassword"),
    (".max_call_seconds", "maxCallDurationSeconds"),
    (".call_icon_countries", "callIconCountries"),
    (".caller_id", "forwardCallerId"),
    (".recording", "recordingEnabled"),
    (".headers", "customHeaders"),
    (".secret", "secret"),
    (".events", "events"),
    (".name", "name"),
    (".url", "url"),
];

/// A fault of the file, in terms of the request.
pub fn not_edited(fault: EditFault) -> Fault {
    match fault {
        EditFault::Invalid(what) => {
            let param = KEYS.iter().find(|(key, _)| what.contains(key)).map(|(_, param)| *param);
            let mut fault = Fault::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                Kind::InvalidRequest,
                "invalid_field_value",
                format!("the configuration would not be valid: {what}"),
            );
            fault.param = param.map(str::to_owned);
            fault
        }
        EditFault::Unwritable(what) => Fault::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            Kind::Api,
            "config_unwritable",
            format!("the configuration can't be written: {what}"),
        ),
    }
}

/// `POST /v1/phone-numbers/{id}/whatsapp/calling`
pub async fn enable<B: Backend>(backend: &B, ask: &Ask) -> Outcome {
    let account = ask.fields.required("accountId", MAX_ID)?;
    let number = owned(&ask.config, ask.param("id"), &account)?;
    ask.fields.required("forwardTo", MAX_DESTINATION)?;
    let mut set = changes(&ask.config, number, &ask.fields)?;
    let icons = match ask.fields.list("callIconCountries", COUNTRIES)? {
        Given::Value(countries) => Some(icon_countries(&countries)?),
        Given::Null => Some(Vec::new()),
        Given::Absent => None,
    };

    let settings = match backend.command(Command::ReadSettings { number: number.id.clone() }).await {
        Ok(Answer::Settings(settings)) => settings,
        Ok(other) => return Err(strange(&other)),
        Err(refusal) => return Err(of_meta(&refusal)),
    };
    if settings.sip.as_deref() == Some("ENABLED") {
        return Err(Fault::state(
            StatusCode::CONFLICT,
            "the number is in SIP mode at Meta, so that its calls go to a SIP server and not here: set \
             calling.sip.status to DISABLED in the number's settings at Meta, then enable calling again",
        )
        .said_by("meta", Some(json!({ "calling": { "sip": { "status": "ENABLED" } } }))));
    }
    if let Some(waba) = &ask.config.whatsapp.waba_id {
        let question = Command::SubscribedApps { waba: waba.clone(), number: number.id.clone() };
        match backend.command(question).await {
            Ok(Answer::Apps(apps)) if apps.is_empty() => {
                return Err(Fault::state(
                    StatusCode::CONFLICT,
                    "no app is subscribed to the WhatsApp Business Account, so that no call would be heard of: \
                     subscribe yours (POST /<WABA_ID>/subscribed_apps) with the webhook field \"calls\"",
                )
                .said_by("meta", None));
            }
            Ok(Answer::Apps(_)) => {}
            Ok(other) => return Err(strange(&other)),
            // A token that may not look there can still enable calls.
            Err(refusal) => tracing::debug!(?refusal, "the app's subscription could not be checked"),
        }
    }
    let dtls = settings.srtp_key_exchange.as_deref().is_some_and(|exchange| exchange != "DTLS");
    let change = SettingsChange {
        enabled: Some(true),
        icon_countries: icons,
        dtls: dtls.then_some(true),
        ..SettingsChange::default()
    };
    match backend.command(Command::WriteSettings { number: number.id.clone(), change }).await {
        Ok(Answer::Changed) => {}
        Ok(other) => return Err(strange(&other)),
        Err(refusal) => return Err(of_meta(&refusal)),
    }
    set.push(("enabled", Some(EditValue::Flag(true))));
    let config = backend.edit(vec![Edit::Number { id: number.id.clone(), set }]).await.map_err(not_edited)?;
    let number = by_id(&config, &number.id)?;
    Ok(Reply::ok(json!({
        "success": true,
        "callingEnabled": number.enabled,
        "sipHostname": reach::public_host(&config),
        "forwardTo": number.forward_to.as_ref().map(ToString::to_string),
        "callerIdMode": "business",
    })))
}

/// A refusal of the number's settings: what Meta says no to is the request's fault (400), as Zernio has it.
fn of_meta(refusal: &Refusal) -> Fault {
    let mut fault = refused(refusal);
    if let Refusal::Graph(verdict) = refusal {
        fault = graph(verdict);
        match verdict.kind {
            VerdictKind::AlreadyOver | VerdictKind::Refused | VerdictKind::Misconfigured => {
                fault.status = StatusCode::BAD_REQUEST;
                fault.kind = Kind::Platform;
                fault.code = "platform_api_error";
                fault.retry_after = None;
                fault.error = format!("Meta: {verdict}. What to do: {}", verdict.cure);
            }
            VerdictKind::Throttled | VerdictKind::Unreachable => {}
        }
    }
    fault
}

/// `PATCH /v1/phone-numbers/{id}/whatsapp/calling`
pub async fn update<B: Backend>(backend: &B, ask: &Ask) -> Outcome {
    let account = ask.fields.required("accountId", MAX_ID)?;
    let number = owned(&ask.config, ask.param("id"), &account)?;
    let set = changes(&ask.config, number, &ask.fields)?;
    if !number.enabled {
        return Err(super::refusal::not_enabled());
    }
    let config = if set.is_empty() {
        ask.config.clone()
    } else {
        backend.edit(vec![Edit::Number { id: number.id.clone(), set }]).await.map_err(not_edited)?
    };
    let mut body = Map::new();
    body.insert("success".to_owned(), json!(true));
    body.extend(facts(by_id(&config, &number.id)?));
    Ok(Reply::ok(Value::Object(body)))
}

/// `DELETE /v1/phone-numbers/{id}/whatsapp/calling`
pub async fn disable<B: Backend>(backend: &B, ask: &Ask) -> Outcome {
    let number = owned(&ask.config, ask.param("id"), ask.query.required("accountId")?)?;
    let change = SettingsChange { enabled: Some(false), ..SettingsChange::default() };
    let at_meta = match backend.command(Command::WriteSettings { number: number.id.clone(), change }).await {
        Ok(Answer::Changed) => true,
        Ok(other) => return Err(strange(&other)),
        Err(refusal) => {
            tracing::warn!(number = %number.id, error = %refused(&refusal).error,
                "calling is off here, but could not be switched off at Meta");
            false
        }
    };
    let set = vec![("enabled", Some(EditValue::Flag(false)))];
    let config = backend.edit(vec![Edit::Number { id: number.id.clone(), set }]).await.map_err(not_edited)?;
    let mut body = Map::new();
    body.insert("success".to_owned(), json!(true));
    body.insert("disabledAtMeta".to_owned(), json!(at_meta));
    body.extend(facts(by_id(&config, &number.id)?));
    Ok(Reply::ok(Value::Object(body)))
}

/// `POST …/caller-id-verification`: what a `tel:` callee sees is the PBX's business, so there is nothing to verify.
pub fn start_caller_id(ask: &Ask) -> Outcome {
    by_id(&ask.config, ask.param("id"))?;
    let method = ask.fields.word("method", &[("sms", "sms"), ("call", "call")])?.value().unwrap_or("sms");
    Ok(Reply::ok(json!({ "verified": true, "codeSent": false, "method": method })))
}

/// `POST …/caller-id-verification/verify`: as above.
pub fn verify_caller_id(ask: &Ask) -> Outcome {
    by_id(&ask.config, ask.param("id"))?;
    let code = ask.fields.required("code", 10)?;
    if code.len() < 4 || !code.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err(Fault::invalid("code", "must be 4 to 10 letters and digits"));
    }
    Ok(Reply::ok(json!({ "verified": true })))
}
