//! What keeps nodes usable without anybody's call: a locked wallet is unlocked, always; channels of the fleet that are
//! inactive after a restart are reconnected at the peers' current addresses; a backup becomes the one to restore only
//! after the node itself has said what it covers; a first funding is confirmed when the node has seen it so.

mod turns;
mod under_way;

use self::turns::{Turns, Waiting};
use self::under_way::UnderWay;
use super::Parts;
use super::claim::{self, ClaimGuard};
use super::fleet::is_on_revoked_host;
use super::keys::field;
use crate::backoff::Backoff;
use crate::error::{Error, Result};
use crate::fault;
use crate::lnd::LndErrorKind;
use crate::lnd::client::LndClient;
use crate::lnd::macaroon::{Caveat, Grant};
use crate::lnd::proto::lnrpc::{ClosedChannelsRequest, ListChannelsRequest};
use crate::model::NodeId;
use crate::model::backups::{self, Channels};
use crate::model::node::{Backup, BackupHead, Funding, Node, Phase, Runtime, WalletState};
use crate::store::repo::{self, Entity, Versioned};
use crate::store::{Change, Document};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::broadcast;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Between tries of a chore.
const BACKOFF: Backoff = Backoff { first: Duration::from_millis(200), longest: Duration::from_secs(15) };
/// A peer that is away comes back by itself (it reconnects, too); calling it longer helps nobody.
const RECONNECT_TRIES: u32 = 8;
/// Of an lnd that its host says is up, and that does not answer: about ten minutes. Its next start is a new chore.
const RECONNECTS: u32 = 45;

/// One thing to do for a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Chore {
    Unlock,
    Reconnect { starts: u64 },
    VerifyBackup { number: u64 },
    ConfirmFunding,
}

impl Chore {
    /// Whether there is no point in another try. A wallet is unlocked and a backup is verified whenever that may be.
    fn is_vain_after(self, tries: u32) -> bool {
        matches!(self, Self::Reconnect { .. }) && tries >= RECONNECTS
    }
}

/// The upkeep of one master.
#[derive(Debug)]
pub struct Upkeep {
    parts: Arc<Parts>,
    /// So that repeated reports start nothing twice.
    under_way: UnderWay,
    /// The start of each node's lnd after which channels were reconnected.
    reconnected: Mutex<HashMap<NodeId, u64>>,
}

impl Upkeep {
    /// Upkeep that does nothing until it is run.
    #[must_use]
    pub fn new(parts: Arc<Parts>) -> Arc<Self> {
        Arc::new(Self { parts, under_way: UnderWay::default(), reconnected: Mutex::default() })
    }

    /// Follows the feed and does what it asks for, until `stop`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut feed = self.parts.feed.subscribe();
        let (mut tasks, mut turns) = (JoinSet::new(), Turns::default());
        let mut relist = true;
        while !stop.is_cancelled() {
            if std::mem::take(&mut relist) {
                match self.list().await {
                    Ok(chores) => self.start(chores, &mut tasks, &mut turns, &stop),
                    Err(error) => {
                        tracing::warn!(%error, "nodes cannot be listed for upkeep");
                        relist = true;
                        tokio::time::sleep(BACKOFF.first).await;
                    }
                }
            }
            while let Some((waiting, place)) = turns.take(Instant::now()) {
                let upkeep = Arc::clone(&self);
                tasks.spawn(async move {
                    let again = upkeep.turn(waiting).await;
                    drop(place);
                    again
                });
            }
            let next = turns.next(Instant::now());
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(next.unwrap_or_default()), if next.is_some() => {}
                change = feed.recv() => match change.as_deref() {
                    Ok(Change::Put(document)) => {
                        let chore = chore_of(document);
                        self.start(chore.into_iter().collect(), &mut tasks, &mut turns, &stop);
                    }
                    Ok(Change::Resync) | Err(broadcast::error::RecvError::Lagged(_)) => relist = true,
                    Ok(Change::Deleted(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => break,
                },
                Some(ended) = tasks.join_next(), if !tasks.is_empty() => {
                    if let Ok(Some((due, waiting))) = ended {
                        turns.add(due, waiting);
                    }
                }
            }
        }
        tasks.shutdown().await;
    }

