//! One node on the host: a task of its own that takes orders one by one and keeps its lnd as the last one wanted it.

mod actor;
mod instance;
mod orders;
mod wallet;

use super::backups::Backups;
use super::board::{Board, NodeStatus};
use super::files::DataDir;
use super::releases::Releases;
use super::spec::NodeSpec;
use super::start::Starter;
use crate::backoff::Backoff;
use crate::model::NodeId;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{mpsc, oneshot};

pub use instance::Endpoint;

/// What all nodes of a host share.
#[derive(Debug)]
pub struct Shared {
    /// The agent's folder.
    pub data: DataDir,
    /// The lnd that runs here where a node is told of no other.
    pub lnd: PathBuf,
    /// The others.
    pub releases: Arc<Releases>,
    /// How it is started.
    pub starter: Box<dyn Starter>,
    /// The address lnds listen on.
    pub address: IpAddr,
    /// The first port of slot 0.
    pub port_base: u16,
    /// Whether lnds serve REST; `None`: as ordered.
    pub rest: Option<bool>,
    /// Pauses between restarts.
    pub backoff: Backoff,
    /// Where each node says how it is.
    pub board: Board,
    /// Who looks after `channel.backup`.
    pub backups: Backups,
    /// Which node has which slot.
    pub slots: Slots,
}

/// Which node has which slot.
#[derive(Debug, Default)]
pub struct Slots(Mutex<BTreeMap<u16, NodeId>>);

impl Slots {
    fn take(&self, slot: u16, node: &NodeId) -> Result<(), OrderError> {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let holder = slots.entry(slot).or_insert_with(|| node.clone());
        if holder == node { Ok(()) } else { Err(OrderError::Refused(format!("slot {slot} is taken by {holder}"))) }
    }

    fn free(&self, node: &NodeId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, holder| holder != node);
    }
}

/// What a master may want of a node.
#[derive(Debug)]
pub enum Order {
    /// Run, now and after every restart of anything.
    Ensure(Box<NodeSpec>),
    /// Exit, and stay so.
    Stop,
    /// Exit and start again.
    Restart,
    /// Set the folder aside.
    Remove,
}

/// Why an order was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// There was a newer order.
    #[error("an order with epoch {have} was obeyed before")]
    Fenced {
        /// Its epoch.
        have: u64,
    },
    /// It makes no sense, now or later.
    #[error("{0}")]
    Refused(String),
    /// It did not work out. It may be given again.
    #[error("{0}")]
    Failed(String),
}

/// How an order ended.
#[derive(Debug, Clone)]
pub struct Done {
    /// The node after it.
    pub status: NodeStatus,
    /// How it is reached, where it runs.
    pub endpoint: Option<Endpoint>,
}

type Reply = oneshot::Sender<Result<Done, OrderError>>;

/// An order on its way to a node.
#[derive(Debug)]
struct Command {
    epoch: u64,
    order: Order,
    reply: Reply,
}

/// A node's task. It ends when this is dropped; the lnd goes on.
#[derive(Debug)]
pub struct Node {
    commands: mpsc::Sender<Command>,
}

impl Node {
    /// Starts the task: it finds an lnd that runs already, and goes on with what the last order wanted.
    pub fn run(shared: Arc<Shared>, node: NodeId) -> std::io::Result<Self> {
        let (commands, inbox) = mpsc::channel(16);
        let actor = actor::Actor::new(shared, node, inbox)?;
        tokio::spawn(actor.run());
        Ok(Self { commands })
    }

    /// Gives an order and waits until it is done. Whoever stops waiting does not stop the order.
    pub async fn order(&self, epoch: u64, order: Order) -> Result<Done, OrderError> {
        let gone = || OrderError::Failed("the agent is shutting down".to_owned());
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command { epoch, order, reply }).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}
