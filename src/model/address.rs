//! Which addresses a node may be told to dial: on public networks only what is routed on the Internet, so that nobody can
//! make a node knock at the doors of the machines around it (OWASP API7, server-side request forgery).

use super::network::Network;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether a user's node may be told to connect to `ip`.
#[must_use]
pub fn allowed_peer(ip: IpAddr, network: Network) -> bool {
    let ip = ip.to_canonical();
    let nonsense = ip.is_unspecified() || ip.is_multicast();
    !nonsense && (network.is_playground() || is_global(ip))
}

fn is_global(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => is_global_v4(v4),
        IpAddr::V6(v6) => is_global_v6(v6),
    }
}

/// After IANA's special-purpose registry (RFC 6890).
fn is_global_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    let shared = a == 100 && (64..128).contains(&b);
    let protocol = a == 192 && b == 0 && c == 0;
    let benchmark = a == 198 && (b == 18 || b == 19);
    let relay = a == 192 && b == 88 && c == 99;
    let reserved = a == 0 || a >= 240;
    !(ip.is_private()
        || ip.is_loopback()
        || ip.is_link_local()
        || ip.is_documentation()
        || ip.is_broadcast()
        || shared
        || protocol
        || benchmark
        || relay
        || reserved)
}

fn is_global_v6(ip: Ipv6Addr) -> bool {
    let segments = ip.segments();
    let global_unicast = segments[0] & 0xe000 == 0x2000;
    let documentation = segments[0] == 0x2001 && segments[1] == 0x0db8;
    let protocol = segments[0] == 0x2001 && segments[1] < 0x0200;
    // 6to4 carries an IPv4 address, and so may carry a private one.
    let six_to_four = segments[0] == 0x2002;
    global_unicast && !documentation && !protocol && !six_to_four
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_networks_allow_only_the_internet() {
        let refused = [
            "127.0.0.1",
            "10.0.0.1",
            "172.16.3.4",
            "192.168.1.1",
            "169.254.169.254",
            "0.0.0.0",
            "100.64.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "192.0.2.1",
            "198.18.0.1",
            "::1",
            "::",
            "fe80::1",
            "fc00::1",
            "::ffff:169.254.169.254",
            "::ffff:10.0.0.1",
            "2001:db8::1",
            "2002:a00:1::",
            "ff02::1",
            "64:ff9b::a00:1",
        ];
        for text in refused {
            let ip = text.parse().expect("an address");
            assert!(!allowed_peer(ip, Network::Mainnet), "{text}");
        }
        for text in ["1.1.1.1", "8.8.4.4", "2606:4700::1111"] {
            assert!(allowed_peer(text.parse().expect("an address"), Network::Mainnet), "{text}");
        }
    }

    #[test]
    fn playgrounds_allow_private_ones() {
        assert!(allowed_peer("127.0.0.1".parse().expect("an address"), Network::Simnet));
        assert!(!allowed_peer("0.0.0.0".parse().expect("an address"), Network::Regtest));
    }
}