    async fn list(&self) -> Result<Vec<(NodeId, Chore)>> {
        let store = &*self.parts.store;
        // One that cannot be read must not keep the others locked.
        let skipped = |error| tracing::error!(%error, "upkeep leaves it alone");
        let mut chores = Vec::new();
        // Page by page: all nodes of a fleet, with their secrets, are more than is to be in memory.
        repo::each_readable::<Runtime>(store, None, skipped, |r| chores.extend(of_runtime(&r.value))).await?;
        repo::each_readable::<BackupHead>(store, None, skipped, |h| chores.extend(of_head(&h.value))).await?;
        repo::each_readable::<Node>(store, None, skipped, |n| chores.extend(of_node(&n.value))).await?;
        Ok(chores)
    }

    fn start(
        self: &Arc<Self>,
        chores: Vec<(NodeId, Chore)>,
        tasks: &mut JoinSet<Option<(Instant, Waiting)>>,
        turns: &mut Turns,
        stop: &CancellationToken,
    ) {
        for (node, chore) in chores {
            if let Chore::Reconnect { starts } = chore {
                let mut done = self.reconnected.lock().unwrap_or_else(PoisonError::into_inner);
                if done.insert(node.clone(), starts) == Some(starts) {
                    continue;
                }
            }
            if !self.under_way.begin(&node, chore) {
                continue;
            }
            // Every node that is up is looked at after a master's start, and hardly any has something to be done.
            if matches!(chore, Chore::Reconnect { .. }) {
                turns.add(Instant::now(), Waiting { node, chore, tries: 0 });
            } else {
                let (upkeep, stop) = (Arc::clone(self), stop.clone());
                tasks.spawn(async move {
                    upkeep.work(node, chore, stop).await;
                    None
                });
            }
        }
    }

    /// Tries a chore once. If there is more to do, what and when.
    async fn turn(&self, Waiting { node, chore, tries }: Waiting) -> Option<(Instant, Waiting)> {
        let tries = tries + 1;
        let is_over = self.is_over(&node, chore).await || chore.is_vain_after(tries);
        if is_over && self.under_way.end(&node, chore) {
            return None;
        }
        let newest = self.under_way.newest(&node, chore);
        if newest != chore {
            return Some((Instant::now(), Waiting { node, chore: newest, tries: 0 }));
        }
        Some((Instant::now() + BACKOFF.pause(tries - 1, rand::random()), Waiting { node, chore, tries }))
    }

    /// Does a chore again and again until it is done or no longer needed; then a newer one of its kind, if there is one by
    /// now.
    async fn work(self: Arc<Self>, node: NodeId, mut chore: Chore, stop: CancellationToken) {
        let (mut pauses, mut tries) = (BACKOFF.pauses(), 0);
        while !stop.is_cancelled() {
            tries += 1;
            let is_over = self.is_over(&node, chore).await || chore.is_vain_after(tries);
            if is_over && self.under_way.end(&node, chore) {
                break;
            }
            if !is_over {
                tokio::select! {
                    () = stop.cancelled() => break,
                    () = tokio::time::sleep(pauses.take()) => {}
                }
            }
            let newest = self.under_way.newest(&node, chore);
            if newest != chore {
                (chore, pauses, tries) = (newest, BACKOFF.pauses(), 0);
            }
        }
    }

    /// Tries a chore once. False where it should be tried again.
    async fn is_over(&self, node: &NodeId, chore: Chore) -> bool {
        match self.once(node, chore).await {
            Ok(done) => done,
            Err(error) if error.retryable() || matches!(error, Error::ClaimLost) => {
                tracing::debug!(%error, %node, ?chore, "upkeep will be tried again");
                false
            }
            Err(error) => {
                tracing::error!(%error, %node, ?chore, "upkeep is not possible");
                true
            }
        }
    }

