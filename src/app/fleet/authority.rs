//! The deployment's certificate authority in the Store, its key sealed.

use super::{Deployment, broken};
use crate::clock::SharedClock;
use crate::error::{Error, Result};
use crate::model::deployment::Authority;
use crate::pki::Ca;
use crate::seal::{SealContext, Sealer};
use crate::store::{Store, repo};

impl Deployment<'_> {
    fn ca_key(&self) -> SealContext<'_> {
        SealContext { deployment: self.name, network: self.network.as_str(), owner: "deployment", field: "ca_key" }
    }
}

/// Of two masters that make one at the same time, one wins and both use its.
pub(super) async fn load_or_create(
    store: &dyn Store,
    clock: &SharedClock,
    sealer: &Sealer,
    deployment: Deployment<'_>,
) -> Result<Ca> {
    loop {
        if let Some(authority) = repo::get::<Authority>(store, Authority::ID).await? {
            return open(&authority.value, sealer, deployment);
        }
        let ca = Ca::create(deployment.name, clock.now(), &mut rand::rng()).map_err(broken)?;
        let key = sealer.seal(&deployment.ca_key(), ca.key_pem().as_bytes())?;
        let authority = Authority { certificate_pem: ca.cert().pem(), key, created_at: clock.now() };
        // What counts is what can be read back.
        match store.commit(vec![repo::create(&authority)?]).await {
            Ok(_) => {}
            Err(e) if e.is_conflict() => {}
            Err(e) => return Err(e.into()),
        }
    }
}

fn open(authority: &Authority, sealer: &Sealer, deployment: Deployment<'_>) -> Result<Ca> {
    let key = sealer.open(&deployment.ca_key(), &authority.key)?;
    let key = std::str::from_utf8(&key).map_err(|_| Error::Invariant("the CA's key is not text".to_owned()))?;
    Ca::from_pem(&authority.certificate_pem, key).map_err(broken)
}
