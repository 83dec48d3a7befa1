//! What a master does for its callers: accept work, tell of it, wait for it. Accepting writes an operation together with
//! its natural key, its idempotency record and its reserved limits in one commit; the executor does the rest.

mod accept;
mod close;
mod create;
mod pay;
mod rollouts;
mod withdraw;

pub(super) use accept::{MOST_TRIES, step_aside, too_many_at_once};
pub(super) use withdraw::fee_too_high;

use super::directory::{Directory, unknown_user};
use super::feed::{Changed, next_change_of};
use super::updates::{self, Accepted, Received, Standing};
use super::{Parts, refuse};
use crate::error::StoreError;
use crate::lnd::client::LndClient;
use crate::lnd::macaroon::{Grant, Macaroon};
use crate::model::amount::Sat;
use crate::model::ids::{AppId, OperationId, Uuid};
use crate::model::node::{Node, NodeName, Phase};
use crate::model::operation::{IdempotencyRecord, IdempotentOutcome, Operation};
use crate::model::problem::{Code, Refusal};
use crate::model::work::onchain::WithdrawAmount;
use crate::model::work::pay::OpenPolicy;
use crate::store::repo::{self, Versioned};
use crate::store::{IndexEntry, Write};
use futures::Stream;
use std::sync::Arc;
use std::time::Duration;
use time::OffsetDateTime;

/// A page of operations and the cursor of the next.
pub type OperationPage = (Vec<Versioned<Operation>>, Option<String>);

/// What an Idempotency-Key stands for: (API key, key) and the request it came with. Stored with the operation, in the same
/// commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency {
    /// Digest of the API key's id and the key; the id of the record.
    pub id: String,
    /// SHA-256 of the route and its parameters, hexadecimal.
    pub request_sha256: String,
}

impl Idempotency {
    /// The record that it stands for `operation` from now on.
    fn stands_for(&self, operation: &OperationId, now: OffsetDateTime) -> IdempotencyRecord {
        IdempotencyRecord {
            id: self.id.clone(),
            request_sha256: self.request_sha256.clone(),
            outcome: IdempotentOutcome::Operation { operation: operation.clone() },
            created_at: now,
        }
    }
}

/// What `pay` was asked; every field is checked for its form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PayRequest {
    /// The payment request (BOLT 11).
    pub payreq: String,
    /// The peer to open a channel with; the payee by default.
    pub pubkey: Option<String>,
    /// Where that peer is: a literal, allowed address with its port.
    pub host: Option<String>,
    /// The capacity wished for a channel that must be opened.
    pub amt: Option<Sat>,
    /// The amount, where the payment request names none.
    pub pay_amt: Option<Sat>,
    /// Bound on routing fees; 1% by default, at least 10.
    pub max_fee: Option<Sat>,
    /// Whether a channel may be opened.
    pub open: OpenPolicy,
    /// Bound on the cost of opening.
    pub max_open_fee: Option<Sat>,
}

/// What `closechannel` was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloseRequest {
    /// The peer.
    pub pubkey: String,
    /// The channel, `txid:index`; needed where there are several with the peer.
    pub channel_point: Option<String>,
    /// Whether to close without the peer.
    pub force: bool,
    /// Bound on the fee, where this node pays it; three times what it costs at the current fee rate by default.
    pub max_fee: Option<Sat>,
}

/// What `withdraw` was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WithdrawRequest {
    /// Where to.
    pub address: String,
    /// How much.
    pub amount: WithdrawAmount,
    /// Bound on the fee; 1% of the amount by default, at least 2,000.
    pub max_fee: Option<Sat>,
}

/// The use cases.
#[derive(Debug, Clone)]
pub struct Service {
    parts: Arc<Parts>,
    directory: Arc<Directory>,
}

impl Service {
    /// With everything the master has.
    #[must_use]
    pub fn new(parts: Arc<Parts>, directory: Arc<Directory>) -> Self {
        Self { parts, directory }
    }

    /// The operation.
    pub async fn operation(&self, id: &OperationId) -> Result<Option<Versioned<Operation>>, Refusal> {
        repo::get::<Operation>(&*self.parts.store, id.as_str()).await.map_err(|e| refuse::store(&e))
    }

    /// Waits until the operation no longer runs, or `at_most`; then tells how it is.
    pub async fn wait(&self, id: &OperationId, at_most: Duration) -> Result<Versioned<Operation>, Refusal> {
        // Subscribed before the look, so that nothing falls between.
        let mut changes = self.parts.feed.subscribe();
        let deadline = tokio::time::Instant::now() + at_most;
        let mut known = self.existing(id).await?;
        while known.value.is_running() && tokio::time::Instant::now() < deadline {
            match tokio::time::timeout_at(deadline, next_change_of(&mut changes, id)).await {
                Ok(Some(Changed::To(told))) if told.version > known.version => known = *told,
                Ok(Some(Changed::To(_from_before_the_look))) => {}
                Ok(Some(Changed::LookAgain) | None) | Err(_) => known = self.existing(id).await?,
            }
        }
        Ok(known)
    }

