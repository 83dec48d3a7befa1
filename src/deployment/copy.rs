//! Moving a deployment from one Store to another: every document, with its index, read back and compared.
//!
//! From the first step on no master starts on either Store: the document that says whose data it is stands in the old one as
//! "moved" and in the new one as "being copied" until all is proven equal. So an interrupted copy can only be continued, or
//! undone, never be served from.

use super::Moving;
use crate::error::StoreError;
use crate::model::deployment::Deployment;
use crate::model::node::Heartbeat;
use crate::store::repo::{self, Entity};
use crate::store::{self, Document, Expect, Key, Query, Store, Write};
use serde_json::Value;
use std::collections::HashMap;
use std::time::Duration;

/// How many documents are read, and at most written, at once.
const PAGE: usize = 200;
/// How much is written at once; Firestore takes 10 MiB.
const MOST_BYTES: usize = 4 << 20;
/// How much longer than their lease masters are watched for.
const MARGIN: Duration = Duration::from_secs(2);

/// Why a deployment could not be moved.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// One of the Stores.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is nothing to copy.
    #[error("there is no deployment in the store to copy from")]
    Nothing,
    /// It was moved elsewhere.
    #[error("this deployment was moved to {0} before")]
    MovedElsewhere(String),
    /// A master still works.
    #[error("master {0} still runs on the store to copy from: end all masters first")]
    Busy(String),
    /// The target has data of its own.
    #[error("the store to copy to has other data already: {0}")]
    NotEmpty(String),
    /// What was read back is not what was written.
    #[error("after copying the stores differ: {0}")]
    Different(String),
    /// Too late to go back.
    #[error("the copy is complete and may be in use: there is nothing to undo")]
    Complete,
}

type Result<T> = std::result::Result<T, CopyError>;

/// What a copy did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Copied {
    /// Documents that this run wrote.
    pub written: u64,
    /// Documents that an earlier run had written.
    pub found: u64,
}

/// Copies the deployment in `from` to `to`, which is called `name`. May be run again after an interruption, as often as it
/// takes, with the same `name`. `None`: an earlier run had completed it, and masters may be using it.
///
/// # Errors
/// See [`CopyError`].
pub async fn copy(from: &dyn Store, to: &dyn Store, name: &str) -> Result<Option<Copied>> {
    let original = original(from, name).await?;
    if let Some(document) = to.get(&key()).await?
        && moving(&document).is_none()
    {
        let same =
            ["name", "network", "created_at"].iter().all(|field| document.body.get(field) == original.get(field));
        return if same { Ok(None) } else { Err(CopyError::NotEmpty("another deployment".to_owned())) };
    }
    mark_moved(from, name).await?;
    if let Err(error) = quiet(from).await {
        restore(from).await?;
        return Err(error);
    }
    mark_copying(to).await?;
    let mut copied = Copied::default();
    for collection in collections() {
        copy_collection(from, to, collection, &mut copied).await?;
        compare(from, to, collection).await?;
    }
    finish(to, &original).await?;
    Ok(Some(copied))
}

async fn copy_collection(
    from: &dyn Store,
    to: &dyn Store,
    collection: &'static str,
    copied: &mut Copied,
) -> Result<()> {
    let mut after = None;
    loop {
        let page = page(from, collection, after).await?;
        for documents in portions(page.documents) {
            put_all(to, documents, copied).await?;
        }
        after = page.next;
        if after.is_none() {
            return Ok(());
        }
    }
}

/// Makes the deployment in `from` usable again and `to` as if nothing had been begun, but for documents copied already.
///
/// # Errors
/// [`CopyError::Complete`] when the copy may be in use.
pub async fn undo(from: &dyn Store, to: &dyn Store) -> Result<()> {
    if let Some(document) = to.get(&key()).await? {
        if moving(&document) != Some(Moving::Copying) {
            return Err(CopyError::Complete);
        }
        to.commit(vec![Write::Delete { key: key(), expect: document.version }]).await?;
    }
    restore(from).await
}

/// All but heartbeats: masters begin anew.
fn collections() -> impl Iterator<Item = &'static str> {
    store::COLLECTIONS.iter().copied().filter(|collection| *collection != Heartbeat::COLLECTION)
}

fn key() -> Key {
    repo::key::<Deployment>(Deployment::ID)
}

fn moving(document: &Document) -> Option<Moving> {
    Moving::read(&document.body)
}

async fn put(store: &dyn Store, expect: Expect, body: Value) -> Result<()> {
    store.commit(vec![Write::Put { key: key(), expect, body, index: Vec::new() }]).await?;
    Ok(())
}

/// The document of the deployment in the old Store, as it was before it was moved.
async fn original(from: &dyn Store, name: &str) -> Result<Value> {
    let document = from.get(&key()).await?.ok_or(CopyError::Nothing)?;
    match moving(&document) {
        Some(Moving::Moved { to, document }) if to == name => Ok(document),
        Some(Moving::Moved { to, .. }) => Err(CopyError::MovedElsewhere(to)),
        Some(Moving::Copying) => Err(CopyError::Nothing),
        None => Ok(document.body),
    }
}

