//! How an lnd is to be run, as a master says it and as the agent keeps it: parsed once, so that what is behind these
//! types fits into an lnd.conf and leaves alone what safety rests on.

use super::backend::Backend;
use super::options::LndOption;
use super::proto as v1;
use crate::model::release::Sha256;
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
    /// Which signet it is, where it is not the public one.
    #[serde(default)]
    pub signet: Signet,
    /// The lnd that it runs from its next start on: that of an installed release, named by the digest of its artifact. None:
    /// the host's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lnd: Option<Sha256>,
}

/// Which signet it is; nothing said: the public one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signet {
    /// Its challenge, hexadecimal.
    pub challenge: Option<String>,
    /// The names under which its nodes are found.
    pub seed_nodes: Vec<String>,
}

impl Signet {
    /// Reads what was said of it.
    ///
    /// # Errors
    /// The field at fault: a challenge that is none, or either on another network.
    pub fn parse(network: Network, challenge: &str, seed_nodes: Vec<String>) -> Result<Self, SpecError> {
        // btcd's chain parameters write its length into one byte, which a script of 253 bytes and more does not fit.
        const LONGEST: usize = 252;
        let challenge = (!challenge.is_empty()).then(|| challenge.to_owned());
        for (field, given) in [("signet_challenge", challenge.is_some()), ("signet_seed_nodes", !seed_nodes.is_empty())]
        {
            if given && network != Network::Signet {
                return Err(fault(field, "is for signet only"));
            }
        }
        let is_script = |text: &String| hex::decode(text).is_ok_and(|script| (1..=LONGEST).contains(&script.len()));
        if !challenge.iter().all(is_script) {
            return Err(fault("signet_challenge", "must be 1 to 252 bytes, in hexadecimal digits"));
        }
        let fits = |name: &String| {
            let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-');
            !name.is_empty() && name.bytes().all(fits)
        };
        if !seed_nodes.iter().all(fits) {
            return Err(fault("signet_seed_nodes", "must be names of hosts, without ports"));
        }
        Ok(Self { challenge, seed_nodes })
    }
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

pub(super) fn fault(field: &'static str, reason: impl Into<String>) -> SpecError {
    SpecError { field, reason: reason.into() }
}

/// A value that stays on its line of an lnd.conf.
pub(super) fn line(field: &'static str, text: String) -> Result<String, SpecError> {
    if text.is_empty() {
        return Err(fault(field, "is missing"));
    }
    if text.chars().any(char::is_control) {
        return Err(fault(field, "has a control character"));
    }
    Ok(text)
}

fn digest(field: &'static str, text: String) -> Result<Option<Sha256>, SpecError> {
    if text.is_empty() {
        return Ok(None);
    }
    Sha256::try_from(text).map(Some).map_err(|what| fault(field, what))
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
        let network = Network::parse(&wire.network).ok_or_else(|| fault("network", "is not known"))?;
        Ok(Self {
            node: NodeId::parse(&wire.node_id).ok_or_else(|| fault("node_id", "is not a node's id"))?,
            slot: u16::try_from(wire.slot).map_err(|_| fault("slot", "is out of range"))?,
            network,
            backend: wire.backend.ok_or_else(|| fault("backend", "is missing"))?.try_into()?,
            alias,
            rest: wire.rest,
            options: options.collect::<Result<_, _>>()?,
            signet: Signet::parse(network, &wire.signet_challenge, wire.signet_seed_nodes)?,
            lnd: digest("lnd_sha256", wire.lnd_sha256)?,
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
            signet_challenge: spec.signet.challenge.clone().unwrap_or_default(),
            signet_seed_nodes: spec.signet.seed_nodes.clone(),
            lnd_sha256: spec.lnd.as_ref().map(ToString::to_string).unwrap_or_default(),
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
            lnd_sha256: "ab".repeat(32),
            ..v1::NodeSpec::default()
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

    /// What an agent of an earlier release wrote down.
    #[test]
    fn a_record_without_the_newer_fields_is_read() {
        let mut kept = serde_json::to_value(NodeSpec::try_from(wire()).unwrap()).unwrap();
        for newer in ["signet", "lnd"] {
            kept.as_object_mut().unwrap().remove(newer).unwrap();
        }
        kept["backend"] = serde_json::json!({ "kind": "neutrino", "peers": ["a:1"] });
        let spec: NodeSpec = serde_json::from_value(kept).unwrap();
        assert_eq!((spec.signet, spec.lnd), (Signet::default(), None));
        let Backend::Neutrino { other_peers, headers, .. } = spec.backend else { panic!("{:?}", spec.backend) };
        assert_eq!((other_peers, headers), (false, None));
    }

    #[test]
    fn what_does_not_fit_names_its_field() {
        type Spoil = fn(&mut v1::NodeSpec);
        let spoils: [(&str, Spoil); 13] = [
            ("node_id", |s| s.node_id = "../x".to_owned()),
            ("slot", |s| s.slot = 70_000),
            ("network", |s| s.network = "moon".to_owned()),
            ("backend", |s| s.backend = None),
            ("alias", |s| s.alias = "x\nno-macaroons=1".to_owned()),
            ("lnd_sha256", |s| s.lnd_sha256 = "../../bin/sh".to_owned()),
            ("alias", |s| s.alias = "é".repeat(17)),
            ("extra_args", |s| s.extra_args.push("no-macaroons".to_owned())),
            ("btcd.rpc_user", |s| {
                let Some(Wire::Btcd(btcd)) = &mut s.backend else { unreachable!() };
                btcd.rpc_user = "a\n[x]".to_owned();
            }),
            ("btcd.rpc_password", |s| {
                let Some(Wire::Btcd(btcd)) = &mut s.backend else { unreachable!() };
                btcd.rpc_password = "${PATH}".to_owned();
            }),
            ("signet_challenge", |s| s.signet_challenge = "51".to_owned()),
            ("signet_challenge", |s| (s.network, s.signet_challenge) = ("signet".to_owned(), "5".to_owned())),
            ("signet_seed_nodes", |s| {
                (s.network, s.signet_seed_nodes) = ("signet".to_owned(), vec!["a\nb".to_owned()]);
            }),
        ];
        for (field, spoil) in spoils {
            let mut spoiled = wire();
            spoil(&mut spoiled);
            assert_eq!(NodeSpec::try_from(spoiled).unwrap_err().field, field);
        }
    }
}
