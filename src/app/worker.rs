//! One worker works on all the unfinished operations of one subject, under one claim: step after step of each, side by
//! side. What goes wrong with one of them is its own; only a lost claim ends them all.

use super::claim::ClaimGuard;
use super::executor::Executor;
use super::step::{Advance, Ctx, Locks};
use super::{Parts, settle, workflows};
use crate::backoff::{Backoff, Pauses};
use crate::error::{AgentError, Error, Result};
use crate::fault;
use crate::lnd::LndErrorKind;
use crate::model::OperationId;
use crate::model::operation::{Operation, State};
use crate::model::problem::{Code, Refusal};
use crate::model::work::Work;
use crate::seal::SealError;
use crate::store::repo::{self, Versioned};
use futures::FutureExt;
use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Between tries of a step.
const BACKOFF: Backoff = Backoff { first: Duration::from_millis(100), longest: Duration::from_secs(10) };
/// How long what could not even be written down is left alone.
const SETBACK: Duration = Duration::from_secs(1);

/// What wakes a worker, and what it need not be woken for.
///
/// No wake is lost: whoever heard of a change of an operation in time to find it attended to heard of it before the worker
/// left it, and the worker lists what is unfinished after it has left something.
#[derive(Debug, Default)]
pub struct Bell {
    notify: Notify,
    attended: Mutex<HashSet<OperationId>>,
}

impl Bell {
    /// There may be something new for the worker.
    pub fn ring(&self) {
        self.notify.notify_one();
    }

    /// This operation has changed, or there may be such a one.
    pub fn ring_for(&self, operation: &OperationId) {
        if !self.attended().contains(operation) {
            self.ring();
        }
    }

    fn attended(&self) -> MutexGuard<'_, HashSet<OperationId>> {
        self.attended.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Works on all operations of one subject, under one claim.
pub struct Worker {
    executor: Arc<Executor>,
    subject: String,
    guard: Arc<ClaimGuard>,
    bell: Arc<Bell>,
}

impl Worker {
    pub fn new(executor: Arc<Executor>, subject: String, guard: ClaimGuard, bell: Arc<Bell>) -> Self {
        Self { executor, subject, guard: Arc::new(guard), bell }
    }

    /// Works until nothing is left to do, the claim is lost, or `stop`; then gives the claim back and says so to `ended`.
    pub async fn run(self, ended: mpsc::UnboundedSender<String>, stop: CancellationToken) {
        let parts: Arc<Parts> = self.executor.parts().clone();
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
        self.executor.left(&self.subject);
        let _the_executor_has_ended = ended.send(self.subject);
    }

    async fn work(&self, ctx: &Ctx, stop: &CancellationToken) -> Result<()> {
        let mut tasks: JoinSet<(OperationId, Result<()>)> = JoinSet::new();
        loop {
            let mut look_again = false;
            if !stop.is_cancelled() {
                match self.executor.unfinished(&self.subject).await {
                    Ok(unfinished) => {
                        for operation in unfinished {
                            if self.bell.attended().insert(operation.value.id.clone()) {
                                tasks.spawn(attend(ctx.clone(), operation, stop.clone()));
                            }
                        }
                    }
                    Err(error) if tasks.is_empty() => return Err(error.into()),
                    Err(_) => look_again = true,
                }
            }
            if tasks.is_empty() {
                return Ok(());
            }
            tokio::select! {
                Some(done) = tasks.join_next() => {
                    let (id, outcome) = done.map_err(|e| Error::Invariant(format!("a task ended: {e}")))?;
                    // Before the next look.
                    self.bell.attended().remove(&id);
                    ctx.locks.end_turn(&id);
                    ctx.locks.end_step(&id);
                    ctx.locks.end_replacing(&id);
                    outcome?;
                }
                () = self.bell.notify.notified() => {}
                () = tokio::time::sleep(SETBACK), if look_again => {}
            }
        }
    }
}

/// Works on one operation until there is nothing more to do for it here. An error means that the claim is lost.
async fn attend(ctx: Ctx, operation: Versioned<Operation>, stop: CancellationToken) -> (OperationId, Result<()>) {
    let id = operation.value.id.clone();
    let driven = AssertUnwindSafe(drive(&ctx, operation, &stop)).catch_unwind().await;
    let outcome = match driven {
        Ok(outcome) => outcome,
        Err(_panic) => park_panicked(&ctx, &id).await,
    };
    match outcome {
        Ok(()) | Err(Error::ClaimLost) => (id, outcome),
        Err(error) => {
            tracing::warn!(%error, %id, "the operation will be taken up again");
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(SETBACK) => {}
            }
            (id, Ok(()))
        }
    }
}

