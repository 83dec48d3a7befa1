//! Which addresses a node may be told to dial: on public networks only what is routed on the Internet, so that nobody can
//! make a node knock at the doors of the machines around it (OWASP API7, server-side request forgery).

use super::network::Network;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Cloud providers answer here with credentials of the machine that asks. No peer ever lives there.
const METADATA: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)), IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254))];

/// Whether a user's node may be told to connect to `ip`.
#[must_use]
pub fn allowed_peer(ip: IpAddr, network: Network) -> bool {
    if METADATA.contains(&ip.to_canonical()) {
        return false;
    }
    match (ip, network.is_playground()) {
        (ip, true) => match ip.to_canonical() {
            IpAddr::V4(ip) => !ip.is_unspecified() && !ip.is_multicast() && !ip.is_broadcast(),
            IpAddr::V6(ip) => !ip.is_unspecified() && !ip.is_multicast(),
        },
        (IpAddr::V4(ip), false) => is_global_v4(ip),
        (IpAddr::V6(ip), false) => is_global_v6(ip),
    }
}

/// Global unicast, after IANA's registry of special-purpose addresses.
fn is_global_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    let special = ip.is_private()
        || ip.is_loopback()
        || ip.is_link_local()
        || ip.is_documentation()
        || a == 0
        || a >= 224
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && (18..20).contains(&b));
    !special
}

/// Of 2000::/3 only, and without the parts that stand for IPv4 addresses (6to4, Teredo) or for nothing.
fn is_global_v6(ip: Ipv6Addr) -> bool {
    let [a, b, ..] = ip.segments();
    let global = a & 0xe000 == 0x2000;
    let protocols = a == 0x2001 && b < 0x0200;
    let documentation = (a == 0x2001 && b == 0x0db8) || (a == 0x3fff && b < 0x1000);
    let six_to_four = a == 0x2002;
    global && !protocols && !documentation && !six_to_four
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