    /// True when there is nothing left to do.
    async fn once(&self, id: &NodeId, chore: Chore) -> Result<bool> {
        let Some(node) = repo::get::<Node>(&*self.parts.store, id.as_str()).await? else { return Ok(true) };
        // Until a node is ready its create sees to it; a deleted one rests.
        if !matches!(node.value.phase, Phase::Ready | Phase::Deleting) || node.value.endpoint.is_none() {
            return Ok(true);
        }
        // Whoever does these two does the same, and what they commit is conditional: they need no claim.
        match chore {
            Chore::VerifyBackup { number } => return self.verify_backup(&node.value, number).await,
            Chore::ConfirmFunding => return self.confirm_funding(node).await,
            // Nothing is claimed, which costs two commits, for the many where there is nothing to do.
            Chore::Reconnect { .. } if self.nobody_is_away(&node.value).await? => return Ok(true),
            Chore::Unlock | Chore::Reconnect { .. } => {}
        }
        if chore == Chore::Unlock && is_on_revoked_host(&*self.parts.store, &node.value).await? {
            tracing::warn!(node = %id, host = ?node.value.placement, "a wallet on a revoked host is not unlocked");
            return Ok(true);
        }
        let subject = format!("upkeep-{id}");
        let Parts { store, lease, observer, .. } = &*self.parts;
        let Some(guard) = claim::claim(&**store, lease, observer, &subject).await? else {
            // Another master is at it; whether it succeeds, the next report tells.
            return Ok(chore != Chore::Unlock || self.is_unlocked(id).await?);
        };
        let outcome = if chore == Chore::Unlock {
            self.unlock(&node.value, &guard).await
        } else {
            self.reconnect(&node.value, &guard).await
        };
        guard.release(&**store).await?;
        outcome
    }

    async fn is_unlocked(&self, id: &NodeId) -> Result<bool> {
        let runtime = repo::get::<Runtime>(&*self.parts.store, id.as_str()).await?;
        Ok(runtime.is_none_or(|r| r.value.wallet != WalletState::Locked))
    }

    async fn unlock(&self, node: &Node, guard: &ClaimGuard) -> Result<bool> {
        let password = self.parts.keys.open_of(node, field::WALLET_PASSWORD)?;
        let lnd = self.parts.lnds.client(node)?;
        let _turn = self.parts.scrypt_turn(node).await;
        fault::point("upkeep.unlock.before").await;
        guard.check()?;
        match lnd.unlock_wallet(&password).await {
            Ok(()) => {
                tracing::info!(node = %node.id, "wallet unlocked");
                Ok(true)
            }
            Err(e) if e.kind == LndErrorKind::WalletAlreadyUnlocked => Ok(true),
            Err(e) if e.kind == LndErrorKind::Unreachable => {
                Ok(!self.is_locked(&lnd).await && self.is_unlocked(&node.id).await?)
            }
            Err(e) => Err(e.into()),
        }
    }

    async fn is_locked(&self, lnd: &LndClient) -> bool {
        matches!(lnd.wallet_state().await, Ok(crate::lnd::proto::lnrpc::WalletState::Locked))
    }

    async fn nobody_is_away(&self, node: &Node) -> Result<bool> {
        let lnd = self.parts.lnds.passing(node)?;
        let read = self.parts.keys.bake(node, Grant::Read, &[])?;
        let channels = lnd.list_channels(&read, ListChannelsRequest::default()).await?.channels;
        Ok(channels.iter().all(|channel| channel.active))
    }

