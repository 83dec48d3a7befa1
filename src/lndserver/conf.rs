//! Writes an lnd.conf. Everything lnd is told is in this file, which only the agent's user can read; nothing secret is in
//! its arguments or its environment.

use super::backend::Backend;
use super::files::NodeDir;
use super::spec::NodeSpec;
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

/// The ports of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// gRPC.
    pub rpc: u16,
    /// Peers.
    pub p2p: u16,
    /// REST.
    pub rest: u16,
}

impl Ports {
    /// Those of `slot`; `None` past the last port.
    #[must_use]
    pub fn of_slot(base: u16, slot: u16) -> Option<Self> {
        let rpc = base.checked_add(slot.checked_mul(3)?)?;
        Some(Self { rpc, p2p: rpc.checked_add(1)?, rest: rpc.checked_add(2)? })
    }
}

/// File names in the node's instance folder. lnd's certificate: whatever `tlscertpath` says, an lnd whose folder is not the
/// default one looks there, and makes its own where there is none.
pub const TLS_CERT: &str = "lnd/tls.cert";
/// lnd's TLS key.
pub const TLS_KEY: &str = "lnd/tls.key";
/// The configuration itself.
pub const LND_CONF: &str = "lnd.conf";
/// The chain backend's certificate.
pub const BACKEND_CERT: &str = "backend.cert";

/// The text of the lnd.conf.
#[must_use]
pub fn render(spec: &NodeSpec, dir: &NodeDir, address: IpAddr, ports: Ports) -> String {
    let mut conf = Conf(String::new());
    let at = |port| SocketAddr::new(address, port);
    conf.group("Application Options");
    conf.path("lnddir", &dir.lnd());
    conf.path("tlscertpath", &dir.instance(TLS_CERT));
    conf.path("tlskeypath", &dir.instance(TLS_KEY));
    conf.set("rpclisten", at(ports.rpc));
    conf.set("listen", at(ports.p2p));
    if spec.rest {
        conf.set("restlisten", at(ports.rest));
    } else {
        conf.set("norest", true);
    }
    if !spec.alias.is_empty() {
        conf.set("alias", &spec.alias);
    }
    // lnd looks for peers of the lightning network under names it knows by the genesis block, which all signets share: in
    // another signet it would come to the nodes of the public one.
    if spec.network.is_playground() || spec.signet.challenge.is_some() {
        conf.set("nobootstrap", true);
    }
    // What lnd says before its log is there, and what it dies of, goes to its output; the rest only to its log.
    conf.set("logging.console.disable", true);
    // Masters ping idle connections, to notice a host that vanished.
    conf.set("grpc.client-allow-ping-without-stream", true);
    conf.set(&format!("bitcoin.{}", spec.network), true);
    signet(&mut conf, spec);
    backend(&mut conf, &spec.backend, dir);
    for option in &spec.options {
        conf.set(option.name(), option.value());
    }
    conf.0
}

fn signet(conf: &mut Conf, spec: &NodeSpec) {
    // Whatever signet a bitcoind is on, lnd takes it for the public one (it asks for the genesis block), and refuses it
    // where it was told of another.
    if let Some(challenge) = &spec.signet.challenge
        && !matches!(spec.backend, Backend::Bitcoind { .. })
    {
        conf.set("bitcoin.signetchallenge", challenge);
    }
    for name in &spec.signet.seed_nodes {
        conf.set("bitcoin.signetseednode", name);
    }
}

