//! Commits: all writes of one, with their preconditions, are one Commit call, which Firestore does whole or not at all.
//! (The crate's batch writers call BatchWrite, which does each write by itself.)
//!
//! A `Check` is a write that changes nothing: of no field for a version, the deletion of nothing for absence. A `Delete`
//! leaves a tombstone for the feed, which Firestore's TTL takes away later.

use super::codec;
use super::connect::Connection;
use super::status;
use crate::backoff::Backoff;
use crate::error::StoreError;
use crate::store::{Expect, Key, Result, Version, Write};
use firestore::gcloud_sdk::google::firestore::v1 as proto;
use firestore::gcloud_sdk::prost_types::Timestamp;
use firestore::gcloud_sdk::tonic::Code;
use proto::document_transform::FieldTransform;
use proto::document_transform::field_transform::{ServerValue, TransformType};
use proto::precondition::ConditionType;
use proto::write::Operation;
use rand::RngExt;
use std::collections::{HashMap, HashSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The collection of tombstones.
pub(super) const DELETED: &str = "deleted";
/// Field of a tombstone: the collection of the document that is gone.
pub(super) const TOMBSTONE_COLLECTION: &str = "collection";
/// Field of a tombstone: the id of the document that is gone.
pub(super) const TOMBSTONE_ID: &str = "id";
/// Field of a tombstone: when Firestore's TTL policy may take it away.
const EXPIRES: &str = "expires_at";
/// How long tombstones are kept: far longer than a cursor is good for.
const TOMBSTONE_LIFE: Duration = Duration::from_secs(7 * 86_400);

/// Before a commit that lost against others is sent again.
const BACKOFF: Backoff = Backoff { first: Duration::from_millis(10), longest: Duration::from_millis(400) };

/// A commit, checked and encoded.
pub(super) struct Prepared {
    expectations: Vec<(Key, Expect)>,
    writes: Vec<proto::Write>,
    /// For each write of the caller: which of `writes` says its version; none: the commit's.
    versions: Vec<Option<usize>>,
    /// Some version is none that Firestore can have given, so that it need not be asked.
    hopeless: bool,
}

/// Checks and encodes the writes of a commit.
pub(super) fn prepare(connection: &Connection, writes: Vec<Write>) -> Result<Prepared> {
    let nonce = rand::rng().random();
    let mut prepared = Prepared { expectations: Vec::new(), writes: Vec::new(), versions: Vec::new(), hopeless: false };
    let mut keys = HashSet::new();
    for write in writes {
        let key = match &write {
            Write::Put { key, .. } | Write::Delete { key, .. } | Write::Check { key, .. } => key.clone(),
        };
        connection.validate(&key)?;
        if !keys.insert(key.clone()) {
            let reason = "a document occurs twice in a commit";
            return Err(StoreError::Invalid { collection: key.collection, reason });
        }
        prepared.add(connection, key, write, nonce)?;
    }
    Ok(prepared)
}

impl Prepared {
    fn add(&mut self, connection: &Connection, key: Key, write: Write, nonce: i64) -> Result<()> {
        let name = connection.name(&key);
        let (expect, operation) = match write {
            Write::Put { expect, body, index, .. } => {
                let fields = codec::fields(key.collection, &body, &index, nonce)?;
                self.versions.push(Some(self.writes.len()));
                (expect, put(name, fields))
            }
            Write::Check { expect, .. } => {
                self.versions.push(None);
                (expect, check(name, expect))
            }
            Write::Delete { expect, .. } => {
                self.versions.push(None);
                self.writes.push(tombstone(connection, &key));
                (Expect::Version(expect), operation(Operation::Delete(name)))
            }
        };
        let condition = match expect {
            Expect::Absent => Some(ConditionType::Exists(false)),
            Expect::Version(version) => codec::timestamp(version).map(ConditionType::UpdateTime),
        };
        self.hopeless |= condition.is_none();
        let current_document = Some(proto::Precondition { condition_type: condition });
        self.writes.push(proto::Write { current_document, ..operation });
        self.expectations.push((key, expect));
        Ok(())
    }

    /// Whether there is nothing to do.
    pub(super) fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    fn results(&self, response: &proto::CommitResponse) -> Option<Vec<Version>> {
        let commit = response.commit_time.as_ref().and_then(codec::version)?;
        let of = |place: &Option<usize>| match place {
            None => Some(commit),
            Some(place) => codec::version(response.write_results.get(*place)?.update_time.as_ref()?),
        };
        self.versions.iter().map(of).collect()
    }
}

fn operation(operation: Operation) -> proto::Write {
    proto::Write { operation: Some(operation), ..Default::default() }
}

fn put(name: String, fields: HashMap<String, proto::Value>) -> proto::Write {
    let now = TransformType::SetToServerValue(ServerValue::RequestTime.into());
    let changed = FieldTransform { field_path: codec::CHANGED.to_owned(), transform_type: Some(now) };
    let document = proto::Document { name, fields, ..Default::default() };
    proto::Write { update_transforms: vec![changed], ..operation(Operation::Update(document)) }
}

fn check(name: String, expect: Expect) -> proto::Write {
    match expect {
        Expect::Absent => operation(Operation::Delete(name)),
        Expect::Version(_) => {
            let update_mask = Some(proto::DocumentMask::default());
            let document = proto::Document { name, ..Default::default() };
            proto::Write { update_mask, ..operation(Operation::Update(document)) }
        }
    }
}

/// What tells followers that a document is gone: a query cannot find what is not there.
fn tombstone(connection: &Connection, key: &Key) -> proto::Write {
    let expires = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() + TOMBSTONE_LIFE;
    let expires = Timestamp { seconds: i64::try_from(expires.as_secs()).unwrap_or(i64::MAX), nanos: 0 };
    let fields = HashMap::from([
        (TOMBSTONE_COLLECTION.to_owned(), codec::string(key.collection)),
        (TOMBSTONE_ID.to_owned(), codec::string(key.id.as_str())),
        (EXPIRES.to_owned(), codec::time(expires)),
    ]);
    put(connection.path(DELETED, &format!("{}.{}", key.collection, key.id)), fields)
}

/// Does a commit. Ends when it is done, refused, or its outcome unknown; the caller bounds the time.
pub(super) async fn commit(connection: &Connection, prepared: &Prepared) -> Result<Vec<Version>> {
    let mut pauses = BACKOFF.pauses();
    loop {
        if !prepared.hopeless {
            match send(connection, prepared).await? {
                Sent::Done(versions) => return Ok(versions),
                Sent::Refused => {}
                Sent::Aborted => {
                    tokio::time::sleep(pauses.take()).await;
                    continue;
                }
            }
        }
        if let Some(Key { collection, id }) = first_unmet(connection, &prepared.expectations).await? {
            return Err(StoreError::Conflict { collection, id });
        }
        // What was in the way has gone (a document that was to be absent was deleted in between).
        tokio::time::sleep(pauses.take()).await;
    }
}

enum Sent {
    Done(Vec<Version>),
    /// An expectation did not hold; nothing was written.
    Refused,
    /// Others were writing the same documents; nothing was written, and it may be sent again.
    Aborted,
}

async fn send(connection: &Connection, prepared: &Prepared) -> Result<Sent> {
    let request = proto::CommitRequest {
        database: connection.database().to_owned(),
        writes: prepared.writes.clone(),
        ..Default::default()
    };
    match connection.client().commit(connection.request(request)).await {
        Ok(response) => match prepared.results(response.get_ref()) {
            Some(versions) => {
                connection.count_commit(prepared.writes.len());
                let collections: Vec<_> = prepared.expectations.iter().map(|(key, _)| key.collection).collect();
                tracing::debug!(firestore.writes = prepared.writes.len(), ?collections, "committed");
                Ok(Sent::Done(versions))
            }
            None => Err(StoreError::Unavailable("Firestore's answer to a commit has no versions".to_owned())),
        },
        Err(error) => match error.code() {
            Code::FailedPrecondition | Code::AlreadyExists | Code::NotFound => Ok(Sent::Refused),
            Code::Aborted => Ok(Sent::Aborted),
            Code::InvalidArgument => {
                let collection = prepared.expectations.first().map_or("", |(key, _)| key.collection);
                tracing::error!(error.message = error.message(), collection, "Firestore refused a commit's form");
                Err(StoreError::Invalid { collection, reason: "Firestore refuses it" })
            }
            _ => Err(status::unavailable(&error)),
        },
    }
}

/// The first expectation that does not hold. One that failed once for a version fails for ever.
async fn first_unmet(connection: &Connection, expectations: &[(Key, Expect)]) -> Result<Option<Key>> {
    let keys = expectations.iter().map(|(key, _)| key);
    let found = connection.versions(keys).await?;
    let unmet = expectations.iter().find(|(key, expect)| match expect {
        Expect::Absent => found.contains_key(&connection.name(key)),
        Expect::Version(version) => found.get(&connection.name(key)) != Some(version),
    });
    Ok(unmet.map(|(key, _)| key.clone()))
}
