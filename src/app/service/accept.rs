//! Accepting: one commit that makes an operation, its natural key, its idempotency record and its reservation, or none of
//! them.

use super::super::{refuse, usage};
use super::{Idempotency, Service};
use crate::error::StoreError;
use crate::model::app::{App, Limits};
use crate::model::ids::{NodeId, OperationId};
use crate::model::limits::{Bounds, DEPLOYMENT, Reservation, Usage};
use crate::model::operation::{IdempotencyRecord, IdempotentOutcome, Operation, Owner, State};
use crate::model::problem::{Code, Refusal};
use crate::model::work::Work;
use crate::store::Write;
use crate::store::repo::{self, Entity, Versioned};
use rand::RngExt;
use std::time::Duration;

/// How often something is tried anew because somebody else wrote in between.
pub(in crate::app) const MOST_TRIES: u32 = 1000;

/// What is to be accepted.
pub(super) struct Proposal {
    /// Whose it is.
    pub owner: Owner,
    /// The node it works on.
    pub node: NodeId,
    /// The work, at its first step.
    pub work: Work,
    /// What it may cost; `None` for work that costs nothing.
    pub reservation: Option<Reservation>,
}

/// What came of a try to accept.
pub(super) enum Accepted {
    /// This is the operation: a new one, or the one that there is already for the same natural key.
    As(Box<Operation>),
    /// Somebody else wrote in between: look again.
    Conflict,
}

/// What is said after [`MOST_TRIES`].
pub(in crate::app) fn too_many_at_once() -> Refusal {
    Refusal::new(Code::Overloaded, "too many at once").retry_after(1)
}

/// A pause between two tries that met others, short and different for each.
pub(in crate::app) async fn step_aside(attempt: u32) {
    let most = 2u64.saturating_mul(1 << attempt.min(6));
    let pause = rand::rng().random_range(0..=most);
    tokio::time::sleep(Duration::from_millis(pause)).await;
}

impl Service {
    /// The operation that the request has become before, or what `attempt` makes of it: again and again, as long as others
    /// write in between.
    pub(super) async fn until_accepted<T>(
        &self,
        idempotency: Option<&Idempotency>,
        mut attempt: impl FnMut() -> T,
    ) -> Result<Operation, Refusal>
    where
        T: Future<Output = Result<Accepted, Refusal>>,
    {
        for tries in 0..MOST_TRIES {
            if let Some(operation) = self.replayed(idempotency).await? {
                return Ok(operation);
            }
            if let Accepted::As(operation) = attempt().await? {
                return Ok(*operation);
            }
            step_aside(tries).await;
        }
        Err(too_many_at_once())
    }

    /// The operation that a request with this Idempotency-Key has become before.
    async fn replayed(&self, idempotency: Option<&Idempotency>) -> Result<Option<Operation>, Refusal> {
        let Some(idempotency) = idempotency else { return Ok(None) };
        let record =
            repo::get::<IdempotencyRecord>(&*self.parts.store, &idempotency.id).await.map_err(|e| refuse::store(&e))?;
        let Some(Versioned { value: record, .. }) = record else { return Ok(None) };
        if record.request_sha256 != idempotency.request_sha256 {
            let message = "this Idempotency-Key was used with another request";
            return Err(Refusal::new(Code::IdempotencyKeyReused, message));
        }
        match record.outcome {
            IdempotentOutcome::Operation { operation } => {
                Ok(self.operation(&operation).await?.map(|operation| operation.value))
            }
            IdempotentOutcome::InFlight | IdempotentOutcome::Answered { .. } => {
                let message = "this Idempotency-Key was used with another call";
                Err(Refusal::new(Code::IdempotencyKeyReused, message))
            }
        }
    }

