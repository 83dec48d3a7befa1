//! Changing the sealing key while masters serve.
//!
//! Four steps, each one commit of the deployment's document or harmless when repeated, so that whoever comes next goes on
//! where the last one was interrupted:
//!
//! 1. the new key is announced: from now on a master that does not have it does not start, and those that run get it, from the
//!    key service, or were given it before by the operator;
//! 2. once every living master's heartbeat tells that it has the key, it becomes the one that seals;
//! 3. what older keys have sealed is sealed again;
//! 4. the older keys are retired: nothing needs them any more.

use super::key_source::KeySource;
use super::masters::{self, LOOK_EVERY};
use super::{OpenError, rewrap};
use crate::app::keys::Keys;
use crate::error::StoreError;
use crate::fault;
use crate::model::MasterId;
use crate::model::deployment::Deployment;
use crate::seal::SealError;
use crate::store::repo::{self, Versioned};
use crate::store::{Store, Version};
use std::sync::Arc;
use std::time::Duration;
use time::OffsetDateTime;
use tokio::time::Instant;

/// Why the sealing key was not changed, or not entirely. What was done stays done, and no key may be destroyed.
#[derive(Debug, thiserror::Error)]
pub enum RotateError {
    /// The Store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The keys.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A secret does not open.
    #[error("a secret of {of} does not open: no key may be destroyed before that is put right")]
    Secret {
        /// Whose.
        of: String,
        /// Why.
        #[source]
        error: SealError,
    },
    /// There is nothing to change to.
    #[error(
        "there is no newer sealing key than version {sealing}: make one (`scale-lnd keys generate`), name it in \
         seal.key_files of every master as {next}:PATH, restart them, and type this again"
    )]
    NoNewerKey {
        /// The version that seals.
        sealing: u32,
        /// The next one.
        next: u32,
    },
    /// Masters run that do not have the new key.
    #[error(
        "these masters run without sealing key {version}: {}; nothing is sealed under it yet. Give it to them (a master that \
         is restarted must have it), or end them, and type this again",
        shown(masters)
    )]
    Lacking {
        /// The version.
        version: u32,
        /// Who lacks it.
        masters: Vec<MasterId>,
    },
    /// There is no deployment in the Store.
    #[error("there is no deployment in the store")]
    Nothing,
}

fn shown(masters: &[MasterId]) -> String {
    masters.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// What is going on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// A new key is in the Store, or known to be configured.
    Announced(u32),
    /// These masters do not tell of it yet.
    Waiting(Vec<MasterId>),
    /// It seals from now on.
    Seals(u32),
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotated {
    /// The version that seals.
    pub version: u32,
    /// How many secrets were sealed again.
    pub secrets: usize,
    /// Whether it was begun before: another one may follow.
    pub was_begun: bool,
}

/// What is to be done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Plan {
    Announce(u32),
    Switch(u32),
    Finish,
    Nothing,
}

fn plan(deployment: &Deployment, configured: Option<u32>, has_service: bool) -> Plan {
    let (sealing, newest) = (deployment.sealing(), deployment.newest());
    if newest > sealing {
        return Plan::Switch(newest);
    }
    if deployment.versions().iter().any(|version| *version < sealing) {
        return Plan::Finish;
    }
    match configured.filter(|version| *version > sealing) {
        Some(version) => Plan::Announce(version),
        None if has_service => Plan::Announce(sealing + 1),
        None => Plan::Nothing,
    }
}

/// A change of the sealing key.
#[derive(Debug)]
pub struct Rotation<'a> {
    /// The deployment's Store, which was opened before.
    pub store: &'a dyn Store,
    /// The keys.
    pub source: &'a KeySource,
    /// How long masters are waited for.
    pub patience: Duration,
}

impl Rotation<'_> {
    /// Changes the key, or finishes a change that was begun. Two at the same time do it together.
    ///
    /// # Errors
    /// See [`RotateError`].
    pub async fn run(&self, now: OffsetDateTime, mut say: impl FnMut(Said)) -> Result<Rotated, RotateError> {
        let (mut was_begun, mut begun, mut secrets) = (true, false, 0);
        loop {
            let Versioned { value: mut deployment, version: read_at } =
                repo::get::<Deployment>(self.store, Deployment::ID).await?.ok_or(RotateError::Nothing)?;
            let version = deployment.sealing();
            match plan(&deployment, self.source.newest_configured(), self.source.has_service()) {
                // Another has ended what both were at.
                Plan::Announce(_) | Plan::Nothing if begun => return Ok(Rotated { version, secrets, was_begun }),
                Plan::Nothing => return Err(RotateError::NoNewerKey { sealing: version, next: version + 1 }),
                Plan::Announce(next) => {
                    self.source.announce(&mut deployment, next, now).await?;
                    if self.commit(&deployment, read_at, "keys.announce").await? {
                        was_begun = false;
                        say(Said::Announced(next));
                    }
                }
                Plan::Switch(next) => {
                    self.until_all_have(next, &mut say).await?;
                    deployment.sealing = Some(next);
                    if self.commit(&deployment, read_at, "keys.switch").await? {
                        say(Said::Seals(next));
                    }
                }
                Plan::Finish => {
                    let sealer = Arc::new(self.source.sealer(&deployment).await?);
                    let keys = Keys::new(sealer, deployment.name.clone(), deployment.network);
                    secrets += rewrap::rewrap(self.store, &keys).await?;
                    retire(&mut deployment);
                    if self.commit(&deployment, read_at, "keys.retire").await? {
                        return Ok(Rotated { version, secrets, was_begun });
                    }
                }
            }
            begun = true;
        }
    }

    /// False: another was faster, and what is next must be found anew.
    async fn commit(&self, deployment: &Deployment, read_at: Version, point: &str) -> Result<bool, StoreError> {
        fault::point(&format!("{point}.before")).await;
        match self.store.commit(vec![repo::update(deployment, read_at)?]).await {
            Ok(_) => {
                fault::point(&format!("{point}.after")).await;
                Ok(true)
            }
            Err(error) if error.is_conflict() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// A master that starts from now on has it, or does not start.
    async fn until_all_have(&self, version: u32, say: &mut impl FnMut(Said)) -> Result<(), RotateError> {
        let (observer, begin) = (masters::observer(), Instant::now());
        let mut said = Vec::new();
        loop {
            let masters =
                masters::lacking(self.store, &observer, |heartbeat| heartbeat.keys.contains(&version)).await?;
            if masters.is_empty() {
                return Ok(());
            }
            if begin.elapsed() >= self.patience {
                return Err(RotateError::Lacking { version, masters });
            }
            if masters != said {
                say(Said::Waiting(masters.clone()));
                said = masters;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// Only the key that seals stays.
fn retire(deployment: &mut Deployment) {
    let sealing = deployment.sealing();
    deployment.key_checks.retain(|check| check.key_version() == sealing);
    deployment.wrapped.retain(|wrapped| wrapped.version == sealing);
}

#[cfg(test)]
#[path = "rotate_tests.rs"]
mod tests;
