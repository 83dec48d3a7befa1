//! All API keys, in memory. They are few, and every request needs one.

use crate::apikey::ApiKeyId;
use crate::error::StoreError;
use crate::model::app::ApiKeyRecord;
use crate::store::{Document, Store, repo};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use std::collections::{HashMap, HashSet};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// How often a second the Store is asked for keys that nobody here has heard of: a key may be younger than the last word
/// of the feed, but whoever makes up keys must not keep the Store busy.
const LOOKUPS: NonZeroU32 = NonZeroU32::new(20).unwrap();

#[derive(Debug)]
pub(super) struct Keyring {
    keys: RwLock<HashMap<ApiKeyId, Arc<ApiKeyRecord>>>,
    /// Records that could not be read, so that each is told of once. They open nothing.
    unreadable: Mutex<HashSet<String>>,
    lookups: DefaultDirectRateLimiter,
}

impl Default for Keyring {
    fn default() -> Self {
        Self {
            keys: RwLock::default(),
            unreadable: Mutex::default(),
            lookups: RateLimiter::direct(Quota::per_second(LOOKUPS)),
        }
    }
}

impl Keyring {
    /// Reads all keys anew. One that cannot be read is no reason not to know of the others, and of their revocations.
    pub(super) async fn read_all(&self, store: &dyn Store) -> Result<(), StoreError> {
        let all = repo::list_all_readable::<ApiKeyRecord>(store, None, |error| self.tell(&error)).await?;
        let all = all.into_iter().map(|key| (key.value.id.clone(), Arc::new(key.value))).collect();
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = all;
        Ok(())
    }

    /// The key, unless it was revoked or never was.
    pub(super) async fn get(
        &self,
        store: &dyn Store,
        id: &ApiKeyId,
        is_fresh: bool,
    ) -> Result<Option<Arc<ApiKeyRecord>>, StoreError> {
        let known = self.keys.read().unwrap_or_else(PoisonError::into_inner).get(id).cloned();
        let must_ask = if known.is_some() { !is_fresh } else { self.lookups.check().is_ok() };
        let key = if must_ask { self.look_up(store, id).await? } else { known };
        Ok(key.filter(|key| key.revoked_at.is_none()))
    }

    async fn look_up(&self, store: &dyn Store, id: &ApiKeyId) -> Result<Option<Arc<ApiKeyRecord>>, StoreError> {
        let found = match repo::get::<ApiKeyRecord>(store, id.as_str()).await {
            Err(error @ StoreError::Corrupt { .. }) => {
                self.tell(&error);
                self.forget(id.as_str());
                return Ok(None);
            }
            found => found?,
        };
        let Some(found) = found else { return Ok(None) };
        let found = Arc::new(found.value);
        self.insert(Arc::clone(&found));
        Ok(Some(found))
    }

    pub(super) fn put(&self, document: &Document) {
        match repo::decode_ref::<ApiKeyRecord>(document) {
            Ok(key) => self.insert(Arc::new(key.value)),
            Err(error) => {
                self.tell(&error);
                self.forget(&document.key.id);
            }
        }
    }

    fn tell(&self, error: &StoreError) {
        let StoreError::Corrupt { id, .. } = error else { return };
        if self.unreadable.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone()) {
            tracing::error!(%error, "an API key's record cannot be read; it opens nothing");
        }
    }

    fn insert(&self, key: Arc<ApiKeyRecord>) {
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        // A revocation is final: what was read before it must not bring the key back.
        let is_revoked = keys.get(&key.id).is_some_and(|known| known.revoked_at.is_some());
        if !is_revoked {
            keys.insert(key.id.clone(), key);
        }
    }

    pub(super) fn forget(&self, id: &str) {
        if let Ok(id) = ApiKeyId::try_from(id.to_owned()) {
            self.keys.write().unwrap_or_else(PoisonError::into_inner).remove(&id);
        }
    }
}
