//! Reading: single documents and listings.

use super::{from_sql, to_sql, unavailable};
use crate::error::StoreError;
use crate::store::{Document, Key, Page, Query, Result, Version};
use sqlx::SqlitePool;

/// Sorts after every id (they are plain ASCII letters, digits, `_` and `-`).
const AFTER_ALL: &str = "~";

pub(super) async fn get(readers: &SqlitePool, key: &Key) -> Result<Option<Document>> {
    let row: Option<(i64, String)> =
        sqlx::query_as("SELECT version, body FROM documents WHERE collection = ? AND id = ?")
            .bind(key.collection)
            .bind(&key.id)
            .fetch_optional(readers)
            .await
            .map_err(|e| unavailable(&e))?;
    row.map(|(version, body)| document(key.clone(), version, &body)).transpose()
}

const ALL_UP: &str = "SELECT id, version, body FROM documents WHERE collection = ? AND id > ? ORDER BY id LIMIT ?";
const ALL_DOWN: &str =
    "SELECT id, version, body FROM documents WHERE collection = ? AND id < ? ORDER BY id DESC LIMIT ?";
const INDEXED_UP: &str = "SELECT d.id, d.version, d.body
    FROM document_index i JOIN documents d ON d.collection = i.collection AND d.id = i.id
    WHERE i.collection = ? AND i.name = ? AND i.value = ? AND i.id > ? ORDER BY i.id LIMIT ?";
const INDEXED_DOWN: &str = "SELECT d.id, d.version, d.body
    FROM document_index i JOIN documents d ON d.collection = i.collection AND d.id = i.id
    WHERE i.collection = ? AND i.name = ? AND i.value = ? AND i.id < ? ORDER BY i.id DESC LIMIT ?";

pub(super) async fn list(readers: &SqlitePool, query: &Query) -> Result<Page> {
    let limit = query.limit.clamp(1, 1000);
    let sql = match (&query.index, query.descending) {
        (None, false) => ALL_UP,
        (None, true) => ALL_DOWN,
        (Some(_), false) => INDEXED_UP,
        (Some(_), true) => INDEXED_DOWN,
    };
    let start = if query.descending { AFTER_ALL } else { "" };
    let mut statement = sqlx::query_as(sql).bind(query.collection);
    if let Some(index) = &query.index {
        statement = statement.bind(index.name).bind(&index.value);
    }
    // One more than asked for tells whether there is a next page.
    let rows: Vec<(String, i64, String)> = statement
        .bind(query.after.as_deref().unwrap_or(start))
        .bind(to_sql(limit as u64 + 1))
        .fetch_all(readers)
        .await
        .map_err(|e| unavailable(&e))?;
    let more = rows.len() > limit;
    let documents = rows
        .into_iter()
        .take(limit)
        .map(|(id, version, body)| document(Key { collection: query.collection, id }, version, &body))
        .collect::<Result<Vec<_>>>()?;
    let next = if more { documents.last().map(|d| d.key.id.clone()) } else { None };
    Ok(Page { documents, next })
}

/// Makes a document of what a row holds.
pub(super) fn document(key: Key, version: i64, body: &str) -> Result<Document> {
    match serde_json::from_str(body) {
        Ok(body) => Ok(Document { key, version: Version(from_sql(version)), body }),
        // The message of serde_json may quote the body.
        Err(e) => {
            let reason = format!("not JSON ({:?} error)", e.classify());
            Err(StoreError::Corrupt { collection: key.collection, id: key.id, reason })
        }
    }
}
