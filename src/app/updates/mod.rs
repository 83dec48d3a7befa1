//! Which release the deployment wants, and how it hears of one. Whatever it is told, by whomever and how often, is only a
//! reason to look; what it finds counts by its signature and its serial alone.

mod accept;
mod poll;
mod want;

pub use accept::{Accepted, Received};
pub use poll::run;
pub(super) use want::refusal;
pub use want::{Believed, Found, NotWanted, want};

use super::Parts;
use crate::error::StoreError;
use crate::github::GitHub;
use crate::model::Network;
use crate::model::operation::{IdempotencyRecord, Operation, UPDATES};
use crate::model::rollout::Rollout;
use crate::model::updates::{Delivery, Heard, ReleaseRecord, Wanted, Watched};
use crate::release::TrustedKeys;
use crate::store::repo;
use crate::store::{IndexEntry, Store};
use std::time::Duration;

/// What a master has for it.
#[derive(Debug)]
pub struct Updates {
    /// Whose releases are believed.
    pub trusted: TrustedKeys,
    /// The deployment that they have to be for.
    pub deployment: String,
    /// And its network.
    pub network: Network,
    /// Where they are found.
    pub source: Option<Source>,
    /// One looks at a time: a storm of hints is no storm of requests.
    pub turn: tokio::sync::Mutex<()>,
}

impl Updates {
    /// Whose releases are believed, and which are for this deployment.
    #[must_use]
    pub fn believed(&self) -> Believed<'_> {
        Believed { trusted: &self.trusted, deployment: &self.deployment, network: self.network }
    }
}

/// The watched repository.
#[derive(Debug)]
pub struct Source {
    /// At GitHub.
    pub github: GitHub,
    /// What of it.
    pub watched: Watched,
    /// The manifest's path.
    pub manifest: String,
    /// How often the branch is looked at.
    pub poll_every: Duration,
}

/// How it stands.
#[derive(Debug)]
pub struct Standing {
    /// The wanted release.
    pub wanted: Option<ReleaseRecord>,
    /// How far it is on its way to the nodes.
    pub rollout: Option<Rollout>,
    /// Who looks for one.
    pub looking: Vec<Operation>,
    /// The last deliveries, newest first.
    pub deliveries: Vec<(Delivery, Option<Operation>)>,
}

/// How far back, hours, and how many, the last deliveries are told.
const HOURS: i64 = 24;
const MOST: usize = 20;
/// Deliveries that are read of an hour with very many.
const READ: usize = 500;

/// The wanted release, if there is one.
pub async fn wanted(store: &dyn Store) -> Result<Option<ReleaseRecord>, StoreError> {
    let Some(wanted) = repo::get::<Wanted>(store, Wanted::ID).await? else { return Ok(None) };
    let record = repo::get::<ReleaseRecord>(store, &ReleaseRecord::id_of(wanted.value.serial)).await?;
    Ok(record.map(|record| record.value))
}

/// How it stands.
pub async fn standing(parts: &Parts) -> Result<Standing, StoreError> {
    let store = &*parts.store;
    let running = IndexEntry { name: "running", value: UPDATES.to_owned() };
    let (looking, _) = repo::list::<Operation>(store, Some(running), None, MOST, true).await?;
    let mut deliveries: Vec<Delivery> = Vec::new();
    let now = IdempotencyRecord::hour_of(parts.clock.now());
    for hour in (now - HOURS..=now).rev() {
        let index = IndexEntry { name: Delivery::HOUR, value: hour.to_string() };
        let (mut page, _) = repo::list::<Delivery>(store, Some(index), None, READ, false).await?;
        page.sort_by_key(|delivery| std::cmp::Reverse(delivery.value.received_at));
        deliveries.extend(page.into_iter().map(|delivery| delivery.value));
        if deliveries.len() >= MOST {
            break;
        }
    }
    deliveries.truncate(MOST);
    let mut with_operations = Vec::new();
    for delivery in deliveries {
        let operation = match &delivery.heard {
            Heard::Hint { operation, .. } => {
                repo::get::<Operation>(store, operation.as_str()).await?.map(|operation| operation.value)
            }
            Heard::Ignored { .. } => None,
        };
        with_operations.push((delivery, operation));
    }
    let looking = looking.into_iter().map(|operation| operation.value).collect();
    let wanted = wanted(store).await?;
    let rollout = match &wanted {
        Some(wanted) => repo::get::<Rollout>(store, &Rollout::id_of(wanted.serial)).await?,
        None => None,
    };
    Ok(Standing { wanted, rollout: rollout.map(|rollout| rollout.value), looking, deliveries: with_operations })
}

impl Parts {
    /// The updates with where they are found, where there is both.
    #[must_use]
    pub fn watched(&self) -> Option<(&Updates, &Source)> {
        let updates = self.updates.as_ref()?;
        Some((updates, updates.source.as_ref()?))
    }
}
