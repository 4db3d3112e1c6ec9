//! What single keys can't tell: names that must exist, names that must differ, ports that must not collide.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::fault::{Fault, Place, nearest};
use super::private::{host_of, is_private_host};
use super::reader::{Reader, Section};
use super::sections::{Config, NumberConfig};
use super::template::Placeholder;
use super::units::{Destination, HostPort};
use super::{agents, hooks, money, sip};

/// The tables that the values came from, for their places.
pub(super) struct Sections<'d> {
    pub root: Place,
    pub gateway: Section<'d>,
    pub http: Section<'d>,
    pub keys: Vec<Section<'d>>,
    pub media: Section<'d>,
    pub sip: Section<'d>,
    pub trunks: Vec<Section<'d>>,
    pub numbers: Vec<Section<'d>>,
    pub rates: Vec<Section<'d>>,
    pub webhooks: Vec<Section<'d>>,
}

pub(super) fn check(r: &mut Reader<'_>, config: &Config, s: &Sections<'_>) {
    keys(r, config, s);
    ports(r, config, s);

    let names = config.trunks.iter().map(|trunk| trunk.name.as_str());
    different(r, &s.trunks, "name", names);
    sip::check(r, config, &s.trunks);

    let of = |field: fn(&NumberConfig) -> &str| config.numbers.iter().map(field);
    different(r, &s.numbers, "id", of(|number| &number.id));
    different(r, &s.numbers, "phone_number_id", of(|number| &number.phone_number_id));
    different(r, &s.numbers, "phone_number", of(|number| &number.phone_number));
    for (number, section) in config.numbers.iter().zip(&s.numbers) {
        check_number(r, config, s, number, section);
    }
    different(r, &s.rates, "prefix", config.rates.iter().map(|rate| rate.prefix.as_str()));
    money::check(r, &s.rates);
    different(r, &s.webhooks, "id", config.webhooks.iter().map(|webhook| webhook.id.as_str()));
    hooks::check(r, config, &s.webhooks);
    let number = Place { key: "number".to_owned(), ..s.root.clone() };
    if config.numbers.is_empty() && r.sound(&number) {
        r.note(&number, "there is none: no call can be taken");
    }
}

fn keys(r: &mut Reader<'_>, config: &Config, s: &Sections<'_>) {
    different(r, &s.keys, "name", config.http.keys.iter().map(|key| key.name.as_str()));
    let mut seen: Vec<[u8; 32]> = Vec::new();
    for (key, section) in config.http.keys.iter().zip(&s.keys) {
        let value = key.key.digest();
        // An empty key is one that had a fault.
        if seen.contains(&value) && !key.matches(b"") {
            let way = ["key", "key_file", "key_env", "key_sha256"].into_iter().find(|way| section.has(way));
            let at = r.at(section, way.unwrap_or("key"));
            // Which role a bearer has must not depend on the order of the file.
            r.fault(Fault::at(&at, "another [[http.key]] has the same key"));
        }
        seen.push(value);
    }
    if !config.http.listen.ip().is_loopback() {
        let at = r.at(&s.http, "listen");
        if r.sound(&at) {
            r.note(&at, "can be reached from other machines, without encryption");
        }
    }
}

/// No two sections may have the same value under this key. Empty values have a fault of their own already.
fn different<'v>(
    r: &mut Reader<'_>,
    sections: &[Section<'_>],
    key: &str,
    values: impl Iterator<Item = &'v str>,
) {
    let mut first: BTreeMap<&str, Place> = BTreeMap::new();
    for (value, section) in values.zip(sections).filter(|(value, _)| !value.is_empty()) {
        let at = r.at(section, key);
        match first.get(value) {
            Some(other) => {
                let what = format!("\"{value}\" is taken already by {} in line {}", other.key, other.line);
                r.fault(Fault::at(&at, what));
            }
            None => {
                first.insert(value, at);
            }
        }
    }
}