/// A defect: doing the step again would only meet it again.
async fn park_panicked(ctx: &Ctx, id: &OperationId) -> Result<()> {
    let stored = repo::get::<Operation>(&*ctx.parts.store, id.as_str()).await?;
    let Some(operation) = stored.filter(|stored| stored.value.is_running()) else { return Ok(()) };
    let (kind, step) = (operation.value.work.kind(), operation.value.work.step());
    tracing::error!(%id, kind, step, "a step panicked; the operation is parked");
    park(ctx, &operation).await.map(drop)
}

async fn park(ctx: &Ctx, operation: &Versioned<Operation>) -> Result<Versioned<Operation>> {
    let step = operation.value.work.step();
    let message = format!("step {step} cannot go on; the operator's log has the reason");
    let refusal = Refusal::new(Code::Parked, message).with("step", step);
    settle::commit(ctx, operation, Advance::Park { refusal }).await
}

/// Does step after step of one operation until it is finished, the claim is lost, or the master stops.
async fn drive(ctx: &Ctx, mut operation: Versioned<Operation>, stop: &CancellationToken) -> Result<()> {
    let mut pauses = BACKOFF.pauses();
    while operation.value.is_running() && !stop.is_cancelled() {
        ctx.claim.check()?;
        // A recovery of the host tells where the lnd is now: whoever replaces it needs that.
        let may_always = matches!(operation.value.work, Work::Resume(_));
        if !ctx.locks.begin_step(&operation.value.id, may_always) {
            operation = settle::progress(ctx, operation, "waits while the node's lnd is replaced").await?;
            tokio::select! {
                () = stop.cancelled() => {}
                () = ctx.locks.may_go_on(&operation.value.id) => {}
            }
            continue;
        }
        let (kind, step) = (operation.value.work.kind(), operation.value.work.step());
        fault::point(&format!("{kind}.{step}.before")).await;
        let outcome = workflows::advance(ctx, &operation.value).await;
        fault::point(&format!("{kind}.{step}.after")).await;
        // What it came to is no effect on the lnd any more.
        ctx.locks.end_step(&operation.value.id);
        let pause = match outcome {
            Ok(Advance::Again { progress, after }) => {
                operation = settle::progress(ctx, operation, &progress).await?;
                pauses.reset();
                Some(after)
            }
            Ok(advance) => match settle::commit(ctx, &operation, advance).await {
                Ok(next) => {
                    log_end(&next.value);
                    operation = next;
                    pauses.reset();
                    None
                }
                Err(error) => Some(retry_or_give_up(ctx, error, &mut operation, &mut pauses).await?),
            },
            Err(error) => Some(retry_or_give_up(ctx, error, &mut operation, &mut pauses).await?),
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
    pauses: &mut Pauses,
) -> Result<Duration> {
    let (id, kind, step) = (&operation.value.id, operation.value.work.kind(), operation.value.work.step());
    if matches!(error, Error::ClaimLost | Error::Agent(AgentError::Fenced)) {
        return Err(Error::ClaimLost);
    }
    ctx.claim.check()?;
    if !ctx.claim.is_stored(&*ctx.parts.store).await.unwrap_or(true) {
        return Err(Error::ClaimLost);
    }
    if error.retryable() || may_pass(&error) && !pauses.are_longest() {
        tracing::debug!(%error, %id, kind, step, "the step will be tried again");
        let pause = pauses.take();
        if let Some(stored) = repo::get::<Operation>(&*ctx.parts.store, id.as_str()).await.ok().flatten() {
            *operation = stored;
        }
        return Ok(pause);
    }
    tracing::error!(%error, %id, kind, step, "the operation is parked");
    *operation = park(ctx, operation).await?;
    Ok(Duration::ZERO)
}

/// A macaroon that ends with the lease can end between here and lnd; a fresh one will do. And of a new sealing key this
/// master may hear in a moment. One that is always rejected, or never heard of, is another matter.
fn may_pass(error: &Error) -> bool {
    match error {
        Error::Lnd(error) => error.kind == LndErrorKind::MacaroonRejected,
        Error::Seal(error) => matches!(error, SealError::UnknownKeyVersion { .. }),
        _ => false,
    }
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
