//! How an lnd is to be run, as a master says it and as the agent keeps it: parsed once, so that what is behind these
//! types fits into an lnd.conf and leaves alone what safety rests on.

use super::options::LndOption;
use super::proto as v1;
use crate::model::{Network, NodeId};
use serde::{Deserialize, Serialize};
use std::fmt;
use zeroize::Zeroizing;

/// A password: wiped when dropped, never shown. It is kept in files that only the agent's user can read.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct Password(Zeroizing<String>);

impl From<String> for Password {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

impl From<Password> for String {
    fn from(password: Password) -> Self {
        password.0.to_string()
    }
}

impl Password {
    /// The text, for the one place that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(redacted)")
    }
}

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
    /// Compact block filters from these peers (`host:port`), or from any.
    Neutrino {
        /// The peers.
        peers: Vec<String>,
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

/// How an lnd is to be run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSpec {
    /// Whose.
    pub node: NodeId,
    /// The slot; its ports follow from it.
    pub slot: u16,
    /// The network.
    pub network: Network,
    /// Where it gets its blocks.
    pub backend: Backend,
    /// lnd's alias, at most 32 bytes; empty: lnd's own choice.
    pub alias: String,
    /// Whether lnd serves its own REST, too.
    pub rest: bool,
    /// Further options of lnd.
    pub options: Vec<LndOption>,
}

/// Why a specification is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct SpecError {
    /// The field at fault.
    pub field: &'static str,
    /// What is wrong with it.
    pub reason: String,
}

fn fault(field: &'static str, reason: impl Into<String>) -> SpecError {
    SpecError { field, reason: reason.into() }
}

/// A value that stays on its line of an lnd.conf.
fn line(field: &'static str, text: String) -> Result<String, SpecError> {
    if text.is_empty() {
        return Err(fault(field, "is missing"));
    }
    if text.chars().any(char::is_control) {
        return Err(fault(field, "has a control character"));
    }
    Ok(text)
}

impl TryFrom<v1::NodeSpec> for NodeSpec {
    type Error = SpecError;

    fn try_from(wire: v1::NodeSpec) -> Result<Self, SpecError> {
        let alias = wire.alias;
        if alias.len() > 32 || alias.chars().any(char::is_control) {
            return Err(fault("alias", "is longer than 32 bytes or has a control character"));
        }
        let options =
            wire.extra_args.iter().map(|arg| LndOption::parse(arg).map_err(|e| fault("extra_args", e.to_string())));
        Ok(Self {
            node: NodeId::parse(&wire.node_id).ok_or_else(|| fault("node_id", "is not a node's id"))?,
            slot: u16::try_from(wire.slot).map_err(|_| fault("slot", "is out of range"))?,
            network: Network::parse(&wire.network).ok_or_else(|| fault("network", "is not known"))?,
            backend: wire.backend.ok_or_else(|| fault("backend", "is missing"))?.try_into()?,
            alias,
            rest: wire.rest,
            options: options.collect::<Result<_, _>>()?,
        })
    }
}

impl TryFrom<v1::node_spec::Backend> for Backend {
    type Error = SpecError;

    fn try_from(wire: v1::node_spec::Backend) -> Result<Self, SpecError> {
        use v1::node_spec::Backend as Wire;
        Ok(match wire {
            Wire::Btcd(b) => Self::Btcd {
                rpc_host: line("btcd.rpc_host", b.rpc_host)?,
                rpc_user: line("btcd.rpc_user", b.rpc_user)?,
                rpc_password: Password::from(line("btcd.rpc_password", b.rpc_password)?),
                certificate_pem: b.certificate_pem,
            },
            Wire::Bitcoind(b) => Self::Bitcoind {
                rpc_host: line("bitcoind.rpc_host", b.rpc_host)?,
                rpc_user: line("bitcoind.rpc_user", b.rpc_user)?,
                rpc_password: Password::from(line("bitcoind.rpc_password", b.rpc_password)?),
                zmq: if b.zmq_block.is_empty() && b.zmq_tx.is_empty() {
                    None
                } else {
                    Some(Zmq {
                        block: line("bitcoind.zmq_block", b.zmq_block)?,
                        tx: line("bitcoind.zmq_tx", b.zmq_tx)?,
                    })
                },
            },
            Wire::Neutrino(n) => {
                let peers = n.peers.into_iter().map(|peer| line("neutrino.peers", peer));
                Self::Neutrino { peers: peers.collect::<Result<_, _>>()? }
            }
            Wire::None(_) => Self::None,
        })
    }
}

impl From<&NodeSpec> for v1::NodeSpec {
    fn from(spec: &NodeSpec) -> Self {
        Self {
            node_id: spec.node.to_string(),
            slot: spec.slot.into(),
            network: spec.network.to_string(),
            backend: Some((&spec.backend).into()),
            alias: spec.alias.clone(),
            rest: spec.rest,
            extra_args: spec.options.iter().map(ToString::to_string).collect(),
        }
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
            Backend::Neutrino { peers } => Self::Neutrino(v1::NeutrinoBackend { peers }),
            Backend::None => Self::None(v1::NoChain {}),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use v1::node_spec::Backend as Wire;

    fn wire() -> v1::NodeSpec {
        v1::NodeSpec {
            node_id: "n000000000000000000000000".to_owned(),
            slot: 3,
            network: "regtest".to_owned(),
            backend: Some(Wire::Btcd(v1::BtcdBackend {
                rpc_host: "127.0.0.1:1".to_owned(),
                rpc_user: "user".to_owned(),
                rpc_password: "hush".to_owned(),
                certificate_pem: "pem".to_owned(),
            })),
            alias: "alice".to_owned(),
            rest: true,
            extra_args: vec!["bitcoin.defaultchanconfs=1".to_owned()],
        }
    }

    #[test]
    fn it_survives_the_wire_and_the_disk_and_is_never_shown() {
        let spec = NodeSpec::try_from(wire()).unwrap();
        assert_eq!(v1::NodeSpec::from(&spec), wire());
        let kept = serde_json::to_string(&spec).unwrap();
        assert_eq!(serde_json::from_str::<NodeSpec>(&kept).unwrap(), spec);
        assert!(kept.contains("hush"), "the agent's own file has it");
        assert!(!format!("{spec:?}{:?}", wire()).contains("hush"));
    }

    #[test]
    fn what_does_not_fit_names_its_field() {
        type Spoil = fn(&mut v1::NodeSpec);
        let spoils: [(&str, Spoil); 8] = [
            ("node_id", |s| s.node_id = "../x".to_owned()),
            ("slot", |s| s.slot = 70_000),
            ("network", |s| s.network = "moon".to_owned()),
            ("backend", |s| s.backend = None),
            ("alias", |s| s.alias = "x\nno-macaroons=1".to_owned()),
            ("alias", |s| s.alias = "é".repeat(17)),
            ("extra_args", |s| s.extra_args.push("no-macaroons".to_owned())),
            ("btcd.rpc_user", |s| {
                let Some(Wire::Btcd(btcd)) = &mut s.backend else { unreachable!() };
                btcd.rpc_user = "a\n[x]".to_owned();
            }),
        ];
        for (field, spoil) in spoils {
            let mut spoiled = wire();
            spoil(&mut spoiled);
            assert_eq!(NodeSpec::try_from(spoiled).unwrap_err().field, field);
        }
    }
}
