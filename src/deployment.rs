//! Which deployment a Store belongs to, recorded in it at the first start: a master with another name, another network or
//! other sealing keys refuses to start on it.

mod copy;
mod key_source;
mod masters;
mod moving;
mod rewrap;
mod roll;
mod rotate;
mod store;

pub use copy::{Copied, CopyError, copy, undo as undo_copy};
pub use key_source::{KeySource, configured};
pub use roll::{RollError, RollSaid, Rolled, Rolling, Waiting};
pub use rotate::{RotateError, Rotated, Rotation, Said};
pub use store::{OpenStoreError, open_store};

use crate::config::DeploymentSection;
use crate::error::StoreError;
use crate::kms::KmsError;
use crate::model::Network;
use crate::model::deployment::Deployment;
use crate::seal::{KeyError, SealError, Sealer};
use crate::store::{Store, repo};
use moving::Moving;
use time::OffsetDateTime;

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
    /// The keys there are do not open it.
    #[error("the sealing key does not open this store")]
    Key(#[from] SealError),
    /// The sealing keys cannot be had, or do not fit together.
    #[error("the sealing keys cannot be had")]
    Source(#[from] KeyError),
    /// The key service does not unwrap them.
    #[error("the sealing key cannot be had from KMS")]
    Kms(#[from] KmsError),
}

/// Whether a Store was new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opened {
    /// It was empty; it belongs to this deployment from now on.
    New,
    /// It belonged to this deployment before.
    Known,
}

/// A Store that was opened.
#[derive(Debug)]
pub struct Opening {
    /// Whether it was new.
    pub opened: Opened,
    /// What seals and opens in it.
    pub sealer: Sealer,
    /// The versions of the sealing key that were proven.
    pub versions: Vec<u32>,
}

impl Opening {
    fn of(opened: Opened, sealer: Sealer, deployment: &Deployment) -> Self {
        Self { opened, sealer, versions: deployment.versions() }
    }
}

/// Proves that the Store belongs to this deployment and that the keys open it; a new Store is made to belong to it.
/// May be called by many at the same time.
///
/// # Errors
/// [`OpenError`]: nothing may be done with this Store.
pub async fn open(
    store: &dyn Store,
    source: &KeySource,
    section: &DeploymentSection,
    now: OffsetDateTime,
) -> Result<Opening, OpenError> {
    loop {
        let found = store.get(&repo::key::<Deployment>(Deployment::ID)).await?;
        match found.as_ref().and_then(|document| Moving::read(&document.body)) {
            Some(Moving::Moved { to, .. }) => return Err(OpenError::Moved(to)),
            Some(Moving::Copying) => return Err(OpenError::Copying),
            None => {}
        }
        if let Some(found) = found.map(repo::decode::<Deployment>).transpose()? {
            let deployment = found.value;
            if deployment.name != section.name || deployment.network != section.network {
                return Err(OpenError::Other { name: deployment.name, network: deployment.network });
            }
            let sealer = source.sealer(&deployment).await?;
            return Ok(Opening::of(Opened::Known, sealer, &deployment));
        }
        let (deployment, sealer) = source.first(section, now).await?;
        match store.commit(vec![repo::create(&deployment)?]).await {
            Ok(_) => return Ok(Opening::of(Opened::New, sealer, &deployment)),
            // Of those who start at the same time one is first, and the others take its keys; theirs have sealed nothing.
            Err(e) if e.is_conflict() => {}
            Err(e) => return Err(e.into()),
        }
    }
}

#[cfg(test)]
#[path = "deployment/open_tests.rs"]
mod tests;
