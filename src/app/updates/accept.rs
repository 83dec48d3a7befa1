//! Accepts a delivery of the webhook: it is stored under its name, with the operation that looks where it points, before
//! anybody is answered. Any order, any number, at any of several masters at once.

use super::super::refuse;
use super::super::service::{MOST_TRIES, step_aside, too_many_at_once};
use super::Parts;
use crate::error::StoreError;
use crate::model::OperationId;
use crate::model::operation::{Operation, State};
use crate::model::problem::Refusal;
use crate::model::updates::{Delivery, DeliveryId, GitRef, Heard, Ignored, Looked};
use crate::model::work::Work;
use crate::model::work::update::Update;
use crate::store::Write;
use crate::store::repo::{self, Versioned};

/// A delivery as it came in.
#[derive(Debug, Clone)]
pub struct Received {
    /// Its name.
    pub id: DeliveryId,
    /// GitHub's name of the event.
    pub event: String,
    /// Where there may be a release, or why not.
    pub points_to: Result<GitRef, Ignored>,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq)]
pub enum Accepted {
    /// Nothing is to be done.
    Ignored(Ignored),
    /// This operation looks, or has looked.
    Operation(Box<Operation>),
}

/// The operation that is to look at a place, and what is to be written so that it does: nothing, where one does already, or
/// has done so.
struct Looking {
    operation: Operation,
    writes: Vec<Write>,
}

impl Parts {
    /// Accepts a delivery. One that was accepted before is what it was, unless what it led to has failed: then it is begun
    /// again.
    ///
    /// # Errors
    /// The Store does not answer. Then nothing was accepted.
    pub async fn accept_delivery(&self, received: &Received) -> Result<Accepted, Refusal> {
        for attempt in 0..MOST_TRIES {
            if let Some(accepted) = self.try_delivery(received).await.map_err(|error| refuse::store(&error))? {
                return Ok(accepted);
            }
            step_aside(attempt).await;
        }
        Err(too_many_at_once())
    }

    async fn try_delivery(&self, received: &Received) -> Result<Option<Accepted>, StoreError> {
        let before = repo::get::<Delivery>(&*self.store, received.id.as_str()).await?;
        let source = match (before.as_ref().map(|before| &before.value.heard), &received.points_to) {
            // What it was the first time it is for good.
            (Some(Heard::Ignored { reason }), _) => return Ok(Some(Accepted::Ignored(*reason))),
            (Some(Heard::Hint { source, operation }), _) => {
                let before = repo::get::<Operation>(&*self.store, operation.as_str()).await?;
                match before.filter(|before| !matches!(before.value.state, State::Failed { .. })) {
                    Some(before) => return Ok(Some(Accepted::Operation(Box::new(before.value)))),
                    None => source.clone(),
                }
            }
            (None, Err(reason)) => {
                let delivery = self.delivery(received, Heard::Ignored { reason: *reason });
                let accepted = self.committed(vec![repo::create(&delivery)?]).await?;
                return Ok(accepted.then_some(Accepted::Ignored(*reason)));
            }
            (None, Ok(source)) => source.clone(),
        };
        let Looking { operation, mut writes } = self.looking(&source).await?;
        let heard = Heard::Hint { source, operation: operation.id.clone() };
        match before {
            None => writes.push(repo::create(&self.delivery(received, heard))?),
            Some(Versioned { value, .. }) if value.heard == heard => {}
            Some(Versioned { value, version }) => writes.push(repo::update(&Delivery { heard, ..value }, version)?),
        }
        let accepted = writes.is_empty() || self.committed(writes).await?;
        Ok(accepted.then(|| Accepted::Operation(Box::new(operation))))
    }

    /// Has `source` looked at, unless somebody looks there or has.
    ///
    /// # Errors
    /// The Store does not answer.
    pub(super) async fn look_at(&self, source: &GitRef) -> Result<(), StoreError> {
        if repo::get::<Looked>(&*self.store, &Looked::id_of(source)).await?.is_some() {
            return Ok(());
        }
        let Looking { writes, .. } = self.looking(source).await?;
        // Another was faster.
        self.committed(writes).await.map(drop)
    }

    async fn looking(&self, source: &GitRef) -> Result<Looking, StoreError> {
        let looked = repo::get::<Looked>(&*self.store, &Looked::id_of(source)).await?;
        let operation = match &looked {
            Some(looked) => repo::get::<Operation>(&*self.store, looked.value.operation.as_str()).await?,
            None => None,
        };
        // What was found at a commit is there for good; a tag may be another commit's by now.
        let counts = |operation: &Versioned<Operation>| match operation.value.state {
            State::Running | State::Parked { .. } => true,
            State::Succeeded { .. } => source.is_commit(),
            State::Failed { .. } => false,
        };
        if let Some(operation) = operation.filter(counts) {
            return Ok(Looking { operation: operation.value, writes: Vec::new() });
        }
        let operation = self.look(source.clone());
        let pointer = Looked { source: source.clone(), operation: operation.id.clone() };
        let pointer = match looked {
            None => repo::create(&pointer)?,
            Some(looked) => repo::update(&pointer, looked.version)?,
        };
        let writes = vec![repo::create(&operation)?, pointer];
        Ok(Looking { operation, writes })
    }

    fn look(&self, source: GitRef) -> Operation {
        let now = self.clock.now();
        Operation {
            id: OperationId::random(now, &mut rand::rng()),
            owner: None,
            node: None,
            host: None,
            work: Work::Update(Update { source }),
            state: State::Running,
            progress: "accepted".to_owned(),
            reservation: None,
            created_at: now,
            updated_at: now,
        }
    }

    fn delivery(&self, received: &Received, heard: Heard) -> Delivery {
        let (id, event) = (received.id.clone(), received.event.clone());
        Delivery { id, event, heard, received_at: self.clock.now() }
    }

    async fn committed(&self, writes: Vec<Write>) -> Result<bool, StoreError> {
        match self.store.commit(writes).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_conflict() => Ok(false),
            Err(error) => Err(error),
        }
    }
}
