//! One node as the directory keeps it: its documents, its connection, the macaroons baked for it.

use super::bulkhead::{Bulkhead, Place};
use super::joined::Joined;
use crate::app::{Parts, refuse};
use crate::lnd::LndClient;
use crate::lnd::LndError;
use crate::lnd::macaroon::{Grant, Macaroon};
use crate::lnd::proto::lnrpc;
use crate::model::node::{Node, Phase, Process, Runtime, WalletState};
use crate::model::problem::{Code, Refusal};
use crate::store::repo;
use arc_swap::ArcSwap;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// How long to ask an lnd itself for its state where its host's reports say that it is not ready.
const PROBE: Duration = Duration::from_secs(1);

/// What is known of a node. Replaced as a whole.
#[derive(Debug)]
pub struct NodeState {
    /// The node.
    pub node: Node,
    /// What its host last said of its lnd.
    pub runtime: Option<Runtime>,
}

/// A node.
#[derive(Debug)]
pub struct NodeHandle {
    parts: Arc<Parts>,
    state: ArcSwap<NodeState>,
    bulkhead: Bulkhead,
    macaroons: Mutex<HashMap<Grant, Arc<Macaroon>>>,
    reads: Reads,
}

/// The reads that are asked for most.
#[derive(Debug, Default)]
struct Reads {
    info: Joined<lnrpc::GetInfoResponse>,
    wallet_balance: Joined<lnrpc::WalletBalanceResponse>,
    channel_balance: Joined<lnrpc::ChannelBalanceResponse>,
    channels: Joined<lnrpc::ListChannelsResponse>,
}

/// Leave to make one call to a node's lnd.
#[derive(Debug)]
pub struct Lnd {
    /// The connection.
    pub client: LndClient,
    /// What allows the call, and nothing else.
    pub macaroon: Arc<Macaroon>,
    handle: Arc<NodeHandle>,
    _place: Place,
}

impl NodeHandle {
    pub(super) fn new(parts: Arc<Parts>, state: NodeState, max_calls: usize) -> Self {
        let (state, bulkhead) = (ArcSwap::from_pointee(state), Bulkhead::new(max_calls, Instant::now()));
        Self { parts, state, bulkhead, macaroons: Mutex::default(), reads: Reads::default() }
    }

    /// What is known of it.
    #[must_use]
    pub fn state(&self) -> Arc<NodeState> {
        self.state.load_full()
    }

    /// Takes over a newer document of the node.
    pub(super) fn put_node(&self, node: Node) {
        if self.state.load().node.secrets != node.secrets {
            self.macaroons.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
        self.state.rcu(|old| NodeState { node: node.clone(), runtime: old.runtime.clone() });
    }

    /// Takes over what its host says of it.
    pub(super) fn put_runtime(&self, runtime: Option<&Runtime>) {
        self.state.rcu(|old| NodeState { node: old.node.clone(), runtime: runtime.cloned() });
    }

    /// Reads its documents again: before a no is told, and after the node could not be reached.
    ///
    /// # Errors
    /// The Store does not answer.
    pub async fn refresh(&self) -> Result<(), Refusal> {
        let id = self.state.load().node.id.clone();
        let store = &*self.parts.store;
        let (node, runtime) =
            tokio::try_join!(repo::get::<Node>(store, id.as_str()), repo::get::<Runtime>(store, id.as_str()))
                .map_err(|error| refuse::store(&error))?;
        if let Some(node) = node {
            self.put_node(node.value);
        }
        self.put_runtime(runtime.map(|runtime| runtime.value).as_ref());
        Ok(())
    }

    /// Whether its lnd can be called. A yes comes out of memory. Before a no the documents are read again, and where they
    /// still say no, lnd itself is asked: reports of a start may lag a little behind it.
    ///
    /// # Errors
    /// 503 with a code for each reason why it cannot now; 409 where the node was deleted; 404 where it never came to be.
    pub async fn ready(&self) -> Result<(), Refusal> {
        if judge(&self.state.load()).is_ok() {
            return Ok(());
        }
        self.refresh().await?;
        let state = self.state.load_full();
        match judge(&state) {
            Err(refusal) if is_worth_asking(&state) && self.says_active(&state.node).await => {
                tracing::debug!(node.id = %state.node.id, code = ?refusal.code, "lnd is further than its host says");
                Ok(())
            }
            verdict => verdict,
        }
    }

    /// Its state in a word, as `node` shows it; what can be called is `ready`.
    ///
    /// # Errors
    /// 404 where it never came to be; or the Store does not answer.
    pub async fn condition(&self) -> Result<&'static str, Refusal> {
        match self.ready().await {
            Ok(()) => Ok(self.condition_as_reported_or("ready")),
            Err(refusal) => condition_of(&refusal).ok_or(refusal),
        }
    }

