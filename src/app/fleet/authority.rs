//! The deployment's certificate authorities: one that issues, and while it takes over from another both are believed. In the
//! Store, their keys sealed.

use super::broken;
use super::join::JoinKey;
use crate::app::keys::{DEPLOYMENT, Keys, field};
use crate::clock::SharedClock;
use crate::error::{Error, Result};
use crate::model::authority::{Authority, AuthorityKey, Roll};
use crate::pki::{Ca, CaCert, Fingerprint};
use crate::seal::Sealed;
use crate::store::{Store, repo};
use time::OffsetDateTime;

/// What a step of the Store's document means.
#[derive(Debug)]
pub(super) struct Authorities {
    pub(super) step: u64,
    pub(super) issuing: Ca,
    /// As long as its join tokens may be asked for.
    pub(super) former: Option<Ca>,
    /// The one that issues is the first.
    pub(super) believed: Vec<CaCert>,
    /// The first that the deployment had.
    pub(super) identity: String,
}

impl Authorities {
    pub(super) fn open(authority: &Authority, keys: &Keys) -> Result<Self> {
        let issuing = open(&authority.certificate_pem, &authority.key, keys)?;
        let former = match &authority.roll {
            Some(Roll::Issuing { former }) => Some(open(&former.certificate_pem, &former.key, keys)?),
            Some(Roll::Announced { .. } | Roll::Retiring) | None => None,
        };
        let believed = authority.believed().into_iter().map(CaCert::from_pem).collect::<Result<_, _>>();
        let identity = authority.identity.clone().unwrap_or_else(|| issuing.cert().fingerprint().to_string());
        Ok(Self { step: authority.step, issuing, former, believed: believed.map_err(broken)?, identity })
    }

    /// Of join tokens that were made while the authority with this fingerprint issued. Empty: in a time that knew only one.
    pub(super) fn join_key(&self, fingerprint: &str) -> Result<Option<JoinKey>> {
        let oldest = self.former.as_ref().unwrap_or(&self.issuing);
        let of_it = |ca: &&Ca| ca.cert().fingerprint().to_string() == fingerprint;
        let found = match fingerprint {
            "" => Some(oldest),
            _ => [oldest, &self.issuing].into_iter().find(of_it),
        };
        found.map(|ca| JoinKey::of(&ca.key_pem())).transpose()
    }
}

/// Of two masters that make one at the same time, one wins and both use its.
pub(super) async fn load_or_create(store: &dyn Store, clock: &SharedClock, keys: &Keys) -> Result<Authority> {
    loop {
        if let Some(authority) = repo::get::<Authority>(store, Authority::ID).await? {
            return Ok(authority.value);
        }
        let (made, _) = make(keys, clock.now())?;
        // What counts is what can be read back.
        match store.commit(vec![repo::create(&Authority::first(made))?]).await {
            Ok(_) => {}
            Err(e) if e.is_conflict() => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// A new authority and its fingerprint. It means nothing before it is stored.
///
/// # Errors
/// When it cannot be sealed.
pub fn make(keys: &Keys, now: OffsetDateTime) -> Result<(AuthorityKey, Fingerprint)> {
    let ca = Ca::create(keys.deployment(), now, &mut rand::rng()).map_err(broken)?;
    let key = keys.seal(DEPLOYMENT, field::CA_KEY, ca.key_pem().as_bytes())?;
    let made = AuthorityKey { certificate_pem: ca.cert().pem(), key, created_at: now };
    Ok((made, ca.cert().fingerprint()))
}

fn open(certificate_pem: &str, key: &Sealed, keys: &Keys) -> Result<Ca> {
    let key = keys.open(DEPLOYMENT, field::CA_KEY, key)?;
    let key = std::str::from_utf8(&key).map_err(|_| Error::Invariant("the CA's key is not text".to_owned()))?;
    Ca::from_pem(certificate_pem, key).map_err(broken)
}
