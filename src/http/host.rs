//! The address of a peer that a user gives: resolved once, checked, and handed to lnd as a literal.
//!
//! lnd would connect to whatever it is told, from inside our network, so what a name resolves to decides, not the name;
//! and since the literal is handed on, it cannot resolve to something else afterwards.

use super::params;
use super::places::Place;
use crate::model::address::allowed_peer;
use crate::model::network::Network;
use crate::model::problem::Refusal;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::time::Duration;

const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);

/// A host name or literal address, and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    host: String,
    port: u16,
}

impl HostPort {
    /// Reads `name:port`, `192.0.2.1:port` or `[2001:db8::1]:port`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let form = || Err("must be host:port, without a scheme or a path".to_owned());
        if text.contains("://") || text.len() > 260 {
            return form();
        }
        let Some((host, port)) = text.rsplit_once(':') else { return Err("must have a port: host:port".to_owned()) };
        let Some(port) = number(port) else { return Err("must have a port from 1 to 65535: host:port".to_owned()) };
        if let Some(inner) = host.strip_prefix('[') {
            let literal = inner.strip_suffix(']').and_then(|inner| inner.parse::<Ipv6Addr>().ok());
            return literal.map_or_else(form, |ip| Ok(Self { host: ip.to_string(), port }));
        }
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        };
        let name = host.strip_suffix('.').unwrap_or(host);
        if name.len() > 253 || !name.split('.').all(label) {
            return form();
        }
        Ok(Self { host: name.to_owned(), port })
    }

    /// Resolves the name and picks an address that peers may have on this network. A name needs a `place`.
    ///
    /// # Errors
    /// A refusal that names `host`: it does not resolve, or only to what is not allowed. That there is no place.
    pub(super) async fn resolve(
        &self,
        network: Network,
        place: impl FnOnce() -> Result<Place, Refusal>,
    ) -> Result<SocketAddr, Refusal> {
        let found = match self.host.parse::<IpAddr>() {
            Ok(literal) => vec![SocketAddr::new(literal, self.port)],
            Err(_) => {
                let (name, port) = (self.host.clone(), self.port);
                let look_up = move || (name.as_str(), port).to_socket_addrs().map(Iterator::collect);
                within(RESOLVE_TIMEOUT, place()?, look_up).await
            }
        };
        pick(&found, network).map_err(|message| params::fault("host", message))
    }
}

/// What `look_up` finds within `limit`. It blocks a thread, which nothing can end: its place is taken until it has ended by
/// itself, however long anybody waits for it.
async fn within<F>(limit: Duration, place: Place, look_up: F) -> Vec<SocketAddr>
where
    F: FnOnce() -> std::io::Result<Vec<SocketAddr>> + Send + 'static,
{
    let looking = tokio::task::spawn_blocking(move || {
        let _until_it_has_ended = place;
        look_up()
    });
    match tokio::time::timeout(limit, looking).await {
        Ok(Ok(Ok(found))) => found,
        Ok(Ok(Err(_)) | Err(_)) | Err(_) => Vec::new(),
    }
}

fn number(port: &str) -> Option<u16> {
    let digits = port.bytes().all(|b| b.is_ascii_digit());
    port.parse().ok().filter(|&port| digits && port > 0)
}

fn pick(found: &[SocketAddr], network: Network) -> Result<SocketAddr, String> {
    let Some(_) = found.first() else { return Err("does not resolve".to_owned()) };
    let allowed = found.iter().find(|address| allowed_peer(address.ip(), network));
    allowed.copied().ok_or_else(|| format!("is not an address that a peer may have on {network}"))
}

#[cfg(test)]
mod tests {
    use super::super::auth::Caller;
    use super::super::places::Places;
    use super::*;
    use crate::model::app::Scope;
    use crate::model::problem::Code;
    use std::sync::mpsc;

