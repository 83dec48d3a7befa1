//! Between the wire types and the model's. What comes from the other side is checked here and nowhere else.

use super::board::NodeStatus;
use super::conf::Ports;
use super::node::Endpoint;
use super::proto as v1;
use crate::model::NodeId;
use crate::model::host::HostReport;
use crate::model::node::{self, Process, WalletState};
use std::net::{IpAddr, SocketAddr};

/// A message that does not say what it must.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the message has no usable {0}")]
pub struct Malformed(pub &'static str);

/// A node's id.
pub fn node_id(text: &str) -> Result<NodeId, Malformed> {
    NodeId::parse(text).ok_or(Malformed("node_id"))
}

/// An address at which masters reach an agent.
pub fn address(text: &str, port: u32) -> Result<(IpAddr, u16), Malformed> {
    let address: IpAddr = text.parse().map_err(|_| Malformed("address"))?;
    let port = u16::try_from(port).ok().filter(|port| *port != 0).ok_or(Malformed("agent_port"))?;
    if address.is_unspecified() || address.is_multicast() {
        return Err(Malformed("address"));
    }
    Ok((address, port))
}

impl From<&NodeStatus> for v1::NodeStatus {
    fn from(status: &NodeStatus) -> Self {
        use v1::process::State;
        let state = match &status.process {
            Process::Unknown => None,
            Process::Running => Some(State::Running(v1::Running { pid: status.pid.unwrap_or_default() })),
            Process::Restarting { reason } => Some(State::Restarting(v1::Restarting { reason: reason.clone() })),
            Process::Stopped => Some(State::Stopped(v1::Stopped {})),
        };
        Self {
            node_id: status.node.to_string(),
            process: Some(v1::Process { state }),
            wallet: wallet_to_wire(status.wallet).into(),
            starts: status.starts,
        }
    }
}

impl TryFrom<v1::NodeStatus> for NodeStatus {
    type Error = Malformed;

    fn try_from(wire: v1::NodeStatus) -> Result<Self, Malformed> {
        use v1::process::State;
        let (process, pid) = match wire.process.and_then(|process| process.state) {
            None => (Process::Unknown, None),
            Some(State::Running(running)) => (Process::Running, Some(running.pid)),
            Some(State::Restarting(restarting)) => (Process::Restarting { reason: reason(&restarting.reason) }, None),
            Some(State::Stopped(_)) => (Process::Stopped, None),
        };
        let wallet = v1::WalletState::try_from(wire.wallet).unwrap_or_default();
        Ok(Self { node: node_id(&wire.node_id)?, process, pid, wallet: wallet_from_wire(wallet), starts: wire.starts })
    }
}

/// A host that is not to be trusted may have written it.
fn reason(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(400).collect()
}

fn wallet_to_wire(state: WalletState) -> v1::WalletState {
    match state {
        WalletState::Unknown => v1::WalletState::Unspecified,
        WalletState::NonExisting => v1::WalletState::NonExisting,
        WalletState::Locked => v1::WalletState::Locked,
        WalletState::Unlocked => v1::WalletState::Unlocked,
        WalletState::RpcActive => v1::WalletState::RpcActive,
        WalletState::ServerActive => v1::WalletState::ServerActive,
        WalletState::WaitingToStart => v1::WalletState::WaitingToStart,
    }
}

fn wallet_from_wire(state: v1::WalletState) -> WalletState {
    match state {
        v1::WalletState::Unspecified => WalletState::Unknown,
        v1::WalletState::NonExisting => WalletState::NonExisting,
        v1::WalletState::Locked => WalletState::Locked,
        v1::WalletState::Unlocked => WalletState::Unlocked,
        v1::WalletState::RpcActive => WalletState::RpcActive,
        v1::WalletState::ServerActive => WalletState::ServerActive,
        v1::WalletState::WaitingToStart => WalletState::WaitingToStart,
    }
}

/// A host's report, with where masters reach its agent.
pub fn host_status(report: HostReport, at: SocketAddr) -> v1::HostStatus {
    v1::HostStatus {
        agent_version: report.agent_version,
        lnd_version: report.lnd_version,
        disk_free_bytes: report.disk_free_bytes,
        disk_total_bytes: report.disk_total_bytes,
        address: at.ip().to_string(),
        agent_port: at.port().into(),
    }
}

impl From<&v1::HostStatus> for HostReport {
    fn from(wire: &v1::HostStatus) -> Self {
        Self {
            agent_version: reason(&wire.agent_version),
            lnd_version: reason(&wire.lnd_version),
            disk_free_bytes: wire.disk_free_bytes,
            disk_total_bytes: wire.disk_total_bytes,
        }
    }
}

impl From<Endpoint> for v1::NodeEndpoint {
    fn from(endpoint: Endpoint) -> Self {
        let Endpoint { address, ports, rest, certificate_pem } = endpoint;
        let Ports { rpc, p2p, rest: rest_port } = ports;
        Self {
            address: address.to_string(),
            rpc_port: rpc.into(),
            p2p_port: p2p.into(),
            rest_port: if rest { rest_port.into() } else { 0 },
            certificate_pem,
        }
    }
}

impl TryFrom<v1::NodeEndpoint> for node::Endpoint {
    type Error = Malformed;

    fn try_from(wire: v1::NodeEndpoint) -> Result<Self, Malformed> {
        let (address, rpc_port) = address(&wire.address, wire.rpc_port)?;
        let port = |port| u16::try_from(port).map_err(|_| Malformed("port"));
        let rest = port(wire.rest_port)?;
        Ok(Self {
            address,
            rpc_port,
            p2p_port: port(wire.p2p_port)?,
            rest_port: (rest != 0).then_some(rest),
            certificate_pem: wire.certificate_pem,
        })
    }
}
