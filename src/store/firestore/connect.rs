//! The connection: who we are to Firestore, where it is, and what is checked before anything else is done.

use super::codec;
use super::commit::DELETED;
use super::{FirestoreOptions, Usage, UsageCounters, status};
use crate::error::StoreError;
use crate::store::{Key, Result, Version};
use firestore::gcloud_sdk::google::firestore::v1 as proto;
use firestore::gcloud_sdk::google_cloud_auth::build_errors;
use firestore::gcloud_sdk::google_cloud_auth::credentials::{Builder, Credentials, anonymous, external_account};
use firestore::gcloud_sdk::google_cloud_auth::credentials::{impersonated, service_account};
use firestore::gcloud_sdk::tonic::{Code, Request, Status};
use firestore::gcloud_sdk::{GoogleAuthMiddleware, prost_types::Timestamp};
use firestore::{FirestoreDb, FirestoreDbOptions};
use proto::batch_get_documents_response::Result as Found;
use proto::firestore_client::FirestoreClient;
use proto::precondition::ConditionType;
use proto::value::ValueType;
use rand::RngExt;
use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

/// Where Firestore is.
pub const GOOGLE: &str = "https://firestore.googleapis.com";
/// All that is asked of Google: documents, nothing else of the project.
const SCOPE: &str = "https://www.googleapis.com/auth/datastore";

/// The collection and the id of the document that says whose data this is.
const META: (&str, &str) = ("store", "meta");
/// The shape of what this version keeps in Firestore.
const SCHEMA: i64 = 1;
/// Tags tell the cursors of one database from those of another; 0 and all ones are left to cursors that nobody gave.
const TAGS: std::ops::Range<i64> = 1..super::feed::LAST_TAG;

/// Why a database in Firestore could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The credentials file cannot be used.
    #[error("the credentials file {path} {reason}")]
    Credentials {
        /// The file.
        path: String,
        /// What is wrong with it; nothing of its contents.
        reason: String,
    },
    /// Nothing says who we are.
    #[error(
        "no credentials for Google were found: name a file in store.credentials_file or GOOGLE_APPLICATION_CREDENTIALS \
         (docs/firestore.md)"
    )]
    NoCredentials(#[source] build_errors::Error),
    /// The address is not one, or nothing answers there.
    #[error("Firestore cannot be reached at {url}: {reason}")]
    Unreachable {
        /// Where it was looked for.
        url: String,
        /// What happened.
        reason: String,
    },
    /// Firestore answers, and says no.
    #[error("project {project}, database {database}: {reason}")]
    Refused {
        /// The project.
        project: String,
        /// The database.
        database: String,
        /// What it said, and what to do about it.
        reason: String,
    },
    /// A newer scale-lnd has been here.
    #[error("the database has schema {found}, this scale-lnd knows schemas up to {SCHEMA}: use a newer scale-lnd")]
    Newer {
        /// The schema of the database.
        found: i64,
    },
}

/// A connection that is made anew by itself whenever it breaks, and what names things there.
pub(super) struct Connection {
    db: FirestoreDb,
    timeout: Duration,
    collections: Vec<&'static str>,
    usage: UsageCounters,
}

/// What is read at the start of every feed.
pub(super) struct Meta {
    /// Tells this database's cursors from another's.
    pub(super) tag: u64,
    /// The server's time, µs: everything committed before it has a smaller version.
    pub(super) now: u64,
}

/// Documents that were read at one time.
pub(super) struct Read {
    pub(super) found: Vec<proto::Document>,
    pub(super) time: Option<Timestamp>,
}