    async fn reconnect(&self, node: &Node, guard: &ClaimGuard) -> Result<bool> {
        let lnd = self.parts.lnds.client(node)?;
        let read = self.parts.keys.bake(node, Grant::Read, &[])?;
        for tries in 0..RECONNECT_TRIES {
            let channels = lnd.list_channels(&read, ListChannelsRequest::default()).await?.channels;
            let away: HashSet<String> = channels.into_iter().filter(|c| !c.active).map(|c| c.remote_pubkey).collect();
            if away.is_empty() {
                return Ok(true);
            }
            let peers = self.parts.keys.bake(node, Grant::Peers, &[Caveat::TimeBefore(guard.spend_until()?)])?;
            for pubkey in away {
                let Some(address) = super::workflows::fleet_address(&self.parts, &pubkey).await? else { continue };
                match lnd.connect_peer(&peers, &pubkey, &address, false).await {
                    Ok(_) => tracing::info!(node = %node.id, peer = pubkey, "reconnected"),
                    Err(e) if e.kind == LndErrorKind::AlreadyConnected => {}
                    Err(error) => tracing::debug!(%error, node = %node.id, peer = pubkey, "the peer is away"),
                }
            }
            tokio::time::sleep(BACKOFF.pause(tries, 1.0)).await;
        }
        Ok(true)
    }

    /// The node says which channels a backup covers. It becomes the good one if every channel that is open, or was covered
    /// by the good one before and is not recorded closed, is in it.
    async fn verify_backup(&self, node: &Node, number: u64) -> Result<bool> {
        let store = &*self.parts.store;
        let Some(mut head) = repo::get::<BackupHead>(store, node.id.as_str()).await? else { return Ok(true) };
        if head.value.newest != number || head.value.good.is_some_and(|good| good >= number) {
            return Ok(true);
        }
        let Some(mut backup) = repo::get::<Backup>(store, &Backup::id_of(&node.id, number)).await? else {
            return Ok(true);
        };
        let lnd = self.parts.lnds.client(node)?;
        let bytes = STANDARD
            .decode(&backup.value.bytes)
            .map_err(|_| Error::Invariant("a stored backup is not base64".into()))?;
        let macaroon = self.parts.keys.bake(node, Grant::Backup, &[])?;
        let covers: HashSet<String> = match lnd.verify_backup(&macaroon, bytes).await {
            Ok(answer) => answer.chan_points.into_iter().collect(),
            Err(e) if e.kind == LndErrorKind::Refused => {
                tracing::error!(node = %node.id, number, "the node does not know this channel backup as its own");
                return Ok(true);
            }
            Err(e) => return Err(e.into()),
        };
        let missing = self.channels(node, &lnd, head.value.good).await?.missing_in(&covers).len();
        backup.value.channel_points = Some(covers.into_iter().collect());
        let mut writes = vec![repo::update(&backup.value, backup.version)?];
        if missing == 0 {
            let before = head.value.good.replace(number);
            writes.push(repo::update(&head.value, head.version)?);
            if let Some(old) = before.filter(|old| !backups::is_kept(*old, number, Some(number))) {
                let id = Backup::id_of(&node.id, old);
                let old = repo::get::<Backup>(store, &id).await?;
                writes.extend(old.map(|old| repo::delete::<Backup>(&id, old.version)));
            }
        } else {
            tracing::error!(node = %node.id, number, missing, "a channel backup covers fewer channels; the older one stays");
        }
        store.commit(writes).await?;
        Ok(true)
    }

    /// Writes down that the first funding has a confirmation, once the node's own lnd has seen a block with it.
    async fn confirm_funding(&self, mut node: Versioned<Node>) -> Result<bool> {
        let Funding::Published { amount_sat, txid } = &node.value.funding else { return Ok(true) };
        let parsed = txid.parse().map_err(|_| Error::Invariant("a funding's txid is none".into()))?;
        let read = self.parts.keys.bake(&node.value, Grant::Read, &[])?;
        let seen = self.parts.lnds.client(&node.value)?.transaction(&read, parsed).await?;
        if seen.is_none_or(|transaction| transaction.num_confirmations < 1) {
            return Ok(false);
        }
        node.value.funding = Funding::Confirmed { amount_sat: *amount_sat, txid: txid.clone() };
        self.parts.store.commit(vec![repo::update(&node.value, node.version)?]).await?;
        Ok(true)
    }

