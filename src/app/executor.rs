//! Runs the unfinished operations: level-triggered, no leader. Every master follows the feed, claims nodes that have work
//! and nobody alive working on them, and does one step after the other; a restart means listing what is not finished.

use super::Parts;
use super::claim::{self, ClaimGuard};
use super::step::{Advance, Ctx, Locks};
use super::{settle, workflows};
use crate::error::{Error, Result, StoreError};
use crate::fault;
use crate::model::OperationId;
use crate::model::node::Heartbeat;
use crate::model::operation::{Operation, State};
use crate::model::problem::{Code, Refusal};
use crate::store::repo::{self, Entity, Versioned};
use crate::store::{Change, IndexEntry};
use rand::RngExt;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, broadcast, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const LONGEST_BACKOFF: Duration = Duration::from_secs(10);

/// The executor of one master.
#[derive(Debug)]
pub struct Executor {
    parts: Arc<Parts>,
    /// Subjects this master works on, with what wakes their workers.
    workers: Mutex<HashMap<String, Arc<Notify>>>,
}

impl Executor {
    /// An executor that does nothing until it is run.
    #[must_use]
    pub fn new(parts: Arc<Parts>) -> Arc<Self> {
        Arc::new(Self { parts, workers: Mutex::new(HashMap::new()) })
    }

    /// Works until `stop`; then lets running steps end (the caller bounds that time) and releases all claims.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut feed = self.parts.feed.subscribe();
        let (ended_tx, mut ended) = mpsc::unbounded_channel::<String>();
        let mut tasks = JoinSet::new();
        let mut waiting: HashSet<String> = HashSet::new();
        // What another master holds: looked at again at every tick, not at every change.
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
                    Ok(change) => relist |= self.note(&change, &mut waiting),
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
    fn note(&self, change: &Change, waiting: &mut HashSet<String>) -> bool {
        match change {
            Change::Resync => return true,
            Change::Deleted(key) if key.collection == Heartbeat::COLLECTION => {
                if let Some(master) = crate::model::MasterId::parse(&key.id) {
                    self.parts.observer.gone(&master);
                }
            }
            Change::Put(document) if document.key.collection == Heartbeat::COLLECTION => {
                if let Ok(heartbeat) = repo::decode::<Heartbeat>(document.clone()) {
                    self.parts.observer.saw(&heartbeat.value, tokio::time::Instant::now());
                }
            }
            Change::Put(document) if document.key.collection == Operation::COLLECTION => {
                if let Ok(operation) = repo::decode::<Operation>(document.clone())
                    && operation.value.is_running()
                {
                    self.wake(operation.value.subject(), waiting);
                }
            }
            Change::Put(_) | Change::Deleted(_) => {}
        }
        false
    }

    fn wake(&self, subject: &str, waiting: &mut HashSet<String>) {
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        match workers.get(subject) {
            Some(worker) => worker.notify_one(),
            None => {
                waiting.insert(subject.to_owned());
            }
        }
    }

    async fn list_unfinished(&self, waiting: &mut HashSet<String>) -> Result<()> {
        let store = &*self.parts.store;
        for heartbeat in repo::list_all_readable::<Heartbeat>(store, None, skipped).await? {
            self.parts.observer.saw(&heartbeat.value, tokio::time::Instant::now());
        }
        let running = IndexEntry { name: "state", value: State::Running.name().to_owned() };
        for operation in repo::list_all_readable::<Operation>(store, Some(running), skipped).await? {
            self.wake(operation.value.subject(), waiting);
        }
        Ok(())
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
            match self.has_work(&subject).await {
                Ok(true) => {}
                Ok(false) => {
                    waiting.remove(&subject);
                    continue;
                }
                Err(_) => {
                    held.extend(waiting.drain());
                    return;
                }
            }
            let parts = &self.parts;
            match claim::claim(&*parts.store, &parts.lease, &parts.observer, &subject).await {
                Ok(Some(guard)) => {
                    waiting.remove(&subject);
                    let wake = Arc::new(Notify::new());
                    self.workers.lock().unwrap_or_else(PoisonError::into_inner).insert(subject.clone(), wake.clone());
                    let worker = Worker { executor: self.clone(), subject, guard: Arc::new(guard), wake };
                    tasks.spawn(worker.run(ended.clone(), stop.clone()));
                }
                Ok(None) => {
                    waiting.remove(&subject);
                    held.insert(subject);
                }
                Err(error) => {
                    tracing::debug!(%error, subject, "cannot claim now");
                    held.extend(waiting.drain());
                    return;
                }
            }
        }
    }

    async fn has_work(&self, subject: &str) -> Result<bool, StoreError> {
        let unfinished = Some(unfinished(subject));
        let found = repo::list_all_readable::<Operation>(&*self.parts.store, unfinished, skipped).await?;
        Ok(!found.is_empty())
    }
}

fn unfinished(subject: &str) -> IndexEntry {
    IndexEntry { name: "running", value: subject.to_owned() }
}

/// Works on all operations of one subject, under one claim.
struct Worker {
    executor: Arc<Executor>,
    subject: String,
    guard: Arc<ClaimGuard>,
    wake: Arc<Notify>,
}

