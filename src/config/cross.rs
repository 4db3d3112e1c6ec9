//! What single keys can't tell: names that must exist, names that must differ, ports that must not collide.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::fault::{Fault, Place, nearest};
use super::private::{host_of, is_private_host};
use super::reader::{Reader, Section};
use super::sections::{Config, NumberConfig, TrunkConfig};
use super::units::{Destination, HostPort};
use super::{hooks, money};

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
    for (trunk, section) in config.trunks.iter().zip(&s.trunks) {
        check_trunk(r, config, trunk, section);
    }

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
    let (sip_at, http_at) = (r.at(&s.sip, "listen"), r.at(&s.http, "listen"));
    let (sip, http) = (config.sip.listen, config.http.listen);

    if r.sound(&webrtc_at) && r.sound(&rtp_at) && webrtc.overlaps(rtp) {
        r.fault(Fault::at(&rtp_at, format!("{rtp} and media.webrtc_ports ({webrtc}) have ports in common")));
    }
    for (range, range_at) in [(webrtc, &webrtc_at), (rtp, &rtp_at)] {
        for (name, address, address_at) in [("sip.listen", sip, &sip_at), ("http.listen", http, &http_at)] {
            if r.sound(range_at) && r.sound(address_at) && range.contains(address.port()) {
                let what = format!("{range} holds port {}, which is that of {name}", address.port());
                r.fault(Fault::at(range_at, what));
            }
        }
    }
    if r.sound(&sip_at) && r.sound(&http_at) && collide(sip, http) {
        r.fault(Fault::at(&sip_at, format!("is the address of http.listen too ({http})")));
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

fn check_trunk(r: &mut Reader<'_>, config: &Config, trunk: &TrunkConfig, section: &Section<'_>) {
    let user_at = r.at(section, "username");
    if trunk.register && trunk.username.is_empty() && r.sound(&user_at) && r.sound(&r.at(section, "register"))
    {
        r.fault(
            Fault::at(&user_at, "is missing, but the trunk registers")
                .hint("set it, or register = false for a peer by address"),
        );
    }
    let password_given =
        ["password", "password_file", "password_env"].into_iter().any(|key| section.has(key));
    if trunk.register && !password_given {
        let at = r.at(section, "password");
        r.note(&at, "there is none: works only with a PBX that doesn't ask for one");
    }
    let server_at = r.at(section, "server");
    let listen = config.sip.listen;
    let itself = trunk.address.ip().is_some_and(|ip| {
        ip == listen.ip()
            || (ip.is_loopback() && listen.ip().is_unspecified())
            || Some(ip) == config.sip.public_ip
    });
    if itself && trunk.address.port.unwrap_or(5060) == listen.port() && r.sound(&server_at) {
        r.fault(
            Fault::at(&server_at, format!("is this gateway's own address (sip.listen is {listen})"))
                .hint("give one of the two another port"),
        );
    }
}

fn check_number(
    r: &mut Reader<'_>,
    config: &Config,
    s: &Sections<'_>,
    number: &NumberConfig,
    section: &Section<'_>,
) {
    // A trunk without a proper name may be the one that is meant.
    let named = s.trunks.iter().all(|trunk| r.sound(&r.at(trunk, "name")));
    let exists = |name: &str| !named || config.trunk(name).is_some();
    let near = |name: &str| nearest(name, config.trunks.iter().map(|trunk| trunk.name.as_str()));
    let no_trunk = |at: &Place, name: &str| {
        let fault = Fault::at(at, format!("there is no [[trunk]] with the name \"{name}\""));
        match near(name) {
            Some(near) => fault.hint(format!("did you mean \"{near}\"?")),
            None => fault,
        }
    };

    let trunk_at = r.at(section, "trunk");
    if let Some(name) = &number.trunk
        && !exists(name)
    {
        r.fault(no_trunk(&trunk_at, name));
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

    let forward_at = r.at(section, "forward_to");
    if !r.sound(&forward_at) {
        return;
    }
    match &number.forward_to {
        Some(Destination::Tel(_)) if number.trunk.is_none() && r.sound(&trunk_at) => {
            let fault = Fault::at(&forward_at, "tel: needs a trunk that carries it");
            r.fault(match config.trunks.first() {
                Some(first) if !first.name.is_empty() => {
                    fault.hint(format!("set trunk = \"{}\"", first.name))
                }
                Some(_) | None => fault.hint("add a [[trunk]] and name it in `trunk`"),
            });
        }
        Some(Destination::Sip { host, .. }) => {
            let real = HostPort::parse(host).is_ok_and(|h| h.port.is_some() || h.host.contains(['.', ':']));
            if !real && !exists(host) {
                r.fault(no_trunk(&forward_at, host));
            }
        }
        Some(Destination::Wss(url)) if !config.http.allow_private && r.sound(&forward_at) => {
            if is_private_host(host_of(url)) || url.starts_with("ws:") {
                let what = "leads to this machine or a private network, or is not encrypted";
                r.fault(Fault::at(&forward_at, what).hint("set http.allow_private = true if that is meant"));
            }
        }
        None | Some(Destination::Tel(_) | Destination::Wss(_)) => {}
    }
}