    /// Joins an operation that there is already, which its Idempotency-Key stands for from now on, too.
    pub(super) async fn join(
        &self,
        operation: Operation,
        idempotency: Option<&Idempotency>,
    ) -> Result<Accepted, Refusal> {
        if let Some(idempotency) = idempotency {
            let record = idempotency.stands_for(&operation.id, self.parts.clock.now());
            let write = repo::create(&record).map_err(|e| refuse::store(&e))?;
            match self.parts.store.commit(vec![write]).await {
                Ok(_) => {}
                Err(StoreError::Conflict { .. }) => return Ok(Accepted::Conflict),
                Err(error) => return Err(refuse::store(&error)),
            }
        }
        Ok(Accepted::As(Box::new(operation)))
    }

    /// A new operation's id.
    pub(super) fn new_id(&self) -> OperationId {
        OperationId::random(self.parts.clock.now(), &mut rand::rng())
    }

    /// Tries to accept `proposal` under `id`, with `writes` (natural keys, nodes) in the same commit. A conflict over usage,
    /// which all operations of an app write, is met by setting aside anew; only one over anything else is the caller's.
    pub(super) async fn accept(
        &self,
        id: OperationId,
        proposal: Proposal,
        idempotency: Option<&Idempotency>,
        mut writes: Vec<Write>,
    ) -> Result<Accepted, Refusal> {
        let now = self.parts.clock.now();
        let Proposal { owner, node, work, reservation } = proposal;
        let mut operation = Operation {
            id,
            owner: Some(owner.clone()),
            node: Some(node),
            host: None,
            work,
            state: State::Running,
            progress: "accepted".to_owned(),
            reservation,
            created_at: now,
            updated_at: now,
        };
        if let Some(idempotency) = idempotency {
            let record = idempotency.stands_for(&operation.id, now);
            writes.push(repo::create(&record).map_err(|e| refuse::store(&e))?);
        }
        for tries in 0..MOST_TRIES {
            let mut aside = Vec::new();
            if let Some(ask) = operation.reservation {
                let (counted, writes) = self.reserve(&owner, &ask, None).await?;
                operation.reservation = Some(counted);
                aside = writes;
            }
            // Usage comes last: who has lost the natural key, too, hears of that.
            let mut writes = writes.clone();
            writes.push(repo::create(&operation).map_err(|e| refuse::store(&e))?);
            writes.extend(aside);
            match self.parts.store.commit(writes).await {
                Ok(_) => return Ok(Accepted::As(Box::new(operation))),
                Err(StoreError::Conflict { collection: Usage::COLLECTION | App::COLLECTION, .. }) => {
                    step_aside(tries).await;
                }
                Err(StoreError::Conflict { .. }) => return Ok(Accepted::Conflict),
                Err(error) => return Err(refuse::store(&error)),
            }
        }
        Err(too_many_at_once())
    }

    /// The writes that set `ask` aside, in the place of what is `held` already, for the app and for the deployment; and what
    /// to give back some day.
    pub(super) async fn reserve(
        &self,
        owner: &Owner,
        ask: &Reservation,
        held: Option<&Reservation>,
    ) -> Result<(Reservation, Vec<Write>), Refusal> {
        let store = &*self.parts.store;
        let app = repo::get::<App>(store, owner.app.as_str()).await.map_err(|e| refuse::store(&e))?;
        let limits = app.as_ref().map(|app| app.value.limits).unwrap_or_default();
        let free = self.parts.settings.network.is_playground();
        // Another one at every try, so that those that met do not meet again.
        let ask = Reservation { shard: held.map_or_else(|| usage::pick(store), |held| held.shard), ..*ask };
        let subjects: [(&str, &Limits); 2] =
            [(owner.app.as_str(), &limits), (DEPLOYMENT, &self.parts.settings.ceilings)];
        let mut writes = Vec::new();
        for (subject, limits) in subjects {
            let bounds = Bounds::of(limits, &ask, free)?;
            let aside = usage::set_aside(store, subject, &bounds, &ask, held).await?;
            // What all documents were dealt by is the app's limit still.
            if let (true, true, Some(app)) = (aside.dealt, subject != DEPLOYMENT, &app) {
                writes.push(repo::check::<App>(app.value.id.as_str(), app.version));
            }
            writes.extend(aside.writes);
        }
        Ok((ask, writes))
    }
}

#[cfg(test)]
#[path = "accept_tests.rs"]
mod tests;
