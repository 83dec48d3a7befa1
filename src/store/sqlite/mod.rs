//! The embedded Store: one SQLite file, shared by all masters of one machine.
//!
//! Readers are a small pool. All writes of a process go through one writer task ([`writer`]) that puts commits which wait
//! at the same time into one transaction, so that they share the fsync. The change feed ([`feed`]) is a log table.

mod feed;
mod open;
mod read;
mod writer;

pub use open::OpenError;

use super::{Cursor, Document, FeedItem, Key, Page, Query, Result, Store, Version, Write, bounded};
use crate::error::StoreError;
use async_trait::async_trait;
use futures::stream::BoxStream;
use sqlx::SqlitePool;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::DropGuard;

/// How many commits may wait for the writer; more wait before it, within their timeout.
const QUEUE: usize = 1024;

/// What can be set about a [`SqliteStore`]; the defaults are right for production.
#[derive(Debug, Clone)]
pub struct SqliteOptions {
    /// How long any call may take, waiting included.
    pub timeout: Duration,
    /// How often the commits of other processes are looked for.
    pub poll: Duration,
    /// How many changes the feed's log keeps: a follower further behind than this is told to read everything again.
    pub keep_changes: u64,
    /// How many connections read.
    pub readers: u32,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(10), poll: Duration::from_millis(50), keep_changes: 100_000, readers: 4 }
    }
}

/// A [`Store`] in one SQLite file. Dropping it ends its tasks and its feeds; what was committed needs no closing.
pub struct SqliteStore {
    path: PathBuf,
    timeout: Duration,
    readers: SqlitePool,
    jobs: mpsc::Sender<writer::Job>,
    feed: feed::Feed,
    _stop_poller: DropGuard,
}

impl std::fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqliteStore").field("path", &self.path).finish_non_exhaustive()
    }
}

impl SqliteStore {
    /// Opens the database at `path`, which is created (mode 0600, its folder 0700) and migrated as needed.
    ///
    /// # Errors
    /// [`OpenError::Newer`] for a database that a newer scale-lnd has migrated; nothing is changed then.
    pub async fn open(path: &Path, options: SqliteOptions) -> std::result::Result<Self, OpenError> {
        let opened = open::open(path, &options).await?;
        Ok(Self::start(path, opened, &options))
    }

    fn start(path: &Path, opened: open::Opened, options: &SqliteOptions) -> Self {
        let (feed, stop_poller) = feed::start(opened.readers.clone(), opened.tag, options);
        let (jobs, queue) = mpsc::channel(QUEUE);
        writer::start(opened.writer, opened.connect, queue, feed.wake(), options);
        Self {
            path: path.to_owned(),
            timeout: options.timeout,
            readers: opened.readers,
            jobs,
            feed,
            _stop_poller: stop_poller,
        }
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn get(&self, key: &Key) -> Result<Option<Document>> {
        key.validate()?;
        bounded(self.timeout, read::get(&self.readers, key)).await
    }

    async fn commit(&self, writes: Vec<Write>) -> Result<Vec<Version>> {
        let steps = writer::prepare(writes)?;
        if steps.is_empty() {
            return Ok(Vec::new());
        }
        let (reply, answer) = oneshot::channel();
        bounded(self.timeout, async {
            let gone = || StoreError::Unavailable("the writer has ended".to_owned());
            self.jobs.send(writer::Job { steps, reply }).await.map_err(|_| gone())?;
            answer.await.map_err(|_| gone())?
        })
        .await
    }

    async fn list(&self, query: &Query) -> Result<Page> {
        bounded(self.timeout, read::list(&self.readers, query)).await
    }

    async fn changes(&self, cursor: Option<Cursor>) -> Result<BoxStream<'static, Result<FeedItem>>> {
        bounded(self.timeout, self.feed.follow(cursor)).await
    }
}

/// Whatever SQLite reports (locked, disk full, unreadable) is a database that cannot serve now. Its messages name tables
/// and conditions, never values.
fn unavailable(error: &sqlx::Error) -> StoreError {
    StoreError::Unavailable(error.to_string())
}

/// Numbers of SQLite are signed; one that it cannot have given is one that it will not find.
fn to_sql(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(-1)
}

/// A number that was stored by us, and so is not negative.
fn from_sql(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