    /// The same without asking anybody.
    #[must_use]
    pub fn condition_as_reported(&self) -> &'static str {
        match judge(&self.state.load()) {
            Ok(()) => self.condition_as_reported_or("ready"),
            Err(refusal) => condition_of(&refusal).unwrap_or("deleted"),
        }
    }

    fn condition_as_reported_or(&self, ready: &'static str) -> &'static str {
        if self.state.load().node.phase == Phase::Deleting { "deleting" } else { ready }
    }

    async fn says_active(&self, node: &Node) -> bool {
        let Ok(client) = self.parts.lnds.client(node) else { return false };
        matches!(client.within(PROBE).wallet_state().await, Ok(lnrpc::WalletState::ServerActive))
    }

    /// Leave to make one call that needs `grant`.
    ///
    /// # Errors
    /// As [`NodeHandle::ready`]; and [`Code::NodeBusy`] where too many calls wait for this node.
    pub async fn lnd(self: &Arc<Self>, grant: Grant) -> Result<Lnd, Refusal> {
        self.ready().await?;
        let state = self.state.load();
        if state.node.phase == Phase::Deleting && !grant.is_read() {
            return Err(Refusal::new(Code::NodeDeleted, "this user's node is being deleted"));
        }
        let place = self.bulkhead.enter(Instant::now())?;
        let client = self.parts.lnds.client(&state.node).map_err(|error| refuse::any(&error))?;
        let macaroon = self.macaroon(&state.node, grant)?;
        Ok(Lnd { client, macaroon, handle: Arc::clone(self), _place: place })
    }

    /// What allows `grant` on `node`, which is this one. Baked once; the root key is in memory only while it bakes.
    ///
    /// # Errors
    /// The root key does not open.
    pub(in crate::app) fn macaroon(&self, node: &Node, grant: Grant) -> Result<Arc<Macaroon>, Refusal> {
        let mut macaroons = self.macaroons.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(baked) = macaroons.get(&grant) {
            return Ok(Arc::clone(baked));
        }
        let baked = Arc::new(self.parts.keys.bake(node, grant, &[]).map_err(|error| refuse::any(&error))?);
        macaroons.insert(grant, Arc::clone(&baked));
        Ok(baked)
    }

    /// The key from which preimages of idempotent invoices are derived.
    ///
    /// # Errors
    /// It does not open.
    pub fn invoice_key(&self) -> Result<Zeroizing<Vec<u8>>, Refusal> {
        let state = self.state.load();
        self.parts.keys.open_of(&state.node, crate::app::keys::field::INVOICE_KEY).map_err(|error| refuse::any(&error))
    }
}

/// The reads that are [`Joined`]. They fail as [`Lnd::done`] does.
impl Lnd {
    /// lnd's GetInfo.
    pub async fn get_info(&self) -> Result<Arc<lnrpc::GetInfoResponse>, Refusal> {
        let call = |lnd: LndClient, macaroon: Arc<Macaroon>| async move { lnd.get_info(&macaroon).await };
        self.joined(&self.handle.reads.info, call).await
    }

    /// lnd's WalletBalance.
    pub async fn wallet_balance(&self) -> Result<Arc<lnrpc::WalletBalanceResponse>, Refusal> {
        let call = |lnd: LndClient, macaroon: Arc<Macaroon>| async move { lnd.wallet_balance(&macaroon).await };
        self.joined(&self.handle.reads.wallet_balance, call).await
    }

    /// lnd's ChannelBalance.
    pub async fn channel_balance(&self) -> Result<Arc<lnrpc::ChannelBalanceResponse>, Refusal> {
        let call = |lnd: LndClient, macaroon: Arc<Macaroon>| async move { lnd.channel_balance(&macaroon).await };
        self.joined(&self.handle.reads.channel_balance, call).await
    }

