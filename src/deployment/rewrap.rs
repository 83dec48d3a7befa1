//! Sealing again under the key in use what others sealed, so that those can be destroyed.

use super::rotate::RotateError;
use crate::app::keys::{DEPLOYMENT, Keys, field};
use crate::fault;
use crate::model::NodeId;
use crate::model::authority::Authority;
use crate::model::node::{Node, Secrets};
use crate::store::{Store, repo};

/// Seals again whatever in the Store is not sealed under the key in use, beside masters that serve. How many secrets it were.
/// May be stopped and repeated at any time.
///
/// # Errors
/// A secret that does not open stops it: what was done stays done, and no key may be destroyed.
pub(super) async fn rewrap(store: &dyn Store, keys: &Keys) -> Result<usize, RotateError> {
    let mut done = authority(store, keys).await?;
    loop {
        let pass = nodes(store, keys).await?;
        // What was stored meanwhile by a master that had not heard of the new key is found by another look.
        if pass == 0 {
            return Ok(done);
        }
        done += pass;
    }
}

async fn nodes(store: &dyn Store, keys: &Keys) -> Result<usize, RotateError> {
    let mut done = 0;
    for node in repo::list_all::<Node>(store, None).await? {
        if node.value.secrets.as_ref().is_some_and(|secrets| is_outdated(secrets, keys)) {
            done += self::node(store, keys, &node.value.id).await?;
            fault::point("keys.rewrap.node").await;
        }
    }
    Ok(done)
}

fn is_outdated(secrets: &Secrets, keys: &Keys) -> bool {
    let Secrets { seed, wallet_password, macaroon_root_key, invoice_key } = secrets;
    let all = [seed, wallet_password, macaroon_root_key, invoice_key];
    all.iter().any(|sealed| sealed.key_version() != keys.sealing())
}

async fn node(store: &dyn Store, keys: &Keys, id: &NodeId) -> Result<usize, RotateError> {
    let mut done = 0;
    repo::modify::<Node, RotateError>(store, id.as_str(), |node| {
        let Some(secrets) = &mut node.secrets else { return Ok(false) };
        let sealed = keys.seal_all_again(id, secrets);
        done = sealed.map_err(|error| RotateError::Secret { of: format!("node {id}"), error })?;
        Ok(done > 0)
    })
    .await?;
    Ok(done)
}

async fn authority(store: &dyn Store, keys: &Keys) -> Result<usize, RotateError> {
    let mut done = 0;
    repo::modify::<Authority, RotateError>(store, Authority::ID, |authority| {
        done = 0;
        for key in authority.keys_mut() {
            let sealed = keys.seal_again(DEPLOYMENT, field::CA_KEY, key);
            let sealed = sealed.map_err(|error| RotateError::Secret { of: "the authority".to_owned(), error })?;
            done += usize::from(sealed);
        }
        Ok(done > 0)
    })
    .await?;
    Ok(done)
}
