//! Which deployment a Store belongs to, recorded in it at the first start: a master with another name, another network or
//! other sealing keys refuses to start on it.

mod copy;
mod moving;
mod rewrap;
mod store;

pub use copy::{Copied, CopyError, copy, undo as undo_copy};
pub use rewrap::{Rewrapped, rewrap};
pub use store::{OpenStoreError, open_store};

use crate::app::keys;
use crate::config::{DeploymentSection, SealSection, SecretSource};
use crate::error::StoreError;
use crate::model::Network;
use crate::seal::{KeyError, SealContext, SealError, SealKey, Sealed, Sealer};
use crate::store::Store;
use crate::store::repo::{self, Entity};
use moving::Moving;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

/// What is sealed to see whether a key opens the Store.
const CHECK: &[u8] = b"scale-lnd";

/// What a Store knows of the deployment it belongs to. One document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Deployment {
    /// Its name.
    pub name: String,
    /// Its network.
    pub network: Network,
    /// A known text sealed under every key version that has ever sealed here: all must open, or secrets would be lost.
    pub key_checks: Vec<Sealed>,
    /// When the Store was made.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

const ID: &str = "deployment";

impl Entity for Deployment {
    const COLLECTION: &'static str = "deployment";
    fn id(&self) -> String {
        ID.to_owned()
    }
}

/// Why this Store cannot be used with this configuration.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The Store does not answer.
    #[error("cannot read the deployment")]
    Store(#[from] StoreError),
    /// It belongs to another deployment.
    #[error("the store belongs to deployment {name} on {network}, not to the one in the configuration")]
    Other {
        /// The name recorded in the Store.
        name: String,
        /// The network recorded in the Store.
        network: Network,
    },
    /// Its deployment is in another Store now.
    #[error("this store is not used any more: the deployment was moved to {0}")]
    Moved(String),
    /// Not all of its deployment has arrived here.
    #[error("a deployment is being copied to this store: let `scale-lnd store copy` finish")]
    Copying,
    /// The configured keys do not open it.
    #[error("the sealing key does not open this store")]
    Key(#[from] SealError),
}

/// Whether the Store was new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opened {
    /// It was empty; it belongs to this deployment from now on.
    New,
    /// It belonged to this deployment before.
    Known,
}