fn backend(conf: &mut Conf, backend: &Backend, dir: &NodeDir) {
    match backend {
        Backend::Btcd { rpc_host, rpc_user, rpc_password, .. } => {
            conf.set("bitcoin.node", "btcd");
            conf.set("btcd.rpchost", rpc_host);
            conf.set("btcd.rpcuser", rpc_user);
            conf.set("btcd.rpcpass", rpc_password.expose());
            conf.path("btcd.rpccert", &dir.instance(BACKEND_CERT));
        }
        Backend::Bitcoind { rpc_host, rpc_user, rpc_password, zmq } => {
            conf.set("bitcoin.node", "bitcoind");
            conf.set("bitcoind.rpchost", rpc_host);
            conf.set("bitcoind.rpcuser", rpc_user);
            conf.set("bitcoind.rpcpass", rpc_password.expose());
            match zmq {
                Some(zmq) => {
                    conf.set("bitcoind.zmqpubrawblock", &zmq.block);
                    conf.set("bitcoind.zmqpubrawtx", &zmq.tx);
                }
                None => conf.set("bitcoind.rpcpolling", true),
            }
        }
        Backend::Neutrino { peers, other_peers, headers } => {
            conf.set("bitcoin.node", "neutrino");
            let name = if *other_peers { "neutrino.addpeer" } else { "neutrino.connect" };
            for peer in peers {
                conf.set(name, peer);
            }
            if let Some(headers) = headers {
                conf.set("neutrino.blockheaderssource", &headers.block);
                conf.set("neutrino.filterheaderssource", &headers.filter);
            }
        }
        Backend::None => conf.set("bitcoin.node", "nochainbackend"),
    }
}

struct Conf(String);

impl Conf {
    fn group(&mut self, name: &str) {
        self.push(format_args!("[{name}]\n"));
    }

    /// A value that begins with a quote is read as a Go string, so it is written as one.
    fn set(&mut self, name: &str, value: impl ToString) {
        let value = value.to_string();
        if value.starts_with('"') || value.trim() != value {
            let escaped = value.replace('\\', "\\\\").replace('"', "\\\"");
            self.push(format_args!("{name}=\"{escaped}\"\n"));
        } else {
            self.push(format_args!("{name}={value}\n"));
        }
    }

    fn path(&mut self, name: &str, path: &Path) {
        self.set(name, path.display());
    }

    fn push(&mut self, text: std::fmt::Arguments<'_>) {
        // A String takes everything.
        let _ = self.0.write_fmt(text);
    }
}

#[cfg(test)]
mod tests {
    use super::super::backend::{HeaderSources, Zmq};
    use super::super::files::DataDir;
    use super::super::options::LndOption;
    use super::super::spec::{Password, Signet};
    use super::*;
    use crate::model::{Network, NodeId};

    fn conf(backend: Backend, rest: bool) -> String {
        conf_on(Network::Simnet, Signet::default(), backend, rest)
    }

    fn conf_on(network: Network, signet: Signet, backend: Backend, rest: bool) -> String {
        let folder = tempfile::tempdir().unwrap();
        let node = NodeId::parse("n000000000000000000000000").unwrap();
        let dir = DataDir::open(folder.path()).unwrap().node(&node);
        let options = vec![LndOption::parse("protocol.wumbo-channels").unwrap()];
        let spec =
            NodeSpec { node, slot: 1, network, backend, alias: " alice ".to_owned(), rest, options, signet, lnd: None };
        let ports = Ports::of_slot(10_100, spec.slot).unwrap();
        render(&spec, &dir, [127, 0, 0, 1].into(), ports).replace(&*dir.path().to_string_lossy(), "DIR")
    }

