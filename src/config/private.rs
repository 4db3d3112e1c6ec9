//! Addresses that nobody outside must make the gateway talk to: this machine and private networks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::units::HostPort;

/// Whether an address belongs to this machine, to a private network or to nobody: loopback, link-local, private
/// (RFC 1918, RFC 4193), shared (RFC 6598), benchmarking, documentation, multicast, reserved. IPv4 inside IPv6
/// (mapped, NAT64 of RFC 6052, 6to4 of RFC 3056, Teredo of RFC 4380) counts as IPv4.
pub fn is_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => private_v4(address),
        IpAddr::V6(address) => private_v6(address),
    }
}

fn private_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || address.is_multicast()
        || a == 0
        || a >= 240
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 198 && (b == 18 || b == 19))
}

fn private_v6(address: Ipv6Addr) -> bool {
    let s = address.segments();
    let v4 = |high: u16, low: u16| private_v4(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)));
    match s {
        [0, 0, 0, 0, 0, 0, high, low] => high == 0 || v4(high, low),
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => v4(high, low),
        [0x64, 0xff9b, 1, ..] => true,
        [0x2002, high, low, ..] => v4(high, low),
        [0x2001, 0, ..] => true,
        [0x2001, 0xdb8, ..] => true,
        // Global unicast is 2000::/3: all else is local, multicast or not given out.
        [first, ..] => first & 0xe000 != 0x2000,
    }
}

/// Whether a host is certainly private by its name or address alone. A DNS name may still lead to a private
/// address: [`is_private`] must be asked again once it is known.
pub fn is_private_host(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = host.parse::<IpAddr>() {
        return is_private(address);
    }
    let name = host.trim_end_matches('.').to_ascii_lowercase();
    let last = name.rsplit('.').next().unwrap_or("");
    // RFC 6761 §6.3, RFC 6762 §3, RFC 8375, and the names that only a local network can know.
    matches!(last, "localhost" | "local" | "internal" | "localdomain" | "lan")
        || name.ends_with("home.arpa")
        || !name.contains('.')
}

/// The host of an address that has been found valid, without brackets and port.
pub(super) fn host_of(url: &str) -> &str {
    let authority = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = authority.split(['/', '?', '#']).next().unwrap_or("");
    match HostPort::parse(authority) {
        Ok(read) => authority.trim_start_matches('[').get(..read.host.len()).unwrap_or(authority),
        Err(_) => authority,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_private_is_told_from_what_is_public() {
        let private = [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.0.1",
            "169.254.169.254",
            "100.64.0.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "fc00::1",
            "fd12::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "2002:7f00:1::",
            "2001:db8::1",
            "ff02::1",
            "::127.0.0.1",
            "fec0::1",
        ];
        for address in private {
            assert!(is_private(address.parse().unwrap()), "{address} was taken for public");
            assert!(is_private_host(address), "{address} was taken for public");
        }
        let public =
            ["8.8.8.8", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"];
        for address in public {
            assert!(!is_private(address.parse().unwrap()), "{address} was taken for private");
        }
        for name in ["localhost", "LOCALHOST.", "a.localhost", "printer", "nas.local", "db.internal", "[::1]"]
        {
            assert!(is_private_host(name), "{name} was taken for public");
        }
        for name in ["example.com", "localhost.example.com", "[2606:4700::1111]"] {
            assert!(!is_private_host(name), "{name} was taken for private");
        }
    }

    #[test]
    fn the_host_of_an_address_is_without_port_path_and_query() {
        assert_eq!(host_of("https://a.example:8443/x?y=z"), "a.example");
        assert_eq!(host_of("http://[2001:db8::9]:80/"), "2001:db8::9");
        assert_eq!(host_of("https://a.example?x"), "a.example");
    }
}