/// Proves that the Store belongs to this deployment and that the keys open it; a new Store is made to belong to it.
/// May be called by many at the same time.
///
/// # Errors
/// [`OpenError`]: nothing may be done with this Store.
pub async fn open(
    store: &dyn Store,
    sealer: &Sealer,
    section: &DeploymentSection,
    now: OffsetDateTime,
) -> Result<Opened, OpenError> {
    let context = SealContext {
        deployment: &section.name,
        network: section.network.as_str(),
        owner: keys::DEPLOYMENT,
        field: keys::field::KEY_CHECK,
    };
    loop {
        let found = store.get(&repo::key::<Deployment>(ID)).await?;
        match found.as_ref().and_then(|document| Moving::read(&document.body)) {
            Some(Moving::Moved { to, .. }) => return Err(OpenError::Moved(to)),
            Some(Moving::Copying) => return Err(OpenError::Copying),
            None => {}
        }
        let (write, opened) = match found.map(repo::decode::<Deployment>).transpose()? {
            None => {
                let key_checks = vec![sealer.seal(&context, CHECK)?];
                let name = section.name.clone();
                let deployment = Deployment { name, network: section.network, key_checks, created_at: now };
                (repo::create(&deployment)?, Opened::New)
            }
            Some(found) => {
                let mut deployment = found.value;
                if deployment.name != section.name || deployment.network != section.network {
                    return Err(OpenError::Other { name: deployment.name, network: deployment.network });
                }
                for check in &deployment.key_checks {
                    sealer.open(&context, check)?;
                }
                if deployment.key_checks.iter().any(|check| !sealer.is_outdated(check)) {
                    return Ok(Opened::Known);
                }
                // A key of a new version seals from now on; the older ones are still needed for what they sealed.
                deployment.key_checks.push(sealer.seal(&context, CHECK)?);
                (repo::update(&deployment, found.version)?, Opened::Known)
            }
        };
        match store.commit(vec![write]).await {
            Ok(_) => return Ok(opened),
            Err(e) if e.is_conflict() => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// The configured sealing keys.
///
/// # Errors
/// When a key cannot be read, or is exposed to others.
pub fn sealer(section: &SealSection) -> Result<Sealer, KeyError> {
    let keys = section.keys.iter().map(|(version, source)| {
        let key = match source {
            SecretSource::Value(hex) => SealKey::from_hex(hex.expose_secret()),
            SecretSource::File(path) => SealKey::from_file(path),
        };
        key.map(|key| (*version, key))
    });
    Sealer::new(keys.collect::<Result<Vec<_>, _>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::{SqliteOptions, SqliteStore};

    fn section(name: &str, network: Network) -> DeploymentSection {
        DeploymentSection { name: name.to_owned(), network }
    }

    fn keys(versions: &[(u32, u8)]) -> Sealer {
        Sealer::new(versions.iter().map(|(version, byte)| (*version, SealKey::from_bytes([*byte; 32])))).unwrap()
    }

    async fn try_open(store: &SqliteStore, sealer: &Sealer, section: &DeploymentSection) -> Result<Opened, OpenError> {
        open(store, sealer, section, OffsetDateTime::UNIX_EPOCH).await
    }

    #[tokio::test]
    async fn a_store_belongs_to_one_deployment_and_its_keys() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&folder.path().join("store.db"), SqliteOptions::default()).await.unwrap();
        let ours = section("ours", Network::Simnet);
        assert_eq!(try_open(&store, &keys(&[(1, 7)]), &ours).await.unwrap(), Opened::New);
        assert_eq!(try_open(&store, &keys(&[(1, 7)]), &ours).await.unwrap(), Opened::Known);

        let other_key = try_open(&store, &keys(&[(1, 8)]), &ours).await;
        assert!(matches!(other_key, Err(OpenError::Key(SealError::DoesNotOpen))), "{other_key:?}");
        for other in [section("theirs", Network::Simnet), section("ours", Network::Mainnet)] {
            let refused = try_open(&store, &keys(&[(1, 7)]), &other).await;
            assert!(matches!(refused, Err(OpenError::Other { .. })), "{refused:?}");
        }
    }

    #[tokio::test]
    async fn every_key_that_ever_sealed_must_stay() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&folder.path().join("store.db"), SqliteOptions::default()).await.unwrap();
        let ours = section("ours", Network::Simnet);
        try_open(&store, &keys(&[(1, 7)]), &ours).await.unwrap();
        try_open(&store, &keys(&[(1, 7), (2, 9)]), &ours).await.unwrap();
        for too_few in [keys(&[(2, 9)]), keys(&[(1, 7)])] {
            let refused = try_open(&store, &too_few, &ours).await;
            assert!(matches!(refused, Err(OpenError::Key(SealError::UnknownKeyVersion { .. }))), "{refused:?}");
        }
        assert_eq!(try_open(&store, &keys(&[(1, 7), (2, 9)]), &ours).await.unwrap(), Opened::Known);
    }

    #[tokio::test]
    async fn two_that_start_at_once_agree() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.db");
        let (a, b) = tokio::join!(async { SqliteStore::open(&path, SqliteOptions::default()).await.unwrap() }, async {
            SqliteStore::open(&path, SqliteOptions::default()).await.unwrap()
        });
        let (ours, sealer) = (section("ours", Network::Simnet), keys(&[(1, 7)]));
        let (first, second) = tokio::join!(try_open(&a, &sealer, &ours), try_open(&b, &sealer, &ours));
        let mut opened = [first.unwrap(), second.unwrap()];
        opened.sort_by_key(|opened| *opened == Opened::Known);
        assert_eq!(opened, [Opened::New, Opened::Known]);
    }
}
