//! `[chain]`: where the lnds get their blocks. One section for three backends; a setting of another backend than the one
//! that is chosen is a fault, so that nobody believes in one that does nothing.

use super::LndSection;
use super::secret::SecretSource;
use super::sections::is_host_and_port;
use super::setting::{Raw, Setting};
use super::source::{Found, Part, Section};
use crate::lndserver::backend::{HeaderSources, Zmq, is_variable};
use crate::lndserver::options::LndOption;
use crate::lndserver::spec::Signet;
use crate::model::Network;
use std::fmt;
use std::path::PathBuf;

/// `[chain]`: the chain backend of the lnds.
#[derive(Debug, Clone)]
pub struct ChainSection {
    /// Which software it is, and how the lnds reach it.
    pub backend: ChainBackend,
    /// A fixed fee rate for on-chain transactions, satoshi a virtual byte, where there are no estimates worth having
    /// (simnet and regtest: 2 by default; elsewhere lnd estimates).
    pub fixed_sat_per_vbyte: Option<u64>,
    /// Where lnd asks for fee estimates instead of its backend (lnd's `fee.url`).
    pub fee_url: Option<String>,
    /// The challenge of a signet that is not the public one, hexadecimal.
    pub signet_challenge: Option<String>,
    /// The names under which neutrino finds nodes of that signet.
    pub signet_seed_nodes: Vec<String>,
}

/// A chain backend that lnd can use.
#[derive(Debug, Clone)]
pub enum ChainBackend {
    /// btcd over its RPC.
    Btcd {
        /// The RPC.
        rpc: ChainRpc,
        /// Its certificate (PEM).
        cert_file: PathBuf,
    },
    /// bitcoind over its RPC, which knows no TLS.
    Bitcoind {
        /// The RPC.
        rpc: ChainRpc,
        /// Where it tells of blocks and transactions; none: the RPC is polled.
        zmq: Option<Zmq>,
    },
    /// None: every lnd asks peers of the bitcoin network for compact block filters.
    Neutrino {
        /// Peers, `host:port` as the hosts reach them.
        peers: Vec<String>,
        /// Whether other peers are looked for, too.
        other_peers: bool,
        /// Where lnds take headers from at their first start.
        headers: Option<HeaderSources>,
    },
}

/// An RPC with a user.
#[derive(Debug, Clone)]
pub struct ChainRpc {
    /// `host:port` as the hosts reach it.
    pub host: String,
    /// Its user.
    pub user: String,
    /// Its password.
    pub password: SecretSource,
}

impl ChainBackend {
    /// Its RPC, where it has one.
    #[must_use]
    pub fn rpc(&self) -> Option<&ChainRpc> {
        match self {
            Self::Btcd { rpc, .. } | Self::Bitcoind { rpc, .. } => Some(rpc),
            Self::Neutrino { .. } => None,
        }
    }
}

/// Why a password cannot be used, if it cannot.
#[must_use]
pub fn fault_of_password(password: &str) -> Option<&'static str> {
    is_variable(password).then_some("has the form of a variable ($NAME), which lnd would read from its environment")
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Btcd,
    Bitcoind,
    Neutrino,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Btcd => "btcd",
            Self::Bitcoind => "bitcoind",
            Self::Neutrino => "neutrino",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Setting for Kind {
    fn parse(raw: Raw) -> Result<Self, String> {
        let text = String::parse(raw)?;
        let all = [Self::Btcd, Self::Bitcoind, Self::Neutrino];
        let found = all.into_iter().find(|kind| kind.name() == text);
        found.ok_or_else(|| "must be btcd, bitcoind or neutrino".to_owned())
    }
}

/// Which settings belong to which backends.
const OF_BACKENDS: &[(&[&str], &[Kind])] = &[
    (&["rpc_host", "rpc_user", "rpc_password", "rpc_password_file"], &[Kind::Btcd, Kind::Bitcoind]),
    (&["rpc_cert_file"], &[Kind::Btcd]),
    (&["zmq_block", "zmq_tx"], &[Kind::Bitcoind]),
    (
        &["peers", "other_peers", "block_headers_source", "filter_headers_source", "signet_seed_nodes"],
        &[Kind::Neutrino],
    ),
];

