//! Rollouts, for operators: how they stand, and what is said to them.

use super::Service;
use crate::app::feed::wait_for_change;
use crate::app::refuse;
use crate::app::rollouts::{self, Reasons, Word};
use crate::error::StoreError;
use crate::model::problem::{Code, Refusal};
use crate::model::rollout::{NotNow, Rollout};
use crate::store::Document;
use crate::store::repo::{self, Entity, Versioned};
use futures::Stream;
use std::time::Duration;

/// How long a change is waited for before looking all the same.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// A page of rollouts and the cursor of the next.
pub type RolloutPage = (Vec<Versioned<Rollout>>, Option<String>);

/// Why a word to a rollout is not followed.
enum Unheard {
    NotNow(NotNow),
    Store(StoreError),
}

impl From<StoreError> for Unheard {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

fn unknown() -> Refusal {
    Refusal::new(Code::RolloutNotFound, "no such rollout")
}

impl Service {
    /// The rollout of a release.
    pub async fn rollout(&self, serial: u64) -> Result<Versioned<Rollout>, Refusal> {
        let found = repo::get::<Rollout>(&*self.parts.store, &Rollout::id_of(serial)).await;
        found.map_err(|e| refuse::store(&e))?.ok_or_else(unknown)
    }

    /// All of them, newest first.
    pub async fn rollouts(&self, cursor: Option<String>, limit: usize) -> Result<RolloutPage, Refusal> {
        repo::list::<Rollout>(&*self.parts.store, None, cursor, limit, true).await.map_err(|e| refuse::store(&e))
    }

    /// Of each node whether it has the release, and why not.
    pub async fn rollout_reasons(&self, serial: u64) -> Result<Reasons, Refusal> {
        let reasons = rollouts::reasons(&self.parts, serial).await.map_err(|e| refuse::any(&e))?;
        reasons.ok_or_else(unknown)
    }

    /// Says something to a rollout.
    pub async fn say_to_rollout(&self, serial: u64, word: Word) -> Result<Rollout, Refusal> {
        let id = Rollout::id_of(serial);
        let change = |rollout: &mut Rollout| {
            *rollout = word.said_to(rollout.clone()).map_err(Unheard::NotNow)?;
            Ok::<_, Unheard>(true)
        };
        match repo::modify(&*self.parts.store, &id, change).await {
            Ok(Some(rollout)) => {
                tracing::info!(serial, ?word, state = rollout.value.state.name(), "an operator has said a word");
                Ok(rollout.value)
            }
            Ok(None) => Err(unknown()),
            Err(Unheard::NotNow(why)) => Err(Refusal::new(Code::RolloutState, why.to_string())),
            Err(Unheard::Store(error)) => Err(refuse::store(&error)),
        }
    }

    /// A rollout as it is now, and again after each change, until nothing comes of it any more.
    pub fn watch_rollout(&self, serial: u64) -> impl Stream<Item = Versioned<Rollout>> + Send + use<> {
        let (service, id) = (self.clone(), Rollout::id_of(serial));
        let changes = self.parts.feed.subscribe();
        futures::stream::unfold((service, id, changes, None), |(service, id, mut changes, last)| async move {
            if matches!(&last, Some((_, true))) {
                return None;
            }
            let mut look = last.is_none();
            loop {
                if !look {
                    let of_it = |d: &Document| d.key.collection == Rollout::COLLECTION && d.key.id == id;
                    wait_for_change(&mut changes, LOOK_EVERY, of_it).await;
                }
                look = false;
                let current = repo::get::<Rollout>(&*service.parts.store, &id).await.ok().flatten();
                if let Some(current) = current.filter(|now| last.is_none_or(|(version, _)| version < now.version)) {
                    let is_over = current.value.is_over() && current.value.under_way.is_empty();
                    let state = Some((current.version, is_over));
                    return Some((current, (service, id, changes, state)));
                }
            }
        })
    }
}
