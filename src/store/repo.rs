//! Typed access to the Store: an [`Entity`] knows its collection, its id and its index entries.

use super::{Document, Expect, IndexEntry, Key, Query, Result, Store, Version, Write};
use crate::error::StoreError;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde::de::value::MapDeserializer;

/// How many documents are asked for at once where all are wanted.
const PAGE: usize = 500;
/// The field that says which schema a document has.
const SCHEMA: &str = "schema";

/// Something kept as one document.
pub trait Entity: Serialize + DeserializeOwned + Send {
    /// The collection it lives in.
    const COLLECTION: &'static str;
    /// The schema number written into its documents; readers accept it and the one before.
    const SCHEMA: u32 = 1;

    /// The id of its document.
    fn id(&self) -> String;

    /// Its index entries.
    fn index(&self) -> Vec<IndexEntry> {
        Vec::new()
    }
}

/// A value with the version it was read at.
#[derive(Debug, Clone, PartialEq)]
pub struct Versioned<T> {
    /// The value.
    pub value: T,
    /// The version of its document.
    pub version: Version,
}

impl<T> AsRef<T> for Versioned<T> {
    fn as_ref(&self) -> &T {
        &self.value
    }
}

/// The key of the `T` with this id.
pub fn key<T: Entity>(id: impl Into<String>) -> Key {
    Key { collection: T::COLLECTION, id: id.into() }
}

/// Reads one.
pub async fn get<T: Entity>(store: &dyn Store, id: &str) -> Result<Option<Versioned<T>>> {
    store.get(&key::<T>(id)).await?.map(decode).transpose()
}

/// Reads those with these ids, in their order: each as of the latest commit, but not all as of one.
pub async fn get_all<T: Entity>(store: &dyn Store, ids: &[String]) -> Result<Vec<Option<Versioned<T>>>> {
    let keys: Vec<Key> = ids.iter().map(key::<T>).collect();
    store.get_all(&keys).await?.into_iter().map(|found| found.map(decode).transpose()).collect()
}

/// Decodes a document that was read.
///
/// # Errors
/// As [`decode_ref`].
pub fn decode<T: Entity>(document: Document) -> Result<Versioned<T>> {
    decode_ref(&document)
}

/// Decodes a document that others may look at, too.
///
/// # Errors
/// [`StoreError::Corrupt`] where it is none of `T`, or one of a newer program: what that means by it is not known here.
pub fn decode_ref<T: Entity>(document: &Document) -> Result<Versioned<T>> {
    let Document { key, version, body } = document;
    let corrupt = |reason| StoreError::Corrupt { collection: T::COLLECTION, id: key.id.clone(), reason };
    let object = body.as_object().ok_or_else(|| corrupt("is not an object".to_owned()))?;
    let schema = object.get(SCHEMA).and_then(serde_json::Value::as_u64);
    if let Some(newer) = schema.filter(|schema| *schema > T::SCHEMA.into()) {
        return Err(corrupt(format!("its schema is {newer}, and this program knows none after {}", T::SCHEMA)));
    }
    let fields = object.iter().filter(|(name, _)| *name != SCHEMA).map(|(name, value)| (name.as_str(), value));
    let value = T::deserialize(MapDeserializer::new(fields));
    // The message of serde_json may quote a value; the position is enough to find it.
    let value = value.map_err(|e: serde_json::Error| corrupt(format!("{:?} error", e.classify())))?;
    Ok(Versioned { value, version: *version })
}

fn put<T: Entity>(value: &T, expect: Expect) -> Result<Write> {
    let corrupt =
        |reason: &str| StoreError::Corrupt { collection: T::COLLECTION, id: value.id(), reason: reason.to_owned() };
    let mut body = serde_json::to_value(value).map_err(|_| corrupt("cannot be encoded"))?;
    let object = body.as_object_mut().ok_or_else(|| corrupt("is not an object"))?;
    object.insert(SCHEMA.to_owned(), T::SCHEMA.into());
    Ok(Write::Put { key: key::<T>(value.id()), expect, body, index: value.index() })
}

/// A write that creates `value`.
pub fn create<T: Entity>(value: &T) -> Result<Write> {
    put(value, Expect::Absent)
}

/// A write that replaces what was read at `version`.
pub fn update<T: Entity>(value: &T, version: Version) -> Result<Write> {
    put(value, Expect::Version(version))
}