/// Refuses what belongs to other backends. Where the backend is not known everything may belong to it.
fn refuse_foreign(s: &mut Section<'_>, kind: Option<Kind>) {
    for (keys, kinds) in OF_BACKENDS {
        for &key in *keys {
            match kind {
                Some(kind) if kinds.contains(&kind) => {}
                Some(kind) => {
                    let names: Vec<&str> = kinds.iter().map(|kind| kind.name()).collect();
                    s.refuse(key, format!("is a setting of {}; the backend is {kind}", names.join(" and ")));
                }
                None => s.ignore(key),
            }
        }
    }
}

impl Part for ChainSection {
    const NAME: &'static str = "chain";

    fn read(s: &mut Section<'_>) -> Option<Self> {
        let given = s.is_given("backend");
        let kind = s.optional("backend").or((!given).then_some(Kind::Btcd));
        refuse_foreign(s, kind);
        let backend = kind.and_then(|kind| read_backend(s, kind));
        let fixed_sat_per_vbyte = s.optional("fixed_sat_per_vbyte");
        let fee_url = s.optional("fee_url");
        let signet_challenge = s.optional("signet_challenge");
        let signet_seed_nodes =
            if kind == Some(Kind::Neutrino) { s.or("signet_seed_nodes", Vec::new()) } else { Vec::new() };
        Some(Self { backend: backend?, fixed_sat_per_vbyte, fee_url, signet_challenge, signet_seed_nodes })
    }

    fn validate(&self, found: &mut Found) {
        self.backend.validate(found);
        if self.fixed_sat_per_vbyte.is_some_and(|rate| !(1..=10_000).contains(&rate)) {
            found.push(("chain.fixed_sat_per_vbyte", "must be from 1 to 10000".to_owned()));
        }
        let is_url = |url: &String| url.starts_with("https://") || url.starts_with("http://");
        if !self.fee_url.iter().all(is_url) || self.fee_url.iter().any(|url| url.chars().any(char::is_whitespace)) {
            found.push(("chain.fee_url", "must be a URL that begins with https:// or http://".to_owned()));
        }
    }
}

fn read_backend(s: &mut Section<'_>, kind: Kind) -> Option<ChainBackend> {
    match kind {
        Kind::Btcd => {
            let (rpc, cert_file) = (read_rpc(s), s.required("rpc_cert_file"));
            Some(ChainBackend::Btcd { rpc: rpc?, cert_file: cert_file? })
        }
        Kind::Bitcoind => {
            let (rpc, zmq) = (read_rpc(s), read_pair(s, "zmq_block", "zmq_tx"));
            Some(ChainBackend::Bitcoind { rpc: rpc?, zmq: zmq.map(|(block, tx)| Zmq { block, tx }) })
        }
        Kind::Neutrino => {
            let headers = read_pair(s, "block_headers_source", "filter_headers_source");
            Some(ChainBackend::Neutrino {
                peers: s.or("peers", Vec::new()),
                other_peers: s.or("other_peers", false),
                headers: headers.map(|(block, filter)| HeaderSources { block, filter }),
            })
        }
    }
}

fn read_rpc(s: &mut Section<'_>) -> Option<ChainRpc> {
    let (host, user) = (s.required("rpc_host"), s.required("rpc_user"));
    let password = s.required_secret("rpc_password", "rpc_password_file");
    Some(ChainRpc { host: host?, user: user?, password: password? })
}

/// Two settings that make sense together only.
fn read_pair(s: &mut Section<'_>, first: &'static str, second: &'static str) -> Option<(String, String)> {
    let given = (s.is_given(first), s.is_given(second));
    let values: (Option<String>, Option<String>) = (s.optional(first), s.optional(second));
    match given {
        (true, false) => s.fault(second, format!("is missing: {first} is given")),
        (false, true) => s.fault(first, format!("is missing: {second} is given")),
        _ => {}
    }
    Some((values.0?, values.1?))
}

