//! What a voice agent's service will ask for, and these settings don't have.

use super::reader::{Reader, Section};
use super::sections::{Config, NumberConfig};
use super::units::Destination;

/// Notes, not faults: a service may change its mind, and a call may bring its own.
pub(super) fn check(r: &mut Reader<'_>, config: &Config, number: &NumberConfig, section: &Section<'_>) {
    for (key, destination) in [("forward_to", &number.forward_to), ("fallback_to", &number.fallback_to)] {
        let Some(Destination::Wss(url)) = destination else { continue };
        let at = r.at(section, key);
        if !r.sound(&at) {
            continue;
        }
        for missing in missing(config, number, url) {
            r.note(&at, missing);
        }
    }
}

fn missing(config: &Config, number: &NumberConfig, url: &str) -> Vec<&'static str> {
    let query = || url.split_once('?').map_or("", |(_, query)| query).split('&');
    let asked = |name: &str| query().find_map(|pair| pair.split_once('=').filter(|(told, _)| *told == name));
    let told = |name: &str| {
        let own = number.agent_parameters.get(name).or_else(|| config.agent.parameters.get(name));
        asked(name).map(|(_, value)| value).or(own.map(String::as_str))
    };
    let key = number.agent_key.is_some() || config.agent.key.is_some();
    let authorized = ["authorization", "api-key", "xi-api-key"].iter().any(|name| {
        let named = number.agent_headers.iter().chain(config.agent.headers.iter());
        named.into_iter().any(|(header, _)| header.eq_ignore_ascii_case(name))
    });
    let dialect = asked("dialect").map(|(_, value)| value);
    let dialect = dialect.or(number.dialect.as_deref()).unwrap_or(&config.agent.dialect);
    let mut missing = Vec::new();
    let mut want = |there: bool, what: &'static str| {
        if !there {
            missing.push(what);
        }
    };
    match dialect {
        "openai" => want(key || authorized, "openai wants a key: set agent_key, or key in [agent]"),
        "deepgram" => want(key || authorized, "deepgram wants a key: set agent_key, or key in [agent]"),
        "vapi" => {
            want(key, "vapi wants a key: set agent_key, or key in [agent]");
            let named = ["assistantId", "assistant_id", "assistant"].iter().any(|name| told(name).is_some());
            want(named, "vapi wants to know which assistant: set agent_parameters.assistantId");
        }
        "elevenlabs" => {
            let what = "elevenlabs wants to know which agent: put agent_id=… into the address";
            want(told("agent_id").is_some(), what);
        }
        "jambonz" => {
            let rate = told("sampleRate");
            let known = rate.is_none_or(|rate| ["8000", "16000", "24000", "48000"].contains(&rate));
            want(known, "sampleRate must be 8000, 16000, 24000 or 48000: 16000 is used");
        }
        "asterisk" => {
            let formats =
                ["ulaw", "alaw", "slin", "slin12", "slin16", "slin24", "slin32", "slin44", "slin48"];
            let known = told("format").is_none_or(|format| formats.contains(&format));
            want(known, "format must be ulaw, alaw or slin to slin48: slin16 is used");
        }
        _ => {}
    }
    // In an address it may be escaped.
    let own = number.agent_parameters.get("settings").or_else(|| config.agent.parameters.get("settings"));
    let json = own.is_none_or(|text| serde_json::from_str::<serde_json::Value>(text).is_ok());
    want(json, "the parameter `settings` is not JSON: it is not used");
    missing
}