    #[test]
    fn the_form_is_host_and_port() {
        for good in
            ["192.0.2.1:9735", "[2001:db8::1]:9735", "node.example.com:1", "localhost:65535", "example.com.:9735"]
        {
            assert!(HostPort::parse(good).is_ok(), "{good}");
        }
        let bad = [
            "",
            ":",
            "example.com",
            "example.com:",
            "example.com:0",
            "example.com:65536",
            "example.com:+1",
            ":9735",
            "http://example.com:80",
            "tcp://1.2.3.4:9735",
            "2001:db8::1:9735:",
            "2001:db8::1",
            "[::1]",
            "[x]:1",
            "a b:1",
            "a/b:1",
            "user@host:1",
            "host:1/path",
            "a..b:1",
            "host:99999999999",
        ];
        for bad in bad {
            assert!(HostPort::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn public_networks_take_global_unicast_only() {
        let refused = [
            "127.0.0.1",
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",
            "169.254.0.1",
            "0.0.0.0",
            "0.1.2.3",
            "100.64.0.1",
            "100.127.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "198.51.100.1",
            "203.0.113.1",
            "198.18.0.1",
            "198.19.255.255",
            "192.88.99.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "fc00::1",
            "fd00:ec2::254",
            "ff02::1",
            "::ffff:10.0.0.1",
            "::ffff:8.8.8.8",
            "::10.0.0.1",
            "64:ff9b::a00:1",
            "2001::1",
            "2001:db8::1",
            "2002:a00:1::",
            "3fff::1",
            "100::1",
            "5f00::1",
        ];
        let allowed = [
            "8.8.8.8",
            "100.63.255.255",
            "100.128.0.0",
            "172.32.0.1",
            "192.0.1.1",
            "198.20.0.1",
            "223.255.255.255",
            "2600::1",
            "2a00:1450::1",
            "2001:4860::1",
        ];
        for network in [Network::Mainnet, Network::Signet, Network::Testnet4] {
            for ip in refused {
                assert!(!allowed_peer(ip.parse().expect("ip"), network), "{ip} on {network}");
            }
            for ip in allowed {
                assert!(allowed_peer(ip.parse().expect("ip"), network), "{ip} on {network}");
            }
        }
    }

    #[test]
    fn playgrounds_take_private_machines_and_still_no_metadata_service() {
        for ip in ["127.0.0.1", "10.0.0.1", "192.168.1.1", "169.254.0.1", "::1", "fe80::1", "8.8.8.8"] {
            assert!(allowed_peer(ip.parse().expect("ip"), Network::Simnet), "{ip}");
        }
        for ip in [
            "0.0.0.0",
            "::",
            "224.0.0.1",
            "255.255.255.255",
            "169.254.169.254",
            "::ffff:169.254.169.254",
            "fd00:ec2::254",
        ] {
            assert!(!allowed_peer(ip.parse().expect("ip"), Network::Regtest), "{ip}");
        }
    }

    #[test]
    fn one_allowed_address_among_others_is_picked() {
        let found = ["10.0.0.1:1".parse().expect("address"), "8.8.8.8:1".parse().expect("address")];
        assert_eq!(pick(&found, Network::Mainnet), Ok(found[1]));
        assert_eq!(pick(&found, Network::Simnet), Ok(found[0]));
        assert!(pick(&found[..1], Network::Mainnet).is_err());
    }

    #[tokio::test]
    async fn names_are_resolved_to_literals() {
        let (places, caller) = (Places::new(2, 1), Caller::of(Some("shop"), &[Scope::Manage]));
        let place = || places.take(&caller);
        let localhost = HostPort::parse("localhost:9735").expect("form");
        let address = localhost.resolve(Network::Simnet, place).await.expect("allowed on simnet");
        assert!(address.ip().is_loopback() && address.port() == 9735);
        let refusal = localhost.resolve(Network::Mainnet, place).await.expect_err("not on mainnet");
        assert_eq!((refusal.code, refusal.faults[0].parameter.as_str()), (Code::InvalidParameters, "host"));
        let nowhere = HostPort::parse("no-such-host.invalid:9735").expect("form");
        let refusal = nowhere.resolve(Network::Simnet, place).await.expect_err("nowhere");
        assert_eq!(refusal.code, Code::InvalidParameters);
    }

    #[tokio::test]
    async fn a_look_up_that_nobody_waits_for_any_longer_keeps_its_place() {
        let (places, caller) = (Places::new(1, 1), Caller::of(Some("shop"), &[Scope::Manage]));
        let (answer, answered) = mpsc::channel::<()>();
        let hangs = move || {
            let _ = answered.recv();
            Ok(Vec::new())
        };
        let place = places.take(&caller).expect("the only one");
        assert_eq!(within(Duration::from_millis(10), place, hangs).await, []);
        let name = HostPort::parse("localhost:9735").expect("form");
        let refusal = name.resolve(Network::Simnet, || places.take(&caller)).await.expect_err("no place");
        assert_eq!(refusal.code, Code::Overloaded);
        let literal = HostPort::parse("127.0.0.1:9735").expect("form");
        assert!(literal.resolve(Network::Simnet, || places.take(&caller)).await.is_ok(), "this one asks nobody");
        drop(answer);
        let freed = async {
            while places.take(&caller).is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), freed).await.expect("the place comes back");
    }
}
