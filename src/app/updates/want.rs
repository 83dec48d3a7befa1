//! Wanting a release that was found: only if it is well signed, for this deployment, not expired, and newer than the one that
//! is wanted.

use crate::error::StoreError;
use crate::model::Network;
use crate::model::problem::{Code, Refusal};
use crate::model::release::Unfit;
use crate::model::rollout::Rollout;
use crate::model::updates::{GitRef, ReleaseRecord, Wanted};
use crate::release::{Manifest, ManifestError, SignatureError, TrustedKeys};
use crate::store::repo;
use crate::store::{Store, Write};
use time::OffsetDateTime;

/// Whose releases a deployment believes, and which are for it.
#[derive(Debug, Clone, Copy)]
pub struct Believed<'a> {
    /// Whose.
    pub trusted: &'a TrustedKeys,
    /// The deployment's name.
    pub deployment: &'a str,
    /// Its network.
    pub network: Network,
}

/// What a release that was found means.
#[derive(Debug)]
pub enum Found {
    /// It is newer: wanted from this commit on.
    Newer(Vec<Write>),
    /// It is the one that is wanted.
    Wanted,
}

/// Why a release is not wanted. Nothing was changed, then.
#[derive(Debug, thiserror::Error)]
pub enum NotWanted {
    /// It is none, or nobody who is trusted has signed it.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// It is not for this deployment, or not any more.
    #[error(transparent)]
    Unfit(#[from] Unfit),
    /// A newer one is wanted.
    #[error("its serial is {serial}, and release {wanted} is wanted already: a deployment never goes back")]
    Older {
        /// Its serial.
        serial: u64,
        /// That of the wanted one.
        wanted: u64,
    },
    /// Another release had its serial.
    #[error("its serial {serial} is that of another release: a release that was changed needs a new one")]
    Taken {
        /// Its serial.
        serial: u64,
    },
    /// The Store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Judges what was found.
///
/// # Errors
/// See [`NotWanted`].
pub async fn want(
    store: &dyn Store,
    believed: Believed<'_>,
    (text, signature): (&[u8], &str),
    source: Option<GitRef>,
    now: OffsetDateTime,
) -> Result<(Manifest, Found), NotWanted> {
    let manifest = Manifest::verify(text, signature, believed.trusted)?;
    let serial = manifest.release.serial;
    let wanted = repo::get::<Wanted>(store, Wanted::ID).await?;
    match wanted.as_ref().map(|wanted| wanted.value.serial) {
        Some(wanted) if serial < wanted => return Err(NotWanted::Older { serial, wanted }),
        Some(wanted) if serial == wanted => {
            let record = repo::get::<ReleaseRecord>(store, &ReleaseRecord::id_of(serial)).await?;
            let is_the_same = record.is_some_and(|record| record.value.manifest == manifest.text);
            return if is_the_same { Ok((manifest, Found::Wanted)) } else { Err(NotWanted::Taken { serial }) };
        }
        Some(_) | None => {}
    }
    // Only now: one that is wanted may expire, and goes on being wanted.
    manifest.release.fits(believed.deployment, believed.network, now)?;
    let record = ReleaseRecord {
        serial,
        manifest: manifest.text.clone(),
        signature: manifest.signature.clone(),
        signed_by: manifest.signed_by.to_string(),
        source,
        wanted_since: now,
    };
    let head = match &wanted {
        None => repo::create(&Wanted { serial })?,
        Some(wanted) => repo::update(&Wanted { serial }, wanted.version)?,
    };
    let mut writes = vec![repo::create(&record)?, head];
    writes.extend(propose(store, &manifest, wanted.map(|wanted| wanted.value.serial), now).await?);
    Ok((manifest, Found::Newer(writes)))
}

/// The rollout of it, in place of the one before: in the commit in which it becomes the wanted one, so that there is always one.
async fn propose(
    store: &dyn Store,
    manifest: &Manifest,
    former: Option<u64>,
    now: OffsetDateTime,
) -> Result<Vec<Write>, StoreError> {
    let serial = manifest.release.serial;
    let mut writes = vec![repo::create(&Rollout::new(serial, manifest.release.rollout.clone(), now))?];
    let Some(former) = former else { return Ok(writes) };
    // None of a release that was wanted by a program that knew no rollouts.
    if let Some(former) = repo::get::<Rollout>(store, &Rollout::id_of(former)).await? {
        writes.push(repo::update(&former.value.supersede(serial), former.version)?);
    }
    Ok(writes)
}

/// What is told of a release that is not wanted.
///
/// # Errors
/// The Store does not answer, which says nothing of the release.
pub fn refusal(why: NotWanted) -> Result<Refusal, StoreError> {
    let code = match &why {
        NotWanted::Manifest(ManifestError::Signature(SignatureError::UnknownKey { .. })) => Code::ReleaseUnknownKey,
        NotWanted::Manifest(ManifestError::Signature(_)) => Code::ReleaseSignatureWrong,
        NotWanted::Manifest(_) => Code::ReleaseMalformed,
        NotWanted::Unfit(Unfit::OtherDeployment { .. }) => Code::ReleaseOtherDeployment,
        NotWanted::Unfit(Unfit::OtherNetwork { .. }) => Code::ReleaseOtherNetwork,
        NotWanted::Unfit(Unfit::Expired { .. }) => Code::ReleaseExpired,
        NotWanted::Older { .. } => Code::ReleaseOlder,
        NotWanted::Taken { .. } => Code::ReleaseSerialTaken,
        NotWanted::Store(_) => Code::StoreUnavailable,
    };
    match why {
        NotWanted::Store(error) => Err(error),
        why => Ok(Refusal::new(code, format!("the release is refused: {why}"))),
    }
}