    #[test]
    fn everything_lnd_is_told() {
        let backend = Backend::Btcd {
            rpc_host: "127.0.0.1:18556".to_owned(),
            rpc_user: "user".to_owned(),
            rpc_password: Password::from("\"a\\b".to_owned()),
            certificate_pem: String::new(),
        };
        insta::assert_snapshot!(conf(backend, true), @r#"
        [Application Options]
        lnddir=DIR/instance/lnd
        tlscertpath=DIR/instance/lnd/tls.cert
        tlskeypath=DIR/instance/lnd/tls.key
        rpclisten=127.0.0.1:10103
        listen=127.0.0.1:10104
        restlisten=127.0.0.1:10105
        alias=" alice "
        nobootstrap=true
        logging.console.disable=true
        grpc.client-allow-ping-without-stream=true
        bitcoin.simnet=true
        bitcoin.node=btcd
        btcd.rpchost=127.0.0.1:18556
        btcd.rpcuser=user
        btcd.rpcpass="\"a\\b"
        btcd.rpccert=DIR/instance/backend.cert
        protocol.wumbo-channels=true
        "#);
    }

    fn neutrino(peers: &[&str], other_peers: bool, headers: Option<HeaderSources>) -> Backend {
        Backend::Neutrino { peers: peers.iter().map(|&peer| peer.to_owned()).collect(), other_peers, headers }
    }

    fn bitcoind(zmq: Option<Zmq>) -> Backend {
        let (rpc_host, rpc_user) = ("h:1".to_owned(), "u".to_owned());
        Backend::Bitcoind { rpc_host, rpc_user, rpc_password: Password::from("p".to_owned()), zmq }
    }

    #[test]
    fn other_backends() {
        let only_these = conf(neutrino(&["a:1", "b:2"], false, None), false);
        assert!(only_these.contains("norest=true\n") && !only_these.contains("restlisten"));
        let lines = "bitcoin.node=neutrino\nneutrino.connect=a:1\nneutrino.connect=b:2\nprotocol";
        assert!(only_these.contains(lines), "{only_these}");
        let headers = HeaderSources { block: "/b".to_owned(), filter: "https://f".to_owned() };
        let others = conf(neutrino(&["a:1"], true, Some(headers)), false);
        let lines = "neutrino.addpeer=a:1\nneutrino.blockheaderssource=/b\nneutrino.filterheaderssource=https://f\n";
        assert!(others.contains(lines) && !others.contains("connect"), "{others}");

        let polled = conf(bitcoind(None), false);
        assert!(polled.contains("bitcoind.rpcpolling=true\n") && !polled.contains("zmq"), "{polled}");
        let zmq = Zmq { block: "tcp://h:2".to_owned(), tx: "tcp://h:3".to_owned() };
        let told = conf(bitcoind(Some(zmq)), false);
        let lines = "bitcoind.zmqpubrawblock=tcp://h:2\nbitcoind.zmqpubrawtx=tcp://h:3\n";
        assert!(told.contains(lines) && !told.contains("rpcpolling"), "{told}");
    }

    #[test]
    fn lnds_of_a_signet_of_ones_own_do_not_come_to_the_public_one() {
        let own = || Signet { challenge: Some("5121ab51ae".to_owned()), seed_nodes: vec!["seed.example".to_owned()] };
        let told = conf_on(Network::Signet, own(), neutrino(&[], false, None), false);
        let lines = "bitcoin.signet=true\nbitcoin.signetchallenge=5121ab51ae\nbitcoin.signetseednode=seed.example\n";
        assert!(told.contains(lines) && told.contains("nobootstrap=true\n"), "{told}");
        let of_bitcoind = conf_on(Network::Signet, own(), bitcoind(None), false);
        assert!(!of_bitcoind.contains("challenge") && of_bitcoind.contains("nobootstrap=true\n"), "{of_bitcoind}");
        for network in [Network::Testnet4, Network::Signet, Network::Mainnet] {
            let public = conf_on(network, Signet::default(), neutrino(&[], false, None), false);
            assert!(!public.contains("nobootstrap") && !public.contains("signetchallenge"), "{public}");
        }
    }

    #[test]
    fn slots_have_ports_of_their_own() {
        assert_eq!(Ports::of_slot(10_100, 0), Some(Ports { rpc: 10_100, p2p: 10_101, rest: 10_102 }));
        assert_eq!(Ports::of_slot(10_100, 1).unwrap().rpc, 10_103);
        assert_eq!(Ports::of_slot(65_535, 0), None);
        assert_eq!(Ports::of_slot(10_100, u16::MAX), None);
    }
}