impl ChainBackend {
    fn validate(&self, found: &mut Found) {
        if let Some(rpc) = self.rpc() {
            if !is_host_and_port(&rpc.host) {
                found.push(("chain.rpc_host", "must be an address with a port, such as 127.0.0.1:8334".to_owned()));
            }
            if let Some(fault) = fault_of_password(&rpc.user) {
                found.push(("chain.rpc_user", fault.to_owned()));
            }
        }
        match self {
            Self::Btcd { .. } => {}
            Self::Bitcoind { zmq, .. } => {
                let Some(zmq) = zmq else { return };
                let is_tcp = |text: &str| text.strip_prefix("tcp://").is_some_and(is_host_and_port);
                for (key, address) in [("chain.zmq_block", &zmq.block), ("chain.zmq_tx", &zmq.tx)] {
                    if !is_tcp(address) {
                        found.push((key, "must be an address such as tcp://10.0.0.6:28332".to_owned()));
                    }
                }
                if zmq.block == zmq.tx {
                    found.push(("chain.zmq_tx", "must be another address than zmq_block: lnd wants two".to_owned()));
                }
            }
            Self::Neutrino { peers, other_peers, headers } => {
                if !peers.iter().all(|peer| is_host_and_port(peer)) {
                    found.push(("chain.peers", "must be addresses with a port, such as 10.0.0.6:8333".to_owned()));
                }
                if peers.is_empty() && *other_peers {
                    let message = "says nothing without peers: then others are always looked for";
                    found.push(("chain.other_peers", message.to_owned()));
                }
                let is_source = |text: &str| ["/", "https://", "http://"].iter().any(|prefix| text.starts_with(prefix));
                if headers.iter().any(|sources| !is_source(&sources.block) || !is_source(&sources.filter)) {
                    let message = "must be a URL, or an absolute path on the hosts, and so must filter_headers_source";
                    found.push(("chain.block_headers_source", message.to_owned()));
                }
            }
        }
    }
}

impl ChainSection {
    /// The rate that is used on `network`, where lnd does not estimate it.
    #[must_use]
    pub fn sat_per_vbyte_on(&self, network: Network) -> Option<u64> {
        self.fixed_sat_per_vbyte.or(network.is_playground().then_some(2))
    }

    /// What does not go with the network, or with what lnd is told besides.
    pub(super) fn validate_on(&self, network: Network, lnd: Option<&LndSection>, found: &mut Found) {
        let challenge = self.signet_challenge.as_deref().unwrap_or_default();
        if let Err(e) = Signet::parse(network, challenge, self.signet_seed_nodes.clone()) {
            let key = if e.field == "signet_challenge" { "chain.signet_challenge" } else { "chain.signet_seed_nodes" };
            found.push((key, e.reason));
        }
        match &self.backend {
            ChainBackend::Bitcoind { .. } if network == Network::Simnet => {
                let message = "bitcoind knows no simnet: use btcd, or regtest with bitcoind";
                found.push(("chain.backend", message.to_owned()));
            }
            ChainBackend::Neutrino { peers, .. } => self.validate_neutrino(network, peers, found),
            _ => {}
        }
        let options = lnd.into_iter().flat_map(|lnd| &lnd.extra_args).filter_map(|arg| LndOption::parse(arg).ok());
        if options.into_iter().any(|option| ["fee.url", "feeurl"].contains(&option.name())) {
            found.push(("lnd.extra_args", "the URL for fee estimates is chain.fee_url".to_owned()));
        }
    }

    fn validate_neutrino(&self, network: Network, peers: &[String], found: &mut Found) {
        if peers.is_empty() && network.is_playground() {
            found.push(("chain.peers", format!("is missing: on {network} there is nobody to find")));
        }
        if peers.is_empty() && self.signet_challenge.is_some() && self.signet_seed_nodes.is_empty() {
            let message = "is missing: the nodes that lnd knows by itself are the public signet's (or give \
                           signet_seed_nodes)";
            found.push(("chain.peers", message.to_owned()));
        }
        if self.fee_url.is_some() || network.is_playground() {
            return;
        }
        // lnd refuses neutrino without it on mainnet only; on the test networks it would take 50 sat/vB for everything.
        if network == Network::Mainnet {
            let message = "is missing: neutrino has no fee estimates, and on mainnet lnd refuses it without";
            found.push(("chain.fee_url", message.to_owned()));
        } else if self.fixed_sat_per_vbyte.is_none() {
            let message = "is missing: neutrino has no fee estimates (fixed_sat_per_vbyte does instead)";
            found.push(("chain.fee_url", message.to_owned()));
        }
    }
}
