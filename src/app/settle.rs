//! Commits what came of a step: the operation, what belongs to it, and what is given back of its reservation, all under
//! the claim.

use super::step::{Advance, Ctx, Settle};
use crate::error::{Error, Result};
use crate::model::amount::Sat;
use crate::model::limits::{DEPLOYMENT, Reservation, Usage};
use crate::model::operation::{Operation, State};
use crate::store::Write;
use crate::store::repo::{self, Versioned};

/// Commits `advance`. Only a conflict over usage is settled here by reading again; any other conflict is the caller's: the
/// step is done again, which is harmless by its design, or the claim is lost.
pub async fn commit(ctx: &Ctx, operation: &Versioned<Operation>, advance: Advance) -> Result<Versioned<Operation>> {
    let mut next = operation.value.clone();
    let (extra, back) = apply(&mut next, advance);
    next.updated_at = ctx.parts.clock.now();
    let store = &*ctx.parts.store;
    loop {
        let mut writes = vec![repo::update(&next, operation.version)?, ctx.claim.condition()];
        writes.extend(extra.iter().cloned());
        if let (Some(back), Some(owner)) = (&back, &next.owner) {
            for subject in [owner.app.as_str(), DEPLOYMENT] {
                writes.extend(give_back(ctx, subject, back).await?);
            }
        }
        match store.commit(writes).await {
            Ok(versions) => {
                let version = versions.first().copied().unwrap_or(operation.version);
                return Ok(Versioned { value: next, version });
            }
            Err(crate::error::StoreError::Conflict { collection: "usage", .. }) => {}
            Err(error) if error.is_conflict() && !ctx.claim.is_stored(store).await? => return Err(Error::ClaimLost),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Shows what is going on, where it has changed.
pub async fn progress(ctx: &Ctx, operation: Versioned<Operation>, text: &str) -> Result<Versioned<Operation>> {
    if operation.value.progress == text {
        // It may have been changed from outside: a cooperative close that is to be forced now.
        let stored = repo::get::<Operation>(&*ctx.parts.store, operation.value.id.as_str()).await?;
        return Ok(stored.unwrap_or(operation));
    }
    let work = operation.value.work.clone();
    commit(ctx, &operation, Advance::next(work, text)).await
}

async fn give_back(ctx: &Ctx, subject: &str, back: &Reservation) -> Result<Option<Write>> {
    let Some(mut usage) = repo::get::<Usage>(&*ctx.parts.store, subject).await? else { return Ok(None) };
    usage.value.release(back);
    Ok(Some(repo::update(&usage.value, usage.version)?))
}

/// Moves `operation` on and tells what else to write and what to give back.
fn apply(operation: &mut Operation, advance: Advance) -> (Vec<Write>, Option<Reservation>) {
    match advance {
        Advance::Next { work, progress, writes } => {
            operation.work = work;
            operation.progress = progress;
            (writes, None)
        }
        Advance::Done { result, settle, writes } => {
            operation.state = State::Succeeded { result };
            operation.progress = "done".to_owned();
            let back = match settle {
                Settle::Keep => None,
                Settle::Spent(spent) => unspent(operation, spent),
                Settle::OneNodeLess => Some(Reservation { nodes: 1, ..Reservation::default() }),
            };
            (writes, back)
        }
        Advance::Failed { refusal, spent_sat, writes } => {
            operation.progress = refusal.message.clone();
            operation.state = State::Failed { error: refusal };
            let back = operation
                .reservation
                .take()
                .map(|held| Reservation { outgoing_sat: held.outgoing_sat.saturating_sub(spent_sat), ..held });
            (writes, back)
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
    }
}

/// What a success leaves of the reservation for outgoing money.
fn unspent(operation: &mut Operation, spent: Sat) -> Option<Reservation> {
    let held = operation.reservation.as_mut()?;
    let rest = held.outgoing_sat.saturating_sub(spent);
    if rest == Sat(0) {
        return None;
    }
    held.outgoing_sat = spent;
    Some(Reservation { hour: held.hour, day: held.day, outgoing_sat: rest, ..Reservation::default() })
}