    /// lnd's ListChannels, of all channels.
    pub async fn list_channels(&self) -> Result<Arc<lnrpc::ListChannelsResponse>, Refusal> {
        let call = |lnd: LndClient, macaroon: Arc<Macaroon>| async move {
            lnd.list_channels(&macaroon, lnrpc::ListChannelsRequest::default()).await
        };
        self.joined(&self.handle.reads.channels, call).await
    }

    async fn joined<T, F>(
        &self,
        read: &Joined<T>,
        call: impl FnOnce(LndClient, Arc<Macaroon>) -> F,
    ) -> Result<Arc<T>, Refusal>
    where
        T: Send + Sync + 'static,
        F: Future<Output = Result<T, LndError>> + Send + 'static,
    {
        let outcome = read.ask(|| call(self.client.clone(), Arc::clone(&self.macaroon))).await;
        self.done(outcome).await
    }
}

impl Lnd {
    /// Takes note of what became of the call, and says it to the user.
    ///
    /// # Errors
    /// lnd's no, as [`refuse::lnd`] tells it.
    pub async fn done<T>(&self, outcome: Result<T, LndError>) -> Result<T, Refusal> {
        match outcome {
            Ok(answer) => {
                self.answered();
                Ok(answer)
            }
            Err(error) => Err(self.failed(&error).await),
        }
    }

    /// Takes note that lnd has answered, whatever it said.
    pub fn answered(&self) {
        self.handle.bulkhead.answered(Instant::now());
    }

    async fn failed(&self, error: &LndError) -> Refusal {
        if error.retryable(true) {
            // It may have moved, or stopped. The next caller is told by what the Store says.
            let _best_effort = self.handle.refresh().await;
            if let Err(refusal) = judge(&self.handle.state.load()) {
                return refusal;
            }
        } else {
            self.answered();
        }
        refuse::lnd(error)
    }
}

/// Whether these documents say that lnd can be called.
fn judge(state: &NodeState) -> Result<(), Refusal> {
    let later = |code, message: &str, seconds| Err(Refusal::new(code, message).retry_after(seconds));
    match state.node.phase {
        Phase::Creating => return later(Code::NodeCreating, "the node is still being created", 2),
        Phase::Failed => return Err(unknown_user()),
        Phase::Deleted => return Err(Refusal::new(Code::NodeDeleted, "this user's node was deleted")),
        Phase::Ready | Phase::Deleting => {}
    }
    let Some(runtime) = &state.runtime else { return later(Code::NodeStarting, "the node's lnd is starting", 2) };
    match (&runtime.process, runtime.wallet) {
        (Process::Stopped, _) => later(Code::NodeStopped, "the node's lnd is not running", 10),
        (Process::Restarting { .. }, _) => later(Code::NodeStarting, "the node's lnd is being started again", 2),
        (Process::Running | Process::Unknown, WalletState::ServerActive) => Ok(()),
        (_, WalletState::RpcActive) => later(Code::NodeNotSynced, "the node's lnd is not synced to the chain", 2),
        (_, WalletState::Locked | WalletState::Unlocked) => {
            later(Code::NodeUnlocking, "the node's wallet is being unlocked", 2)
        }
        (_, WalletState::NonExisting) => later(Code::NodeStopped, "the node has no wallet", 10),
        (_, WalletState::Unknown | WalletState::WaitingToStart) => {
            later(Code::NodeStarting, "the node's lnd is starting", 2)
        }
    }
}

fn condition_of(refusal: &Refusal) -> Option<&'static str> {
    match refusal.code {
        Code::NodeCreating => Some("creating"),
        Code::NodeDeleted => Some("deleted"),
        Code::NodeStopped => Some("stopped"),
        Code::NodeStarting => Some("starting"),
        Code::NodeUnlocking => Some("unlocking"),
        Code::NodeNotSynced => Some("not_synced"),
        _ => None,
    }
}

/// Whether lnd itself may know better than its host's reports.
fn is_worth_asking(state: &NodeState) -> bool {
    let stopped = matches!(state.runtime, Some(Runtime { process: Process::Stopped, .. }));
    matches!(state.node.phase, Phase::Ready | Phase::Deleting) && state.node.endpoint.is_some() && !stopped
}

/// The same for a user that never was, one of another app, and one whose create failed before there was a wallet.
#[must_use]
pub fn unknown_user() -> Refusal {
    Refusal::new(Code::UserNotFound, "no such user")
}

#[cfg(test)]
#[path = "handle_tests.rs"]
mod tests;