    /// What is known of a node's channels, by the node itself and by the backup that is good so far.
    async fn channels(&self, node: &Node, lnd: &LndClient, good: Option<u64>) -> Result<Channels> {
        let read = self.parts.keys.bake(node, Grant::Read, &[])?;
        let good = match good {
            Some(good) => repo::get::<Backup>(&*self.parts.store, &Backup::id_of(&node.id, good)).await?,
            None => None,
        };
        let open = lnd.list_channels(&read, ListChannelsRequest::default()).await?.channels;
        let closed = lnd.closed_channels(&read, ClosedChannelsRequest::default()).await?.channels;
        let closing = lnd.pending_closes(&read).await?;
        let closed = closed.into_iter().map(|c| c.channel_point);
        Ok(Channels {
            open: open.into_iter().map(|c| c.channel_point).collect(),
            in_good: good.and_then(|good| good.value.channel_points).into_iter().flatten().collect(),
            closed: closed.chain(closing.into_iter().map(|c| c.channel_point)).collect(),
        })
    }
}

fn chore_of(document: &Document) -> Option<(NodeId, Chore)> {
    match document.key.collection {
        Runtime::COLLECTION => of_runtime(&repo::decode_ref::<Runtime>(document).ok()?.value),
        BackupHead::COLLECTION => of_head(&repo::decode_ref::<BackupHead>(document).ok()?.value),
        Node::COLLECTION => of_node(&repo::decode_ref::<Node>(document).ok()?.value),
        _ => None,
    }
}

fn of_runtime(runtime: &Runtime) -> Option<(NodeId, Chore)> {
    match runtime.wallet {
        WalletState::Locked => Some((runtime.node.clone(), Chore::Unlock)),
        WalletState::ServerActive => Some((runtime.node.clone(), Chore::Reconnect { starts: runtime.starts })),
        _ => None,
    }
}

fn of_node(node: &Node) -> Option<(NodeId, Chore)> {
    let waits = node.phase == Phase::Ready && matches!(node.funding, Funding::Published { .. });
    waits.then(|| (node.id.clone(), Chore::ConfirmFunding))
}

fn of_head(head: &BackupHead) -> Option<(NodeId, Chore)> {
    (head.good != Some(head.newest)).then(|| (head.node.clone(), Chore::VerifyBackup { number: head.newest }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::store::sqlite::{SqliteOptions, SqliteStore};

    /// A host invents the starts that it reports.
    #[tokio::test]
    async fn whatever_starts_a_host_reports_there_is_one_task_for_them() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = SqliteStore::open(&folder.path().join("db"), SqliteOptions::default()).await.expect("a store");
        let upkeep = Upkeep::new(Parts::for_tests(Arc::new(store), Arc::new(SystemClock)));
        let (mut tasks, mut turns, stop) = (JoinSet::new(), Turns::default(), CancellationToken::new());
        let (node, other) = (NodeId::random(&mut rand::rng()), NodeId::random(&mut rand::rng()));
        for starts in 0..1000 {
            upkeep.start(vec![(node.clone(), Chore::Reconnect { starts })], &mut tasks, &mut turns, &stop);
        }
        let more = vec![(other, Chore::Reconnect { starts: 1 }), (node, Chore::Unlock)];
        upkeep.start(more, &mut tasks, &mut turns, &stop);
        assert_eq!(tasks.len(), 1, "the wallet's");
        // There are no such nodes, so that there is nothing to do; also not for the newest.
        let done = async { while tasks.join_next().await.is_some() {} };
        tokio::time::timeout(Duration::from_secs(60), done).await.expect("they end");
        let (first, _) = turns.take(Instant::now()).expect("a turn");
        let (due, newest) = upkeep.turn(first).await.expect("a newer one");
        assert_eq!((newest.chore, newest.tries), (Chore::Reconnect { starts: 999 }, 0));
        turns.add(due, newest);
        for _ in 0..2 {
            let (waiting, _) = turns.take(Instant::now()).expect("a turn for each node");
            assert!(upkeep.turn(waiting).await.is_none());
        }
        assert!(turns.take(Instant::now()).is_none());
        assert!(Chore::Reconnect { starts: 1 }.is_vain_after(RECONNECTS) && !Chore::Unlock.is_vain_after(u32::MAX));
    }
}