pub(super) async fn open(options: &FirestoreOptions) -> std::result::Result<Connection, OpenError> {
    let url = options.api_url.as_deref().unwrap_or(GOOGLE);
    let unreachable = |reason: String| OpenError::Unreachable { url: url.to_owned(), reason };
    let credentials = credentials(options, url)?;
    let connect = FirestoreDb::with_options_auth(
        FirestoreDbOptions::new(options.project.clone())
            .with_database_id(options.database.clone())
            // Always named, so that no variable of the environment decides it behind the configuration's back.
            .with_firebase_api_url(url.to_owned())
            .with_request_timeout(options.timeout),
        credentials,
    );
    let db = match tokio::time::timeout(options.timeout, connect).await {
        Ok(Ok(db)) => db,
        Ok(Err(error)) => return Err(unreachable(chain(&error))),
        Err(_) => return Err(unreachable(format!("no connection within {:?}", options.timeout))),
    };
    let connection = Connection {
        db,
        timeout: options.timeout,
        collections: options.collections.clone(),
        usage: UsageCounters::default(),
    };
    let prepared = tokio::time::timeout(options.timeout * 2, connection.prepare()).await;
    match prepared.unwrap_or_else(|_| Err(Status::deadline_exceeded(""))) {
        Ok(found) if found > SCHEMA => Err(OpenError::Newer { found }),
        Ok(_) => Ok(connection),
        Err(error) if matches!(error.code(), Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled) => {
            Err(unreachable(status::words(&error)))
        }
        Err(error) => {
            let (project, database) = (options.project.clone(), options.database.clone());
            Err(OpenError::Refused { project, database, reason: status::words(&error) })
        }
    }
}

/// Over plain HTTP nothing secret is ever sent: that is how an emulator, or a proxy on this machine, is reached.
fn credentials(options: &FirestoreOptions, url: &str) -> std::result::Result<Credentials, OpenError> {
    if !url.starts_with("https://") {
        return Ok(anonymous::Builder::new().build());
    }
    match &options.credentials_file {
        Some(path) => from_file(path),
        None => Builder::default().with_scopes([SCOPE]).build().map_err(OpenError::NoCredentials),
    }
}

fn from_file(path: &Path) -> std::result::Result<Credentials, OpenError> {
    let bad = |reason: String| OpenError::Credentials { path: path.display().to_string(), reason };
    let text = std::fs::read(path).map_err(|error| bad(format!("cannot be read: {error}")))?;
    // What serde_json says may quote the file.
    let json: serde_json::Value = serde_json::from_slice(&text).map_err(|_| bad("is not JSON".to_owned()))?;
    let kind = json.get("type").and_then(serde_json::Value::as_str).unwrap_or_default().to_owned();
    let built = match kind.as_str() {
        "service_account" => {
            let scopes = service_account::AccessSpecifier::from_scopes([SCOPE]);
            service_account::Builder::new(json).with_access_specifier(scopes).build()
        }
        "external_account" => external_account::Builder::new(json).with_scopes([SCOPE]).build(),
        "impersonated_service_account" => impersonated::Builder::new(json).with_scopes([SCOPE]).build(),
        _ => {
            let known = "service_account, external_account or impersonated_service_account";
            return Err(bad(format!("must be a JSON file of Google's of the type {known}")));
        }
    };
    built.map_err(|_| bad(format!("is not a complete {kind} file")))
}

/// An error with its sources, each once.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let more = cause.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = cause.source();
    }
    text
}

impl Connection {
    /// The crate's client of Firestore's own protocol.
    pub(super) fn client(&self) -> FirestoreClient<GoogleAuthMiddleware> {
        self.db.client().get()
    }

