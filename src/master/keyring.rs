//! Follows which sealing keys the deployment has, so that the key can be changed while this master serves.

use super::MasterError;
use crate::app::Parts;
use crate::app::feed::wait_for_change;
use crate::backoff::Backoff;
use crate::deployment::{KeySource, OpenError};
use crate::kms::KmsError;
use crate::model::deployment::Deployment;
use crate::store::repo::{self, Entity};
use crate::store::{Change, Document};
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::Receiver;

/// It is looked at without a change, too; the feed tells of every change, and when it cannot.
const LOOK_EVERY: Duration = Duration::from_secs(3600);
/// When the keys cannot be had. What they are for stays as it was meanwhile.
const BACKOFF: Backoff = Backoff { first: Duration::from_millis(500), longest: Duration::from_secs(10) };

/// Takes up every new sealing key and tells of it in the heartbeat. Ends only when secrets are sealed under a key that this
/// master does not have and cannot get: it could serve nobody whose node is new.
///
/// # Errors
/// That.
pub(super) async fn follow(
    parts: Arc<Parts>,
    source: KeySource,
    mut changes: Receiver<Arc<Change>>,
) -> Result<(), MasterError> {
    let mut pauses = BACKOFF.pauses();
    loop {
        match look(&parts, &source).await {
            Ok(()) => {
                pauses.reset();
                wait_for_change(&mut changes, LOOK_EVERY, is_deployment).await;
            }
            Err(Trouble::ForGood(error)) => return Err(error.into()),
            Err(Trouble::Passing(error)) => {
                tracing::warn!(error = &error as &(dyn Error + 'static), "a new sealing key cannot be taken up yet");
                tokio::time::sleep(pauses.take()).await;
            }
        }
    }
}

fn is_deployment(document: &Document) -> bool {
    document.key.collection == Deployment::COLLECTION && document.key.id == Deployment::ID
}

/// Why a key was not taken up.
enum Trouble {
    /// This may pass.
    Passing(OpenError),
    /// This master cannot go on.
    ForGood(OpenError),
}

async fn look(parts: &Parts, source: &KeySource) -> Result<(), Trouble> {
    let found = repo::get::<Deployment>(&*parts.store, Deployment::ID).await;
    let found = found.map_err(|error| Trouble::Passing(error.into()))?;
    let Some(deployment) = found.map(|found| found.value) else { return Ok(()) };
    match source.sealer(&deployment).await {
        Ok(sealer) => {
            let sealing = sealer.current();
            if sealing != parts.keys.sealing() {
                tracing::info!(version = sealing, "another sealing key seals from now on");
            }
            parts.keys.replace(Arc::new(sealer));
            parts.lease.tell_keys(deployment.versions());
            Ok(())
        }
        Err(error) if deployment.sealing() != parts.keys.sealing() && is_for_good(&error) => {
            Err(Trouble::ForGood(error))
        }
        Err(error) => Err(Trouble::Passing(error)),
    }
}

/// Whether only another configuration can help.
fn is_for_good(error: &OpenError) -> bool {
    matches!(error, OpenError::Key(_) | OpenError::Source(_) | OpenError::Kms(KmsError::NotNamed { .. }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::config::DeploymentSection;
    use crate::deployment;
    use crate::model::Network;
    use crate::seal::SealKey;
    use crate::store::Store;
    use crate::store::sqlite::{SqliteOptions, SqliteStore};
    use time::OffsetDateTime;

    fn files(versions: &[u32]) -> KeySource {
        let key = |version: &u32| (*version, SealKey::from_bytes([u8::try_from(*version).unwrap() + 6; 32]));
        KeySource::new(versions.iter().map(key).collect(), None)
    }

    #[tokio::test]
    async fn a_master_goes_on_without_a_key_that_is_only_announced_and_ends_when_it_seals() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&folder.path().join("store.db"), SqliteOptions::default()).await.unwrap();
        let store: Arc<dyn Store> = Arc::new(store);
        let section = DeploymentSection { name: "test".to_owned(), network: Network::Simnet };
        let both = files(&[1, 2]);
        deployment::open(&*store, &files(&[1]), &section, OffsetDateTime::UNIX_EPOCH).await.unwrap();
        let parts = Parts::for_tests(Arc::clone(&store), Arc::new(SystemClock));
        assert!(look(&parts, &files(&[1])).await.is_ok());

        let store_now = async |sealing: u32| {
            let mut found = repo::get::<Deployment>(&*store, Deployment::ID).await.unwrap().unwrap();
            if found.value.newest() == 1 {
                both.announce(&mut found.value, 2, OffsetDateTime::UNIX_EPOCH).await.unwrap();
            }
            found.value.sealing = Some(sealing);
            store.commit(vec![repo::update(&found.value, found.version).unwrap()]).await.unwrap();
        };
        store_now(1).await;
        assert!(matches!(look(&parts, &files(&[1])).await, Err(Trouble::Passing(_))));
        assert!(look(&parts, &both).await.is_ok());
        assert_eq!(parts.keys.sealing(), 1);
        store_now(2).await;
        assert!(matches!(look(&parts, &files(&[1])).await, Err(Trouble::ForGood(_))));
        assert!(look(&parts, &both).await.is_ok());
        assert_eq!(parts.keys.sealing(), 2);
    }
}