fn ports(r: &mut Reader<'_>, config: &Config, s: &Sections<'_>) {
    let (webrtc, rtp) = (config.media.webrtc_ports, config.media.rtp_ports);
    let (webrtc_at, rtp_at) = (r.at(&s.media, "webrtc_ports"), r.at(&s.media, "rtp_ports"));
    let mut addresses = vec![
        ("sip.listen", config.sip.listen, r.at(&s.sip, "listen")),
        ("http.listen", config.http.listen, r.at(&s.http, "listen")),
    ];
    if let Some(tls) = &config.sip.tls {
        addresses.insert(0, ("sip.tls_listen", tls.listen, r.at(&s.sip, "tls_listen")));
    }
    addresses.retain(|(_, _, at)| r.sound(at));

    if r.sound(&webrtc_at) && r.sound(&rtp_at) && webrtc.overlaps(rtp) {
        r.fault(Fault::at(&rtp_at, format!("{rtp} and media.webrtc_ports ({webrtc}) have ports in common")));
    }
    for (range, range_at) in [(webrtc, &webrtc_at), (rtp, &rtp_at)] {
        for (name, address, _) in &addresses {
            if r.sound(range_at) && range.contains(address.port()) {
                let what = format!("{range} holds port {}, which is that of {name}", address.port());
                r.fault(Fault::at(range_at, what));
            }
        }
    }
    for (index, (_, address, at)) in addresses.iter().enumerate() {
        for (other, theirs, _) in addresses.iter().skip(index + 1) {
            if collide(*address, *theirs) {
                r.fault(Fault::at(at, format!("is the address of {other} too ({theirs})")));
            }
        }
    }

    let max_at = r.at(&s.gateway, "max_calls");
    if !r.sound(&max_at) {
        return;
    }
    let max = config.gateway.max_calls;
    for (at, room, each) in [(webrtc_at, webrtc.count(), "1 port"), (rtp_at, rtp.pairs(), "2 ports")] {
        if r.sound(&at) && room < max {
            let fault = Fault::at(
                &at,
                format!("has room for {room} calls ({each} each), but gateway.max_calls is {max}"),
            );
            r.fault(fault.hint("widen it or lower max_calls"));
        }
    }
}

/// Whether both can't be bound at once. Port 0 is whatever is free.
fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    let same_ip = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() != 0 && a.port() == b.port() && same_ip
}

fn check_number(
    r: &mut Reader<'_>,
    config: &Config,
    s: &Sections<'_>,
    number: &NumberConfig,
    section: &Section<'_>,
) {
    let trunk_at = r.at(section, "trunk");
    if let Some(name) = &number.trunk
        && let Some(fault) = no_trunk(r, config, s, &trunk_at, name)
    {
        r.fault(fault);
    }

    let (national, international) = (&number.national_prefix, &number.international_prefix);
    let international_at = r.at(section, "international_prefix");
    if national == international && r.sound(&international_at) && r.sound(&r.at(section, "national_prefix")) {
        let what = format!("is that of national numbers too (\"{national}\")");
        r.fault(
            Fault::at(&international_at, what)
                .hint("give national_prefix or international_prefix another value"),
        );
    }
    if number.sip_auth_password.is_some() && number.sip_auth_username.is_none() {
        let at = r.at(section, "sip_auth_username");
        if r.sound(&at) {
            r.note(&at, "there is none: sip_auth_password is of no use without it");
        }
    }

    for (key, destination) in [("forward_to", &number.forward_to), ("fallback_to", &number.fallback_to)] {
        let at = r.at(section, key);
        if let Some(destination) = destination
            && r.sound(&at)
            && let Some(fault) = leads_nowhere(r, config, s, number, section, &at, destination)
        {
            r.fault(fault);
        }
    }
    check_fallback(r, number, section);
    agents::check(r, config, number, section);
    check_mint(r, config, number, section);
}

