//! Sealing again under the newest key what older ones sealed, so that an older key can be destroyed.

use super::{Deployment, ID};
use crate::app::keys::{DEPLOYMENT, Keys, field};
use crate::error::{Error, Result};
use crate::model::deployment::Authority;
use crate::model::node::Node;
use crate::seal::{Sealed, Sealer};
use crate::store::{Store, repo};

/// How many secrets were sealed again.
pub type Rewrapped = usize;

/// Seals again whatever in the Store is sealed under an older key. Every master must seal under the newest key by now, or
/// it would go on making secrets that need the older one. May be stopped and repeated at any time.
///
/// # Errors
/// A secret that does not open stops it: what was done stays done, and no key may be destroyed.
pub async fn rewrap(store: &dyn Store, sealer: &Sealer, keys: &Keys) -> Result<Rewrapped> {
    let again = Again { sealer, keys };
    let mut done = 0;
    for node in repo::list_all::<Node>(store, None).await? {
        done += again.node(store, node.value.id.as_str()).await?;
    }
    done += again.authority(store).await?;
    // Last of all: from now on the Store opens without the older keys.
    done += again.checks(store).await?;
    Ok(done)
}

struct Again<'a> {
    sealer: &'a Sealer,
    keys: &'a Keys,
}

impl Again<'_> {
    fn seal(&self, owner: &str, field: &str, sealed: &mut Sealed) -> Result<usize> {
        if !self.sealer.is_outdated(sealed) {
            return Ok(0);
        }
        let fresh = self.keys.seal(owner, field, &self.keys.open(owner, field, sealed)?)?;
        *sealed = fresh;
        Ok(1)
    }

    async fn node(&self, store: &dyn Store, id: &str) -> Result<usize> {
        let mut done = 0;
        repo::modify::<Node, Error>(store, id, |node| {
            let Some(secrets) = &mut node.secrets else { return Ok(false) };
            done = self.seal(id, field::SEED, &mut secrets.seed)?
                + self.seal(id, field::WALLET_PASSWORD, &mut secrets.wallet_password)?
                + self.seal(id, field::MACAROON_ROOT_KEY, &mut secrets.macaroon_root_key)?
                + self.seal(id, field::INVOICE_KEY, &mut secrets.invoice_key)?;
            Ok(done > 0)
        })
        .await?;
        Ok(done)
    }

    async fn authority(&self, store: &dyn Store) -> Result<usize> {
        let mut done = 0;
        repo::modify::<Authority, Error>(store, Authority::ID, |authority| {
            done = self.seal(DEPLOYMENT, field::CA_KEY, &mut authority.key)?;
            Ok(done > 0)
        })
        .await?;
        Ok(done)
    }

    async fn checks(&self, store: &dyn Store) -> Result<usize> {
        let mut done = 0;
        repo::modify::<Deployment, Error>(store, ID, |deployment| {
            done = deployment.key_checks.iter().filter(|check| self.sealer.is_outdated(check)).count();
            deployment.key_checks.retain(|check| !self.sealer.is_outdated(check));
            Ok(done > 0)
        })
        .await?;
        Ok(done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::fleet::Fleet;
    use crate::clock::{SharedClock, SystemClock};
    use crate::config::DeploymentSection;
    use crate::model::node::{Funding, Phase, Secrets};
    use crate::model::{AppId, Network, NodeId, OperationId, Uuid};
    use crate::seal::SealKey;
    use crate::store::sqlite::{SqliteOptions, SqliteStore};
    use std::sync::Arc;
    use time::OffsetDateTime;

    fn sealer(versions: &[u32]) -> Sealer {
        let key = |version: &u32| (*version, SealKey::from_bytes([u8::try_from(*version).unwrap(); 32]));
        Sealer::new(versions.iter().map(key)).unwrap()
    }

    fn keys(versions: &[u32]) -> Keys {
        Keys::new(Arc::new(sealer(versions)), "ours".to_owned(), Network::Simnet)
    }

    fn node(keys: &Keys) -> Node {
        let now = OffsetDateTime::UNIX_EPOCH;
        let id = NodeId::random(&mut rand::rng());
        let seal = |field: &str| keys.seal(id.as_str(), field, field.as_bytes()).unwrap();
        let secrets = Secrets {
            seed: seal(field::SEED),
            wallet_password: seal(field::WALLET_PASSWORD),
            macaroon_root_key: seal(field::MACAROON_ROOT_KEY),
            invoice_key: seal(field::INVOICE_KEY),
        };
        Node {
            id,
            app: AppId::parse("app").unwrap(),
            uuid: Uuid::parse("alice").unwrap(),
            phase: Phase::Ready,
            create_operation: OperationId::random(now, &mut rand::rng()),
            placement: None,
            endpoint: None,
            secrets: Some(secrets),
            wallet_may_exist: true,
            identity_pubkey: None,
            deposit_address: None,
            funding: Funding::None,
            created_at: now,
        }
    }

    #[tokio::test]
    async fn afterwards_the_older_key_is_not_needed() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&folder.path().join("store.db"), SqliteOptions::default()).await.unwrap();
        let store: Arc<dyn Store> = Arc::new(store);
        let ours = DeploymentSection { name: "ours".to_owned(), network: Network::Simnet };
        let (now, clock) = (OffsetDateTime::now_utc(), Arc::new(SystemClock) as SharedClock);
        let life = time::Duration::days(1);
        let open_fleet = async |keys: Keys| {
            let fleet = Fleet::open(Arc::clone(&store), Arc::clone(&clock), &keys, life).await;
            fleet.map(|fleet| fleet.ca().fingerprint().to_string())
        };

        super::super::open(&*store, &sealer(&[1]), &ours, now).await.unwrap();
        let authority = open_fleet(keys(&[1])).await.unwrap();
        let node = node(&keys(&[1]));
        store.commit(vec![repo::create(&node).unwrap()]).await.unwrap();

        let (both, both_keys) = (sealer(&[1, 2]), keys(&[1, 2]));
        super::super::open(&*store, &both, &ours, now).await.unwrap();
        assert_eq!(rewrap(&*store, &both, &both_keys).await.unwrap(), 4 + 1 + 1);
        assert_eq!(rewrap(&*store, &both, &both_keys).await.unwrap(), 0);

        super::super::open(&*store, &sealer(&[2]), &ours, now).await.unwrap();
        assert_eq!(open_fleet(keys(&[2])).await.unwrap(), authority);
        let read = repo::get::<Node>(&*store, node.id.as_str()).await.unwrap().unwrap().value;
        for name in [field::SEED, field::WALLET_PASSWORD, field::MACAROON_ROOT_KEY, field::INVOICE_KEY] {
            assert_eq!(&**keys(&[2]).open_of(&read, name).unwrap(), name.as_bytes());
        }
        assert!(super::super::open(&*store, &sealer(&[1]), &ours, now).await.is_err());
    }
}