impl Worker {
    async fn run(self, ended: mpsc::UnboundedSender<String>, stop: CancellationToken) {
        let parts = self.executor.parts.clone();
        let ctx = Ctx { parts: parts.clone(), claim: self.guard.clone(), locks: Arc::new(Locks::default()) };
        if let Err(error) = self.work(&ctx, &stop).await {
            tracing::info!(%error, subject = %self.subject, "work on this subject ends here");
        }
        match self.guard.release(&*parts.store).await {
            Ok(()) => {}
            Err(Error::Store(error)) if error.is_conflict() => {
                tracing::info!(subject = %self.subject, "the claim is another's; work on this subject ends here");
            }
            Err(error) => tracing::debug!(%error, subject = %self.subject, "the claim could not be released"),
        }
        self.executor.workers.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.subject);
        let _the_executor_has_ended = ended.send(self.subject);
    }

    async fn work(&self, ctx: &Ctx, stop: &CancellationToken) -> Result<()> {
        let mut running: HashSet<OperationId> = HashSet::new();
        let mut tasks: JoinSet<(OperationId, Result<()>)> = JoinSet::new();
        loop {
            if !stop.is_cancelled() {
                let unfinished = Some(unfinished(&self.subject));
                for operation in repo::list_all_readable::<Operation>(&*ctx.parts.store, unfinished, skipped).await? {
                    let id = operation.value.id.clone();
                    if running.insert(id.clone()) {
                        let (ctx, stop) = (ctx.clone(), stop.clone());
                        tasks.spawn(async move {
                            let outcome = drive(&ctx, operation, &stop).await;
                            (id, outcome)
                        });
                    }
                }
            }
            if tasks.is_empty() {
                return Ok(());
            }
            tokio::select! {
                Some(done) = tasks.join_next() => match done {
                    Ok((id, outcome)) => {
                        running.remove(&id);
                        ctx.locks.end_turn(&id);
                        outcome?;
                    }
                    Err(panic) => return Err(Error::Invariant(format!("a step panicked: {panic}"))),
                },
                () = self.wake.notified() => {}
            }
        }
    }
}

/// One that cannot be read waits for a program that can; the others go on.
fn skipped(error: StoreError) {
    tracing::error!(%error, "is left alone");
}

/// Does step after step of one operation until it is finished, the claim is lost, or the master stops.
async fn drive(ctx: &Ctx, mut operation: Versioned<Operation>, stop: &CancellationToken) -> Result<()> {
    let mut backoff = FIRST_BACKOFF;
    while operation.value.is_running() && !stop.is_cancelled() {
        ctx.claim.check()?;
        let (kind, step) = (operation.value.work.kind(), operation.value.work.step());
        fault::point(&format!("{kind}.{step}.before")).await;
        let outcome = workflows::advance(ctx, &operation.value).await;
        fault::point(&format!("{kind}.{step}.after")).await;
        let pause = match outcome {
            Ok(Advance::Again { progress, after }) => {
                operation = settle::progress(ctx, operation, &progress).await?;
                backoff = FIRST_BACKOFF;
                Some(after)
            }
            Ok(advance) => match settle::commit(ctx, &operation, advance).await {
                Ok(next) => {
                    log_end(&next.value);
                    operation = next;
                    backoff = FIRST_BACKOFF;
                    None
                }
                Err(error) => Some(retry_or_give_up(ctx, error, &mut operation, &mut backoff).await?),
            },
            Err(error) => Some(retry_or_give_up(ctx, error, &mut operation, &mut backoff).await?),
        };
        if let Some(pause) = pause {
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }
    Ok(())
}

async fn retry_or_give_up(
    ctx: &Ctx,
    error: Error,
    operation: &mut Versioned<Operation>,
    backoff: &mut Duration,
) -> Result<Duration> {
    let (id, kind, step) = (&operation.value.id, operation.value.work.kind(), operation.value.work.step());
    if matches!(error, Error::ClaimLost | Error::Agent(crate::error::AgentError::Fenced)) {
        return Err(Error::ClaimLost);
    }
    ctx.claim.check()?;
    if !ctx.claim.is_stored(&*ctx.parts.store).await.unwrap_or(true) {
        return Err(Error::ClaimLost);
    }
    if error.retryable() || ended_on_its_way(&error) && *backoff < LONGEST_BACKOFF {
        tracing::debug!(%error, %id, kind, step, "the step will be tried again");
        let jitter = rand::rng().random_range(0.5..1.0);
        let pause = backoff.mul_f64(jitter);
        *backoff = (*backoff * 2).min(LONGEST_BACKOFF);
        if let Some(stored) = repo::get::<Operation>(&*ctx.parts.store, id.as_str()).await.ok().flatten() {
            *operation = stored;
        }
        return Ok(pause);
    }
    tracing::error!(%error, %id, kind, step, "the operation is parked");
    let message = format!("step {step} cannot go on; the operator's log has the reason");
    let refusal = Refusal::new(Code::Parked, message).with("step", step);
    *operation = settle::commit(ctx, operation, Advance::Park { refusal }).await?;
    Ok(Duration::ZERO)
}

/// A macaroon that ends with the lease can end between here and lnd; a fresh one will do. One that is always rejected is
/// another matter.
fn ended_on_its_way(error: &Error) -> bool {
    matches!(error, Error::Lnd(e) if e.kind == crate::lnd::LndErrorKind::MacaroonRejected)
}

fn log_end(operation: &Operation) {
    let (id, kind, subject) = (&operation.id, operation.work.kind(), operation.subject());
    match &operation.state {
        State::Running => tracing::debug!(%id, kind, subject, step = operation.work.step(), "step done"),
        State::Succeeded { .. } => tracing::info!(%id, kind, subject, "operation succeeded"),
        State::Failed { error } => tracing::info!(%id, kind, subject, code = %error.code.as_str(), "operation failed"),
        State::Parked { error } => {
            tracing::error!(%id, kind, subject, reason = %error.message, "operation parked");
        }
    }
}