/// Says that there is neither a trunk nor a group of this name.
fn no_trunk(r: &Reader<'_>, config: &Config, s: &Sections<'_>, at: &Place, name: &str) -> Option<Fault> {
    // A trunk without a proper name may be the one that is meant.
    let named = s.trunks.iter().all(|trunk| ["name", "group"].iter().all(|key| r.sound(&r.at(trunk, key))));
    if !named || config.trunks.iter().any(|trunk| trunk.answers_to(name)) {
        return None;
    }
    let names = config.trunks.iter().flat_map(|trunk| [Some(trunk.name.as_str()), trunk.group.as_deref()]);
    let fault = Fault::at(at, format!("there is no [[trunk]] with the name \"{name}\""));
    Some(match nearest(name, names.flatten()) {
        Some(near) => fault.hint(format!("did you mean \"{near}\"?")),
        None => fault,
    })
}

/// What keeps a call from getting to this destination.
fn leads_nowhere(
    r: &Reader<'_>,
    config: &Config,
    s: &Sections<'_>,
    number: &NumberConfig,
    section: &Section<'_>,
    at: &Place,
    destination: &Destination,
) -> Option<Fault> {
    if number.mint.is_none()
        && destination.placeholders().contains(&Placeholder::Minted)
        && ["mint_url", "mint_body", "mint_field", "mint_key", "mint_key_file", "mint_key_env"]
            .iter()
            .all(|key| !section.has(key))
    {
        let fault = Fault::at(at, "has {minted}, but nothing says how to come by it");
        return Some(fault.hint("set mint_url, mint_body, mint_key and mint_field"));
    }
    match destination {
        Destination::Tel(_) => {
            if number.trunk.is_some() || !r.sound(&r.at(section, "trunk")) {
                return None;
            }
            let fault = Fault::at(at, "tel: needs a trunk that carries it");
            Some(match config.trunks.first() {
                Some(first) if !first.name.is_empty() => {
                    fault.hint(format!("set trunk = \"{}\"", first.name))
                }
                Some(_) | None => fault.hint("add a [[trunk]] and name it in `trunk`"),
            })
        }
        Destination::Sip { host, .. } => {
            let real = HostPort::parse(host).is_ok_and(|h| h.port.is_some() || h.host.contains(['.', ':']));
            if real { None } else { no_trunk(r, config, s, at, host) }
        }
        Destination::Wss(url) => {
            let meant =
                config.http.allow_private || !(is_private_host(host_of(url)) || url.starts_with("ws:"));
            (!meant).then(|| {
                let what = "leads to this machine or a private network, or is not encrypted";
                Fault::at(at, what).hint("set http.allow_private = true if that is meant")
            })
        }
    }
}

fn check_fallback(r: &mut Reader<'_>, number: &NumberConfig, section: &Section<'_>) {
    let Some(fallback) = &number.fallback_to else { return };
    let at = r.at(section, "fallback_to");
    match &number.forward_to {
        Some(Destination::Wss(_)) if Some(fallback) == number.forward_to.as_ref() => {
            let fault = Fault::at(&at, "is the same agent as that of forward_to, which has failed by then");
            r.fault(fault.hint("name a person or a queue: sip:user@trunk or tel:+number"));
        }
        Some(Destination::Wss(_)) => {}
        // Not a fault: a program that changes forward_to knows nothing of this key.
        None | Some(Destination::Tel(_) | Destination::Sip { .. }) => {
            r.note(&at, "of no use: it is for a voice agent that fails, and forward_to is none");
        }
    }
}

fn check_mint(r: &mut Reader<'_>, config: &Config, number: &NumberConfig, section: &Section<'_>) {
    let Some(mint) = &number.mint else { return };
    let at = r.at(section, "mint_url");
    if !config.http.allow_private && r.sound(&at) && is_private_host(host_of(&mint.url)) {
        let fault = Fault::at(&at, "leads to this machine or a private network");
        r.fault(fault.hint("set http.allow_private = true if that is meant"));
    }
    if mint.url.get(..5).is_some_and(|head| head.eq_ignore_ascii_case("http:")) {
        r.note(&at, "is not encrypted: mint_key can be read on the way");
    }
    let used = [&number.forward_to, &number.fallback_to]
        .into_iter()
        .flatten()
        .any(|destination| destination.placeholders().contains(&Placeholder::Minted));
    if !used {
        r.note(&at, "of no use: no destination of this number holds {minted}");
    }
}