/// Lets no master start on the old Store any more.
async fn mark_moved(from: &dyn Store, name: &str) -> Result<()> {
    let document = from.get(&key()).await?.ok_or(CopyError::Nothing)?;
    if moving(&document).is_some() {
        return Ok(());
    }
    let moved = Moving::Moved { to: name.to_owned(), document: document.body };
    put(from, Expect::Version(document.version), moved.body()).await
}

async fn restore(from: &dyn Store) -> Result<()> {
    let document = from.get(&key()).await?.ok_or(CopyError::Nothing)?;
    match moving(&document) {
        Some(Moving::Moved { document: original, .. }) => put(from, Expect::Version(document.version), original).await,
        _ => Ok(()),
    }
}

/// Makes sure that no master works on the Store: none of the heartbeats in it changes for as long as a lease is good for.
async fn quiet(from: &dyn Store) -> Result<()> {
    let before = repo::list_all::<Heartbeat>(from, None).await?;
    let longest = before.iter().map(|heartbeat| heartbeat.value.ttl_ms).max();
    if let Some(ttl_ms) = longest {
        tokio::time::sleep(Duration::from_millis(ttl_ms) + MARGIN).await;
    }
    let known: HashMap<_, _> = before.iter().map(|h| (h.value.master.clone(), h.version)).collect();
    for heartbeat in repo::list_all::<Heartbeat>(from, None).await? {
        if known.get(&heartbeat.value.master) != Some(&heartbeat.version) {
            return Err(CopyError::Busy(heartbeat.value.master.to_string()));
        }
    }
    Ok(())
}

async fn mark_copying(to: &dyn Store) -> Result<()> {
    match to.get(&key()).await? {
        None => put(to, Expect::Absent, Moving::Copying.body()).await,
        Some(document) if moving(&document) == Some(Moving::Copying) => Ok(()),
        Some(_) => Err(CopyError::NotEmpty("another deployment".to_owned())),
    }
}

async fn finish(to: &dyn Store, original: &Value) -> Result<()> {
    let document = to.get(&key()).await?.ok_or_else(|| CopyError::Different("the mark is gone".to_owned()))?;
    match moving(&document) {
        Some(_) => put(to, Expect::Version(document.version), original.clone()).await,
        None => Ok(()),
    }
}

async fn page(store: &dyn Store, collection: &'static str, after: Option<String>) -> Result<store::Page> {
    let query = Query { collection, index: None, after, limit: PAGE, descending: false };
    let mut page = store.list(&query).await?;
    page.documents.retain(|document| document.key != key());
    Ok(page)
}

/// Splits what was read into what one commit can bear.
fn portions(documents: Vec<Document>) -> Vec<Vec<Document>> {
    let mut portions = vec![Vec::new()];
    let mut bytes = 0;
    for document in documents {
        let size = document.body.to_string().len();
        if bytes + size > MOST_BYTES && bytes > 0 {
            portions.push(Vec::new());
            bytes = 0;
        }
        bytes += size;
        if let Some(last) = portions.last_mut() {
            last.push(document);
        }
    }
    portions
}

async fn put_all(to: &dyn Store, documents: Vec<Document>, copied: &mut Copied) -> Result<()> {
    let create = |document: &Document| -> Result<Write> {
        let index = store::index_of(document)?;
        Ok(Write::Put { key: document.key.clone(), expect: Expect::Absent, body: document.body.clone(), index })
    };
    if documents.is_empty() {
        return Ok(());
    }
    let all = documents.iter().map(create).collect::<Result<Vec<_>>>()?;
    let count = all.len() as u64;
    match to.commit(all).await {
        Ok(_) => {
            copied.written += count;
            return Ok(());
        }
        Err(error) if error.is_conflict() => {}
        Err(error) => return Err(error.into()),
    }
    // Some were copied by an earlier run.
    for document in &documents {
        match to.commit(vec![create(document)?]).await {
            Ok(_) => copied.written += 1,
            Err(error) if error.is_conflict() => copied.found += 1,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Reads a collection in both Stores and compares all of it.
async fn compare(from: &dyn Store, to: &dyn Store, collection: &'static str) -> Result<()> {
    let mut after = None;
    loop {
        let (here, there) = (page(from, collection, after.clone()).await?, page(to, collection, after).await?);
        let place = |document: &Document| format!("{collection}/{}", document.key.id);
        for (ours, theirs) in here.documents.iter().zip(&there.documents) {
            if ours.key != theirs.key || ours.body != theirs.body {
                return Err(CopyError::Different(place(theirs)));
            }
        }
        if here.documents.len() != there.documents.len() || here.next != there.next {
            return Err(CopyError::Different(format!("{collection} has other documents")));
        }
        // What each is found by is made of the document, and so is equal, too: see `store::index_of`.
        after = here.next;
        if after.is_none() {
            return Ok(());
        }
    }
}

#[cfg(test)]
#[path = "copy_tests.rs"]
mod tests;
