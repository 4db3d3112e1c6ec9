//! Where a SIP URI leads (RFC 3263): what to ask the DNS for, and in which order to try what it answers.
//!
//! ```text
//!  host, port?, transport? ──► plan ──┬── address, or port, or both ──────────────► A/AAAA
//!                                     ├── transport ──────────────────────► SRV ──► A/AAAA
//!                                     └── neither ───────────────► NAPTR ─► SRV ──► A/AAAA
//! ```

use std::net::IpAddr;

use super::Transport;

/// What a URI says of where to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// A host name, or an address without brackets.
    pub host: String,
    /// The port, if one is given.
    pub port: Option<u16>,
    /// The transport, if one is given.
    pub transport: Option<Transport>,
    /// Whether it is a `sips:` URI.
    pub secure: bool,
}

/// What has to be asked for next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// Nothing: this is the address.
    Numeric(Transport, IpAddr, u16),
    /// The host's A and AAAA, with this transport and port.
    Address(Transport, u16),
    /// SRV of these names, in this order, each with its transport.
    Srv(Vec<(Transport, String)>),
    /// NAPTR of the host ([`by_naptr`]); if it has none, as [`Plan::Srv`] with [`services`].
    Naptr,
}

/// What RFC 3263 §4.1 and §4.2 want for a target. A `sips:` URI goes over TLS, whatever its transport says.
pub fn plan(target: &Target) -> Plan {
    let transport = if target.secure { Transport::Tls } else { target.transport.unwrap_or(Transport::Udp) };
    if let Ok(ip) = target.host.parse::<IpAddr>() {
        return Plan::Numeric(transport, ip.to_canonical(), target.port.unwrap_or(transport.usual_port()));
    }
    match (target.port, target.transport) {
        (Some(port), _) => Plan::Address(transport, port),
        (None, Some(_)) => Plan::Srv(vec![(transport, service(transport, &target.host))]),
        (None, None) => Plan::Naptr,
    }
}

/// `_sip._udp.example.com` (RFC 3263 §4.1).
fn service(transport: Transport, host: &str) -> String {
    let service = match transport {
        Transport::Udp => "_sip._udp",
        Transport::Tcp => "_sip._tcp",
        Transport::Tls => "_sips._tcp",
    };
    format!("{service}.{host}")
}

/// The SRV names of a target without NAPTR records (§4.1): UDP before TCP before TLS, as a bare `sip:` URI means
/// UDP; for `sips:` TLS alone.
pub fn services(target: &Target) -> Vec<(Transport, String)> {
    [Transport::Udp, Transport::Tcp, Transport::Tls]
        .into_iter()
        .filter(|transport| !target.secure || *transport == Transport::Tls)
        .map(|transport| (transport, service(transport, &target.host)))
        .collect()
}

/// A NAPTR record (RFC 3403 §4.1), as far as SIP reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Naptr {
    /// Lower comes first, and decides.
    pub order: u16,
    /// Among one order: lower comes first.
    pub preference: u16,
    /// `s`: the replacement has SRV records.
    pub flags: String,
    /// `SIP+D2U` and its like.
    pub services: String,
    /// The name to ask next.
    pub replacement: String,
}

/// The SRV names that NAPTR records lead to, the best first, each once. Services that are not SIP's, that we don't
/// speak (SCTP), or that a `sips:` URI (`secure`) forbids, are left out.
pub fn by_naptr(records: &[Naptr], secure: bool) -> Vec<(Transport, String)> {
    let mut sorted: Vec<&Naptr> = Vec::with_capacity(records.len());
    for record in records {
        let rank = (record.order, record.preference);
        let at = sorted.partition_point(|other| (other.order, other.preference) <= rank);
        sorted.insert(at, record);
    }
    let mut found: Vec<(Transport, String)> = Vec::new();
    for record in sorted {
        let transport = match record.services.to_ascii_uppercase().as_str() {
            "SIP+D2U" => Transport::Udp,
            "SIP+D2T" => Transport::Tcp,
            "SIPS+D2T" => Transport::Tls,
            _ => continue,
        };
        if secure && transport != Transport::Tls {
            continue;
        }
        let next = (transport, record.replacement.clone());
        if record.flags.eq_ignore_ascii_case("s") && !record.replacement.is_empty() && !found.contains(&next)
        {
            found.push(next);
        }
    }
    found
}

/// An SRV record (RFC 2782).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Srv {
    /// Lower comes first.
    pub priority: u16,
    /// Its share among those of one priority.
    pub weight: u16,
    /// The port of the service.
    pub port: u16,
    /// The host that has the addresses.
    pub target: String,
}

/// SRV records in the order in which to try them: by priority, and in one priority drawn by weight (RFC 2782,
/// "Usage rules"). `seed` is the chance. A target of "." means that there is no such service: it is left out.
pub fn in_order(records: &[Srv], seed: u64) -> Vec<Srv> {
    // Those without weight first: they are drawn only by the zero. The rest of the rank makes one seed give one order,
    // however the server shuffles its answer.
    fn rank(record: &Srv) -> (u16, bool, &str, u16) {
        (record.priority, record.weight > 0, &record.target, record.port)
    }
    let mut left: Vec<&Srv> = Vec::with_capacity(records.len());
    for record in records.iter().filter(|record| !matches!(record.target.as_str(), "" | ".")) {
        let at = left.partition_point(|other| rank(other) <= rank(record));
        left.insert(at, record);
    }
    let mut ordered = Vec::with_capacity(left.len());
    let mut chance = seed;
    while let Some(priority) = left.first().map(|record| record.priority) {
        let alike = left.iter().take_while(|record| record.priority == priority);
        let total: u64 = alike.clone().map(|record| u64::from(record.weight)).sum();
        let drawn = next(&mut chance) % (total + 1);
        let mut sum = 0;
        let at = alike.clone().position(|record| {
            sum += u64::from(record.weight);
            sum >= drawn
        });
        ordered.push(left.remove(at.unwrap_or(0)).clone());
    }
    ordered
}

