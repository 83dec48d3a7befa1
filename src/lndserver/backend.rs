//! Where an lnd gets its blocks, as a master says it and as the agent keeps it.

use super::proto as v1;
use super::spec::{Password, SpecError, fault, line};
use serde::{Deserialize, Serialize};

/// Where an lnd gets its blocks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Backend {
    /// btcd's RPC.
    Btcd {
        /// `host:port`.
        rpc_host: String,
        /// Its user.
        rpc_user: String,
        /// Its password.
        rpc_password: Password,
        /// Its certificate (PEM).
        certificate_pem: String,
    },
    /// bitcoind's RPC.
    Bitcoind {
        /// `host:port`.
        rpc_host: String,
        /// Its user.
        rpc_user: String,
        /// Its password.
        rpc_password: Password,
        /// ZMQ addresses of raw blocks and transactions; none: the RPC is polled.
        zmq: Option<Zmq>,
    },
    /// Compact block filters, from peers of the bitcoin network.
    Neutrino {
        /// Peers (`host:port`); none: any.
        peers: Vec<String>,
        /// Whether it looks for others beside these.
        #[serde(default)]
        other_peers: bool,
        /// Where it takes headers from before it asks its peers.
        headers: Option<HeaderSources>,
    },
    /// No chain: lnd runs, but never syncs.
    None,
}

/// bitcoind's ZMQ addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Zmq {
    /// `zmqpubrawblock`.
    pub block: String,
    /// `zmqpubrawtx`.
    pub tx: String,
}

/// Where neutrino takes headers from at its first start: URLs, or files on the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeaderSources {
    /// Block headers.
    pub block: String,
    /// The headers of the compact filters.
    pub filter: String,
}

/// Whether lnd would take `text`, given as RPC user or password, for the name of a variable of its environment: `$NAME`,
/// `${NAME}` or `${NAME:-default}` (lnd's `supplyEnvValue`). There is no way to write such a value out.
#[must_use]
pub fn is_variable(text: &str) -> bool {
    let is_name = |name: &str| {
        let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        name.bytes().all(word) && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
    };
    let Some(rest) = text.strip_prefix('$') else { return false };
    let braced = rest.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
    is_name(rest) || braced.is_some_and(|inner| is_name(inner.split_once(":-").map_or(inner, |(name, _)| name)))
}

/// An RPC user or password.
fn credential(field: &'static str, text: String) -> Result<String, SpecError> {
    if is_variable(&text) {
        return Err(fault(field, "has the form of a variable, which lnd would read from its environment"));
    }
    line(field, text)
}

/// Two settings that make sense together only.
fn pair(
    (first_field, first): (&'static str, String),
    (second_field, second): (&'static str, String),
) -> Result<Option<(String, String)>, SpecError> {
    if first.is_empty() && second.is_empty() {
        return Ok(None);
    }
    Ok(Some((line(first_field, first)?, line(second_field, second)?)))
}

impl TryFrom<v1::node_spec::Backend> for Backend {
    type Error = SpecError;

    fn try_from(wire: v1::node_spec::Backend) -> Result<Self, SpecError> {
        use v1::node_spec::Backend as Wire;
        Ok(match wire {
            Wire::Btcd(b) => Self::Btcd {
                rpc_host: line("btcd.rpc_host", b.rpc_host)?,
                rpc_user: credential("btcd.rpc_user", b.rpc_user)?,
                rpc_password: Password::from(credential("btcd.rpc_password", b.rpc_password)?),
                certificate_pem: b.certificate_pem,
            },
            Wire::Bitcoind(b) => Self::Bitcoind {
                rpc_host: line("bitcoind.rpc_host", b.rpc_host)?,
                rpc_user: credential("bitcoind.rpc_user", b.rpc_user)?,
                rpc_password: Password::from(credential("bitcoind.rpc_password", b.rpc_password)?),
                zmq: pair(("bitcoind.zmq_block", b.zmq_block), ("bitcoind.zmq_tx", b.zmq_tx))?
                    .map(|(block, tx)| Zmq { block, tx }),
            },
            Wire::Neutrino(n) => Self::Neutrino {
                peers: n.peers.into_iter().map(|peer| line("neutrino.peers", peer)).collect::<Result<_, _>>()?,
                other_peers: n.other_peers,
                headers: pair(
                    ("neutrino.block_headers_source", n.block_headers_source),
                    ("neutrino.filter_headers_source", n.filter_headers_source),
                )?
                .map(|(block, filter)| HeaderSources { block, filter }),
            },
            Wire::None(_) => Self::None,
        })
    }
}

impl From<&Backend> for v1::node_spec::Backend {
    fn from(backend: &Backend) -> Self {
        match backend.clone() {
            Backend::Btcd { rpc_host, rpc_user, rpc_password, certificate_pem } => Self::Btcd(v1::BtcdBackend {
                rpc_host,
                rpc_user,
                rpc_password: rpc_password.expose().to_owned(),
                certificate_pem,
            }),
            Backend::Bitcoind { rpc_host, rpc_user, rpc_password, zmq } => {
                let (zmq_block, zmq_tx) = zmq.map(|z| (z.block, z.tx)).unwrap_or_default();
                Self::Bitcoind(v1::BitcoindBackend {
                    rpc_host,
                    rpc_user,
                    rpc_password: rpc_password.expose().to_owned(),
                    zmq_block,
                    zmq_tx,
                })
            }
            Backend::Neutrino { peers, other_peers, headers } => {
                let (block_headers_source, filter_headers_source) =
                    headers.map(|h| (h.block, h.filter)).unwrap_or_default();
                Self::Neutrino(v1::NeutrinoBackend { peers, other_peers, block_headers_source, filter_headers_source })
            }
            Backend::None => Self::None(v1::NoChain {}),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lnd_takes_for_a_variable() {
        for text in ["$PATH", "${PATH}", "${_x1:-y}"] {
            assert!(is_variable(text), "{text}");
        }
        for text in ["", "$", "$1", "$a-b", "a$b", "${}", "${a", "pa$$word"] {
            assert!(!is_variable(text), "{text}");
        }
    }

    #[test]
    fn each_survives_the_wire() {
        let neutrino = v1::NeutrinoBackend {
            peers: vec!["a:1".to_owned()],
            other_peers: true,
            block_headers_source: "/b".to_owned(),
            filter_headers_source: "/f".to_owned(),
        };
        let bitcoind = v1::BitcoindBackend {
            rpc_host: "h:1".to_owned(),
            rpc_user: "u".to_owned(),
            rpc_password: "p".to_owned(),
            zmq_block: "tcp://h:2".to_owned(),
            zmq_tx: "tcp://h:3".to_owned(),
        };
        for wire in [v1::node_spec::Backend::Neutrino(neutrino.clone()), v1::node_spec::Backend::Bitcoind(bitcoind)] {
            let backend = Backend::try_from(wire.clone()).expect("fits");
            assert_eq!(v1::node_spec::Backend::from(&backend), wire);
        }
        let half = v1::NeutrinoBackend { filter_headers_source: String::new(), ..neutrino };
        let refused = Backend::try_from(v1::node_spec::Backend::Neutrino(half)).expect_err("half");
        assert_eq!(refused.field, "neutrino.filter_headers_source");
    }
}
