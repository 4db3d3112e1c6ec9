//! `watrunk trace`: what SIP said in a call.

use std::io::Write;

use serde_json::{Value, json};

use super::api::{Api, Said};
use super::args::TraceArgs;
use super::{Failed, fail, say};
use crate::io::client::escaped;

/// `watrunk trace`
pub(super) fn trace(args: &TraceArgs, out: &mut dyn Write, err: &mut dyn Write) -> Result<(), Failed> {
    let api = Api::needed(&args.api, err)?;
    let switched = match args.what.as_str() {
        "on" => api.put("/v1/trace", &json!({ "enabled": true, "sound": args.sound })),
        "off" => api.put("/v1/trace", &json!({ "enabled": false })),
        "state" => api.get("/v1/trace", &[]),
        id => return of_call(&api, id, args, out, err),
    };
    match switched {
        Ok(Said { text, .. }) if args.api.json => say(&format!("{}\n", text.trim_end()), out, err),
        Ok(Said { value, .. }) => say(state(&value), out, err),
        Err(no) => Err(no.tell(args.api.json, out, err)),
    }
}

fn state(answer: &Value) -> &'static str {
    match (answer["enabled"] == true, answer["sound"] == true) {
        (true, true) => "SIP messages and sound are kept\n",
        (true, false) => "SIP messages are kept\n",
        (false, _) => "SIP messages are not kept\n",
    }
}

fn of_call(
    api: &Api,
    id: &str,
    args: &TraceArgs,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<(), Failed> {
    let format = match (&args.pcap, args.api.json) {
        (Some(_), _) => "pcap",
        (None, true) => "json",
        (None, false) => "text",
    };
    let path = format!("/v1/calls/{}/trace", escaped(id));
    let bytes = match api.fetch(&path, &[("format", format), ("mask", &args.mask)]) {
        Ok(bytes) => bytes,
        Err(no) => return Err(no.tell(args.api.json, out, err)),
    };
    match &args.pcap {
        Some(file) => {
            std::fs::write(file, bytes).map_err(|error| fail(&format!("{}: {error}", file.display()), err))
        }
        None => say(&format!("{}\n", String::from_utf8_lossy(&bytes).trim_end()), out, err),
    }
}
