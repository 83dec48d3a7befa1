//! Commits what came of a step: the operation, what belongs to it, and what is given back of its reservation, all under
//! the claim.

use super::service::step_aside;
use super::step::{Advance, Ctx, Settle};
use crate::error::{Error, Result, StoreError};
use crate::model::OperationId;
use crate::model::amount::Sat;
use crate::model::limits::{DEPLOYMENT, Reservation, Usage};
use crate::model::operation::{Operation, State};
use crate::model::work::Work;
use crate::store::Write;
use crate::store::repo::{self, Entity, Versioned};

/// Commits `advance`. Only a conflict over usage is settled here by reading again; any other conflict is the caller's: the
/// step is done again, which is harmless by its design, or the claim is lost.
pub async fn commit(ctx: &Ctx, operation: &Versioned<Operation>, advance: Advance) -> Result<Versioned<Operation>> {
    let mut next = operation.value.clone();
    let (extra, settled) = apply(&mut next, advance)?;
    next.updated_at = ctx.parts.clock.now();
    let store = &*ctx.parts.store;
    let mut tries = 0;
    loop {
        let mut writes = vec![repo::update(&next, operation.version)?, ctx.claim.condition()];
        writes.extend(extra.iter().cloned());
        if let (Some(settled), Some(owner)) = (&settled, &next.owner) {
            for subject in [owner.app.as_str(), DEPLOYMENT] {
                writes.extend(settle_usage(ctx, subject, settled).await?);
            }
        }
        match store.commit(writes).await {
            Ok(versions) => {
                let version = versions.first().copied().unwrap_or(operation.version);
                return Ok(Versioned { value: next, version });
            }
            Err(StoreError::Conflict { collection: Usage::COLLECTION, .. }) => {
                step_aside(tries).await;
                tries += 1;
            }
            Err(error) if error.is_conflict() && !ctx.claim.is_stored(store).await? => return Err(Error::ClaimLost),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Shows what is going on, where it has changed.
pub async fn progress(ctx: &Ctx, operation: Versioned<Operation>, text: &str) -> Result<Versioned<Operation>> {
    if operation.value.progress == text {
        // Only a close is changed from outside while it runs: to be forced now.
        if !matches!(operation.value.work, Work::Close(_)) {
            return Ok(operation);
        }
        let stored = repo::get::<Operation>(&*ctx.parts.store, operation.value.id.as_str()).await?;
        return Ok(stored.unwrap_or(operation));
    }
    let work = operation.value.work.clone();
    commit(ctx, &operation, Advance::next(work, text)).await
}

async fn settle_usage(ctx: &Ctx, subject: &str, settled: &Settled) -> Result<Option<Write>> {
    let id = Usage::id_of(subject, settled.held.shard);
    let Some(mut usage) = repo::get::<Usage>(&*ctx.parts.store, &id).await? else { return Ok(None) };
    usage.value.settle(&settled.held, &settled.kept);
    Ok(Some(repo::update(&usage.value, usage.version)?))
}

/// What was set aside, and what it came to.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Settled {
    held: Reservation,
    kept: Reservation,
}

/// Moves `operation` on and tells what else to write and what becomes of its reservation.
fn apply(operation: &mut Operation, advance: Advance) -> Result<(Vec<Write>, Option<Settled>)> {
    if !operation.is_running() {
        return Err(Error::Invariant("a step of an operation that does not run".to_owned()));
    }
    Ok(match advance {
        Advance::Next { work, progress, writes } => {
            if !operation.work.may_become(&work) {
                let (kind, now, next) = (work.kind(), operation.work.step(), work.step());
                return Err(Error::Invariant(format!("{kind} cannot go from {now} to {next}, or not so")));
            }
            operation.work = work;
            operation.progress = progress;
            (writes, None)
        }
        Advance::Done { result, settle, writes } => {
            operation.state = State::Succeeded { result };
            operation.progress = "done".to_owned();
            let settled = match settle {
                Settle::Keep => None,
                Settle::Spent(spent) => settle_spent(operation, spent),
                Settle::OneNodeLess { shard } => {
                    let held = Reservation { nodes: 1, shard, ..Reservation::default() };
                    Some(Settled { held, kept: Reservation::default() })
                }
            };
            (writes, settled)
        }
        Advance::Failed { refusal, spent_sat, writes } => {
            operation.progress = refusal.message.clone();
            operation.state = State::Failed { error: refusal };
            let settled = operation.reservation.take().map(|held| {
                let spent = Reservation { hour: held.hour, day: held.day, ..Reservation::default() };
                let outgoing_sat = believable(&operation.id, spent_sat, &held);
                Settled { held, kept: Reservation { outgoing_sat, ..spent } }
            });
            (writes, settled)
        }
        Advance::Park { refusal } => {
            operation.progress = refusal.message.clone();
            operation.state = State::Parked { error: refusal };
            (Vec::new(), None)
        }
        Advance::Again { progress, .. } => {
            operation.progress = progress;
            (Vec::new(), None)
        }
    })
}

/// What a success makes of the reservation for outgoing money: what was really spent.
fn settle_spent(operation: &mut Operation, spent: Sat) -> Option<Settled> {
    let kept = operation.reservation.as_mut()?;
    let held = *kept;
    kept.outgoing_sat = believable(&operation.id, spent, &held);
    (held != *kept).then_some(Settled { held, kept: *kept })
}

/// What was spent is what an lnd says, which is only as good as its host: one that lies must not use up the limits of all.
/// What was set aside is the most that the operation was allowed to spend. A forced close may cost a little more, where the
/// commitment has grown since.
fn believable(id: &OperationId, spent: Sat, held: &Reservation) -> Sat {
    if spent > held.outgoing_sat {
        tracing::warn!(%id, %spent, allowed = %held.outgoing_sat, "an lnd says that it has spent more than it may");
    }
    spent.min(held.outgoing_sat)
}

#[cfg(test)]
#[path = "settle_tests.rs"]
mod tests;
