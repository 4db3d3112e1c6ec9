//! `watrunk call`, `hangup` and `permissions`: what a person does with a call to a WhatsApp user.

use std::io::Write;
use std::time::Duration;

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::macros::format_description;

use crate::io::client::escaped;

use super::api::{self, Api, No, Number, Said};
use super::args::{CallArgs, HangupArgs, PermissionsArgs};
use super::table::{plain, table, talk};
use super::{Failed, fail, say};

/// How long between two looks at a call.
pub(super) const PACE: Duration = Duration::from_secs(1);

/// Looks at a call that rings: the gateway gives up long before.
const LOOKS: u32 = 600;

/// Looks in a row that may go wrong.
const MISSED: u32 = 5;

/// `watrunk call`
pub(super) fn place(
    args: &CallArgs,
    pace: Duration,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<(), Failed> {
    let api = Api::needed(&args.api, err)?;
    let json = args.api.json;
    let (number, said) = match asked_for(&api, args) {
        Ok(placed) => placed,
        Err(no) => return Err(no.tell(json, out, err)),
    };
    let Some(id) = said.value["callId"].as_str() else {
        return Err(fail("the API's answer has no callId", err));
    };
    if args.no_wait {
        return if json {
            say(&format!("{}\n", said.text.trim_end()), out, err)
        } else {
            say(&format!("{}: dialing {} from {}\n", plain(id), plain(&args.to), number.id), out, err)
        };
    }
    if !json {
        say(&format!("{}: dialing {} from {}\n", plain(id), plain(&args.to), number.id), out, err)?;
    }
    watch(&api, &number, id, (pace, json), out, err)
}

fn asked_for(api: &Api, args: &CallArgs) -> Result<(Number, Said), No> {
    let number = api::number(api, args.number.as_deref())?;
    let mut body =
        json!({ "accountId": number.account, "phoneNumberId": number.phone_number_id, "to": args.to });
    if let Some(destination) = &args.forward_to {
        body["forwardTo"] = json!(destination);
    }
    if args.record || args.no_record {
        body["recordOverride"] = json!(args.record);
    }
    let said = api.post("/v1/whatsapp/calls", &body)?;
    Ok((number, said))
}

/// Looks at the call until it is answered or over.
fn watch(
    api: &Api,
    number: &Number,
    id: &str,
    (pace, json): (Duration, bool),
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<(), Failed> {
    let path = format!("/v1/whatsapp/calls/{}", escaped(id));
    let mut missed = 0;
    let mut rang = false;
    for _ in 0..LOOKS {
        std::thread::sleep(pace);
        let said = match api.get(&path, &[("accountId", &number.account)]) {
            Ok(said) => said,
            // The call may be fine all the same.
            Err(_) if missed < MISSED => {
                missed += 1;
                continue;
            }
            Err(no) => return Err(no.tell(json, out, err)),
        };
        missed = 0;
        let call = &said.value["call"];
        let answered = !call["answeredAt"].is_null();
        let over = matches!(call["status"].as_str(), Some("ended" | "failed"));
        if !answered && !over {
            if !rang && !json {
                say("ringing\n", out, err)?;
            }
            rang = true;
            continue;
        }
        if json {
            say(&format!("{}\n", said.text.trim_end()), out, err)?;
        }
        return match (answered, over) {
            (true, _) if json => Ok(()),
            (true, true) => {
                let seconds = call["durationSeconds"].as_f64().unwrap_or(0.0);
                say(&format!("answered, and over after {}\n", talk(seconds)), out, err)
            }
            (true, false) => say(&format!("answered; `watrunk hangup {}` ends it\n", plain(id)), out, err),
            (false, _) => Err(fail(&why_not(call), err)),
        };
    }
    Err(fail(&format!("the call {id} rings still: `watrunk hangup {id}` ends it"), err))
}

/// Why nobody has answered.
fn why_not(call: &Value) -> String {
    let mut why = match call["endReason"].as_str() {
        Some("no_answer") => "no answer".to_owned(),
        Some("rejected") => "declined".to_owned(),
        Some("hangup") => "hung up before it was answered".to_owned(),
        Some("error") | None => "the call failed".to_owned(),
        Some(other) => plain(other),
    };
    let details = [
        call["detail"].as_str().map(str::to_owned),
        call["sipHangupCause"].as_str().map(|code| format!("SIP {code}")),
        call["metaErrorCode"].as_i64().map(|code| format!("Meta {code}")),
    ];
    let details: Vec<String> = details.into_iter().flatten().filter(|d| !d.is_empty()).collect();
    if !details.is_empty() {
        let line: String =
            details.join(", ").chars().map(|c| if c.is_control() { '?' } else { c }).take(300).collect();
        why.push_str(&format!(": {line}"));
    }
    why
}

/// `watrunk hangup`
pub(super) fn hang_up(args: &HangupArgs, out: &mut dyn Write, err: &mut dyn Write) -> Result<(), Failed> {
    let api = Api::needed(&args.api, err)?;
    let said = match api.post(&format!("/v1/voice/calls/{}/end", escaped(&args.id)), &json!({})) {
        Ok(said) => said,
        Err(no) => return Err(no.tell(args.api.json, out, err)),
    };
    if args.api.json {
        return say(&format!("{}\n", said.text.trim_end()), out, err);
    }
    let text = match said.value["status"].as_str() {
        Some("ending") | None => format!("{}: ending\n", plain(&args.id)),
        Some(status) => format!("{}: was over already ({})\n", plain(&args.id), plain(status)),
    };
    say(&text, out, err)
}

/// `watrunk permissions`
pub(super) fn permissions(
    args: &PermissionsArgs,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<(), Failed> {
    let api = Api::needed(&args.api, err)?;
    let said = match asked_about(&api, args) {
        Ok(said) => said,
        Err(no) => return Err(no.tell(args.api.json, out, err)),
    };
    let text = match (&args.request, args.api.json) {
        (_, true) => format!("{}\n", said.text.trim_end()),
        (Some(_), false) => format!("{} was asked for permission\n", plain(&args.to)),
        (None, false) => permission(&args.to, &said.value),
    };
    say(&text, out, err)
}

fn asked_about(api: &Api, args: &PermissionsArgs) -> Result<Said, No> {
    let Number { account, phone_number_id, .. } = api::number(api, args.number.as_deref())?;
    let Some(words) = &args.request else {
        let query = [("accountId", account.as_str()), ("phoneNumberId", &phone_number_id), ("to", &args.to)];
        return api.get("/v1/whatsapp/call-permissions", &query);
    };
    let mut body = json!({
        "accountId": account,
        "phoneNumberId": phone_number_id,
        "to": args.to,
        "action": "send_call_permission_request",
    });
    if !words.is_empty() {
        body["bodyText"] = json!(words);
    }
    api.post("/v1/whatsapp/calls", &body)
}

/// Meta's answer in words.
fn permission(to: &str, answer: &Value) -> String {
    let permission = &answer["permission"];
    let until = permission["expiration_time"].as_i64().map(|at| format!(" until {}", minute(at)));
    let status = match permission["status"].as_str() {
        Some("permanent") => "permission to call, for good".to_owned(),
        Some("temporary") => format!("permission to call{}", until.unwrap_or_default()),
        Some("no_permission") => "no permission to call".to_owned(),
        Some(other) => plain(other),
        None => "unknown".to_owned(),
    };
    let no_actions = Vec::new();
    let rows: Vec<[String; 3]> = answer["actions"]
        .as_array()
        .unwrap_or(&no_actions)
        .iter()
        .map(|action| {
            let limits = action["limits"].as_array().unwrap_or(&no_actions);
            [
                action["action_name"].as_str().unwrap_or("").to_owned(),
                if action["can_perform_action"] == true { "yes" } else { "no" }.to_owned(),
                limits.iter().map(limit).collect::<Vec<_>>().join(", "),
            ]
        })
        .collect();
    format!("{}: {status}\n{}", plain(to), table(["ACTION", "ALLOWED NOW", "USED"], &rows, "no actions"))
}

/// `1 of 2 in P7D`
fn limit(limit: &Value) -> String {
    let count = |key: &str| limit[key].as_i64().map_or_else(|| "?".to_owned(), |n| n.to_string());
    let period = match limit["time_period"].as_str() {
        Some("PT24H" | "P1D") => "a day",
        Some("P7D") => "7 days",
        Some(other) => other,
        None => "?",
    };
    let until = limit["limit_expiration_time"].as_i64().map(|at| format!(" (until {})", minute(at)));
    format!("{} of {} in {period}{}", count("current_usage"), count("max_allowed"), until.unwrap_or_default())
}

/// A Unix time for people.
fn minute(at: i64) -> String {
    OffsetDateTime::from_unix_timestamp(at)
        .ok()
        .and_then(|at| at.format(format_description!("[year]-[month]-[day] [hour]:[minute] UTC")).ok())
        .unwrap_or_else(|| at.to_string())
}
