//! The deployment's certificate authority in the Store, its key sealed.

use super::broken;
use crate::app::keys::{DEPLOYMENT, Keys, field};
use crate::clock::SharedClock;
use crate::error::{Error, Result};
use crate::model::deployment::Authority;
use crate::pki::Ca;
use crate::store::{Store, repo};

/// Of two masters that make one at the same time, one wins and both use its.
pub(super) async fn load_or_create(store: &dyn Store, clock: &SharedClock, keys: &Keys) -> Result<Ca> {
    loop {
        if let Some(authority) = repo::get::<Authority>(store, Authority::ID).await? {
            return open(&authority.value, keys);
        }
        let ca = Ca::create(keys.deployment(), clock.now(), &mut rand::rng()).map_err(broken)?;
        let key = keys.seal(DEPLOYMENT, field::CA_KEY, ca.key_pem().as_bytes())?;
        let authority = Authority { certificate_pem: ca.cert().pem(), key, created_at: clock.now() };
        // What counts is what can be read back.
        match store.commit(vec![repo::create(&authority)?]).await {
            Ok(_) => {}
            Err(e) if e.is_conflict() => {}
            Err(e) => return Err(e.into()),
        }
    }
}

fn open(authority: &Authority, keys: &Keys) -> Result<Ca> {
    let key = keys.open(DEPLOYMENT, field::CA_KEY, &authority.key)?;
    let key = std::str::from_utf8(&key).map_err(|_| Error::Invariant("the CA's key is not text".to_owned()))?;
    Ca::from_pem(&authority.certificate_pem, key).map_err(broken)
}