/// The next number of a seed (SplitMix64): order among servers needs no secrets.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn target(host: &str, port: Option<u16>, transport: Option<Transport>, secure: bool) -> Target {
        Target { host: host.to_owned(), port, transport, secure }
    }

    #[test]
    fn an_address_or_a_port_needs_no_srv() {
        let ip: IpAddr = "192.0.2.1".parse().unwrap();
        assert_eq!(plan(&target("192.0.2.1", None, None, false)), Plan::Numeric(Transport::Udp, ip, 5060));
        assert_eq!(plan(&target("192.0.2.1", None, None, true)), Plan::Numeric(Transport::Tls, ip, 5061));
        assert_eq!(
            plan(&target("::ffff:192.0.2.1", Some(7), Some(Transport::Tcp), false)),
            Plan::Numeric(Transport::Tcp, ip, 7)
        );
        assert_eq!(plan(&target("pbx.test", Some(5060), None, false)), Plan::Address(Transport::Udp, 5060));
        assert_eq!(plan(&target("pbx.test", Some(5062), None, true)), Plan::Address(Transport::Tls, 5062));
    }

    #[test]
    fn a_transport_asks_for_its_own_service_and_a_bare_name_for_naptr() {
        for (transport, name) in [
            (Transport::Udp, "_sip._udp.pbx.test"),
            (Transport::Tcp, "_sip._tcp.pbx.test"),
            (Transport::Tls, "_sips._tcp.pbx.test"),
        ] {
            let plan = plan(&target("pbx.test", None, Some(transport), false));
            assert_eq!(plan, Plan::Srv(vec![(transport, name.to_owned())]));
        }
        assert_eq!(plan(&target("pbx.test", None, None, false)), Plan::Naptr);
        let sips = plan(&target("pbx.test", None, Some(Transport::Tcp), true));
        assert_eq!(sips, Plan::Srv(vec![(Transport::Tls, "_sips._tcp.pbx.test".to_owned())]));
        assert_eq!(plan(&target("pbx.test", None, None, true)), Plan::Naptr);
        assert_eq!(services(&target("pbx.test", None, None, true)).len(), 1);
        assert_eq!(services(&target("pbx.test", None, None, false)).len(), 3);
    }

    fn naptr(order: u16, preference: u16, flags: &str, services: &str, replacement: &str) -> Naptr {
        Naptr {
            order,
            preference,
            flags: flags.to_owned(),
            services: services.to_owned(),
            replacement: replacement.to_owned(),
        }
    }

    #[test]
    fn naptr_goes_by_order_then_preference_and_knows_its_services() {
        let records = [
            naptr(100, 20, "s", "SIP+D2U", "udp.test"),
            naptr(90, 50, "S", "sips+d2t", "tls.test"),
            naptr(100, 10, "s", "SIP+D2T", "tcp.test"),
            naptr(10, 1, "s", "SIP+D2S", "sctp.test"),
            naptr(10, 1, "u", "E2U+sip", "enum.test"),
            naptr(200, 1, "s", "SIP+D2U", "udp.test"),
        ];
        let found: Vec<(Transport, String)> = by_naptr(&records, false);
        let expected =
            [(Transport::Tls, "tls.test"), (Transport::Tcp, "tcp.test"), (Transport::Udp, "udp.test")];
        assert_eq!(found, expected.map(|(transport, name)| (transport, name.to_owned())));
        assert_eq!(by_naptr(&records, true), [(Transport::Tls, "tls.test".to_owned())]);
    }

    fn srv(priority: u16, weight: u16, target: &str) -> Srv {
        Srv { priority, weight, port: 5060, target: target.to_owned() }
    }

    #[test]
    fn srv_goes_by_priority_and_by_weight_in_its_shares() {
        let records = [srv(20, 0, "last"), srv(10, 10, "seldom"), srv(10, 90, "often"), srv(0, 0, ".")];
        let mut first: BTreeMap<String, u32> = BTreeMap::new();
        for seed in 0..2_000 {
            let order = in_order(&records, seed);
            assert_eq!((order.len(), order[2].target.as_str()), (3, "last"));
            *first.entry(order[0].target.clone()).or_default() += 1;
        }
        assert_eq!(first.len(), 2);
        assert!((1_700..1_900).contains(&first["often"]), "{first:?}");
        let turned: Vec<Srv> = records.iter().rev().cloned().collect();
        assert_eq!(in_order(&records, 7), in_order(&turned, 7), "one seed, one order");
    }

    #[test]
    fn servers_without_weight_are_all_tried() {
        let records = [srv(1, 0, "a"), srv(1, 0, "b"), srv(1, 65_535, "c")];
        for seed in 0..50 {
            let mut names: Vec<String> =
                in_order(&records, seed).into_iter().map(|each| each.target).collect();
            names.sort();
            assert_eq!(names, ["a", "b", "c"]);
        }
    }
}
