//! Runs the unfinished operations: level-triggered, no leader. Every master follows the feed, claims nodes that have work
//! and nobody alive working on them, and does one step after the other; a restart means listing what is not finished.

use super::worker::{Bell, Worker};
use super::{Parts, claim};
use crate::error::{Error, Result, StoreError};
use crate::model::node::{Claim, Heartbeat};
use crate::model::operation::{Operation, State};
use crate::store::repo::{self, Entity, Versioned};
use crate::store::{Change, IndexEntry};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// The executor of one master.
#[derive(Debug)]
pub struct Executor {
    parts: Arc<Parts>,
    /// Subjects this master works on, with what wakes their workers.
    workers: Mutex<HashMap<String, Arc<Bell>>>,
    /// What was said already of documents that cannot be read.
    told: Mutex<HashSet<String>>,
}

impl Executor {
    /// An executor that does nothing until it is run.
    #[must_use]
    pub fn new(parts: Arc<Parts>) -> Arc<Self> {
        Arc::new(Self { parts, workers: Mutex::default(), told: Mutex::default() })
    }

    /// What the master has.
    pub(super) fn parts(&self) -> &Arc<Parts> {
        &self.parts
    }

    /// Works until `stop`; then lets running steps end (the caller bounds that time) and releases all claims.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut feed = self.parts.feed.subscribe();
        let (ended_tx, mut ended) = mpsc::unbounded_channel::<String>();
        let mut tasks = JoinSet::new();
        let mut waiting: HashSet<String> = HashSet::new();
        // What another master holds: looked at again when it lets go, and at every tick; not at every change.
        let mut held: HashSet<String> = HashSet::new();
        let mut ticks = tokio::time::interval((self.parts.lease.ttl() / 4).max(Duration::from_millis(100)));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut relist = true;
        while !stop.is_cancelled() {
            if std::mem::take(&mut relist)
                && let Err(error) = self.list_unfinished(&mut waiting).await
            {
                tracing::warn!(%error, "unfinished operations cannot be listed");
                relist = true;
            }
            self.start_workers(&mut waiting, &mut held, &mut tasks, &ended_tx, &stop).await;
            tokio::select! {
                () = stop.cancelled() => break,
                change = feed.recv() => match change {
                    Ok(change) => relist |= self.note(&change, &mut waiting, &mut held),
                    Err(broadcast::error::RecvError::Lagged(_)) => relist = true,
                    Err(broadcast::error::RecvError::Closed) => break,
                },
                Some(subject) = ended.recv() => {
                    // Something may have come between the worker's last look and its end.
                    waiting.insert(subject);
                }
                _ = ticks.tick() => {
                    self.parts.observer.prune();
                    waiting.extend(held.drain());
                }
                Some(_) = tasks.join_next(), if !tasks.is_empty() => {}
            }
        }
        while tasks.join_next().await.is_some() {}
    }

    /// Takes note of a change; true asks for listing everything again.
    fn note(&self, change: &Change, waiting: &mut HashSet<String>, held: &mut HashSet<String>) -> bool {
        match change {
            Change::Resync => return true,
            Change::Deleted(key) if key.collection == Heartbeat::COLLECTION => {
                if let Some(master) = crate::model::MasterId::parse(&key.id) {
                    self.parts.observer.gone(&master);
                    waiting.extend(held.drain());
                }
            }
            Change::Put(document) if document.key.collection == Heartbeat::COLLECTION => {
                if let Ok(heartbeat) = repo::decode_ref::<Heartbeat>(document) {
                    self.parts.observer.saw(&heartbeat.value, tokio::time::Instant::now());
                }
            }
            // What its holder has let go need not wait for a tick.
            Change::Put(document) if document.key.collection == Claim::COLLECTION => {
                if let Ok(claim) = repo::decode_ref::<Claim>(document)
                    && claim.value.holder.is_none()
                {
                    waiting.extend(held.take(&claim.value.subject));
                }
            }
            Change::Put(document) if document.key.collection == Operation::COLLECTION => {
                if let Ok(operation) = repo::decode_ref::<Operation>(document)
                    && operation.value.is_running()
                {
                    self.wake(&operation.value, waiting);
                }
            }
            Change::Put(_) | Change::Deleted(_) => {}
        }
        false
    }

    /// Sees to an unfinished operation. What a worker is at, it knows of: most changes are its own commits.
    fn wake(&self, operation: &Operation, waiting: &mut HashSet<String>) {
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        match workers.get(operation.subject()) {
            Some(worker) => worker.ring_for(&operation.id),
            None => {
                waiting.insert(operation.subject().to_owned());
            }
        }
    }

    async fn list_unfinished(&self, waiting: &mut HashSet<String>) -> Result<()> {
        let store = &*self.parts.store;
        for heartbeat in repo::list_all_readable::<Heartbeat>(store, None, |e| self.skipped(&e)).await? {
            self.parts.observer.saw(&heartbeat.value, tokio::time::Instant::now());
        }
        let running = IndexEntry { name: "state", value: State::Running.name().to_owned() };
        for operation in repo::list_all_readable::<Operation>(store, Some(running), |e| self.skipped(&e)).await? {
            self.wake(&operation.value, waiting);
        }
        Ok(())
    }

    /// The unfinished operations of a subject, as far as they can be read.
    pub(super) async fn unfinished(&self, subject: &str) -> Result<Vec<Versioned<Operation>>, StoreError> {
        let index = IndexEntry { name: "running", value: subject.to_owned() };
        repo::list_all_readable(&*self.parts.store, Some(index), |e| self.skipped(&e)).await
    }

    /// One that cannot be read waits for a program that can; the others go on. Told of once.
    fn skipped(&self, error: &StoreError) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.insert(error.to_string()) {
            tracing::error!(%error, "is left alone");
        }
    }

    async fn start_workers(
        self: &Arc<Self>,
        waiting: &mut HashSet<String>,
        held: &mut HashSet<String>,
        tasks: &mut JoinSet<()>,
        ended: &mpsc::UnboundedSender<String>,
        stop: &CancellationToken,
    ) {
        let subjects: Vec<String> = waiting.iter().cloned().collect();
        for subject in subjects {
            match self.take_on(&subject).await {
                Ok(Found::Nothing) => {}
                Ok(Found::Held) => {
                    held.insert(subject.clone());
                }
                Ok(Found::Work(worker)) => {
                    tasks.spawn(worker.run(ended.clone(), stop.clone()));
                }
                Err(Error::Store(error @ (StoreError::Corrupt { .. } | StoreError::Invalid { .. }))) => {
                    self.skipped(&error);
                    held.insert(subject.clone());
                }
                Err(error) => {
                    // The others would meet the same.
                    tracing::debug!(%error, subject, "cannot claim now");
                    held.extend(waiting.drain());
                    return;
                }
            }
            waiting.remove(&subject);
        }
    }

    /// Claims a subject that has work. Never one that this master works on already: it would take the claim from its own
    /// worker, in the middle of a step.
    async fn take_on(self: &Arc<Self>, subject: &str) -> Result<Found> {
        if let Some(worker) = self.workers.lock().unwrap_or_else(PoisonError::into_inner).get(subject) {
            worker.ring();
            return Ok(Found::Nothing);
        }
        if self.unfinished(subject).await?.is_empty() {
            return Ok(Found::Nothing);
        }
        let Parts { store, lease, observer, .. } = &*self.parts;
        let Some(guard) = claim::claim(&**store, lease, observer, subject).await? else { return Ok(Found::Held) };
        let bell = Arc::new(Bell::default());
        self.workers.lock().unwrap_or_else(PoisonError::into_inner).insert(subject.to_owned(), bell.clone());
        Ok(Found::Work(Worker::new(self.clone(), subject.to_owned(), guard, bell)))
    }

    /// A worker has ended: whoever comes now waits for the next.
    pub(super) fn left(&self, subject: &str) {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner).remove(subject);
    }
}

/// What there is to do for a subject.
enum Found {
    Nothing,
    /// Another master is at it.
    Held,
    Work(Worker),
}

#[cfg(test)]
#[path = "executor_tests.rs"]
mod tests;