/// A write that deletes what was read at `version`.
pub fn delete<T: Entity>(id: &str, version: Version) -> Write {
    Write::Delete { key: key::<T>(id), expect: version }
}

/// A condition: the commit fails unless the `T` with this id is still at `version`.
pub fn check<T: Entity>(id: &str, version: Version) -> Write {
    Write::Check { key: key::<T>(id), expect: Expect::Version(version) }
}

/// A condition: the commit fails if there is a `T` with this id.
pub fn check_absent<T: Entity>(id: &str) -> Write {
    Write::Check { key: key::<T>(id), expect: Expect::Absent }
}

/// Reads all the `T`s with this index entry (or all there are) that can be read, and tells `unreadable` of the others: for
/// those whose work for all the rest must not end because of one.
///
/// # Errors
/// The Store cannot be asked.
pub async fn list_all_readable<T: Entity>(
    store: &dyn Store,
    index: Option<IndexEntry>,
    unreadable: impl FnMut(StoreError) + Send,
) -> Result<Vec<Versioned<T>>> {
    let mut all = Vec::new();
    each_readable(store, index, unreadable, |read| all.push(read)).await?;
    Ok(all)
}

/// The same, one by one, for those who need not have all in memory.
///
/// # Errors
/// The Store cannot be asked.
pub async fn each_readable<T: Entity>(
    store: &dyn Store,
    index: Option<IndexEntry>,
    mut unreadable: impl FnMut(StoreError) + Send,
    mut each: impl FnMut(Versioned<T>) + Send,
) -> Result<()> {
    let mut query = Query { collection: T::COLLECTION, index, after: None, limit: PAGE, descending: false };
    loop {
        let page = match store.list(&query).await {
            Ok(page) => page,
            // The Store itself can make nothing of one: up to it one by one, and past it.
            Err(StoreError::Corrupt { .. }) if query.limit > 1 => {
                query.limit = 1;
                continue;
            }
            Err(error) => {
                let StoreError::Corrupt { id, .. } = &error else { return Err(error) };
                (query.after, query.limit) = (Some(id.clone()), PAGE);
                unreadable(error);
                continue;
            }
        };
        for document in page.documents {
            decode(document).map_or_else(&mut unreadable, &mut each);
        }
        if page.next.is_none() {
            return Ok(());
        }
        query.after = page.next;
    }
}

/// Reads one page of the `T`s with this index entry (or all).
pub async fn list<T: Entity>(
    store: &dyn Store,
    index: Option<IndexEntry>,
    after: Option<String>,
    limit: usize,
    descending: bool,
) -> Result<(Vec<Versioned<T>>, Option<String>)> {
    let query = Query { collection: T::COLLECTION, index, after, limit, descending };
    let page = store.list(&query).await?;
    let values = page.documents.into_iter().map(decode).collect::<Result<_>>()?;
    Ok((values, page.next))
}

/// Reads all the `T`s with this index entry (or all there are), page by page.
pub async fn list_all<T: Entity>(store: &dyn Store, index: Option<IndexEntry>) -> Result<Vec<Versioned<T>>> {
    let mut all = Vec::new();
    let mut after = None;
    loop {
        let (mut page, next) = list::<T>(store, index.clone(), after, PAGE, false).await?;
        all.append(&mut page);
        if next.is_none() {
            return Ok(all);
        }
        after = next;
    }
}

/// Reads, changes and writes one document, again and again while others change it in between. `change` says whether there is
/// anything to write. `Ok(None)`: there is no such document.
///
/// # Errors
/// What `change` refuses, and what the Store reports, but for conflicts.
pub async fn modify<T: Entity + Clone, E: From<StoreError>>(
    store: &dyn Store,
    id: &str,
    mut change: impl FnMut(&mut T) -> std::result::Result<bool, E> + Send,
) -> std::result::Result<Option<Versioned<T>>, E> {
    loop {
        let Some(mut current) = get::<T>(store, id).await? else { return Ok(None) };
        if !change(&mut current.value)? {
            return Ok(Some(current));
        }
        match store.commit(vec![update(&current.value, current.version)?]).await {
            Ok(versions) => {
                let version = versions.first().copied().unwrap_or(current.version);
                return Ok(Some(Versioned { value: current.value, version }));
            }
            Err(StoreError::Conflict { .. }) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

#[cfg(test)]
#[path = "repo_tests.rs"]
mod tests;
