//! `watrunk numbers`, `trunks` and `status`: how things are.

use std::io::Write;

use serde_json::Value;

use super::api::{Api, Said};
use super::args::LookArgs;
use super::table::{plain, table};
use super::{Failed, say};

/// Asks for it and shows it.
fn look(
    args: &LookArgs,
    path: &str,
    shown: impl FnOnce(&Value) -> String,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<(), Failed> {
    let api = Api::needed(&args.api, err)?;
    match api.get(path, &[]) {
        Ok(Said { text, .. }) if args.api.json => say(&format!("{}\n", text.trim_end()), out, err),
        Ok(Said { value, .. }) => say(&shown(&value), out, err),
        Err(no) => Err(no.tell(args.api.json, out, err)),
    }
}

/// `watrunk numbers`
pub(super) fn numbers(args: &LookArgs, out: &mut dyn Write, err: &mut dyn Write) -> Result<(), Failed> {
    const HEAD: [&str; 6] = ["ID", "NUMBER", "ACCOUNT", "CALLING", "DESTINATION", "TRUNK"];
    let shown = |answer: &Value| {
        let row = |number: &Value| {
            let text = |key: &str| number[key].as_str().unwrap_or("").to_owned();
            let calling = if number["callingEnabled"] == true { "enabled" } else { "disabled" };
            [
                text("id"),
                text("phoneNumber"),
                text("accountId"),
                calling.to_owned(),
                text("forwardTo"),
                text("trunk"),
            ]
        };
        table(HEAD, &rows(&answer["numbers"], row), "no numbers")
    };
    look(args, "/v1/phone-numbers", shown, out, err)
}

/// `watrunk trunks`
pub(super) fn trunks(args: &LookArgs, out: &mut dyn Write, err: &mut dyn Write) -> Result<(), Failed> {
    look(args, "/v1/trunks", |answer| trunks_table(&answer["trunks"]), out, err)
}

fn trunks_table(trunks: &Value) -> String {
    const HEAD: [&str; 7] = ["TRUNK", "STATE", "CODE", "SINCE (UTC)", "ADDRESS", "ROUND TRIP", "WHY"];
    let row = |trunk: &Value| {
        let text = |key: &str| trunk[key].as_str().unwrap_or("").to_owned();
        let since = text("since").chars().take(19).map(|c| if c == 'T' { ' ' } else { c }).collect();
        let round_trip = trunk["roundTripMs"].as_u64().map(|ms| format!("{ms} ms")).unwrap_or_default();
        let code = trunk["code"].as_u64().map(|code| code.to_string()).unwrap_or_default();
        let transport = trunk["transport"].as_str().map(|word| format!("{word}:")).unwrap_or_default();
        let address = format!("{transport}{}", text("address"));
        [text("name"), text("state"), code, since, address, round_trip, text("why")]
    };
    table(HEAD, &rows(trunks, row), "no trunks")
}

/// `watrunk status`
pub(super) fn status(args: &LookArgs, out: &mut dyn Write, err: &mut dyn Write) -> Result<(), Failed> {
    let shown = |answer: &Value| {
        let text = |key: &str| plain(answer[key].as_str().unwrap_or(""));
        let state = match (answer["ready"] == true, answer["draining"] == true) {
            (_, true) => "draining: takes no new calls",
            (true, false) => "ready",
            (false, false) => "not ready: no trunk is up",
        };
        let calls = answer["calls"].as_array().map(|calls| calls.len() as u64).or(answer["calls"].as_u64());
        let calls = calls.map_or_else(|| "?".to_owned(), |n| n.to_string());
        let most = answer["maxCalls"].as_u64().map_or_else(|| "?".to_owned(), |n| n.to_string());
        format!(
            "{} (watrunk {}): {state}\ncalls: {calls} of {most}\n\n{}",
            text("name"),
            text("version"),
            trunks_table(&answer["trunks"])
        )
    };
    look(args, "/v1/status", shown, out, err)
}

fn rows<const N: usize>(list: &Value, row: impl Fn(&Value) -> [String; N]) -> Vec<[String; N]> {
    list.as_array().map(|list| list.iter().map(row).collect()).unwrap_or_default()
}
