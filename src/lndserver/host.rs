//! The host: its nodes, and what it says about itself.

use super::node::{Done, Node, Order, OrderError, Shared};
use super::proto as v1;
use super::version;
use super::wire;
use crate::model::host::HostReport;
use crate::model::{HostId, NodeId};
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// Who this host is. Told at its enrolment.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Identity {
    /// Its name.
    pub host: HostId,
    /// Counts machines that have been this host.
    pub generation: u64,
}

/// Its nodes.
#[derive(Debug)]
pub struct Host {
    identity: Identity,
    shared: Arc<Shared>,
    agent_port: u16,
    nodes: Mutex<BTreeMap<NodeId, Arc<Node>>>,
    lnd_version: String,
}

impl Host {
    /// Goes on with every node that has a folder. `agent_port` is where masters reach its agent.
    pub async fn open(identity: Identity, agent_port: u16, shared: Arc<Shared>) -> io::Result<Self> {
        let told = version::of(&shared.lnd).await?;
        let lnd_version = told.split_whitespace().next().unwrap_or_default().to_owned();
        let mut nodes = BTreeMap::new();
        for node in shared.data.nodes()? {
            match Node::run(Arc::clone(&shared), node.clone()) {
                Ok(running) => drop(nodes.insert(node, Arc::new(running))),
                // The others must not wait for it. Orders for it fail until a person has looked.
                Err(error) => tracing::error!(node.id = %node, %error, "a node's record cannot be read"),
            }
        }
        Ok(Self { identity, shared, agent_port, nodes: Mutex::new(nodes), lnd_version })
    }

    /// Who it is.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// What its nodes share.
    #[must_use]
    pub fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Gives a node an order, if it is meant for this machine.
    pub async fn order(&self, generation: u64, epoch: u64, node: NodeId, order: Order) -> Result<Done, OrderError> {
        if generation != self.identity.generation {
            let own = self.identity.generation;
            return Err(OrderError::Refused(format!("the order is for generation {generation}, this is {own}")));
        }
        self.node(node)?.order(epoch, order).await
    }

    fn node(&self, node: NodeId) -> Result<Arc<Node>, OrderError> {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = nodes.get(&node) {
            return Ok(Arc::clone(known));
        }
        let failed = |e: io::Error| OrderError::Failed(format!("the node's record cannot be read: {e}"));
        let fresh = Arc::new(Node::run(Arc::clone(&self.shared), node.clone()).map_err(failed)?);
        nodes.insert(node, Arc::clone(&fresh));
        Ok(fresh)
    }

    /// What it says about itself.
    pub fn status(&self) -> io::Result<v1::HostStatus> {
        let disk = rustix::fs::statvfs(self.shared.data.path())?;
        let report = HostReport {
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            lnd_version: self.lnd_version.clone(),
            disk_free_bytes: disk.f_bavail.saturating_mul(disk.f_frsize),
            disk_total_bytes: disk.f_blocks.saturating_mul(disk.f_frsize),
        };
        Ok(wire::host_status(report, SocketAddr::new(self.shared.address, self.agent_port)))
    }
}