    async fn existing(&self, id: &OperationId) -> Result<Versioned<Operation>, Refusal> {
        let found = self.operation(id).await?;
        found.ok_or_else(|| Refusal::new(Code::OperationNotFound, "no such operation"))
    }

    /// The operation as it is now, and again after each change, until it no longer runs.
    pub fn watch(&self, id: &OperationId) -> impl Stream<Item = Versioned<Operation>> + Send + use<> {
        let (service, id) = (self.clone(), id.clone());
        let changes = self.parts.feed.subscribe();
        futures::stream::unfold((service, id, changes, None), |(service, id, mut changes, last)| async move {
            if matches!(&last, Some((_, false))) {
                return None;
            }
            let mut look = last.is_none();
            loop {
                let changed = if look { Changed::LookAgain } else { next_change_of(&mut changes, &id).await? };
                look = false;
                let current = match changed {
                    Changed::To(told) => Some(*told),
                    Changed::LookAgain => service.operation(&id).await.ok().flatten(),
                };
                if let Some(current) = current.filter(|now| last.is_none_or(|(version, _)| version < now.version)) {
                    let state = Some((current.version, current.value.is_running()));
                    return Some((current, (service, id, changes, state)));
                }
            }
        })
    }

    /// The operations of an app, or all, newest first.
    pub async fn operations(
        &self,
        app: Option<&AppId>,
        cursor: Option<String>,
        limit: usize,
    ) -> Result<OperationPage, Refusal> {
        let index = app.map(|app| IndexEntry { name: "app", value: app.to_string() });
        repo::list::<Operation>(&*self.parts.store, index, cursor, limit, true).await.map_err(|e| refuse::store(&e))
    }

    /// Accepts a delivery of GitHub's webhook.
    pub async fn accept_delivery(&self, received: &Received) -> Result<Accepted, Refusal> {
        self.parts.accept_delivery(received).await
    }

    /// Which release is wanted, and what was heard of others.
    pub async fn updates(&self) -> Result<Standing, Refusal> {
        updates::standing(&self.parts).await.map_err(|e| refuse::store(&e))
    }

    /// Frees a parked operation: it runs again at the step where it was parked.
    pub async fn retry(&self, id: &OperationId) -> Result<Operation, Refusal> {
        let now = self.parts.clock.now();
        let mut is_freed = false;
        let free = |operation: &mut Operation| {
            is_freed = operation.free(now);
            Ok::<_, StoreError>(is_freed)
        };
        let found = repo::modify(&*self.parts.store, id.as_str(), free).await.map_err(|e| refuse::store(&e))?;
        match found {
            Some(operation) if is_freed => Ok(operation.value),
            Some(_) => Err(Refusal::new(Code::NotParked, "the operation is not parked")),
            None => Err(Refusal::new(Code::OperationNotFound, "no such operation")),
        }
    }

    /// The node of an app's user, as stored; `None` for a name that was never given.
    async fn find_node(&self, app: &AppId, uuid: &Uuid) -> Result<Option<Versioned<Node>>, Refusal> {
        let name = NodeName::id_of(app, uuid);
        let name = repo::get::<NodeName>(&*self.parts.store, &name).await.map_err(|e| refuse::store(&e))?;
        let Some(name) = name else { return Ok(None) };
        let node = repo::get::<Node>(&*self.parts.store, name.value.node.as_str()).await;
        node.map_err(|e| refuse::store(&e))?.ok_or_else(unknown_user).map(Some)
    }

    /// The node of an app's user, as stored. Unknown users and those of other apps are told apart by nothing.
    async fn node_of(&self, app: &AppId, uuid: &Uuid) -> Result<Versioned<Node>, Refusal> {
        self.find_node(app, uuid).await?.ok_or_else(unknown_user)
    }

    /// A node as stored now, ready for calls that spend, with a macaroon for looking.
    async fn ready_node(&self, node: Versioned<Node>) -> Result<ReadyNode, Refusal> {
        if !self.directory.is_fresh() {
            let message = "this master cannot be sure of what it knows";
            return Err(Refusal::new(Code::NotReady, message).retry_after(2));
        }
        if matches!(node.value.phase, Phase::Deleting | Phase::Deleted) {
            return Err(Refusal::new(Code::NodeDeleted, "this user's node was deleted"));
        }
        let handle = self.directory.by_id(&node.value.id).await?.ok_or_else(unknown_user)?;
        handle.ready().await?;
        let lnd = self.parts.lnds.client(&node.value).map_err(|e| refuse::any(&e))?;
        let read = handle.macaroon(&node.value, Grant::Read)?;
        Ok(ReadyNode { node, lnd, read })
    }
}

/// A node that answers.
struct ReadyNode {
    node: Versioned<Node>,
    lnd: LndClient,
    read: Arc<Macaroon>,
}

impl ReadyNode {
    /// Part of a commit that must not follow one that deletes the node.
    fn is_unchanged(&self) -> Write {
        repo::check::<Node>(self.node.value.id.as_str(), self.node.version)
    }
}

#[cfg(test)]
mod waiting_tests;
