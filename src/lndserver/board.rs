//! What the agent last saw of each of its nodes. Nodes write here, reports and status calls read; what changed since the
//! last report is remembered, not how often.

use crate::model::NodeId;
use crate::model::node::{Process, WalletState};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// A node as the agent sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeStatus {
    /// The node.
    pub node: NodeId,
    /// The process.
    pub process: Process,
    /// Its pid while it runs.
    pub pid: Option<u32>,
    /// The wallet.
    pub wallet: WalletState,
    /// Counts starts of the process.
    pub starts: u64,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Board {
    inner: Mutex<Inner>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    nodes: BTreeMap<NodeId, NodeStatus>,
    unreported: BTreeSet<NodeId>,
}

impl Board {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Every change of it is whole before the lock is given back.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says how a node is.
    pub fn publish(&self, status: NodeStatus) {
        let mut inner = self.inner();
        if inner.nodes.get(&status.node) == Some(&status) {
            return;
        }
        inner.unreported.insert(status.node.clone());
        inner.nodes.insert(status.node.clone(), status);
        drop(inner);
        self.changed.notify_one();
    }

    /// Forgets a node that was removed.
    pub fn forget(&self, node: &NodeId) {
        let mut inner = self.inner();
        inner.nodes.remove(node);
        inner.unreported.remove(node);
    }

    /// All nodes, in the order of their names.
    #[must_use]
    pub fn all(&self) -> Vec<NodeStatus> {
        self.inner().nodes.values().cloned().collect()
    }

    /// Has every node reported (again).
    pub fn report_all(&self) {
        let mut inner = self.inner();
        inner.unreported = inner.nodes.keys().cloned().collect();
        drop(inner);
        self.changed.notify_one();
    }

    /// Waits until something changed that was not taken yet, and takes it. One task at a time may wait; one that gives up
    /// loses nothing.
    pub async fn take_unreported(&self) -> Vec<NodeStatus> {
        loop {
            let taken = self.take_now();
            if !taken.is_empty() {
                return taken;
            }
            self.changed.notified().await;
        }
    }

    fn take_now(&self) -> Vec<NodeStatus> {
        let mut inner = self.inner();
        let names = std::mem::take(&mut inner.unreported);
        names.iter().filter_map(|name| inner.nodes.get(name).cloned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(node: &NodeId, starts: u64) -> NodeStatus {
        NodeStatus { node: node.clone(), process: Process::Running, pid: Some(1), wallet: WalletState::Locked, starts }
    }

    #[tokio::test]
    async fn a_change_is_taken_once_and_all_of_them_after_a_new_connection() {
        let board = Board::default();
        let node = NodeId::random(&mut rand::rng());
        board.publish(status(&node, 1));
        board.publish(status(&node, 2));
        assert_eq!(board.take_unreported().await, [status(&node, 2)]);
        board.publish(status(&node, 2));
        assert!(futures::poll!(std::pin::pin!(board.take_unreported())).is_pending(), "the same again is no change");
        board.report_all();
        assert_eq!(board.take_unreported().await, [status(&node, 2)]);
    }
}