    /// A request that the server may drop when we no longer wait for it.
    pub(super) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(self.timeout);
        request
    }

    /// How long a call may take.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// `projects/…/databases/…`.
    pub(super) fn database(&self) -> &str {
        self.db.get_database_path()
    }

    /// `projects/…/databases/…/documents`.
    pub(super) fn documents(&self) -> &str {
        self.db.get_documents_path()
    }

    /// The collections that there are.
    pub(super) fn collections(&self) -> &[&'static str] {
        &self.collections
    }

    /// The full name of a document.
    pub(super) fn path(&self, collection: &str, id: &str) -> String {
        format!("{}/{collection}/{id}", self.documents())
    }

    /// The full name of a document of ours.
    pub(super) fn name(&self, key: &Key) -> String {
        self.path(key.collection, &key.id)
    }

    /// Refuses what cannot be a document's name, and collections that no feed follows.
    pub(super) fn validate(&self, key: &Key) -> Result<()> {
        key.validate()?;
        if self.collections.contains(&key.collection) && key.collection != DELETED {
            return Ok(());
        }
        Err(StoreError::Invalid { collection: key.collection, reason: "it is none of the store's collections" })
    }

    pub(super) fn usage(&self) -> Usage {
        self.usage.now()
    }

    pub(super) fn count_reads(&self, documents: usize) {
        // Firestore bills a query that finds nothing as one read.
        self.usage.read(documents.max(1));
        tracing::debug!(firestore.reads = documents.max(1), "read");
    }

    pub(super) fn count_heard(&self) {
        self.usage.read(1);
    }

    pub(super) fn count_commit(&self, writes: usize) {
        self.usage.committed(writes);
    }

    /// Reads documents by name; those that are not there are left out. Tried twice where that can help.
    pub(super) async fn batch_get(&self, names: Vec<String>, fields: Option<&[&str]>) -> Result<Read> {
        let mut read = self.batch_get_once(names.clone(), fields).await;
        if read.as_ref().err().is_some_and(status::may_pass) {
            read = self.batch_get_once(names, fields).await;
        }
        read.map_err(|status| status::unavailable(&status))
    }

    async fn batch_get_once(&self, names: Vec<String>, fields: Option<&[&str]>) -> std::result::Result<Read, Status> {
        self.count_reads(names.len());
        let expected = names.len();
        let request = proto::BatchGetDocumentsRequest {
            database: self.database().to_owned(),
            documents: names,
            mask: fields
                .map(|paths| proto::DocumentMask { field_paths: paths.iter().map(|p| (*p).to_owned()).collect() }),
            ..Default::default()
        };
        let mut answers = self.client().batch_get_documents(self.request(request)).await?.into_inner();
        let mut read = Read { found: Vec::new(), time: None };
        let mut told = 0;
        while let Some(answer) = answers.message().await? {
            read.time = answer.read_time.or(read.time);
            match answer.result {
                Some(Found::Found(document)) => read.found.push(document),
                Some(Found::Missing(_)) => {}
                None => continue,
            }
            told += 1;
        }
        // "Not there" is only what was said to be missing.
        if told == expected { Ok(read) } else { Err(Status::unavailable("an answer was cut short")) }
    }

    /// The versions of those of the documents that are there, by name.
    pub(super) async fn versions(&self, keys: impl Iterator<Item = &Key>) -> Result<HashMap<String, Version>> {
        let names = keys.map(|key| self.name(key)).collect();
        let read = self.batch_get(names, Some(&["__name__"])).await?;
        let versions = read.found.into_iter().filter_map(|document| {
            let version = codec::version(document.update_time.as_ref()?)?;
            Some((document.name, version))
        });
        Ok(versions.collect())
    }

    /// Reads whose data this is, and the server's time.
    pub(super) async fn meta(&self) -> Result<Meta> {
        let read = self.batch_get(vec![self.path(META.0, META.1)], None).await?;
        let gone = || StoreError::Unavailable("the database has no scale-lnd data any more".to_owned());
        let document = read.found.first().ok_or_else(gone)?;
        let tag = number(document, "tag").and_then(|tag| u64::try_from(tag).ok()).ok_or_else(gone)?;
        let now = read.time.as_ref().and_then(codec::version).map(|version| version.0);
        let now = now.ok_or_else(|| StoreError::Unavailable("Firestore does not tell its time".to_owned()))?;
        Ok(Meta { tag, now })
    }

    /// Makes sure that the database says whose data it holds. Gives the schema of the data.
    async fn prepare(&self) -> std::result::Result<i64, Status> {
        let name = self.path(META.0, META.1);
        loop {
            let read = self.batch_get_once(vec![name.clone()], None).await?;
            if let Some(document) = read.found.first() {
                return Ok(number(document, "schema").unwrap_or(i64::MAX));
            }
            let tag = codec::integer(rand::rng().random_range(TAGS));
            let fields = HashMap::from([("schema".to_owned(), codec::integer(SCHEMA)), ("tag".to_owned(), tag)]);
            let document = proto::Document { name: name.clone(), fields, ..Default::default() };
            let absent = proto::Precondition { condition_type: Some(ConditionType::Exists(false)) };
            let write = proto::Write {
                operation: Some(proto::write::Operation::Update(document)),
                current_document: Some(absent),
                ..Default::default()
            };
            let database = self.database().to_owned();
            let request = proto::CommitRequest { database, writes: vec![write], ..Default::default() };
            match self.client().commit(self.request(request)).await {
                Ok(_) => {}
                // Somebody else opens it for the first time, too.
                Err(error) if matches!(error.code(), Code::AlreadyExists | Code::Aborted) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

fn number(document: &proto::Document, field: &str) -> Option<i64> {
    match document.fields.get(field)?.value_type {
        Some(ValueType::IntegerValue(number)) => Some(number),
        _ => None,
    }
}

#[cfg(test)]
#[path = "federation_tests.rs"]
mod federation_tests;
