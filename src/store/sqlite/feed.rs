//! The change feed: followers read the log table from their position. This process's commits wake them at once; those of
//! other processes are found by one poller for all followers.
//!
//! A row of the log says only that a document changed; what is told is the document as it is when the log is read, so
//! several changes may be told as one, and the order of a document's states is right whatever happens.

use super::{SqliteOptions, from_sql, read, to_sql, unavailable};
use crate::store::{Change, Cursor, FeedItem, Key, Result, bounded};
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use sqlx::SqlitePool;
use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::{CancellationToken, DropGuard};

/// How many changes are read at once.
const PAGE: u32 = 64;

/// How long a follower leaves a database alone that has just failed it.
const AFTER_ERROR: Duration = Duration::from_millis(250);

/// A cursor is the database's tag and, in its lower bits, a seq: enough for 30 years of 1,000 changes a second.
const SEQ_BITS: u32 = 40;

/// What feeds are made from.
pub(super) struct Feed {
    readers: SqlitePool,
    tag: u64,
    wake: Arc<watch::Sender<u64>>,
    timeout: Duration,
}

/// Starts the poller; it ends with the guard.
pub(super) fn start(readers: SqlitePool, tag: u64, options: &SqliteOptions) -> (Feed, DropGuard) {
    let feed = Feed { readers, tag, wake: Arc::new(watch::Sender::new(0)), timeout: options.timeout };
    let stop = CancellationToken::new();
    let poll = poll(feed.readers.clone(), feed.wake(), options.clone());
    tokio::spawn(stop.clone().run_until_cancelled_owned(poll));
    (feed, stop.drop_guard())
}

async fn poll(readers: SqlitePool, wake: Arc<watch::Sender<u64>>, options: SqliteOptions) {
    let mut ticks = tokio::time::interval(options.poll);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failing = false;
    loop {
        ticks.tick().await;
        if wake.receiver_count() == 0 {
            continue;
        }
        match bounded(options.timeout, newest(&readers)).await {
            Ok(last) => {
                failing = false;
                advance(&wake, last);
            }
            Err(error) => {
                if !failing {
                    tracing::warn!(error.message = %error, "changes of other processes cannot be looked for");
                }
                failing = true;
            }
        }
    }
}

/// Tells all followers that the log goes up to `last`.
pub(super) fn advance(wake: &watch::Sender<u64>, last: u64) {
    wake.send_if_modified(|known| {
        let newer = last > *known;
        *known = last.max(*known);
        newer
    });
}

async fn newest(readers: &SqlitePool) -> Result<u64> {
    let last: i64 =
        sqlx::query_scalar("SELECT last FROM feed").fetch_one(readers).await.map_err(|e| unavailable(&e))?;
    Ok(from_sql(last))
}

impl Feed {
    /// Where whoever has committed says so.
    pub(super) fn wake(&self) -> Arc<watch::Sender<u64>> {
        Arc::clone(&self.wake)
    }

    /// A feed from `cursor`, or from now if there is none or it is not good here any more.
    pub(super) async fn follow(&self, cursor: Option<Cursor>) -> Result<BoxStream<'static, Result<FeedItem>>> {
        let woken = self.wake.subscribe();
        let (last, kept): (i64, Option<i64>) = sqlx::query_as("SELECT last, (SELECT min(seq) FROM changes) FROM feed")
            .fetch_one(&self.readers)
            .await
            .map_err(|e| unavailable(&e))?;
        let last = from_sql(last);
        let oldest = kept.map_or(last, |seq| from_sql(seq).saturating_sub(1));
        let mut follower = Follower {
            readers: self.readers.clone(),
            tag: self.tag,
            timeout: self.timeout,
            woken,
            position: last,
            ready: VecDeque::new(),
            failed: false,
        };
        match cursor.and_then(|cursor| self.seq_of(cursor)).filter(|seq| (oldest..=last).contains(seq)) {
            Some(seq) => follower.position = seq,
            None => follower.resync(last),
        }
        // The poller may be asleep for want of followers: what is in the log already needs no waking.
        advance(&self.wake, last);
        Ok(stream::unfold(follower, Follower::next).boxed())
    }

    fn seq_of(&self, cursor: Cursor) -> Option<u64> {
        (cursor.0 >> SEQ_BITS == self.tag).then_some(cursor.0 & ((1 << SEQ_BITS) - 1))
    }
}

struct Follower {
    readers: SqlitePool,
    tag: u64,
    timeout: Duration,
    woken: watch::Receiver<u64>,
    /// Everything up to this seq has been told or is in `ready`.
    position: u64,
    ready: VecDeque<Result<FeedItem>>,
    failed: bool,
}

/// A change as the log has it: the first and the last seq of what is told as one, the document's name, and its version
/// and body if it exists.
type Row = (i64, i64, String, String, Option<i64>, Option<String>);

impl Follower {
    async fn next(mut self) -> Option<(Result<FeedItem>, Self)> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Some((item, self));
            }
            if std::mem::take(&mut self.failed) {
                tokio::time::sleep(AFTER_ERROR).await;
            }
            let known = *self.woken.borrow_and_update();
            if known <= self.position {
                // Fails when the store is gone.
                self.woken.changed().await.ok()?;
            } else if let Err(error) = self.read(known).await {
                self.failed = true;
                return Some((Err(error), self));
            }
        }
    }

    /// Reads on from the position; the log is known to reach `known`.
    async fn read(&mut self, known: u64) -> Result<()> {
        let sql = "WITH page AS (SELECT seq, collection, id FROM changes WHERE seq > ? ORDER BY seq LIMIT ?)
             SELECT p.first, p.last, p.collection, p.id, d.version, d.body
             FROM (SELECT min(seq) AS first, max(seq) AS last, collection, id FROM page GROUP BY collection, id) p
             LEFT JOIN documents d ON d.collection = p.collection AND d.id = p.id
             ORDER BY p.last";
        let read = sqlx::query_as(sql).bind(to_sql(self.position)).bind(PAGE).fetch_all(&self.readers);
        let rows: Vec<Row> = bounded(self.timeout, async { read.await.map_err(|e| unavailable(&e)) }).await?;
        // The log has no gaps but the one that pruning leaves before its oldest row.
        if rows.iter().map(|row| from_sql(row.0)).min() == Some(self.position + 1) {
            rows.into_iter().for_each(|row| self.tell(row));
        } else {
            self.resync(known);
        }
        Ok(())
    }

    fn resync(&mut self, position: u64) {
        self.position = position;
        self.ready.push_back(Ok(FeedItem { cursor: self.cursor(), change: Change::Resync }));
    }

    fn tell(&mut self, (_, last, collection, id, version, body): Row) {
        self.position = from_sql(last);
        let key = Key { collection: interned(&collection), id };
        let change = match version.zip(body) {
            None => Ok(Change::Deleted(key)),
            Some((version, body)) => read::document(key, version, &body).map(Change::Put),
        };
        let cursor = self.cursor();
        self.ready.push_back(change.map(|change| FeedItem { cursor, change }));
    }

    fn cursor(&self) -> Cursor {
        Cursor(self.tag << SEQ_BITS | self.position)
    }
}

/// The name of a collection for as long as the process lives. There are a dozen of them, so nothing is lost.
fn interned(collection: &str) -> &'static str {
    static NAMES: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(name) = names.get(collection) {
        return name;
    }
    let name: &'static str = Box::leak(collection.to_owned().into_boxed_str());
    names.insert(name);
    name
}
