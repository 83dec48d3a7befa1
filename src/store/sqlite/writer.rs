//! The one writer of a process: commits that wait at the same time share a transaction and its fsync, each in a savepoint
//! of its own, so that a failed expectation undoes nobody else's work. No answer is given before the transaction is on disk.

use super::{SqliteOptions, feed, from_sql, to_sql, unavailable};
use crate::error::StoreError;
use crate::store::{Expect, IndexEntry, Key, Result, Version, Write};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, SqliteConnection};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

/// How many commits may share a transaction: bounds what a failed one takes with it, and how long the first one waits.
const BATCH: usize = 128;

/// Pause between two tries for SQLite's write lock while another process holds it; files have no event for that. SQLite's
/// own busy handler goes up to 100 ms, in which a busy holder would win again and again.
pub(super) const RETRY: Duration = Duration::from_millis(1);

/// A commit on its way to the writer.
pub(super) struct Job {
    pub(super) steps: Vec<Step>,
    pub(super) reply: oneshot::Sender<Result<Vec<Version>>>,
}

/// A [`Write`], checked and encoded.
pub(super) struct Step {
    key: Key,
    expect: Expect,
    action: Action,
}

enum Action {
    Put { body: String, index: Vec<IndexEntry> },
    Delete,
    Check,
}

/// Checks and encodes the writes of a commit, in the caller's task.
pub(super) fn prepare(writes: Vec<Write>) -> Result<Vec<Step>> {
    let steps = writes.into_iter().map(step).collect::<Result<Vec<_>>>()?;
    let mut keys = HashSet::new();
    match steps.iter().find(|step| !keys.insert(&step.key)) {
        None => Ok(steps),
        Some(twice) => {
            Err(StoreError::Invalid { collection: twice.key.collection, reason: "a document occurs twice in a commit" })
        }
    }
}

fn step(write: Write) -> Result<Step> {
    let step = match write {
        Write::Put { key, expect, body, index } => {
            Step { key, expect, action: Action::Put { body: body.to_string(), index } }
        }
        Write::Delete { key, expect } => Step { key, expect: Expect::Version(expect), action: Action::Delete },
        Write::Check { key, expect } => Step { key, expect, action: Action::Check },
    };
    step.key.validate()?;
    Ok(step)
}

/// Starts the writer task. It ends when the store is gone and the last commit is answered.
pub(super) fn start(
    connection: SqliteConnection,
    connect: SqliteConnectOptions,
    queue: mpsc::Receiver<Job>,
    wake: Arc<watch::Sender<u64>>,
    options: &SqliteOptions,
) {
    let writer = Writer {
        connection: Some(connection),
        connect,
        wake,
        wait: options.timeout,
        keep_changes: options.keep_changes.max(1),
    };
    tokio::spawn(writer.run(queue));
}

struct Writer {
    /// Absent after an error: whatever state that left behind is gone with the connection.
    connection: Option<SqliteConnection>,
    connect: SqliteConnectOptions,
    wake: Arc<watch::Sender<u64>>,
    wait: Duration,
    keep_changes: u64,
}

impl Writer {
    async fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        let mut batch = Vec::with_capacity(BATCH);
        while queue.recv_many(&mut batch, BATCH).await > 0 {
            match self.write(&batch).await {
                Ok(answers) => {
                    for (job, answer) in batch.drain(..).zip(answers) {
                        let _ = job.reply.send(answer);
                    }
                }
                Err(error) => {
                    tracing::warn!(error.message = %error, commits = batch.len(), "a transaction failed");
                    for job in batch.drain(..) {
                        let _ = job.reply.send(Err(unavailable(&error)));
                    }
                }
            }
        }
    }

    async fn write(&mut self, batch: &[Job]) -> sqlx::Result<Vec<Result<Vec<Version>>>> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect.connect().await?,
        };
        let answers = self.transact(&mut connection, batch).await?;
        self.connection = Some(connection);
        Ok(answers)
    }

    async fn transact(
        &mut self,
        connection: &mut SqliteConnection,
        batch: &[Job],
    ) -> sqlx::Result<Vec<Result<Vec<Version>>>> {
        begin(connection, Instant::now() + self.wait).await?;
        let before: i64 = sqlx::query_scalar("SELECT last FROM feed").fetch_one(&mut *connection).await?;
        let before = from_sql(before);
        let mut last = before;
        let mut answers = Vec::with_capacity(batch.len());
        for job in batch {
            // Who has stopped waiting has been told that the outcome is unknown: "not done" is the better one.
            if job.reply.is_closed() {
                answers.push(Ok(Vec::new()));
                continue;
            }
            answers.push(commit(connection, &job.steps, &mut last).await?);
        }
        if last == before {
            // Nothing but checks and conflicts: nothing to bring to disk.
            execute(connection, "ROLLBACK").await?;
        } else {
            self.log_position(connection, before, last).await?;
            execute(connection, "COMMIT").await?;
            feed::advance(&self.wake, last);
        }
        Ok(answers)
    }

    /// Records the newest seq, and now and then drops what the feed need not remember.
    async fn log_position(&self, connection: &mut SqliteConnection, before: u64, last: u64) -> sqlx::Result<()> {
        sqlx::query("UPDATE feed SET last = ?").bind(to_sql(last)).execute(&mut *connection).await?;
        let stride = (self.keep_changes / 16).max(1);
        if before / stride != last / stride {
            let oldest = last.saturating_sub(self.keep_changes);
            let prune = sqlx::query("DELETE FROM changes WHERE seq <= ?").bind(to_sql(oldest));
            prune.execute(&mut *connection).await?;
        }
        Ok(())
    }
}

/// Begins a transaction that holds the database's write lock.
async fn begin(connection: &mut SqliteConnection, until: Instant) -> sqlx::Result<()> {
    loop {
        match execute(connection, "BEGIN IMMEDIATE").await {
            Err(e) if is_busy(&e) && Instant::now() < until => tokio::time::sleep(RETRY).await,
            result => return result,
        }
    }
}

/// Does one commit inside the transaction, in its own savepoint; `last` advances only if it stays.
async fn commit(
    connection: &mut SqliteConnection,
    steps: &[Step],
    last: &mut u64,
) -> sqlx::Result<Result<Vec<Version>>> {
    execute(connection, "SAVEPOINT one").await?;
    let changed = steps.iter().filter(|step| !matches!(step.action, Action::Check)).count() as u64;
    // All documents of a commit have one version: the seq of its last change.
    let version = *last + changed;
    let mut seq = *last;
    for step in steps {
        if !perform(connection, step, version).await? {
            execute(connection, "ROLLBACK TO one").await?;
            execute(connection, "RELEASE one").await?;
            let Key { collection, id } = step.key.clone();
            return Ok(Err(StoreError::Conflict { collection, id }));
        }
        if !matches!(step.action, Action::Check) {
            seq += 1;
            log_change(connection, seq, &step.key).await?;
        }
    }
    execute(connection, "RELEASE one").await?;
    *last = version;
    Ok(Ok(vec![Version(version); steps.len()]))
}

/// Does one write; `false` if its expectation does not hold.
async fn perform(connection: &mut SqliteConnection, step: &Step, version: u64) -> sqlx::Result<bool> {
    let held = match (&step.action, step.expect) {
        (Action::Check, expect) => holds(connection, &step.key, expect).await?,
        (Action::Put { body, .. }, Expect::Absent) => insert(connection, &step.key, body, version).await?,
        (Action::Put { body, .. }, Expect::Version(old)) => update(connection, &step.key, body, old, version).await?,
        (Action::Delete, Expect::Version(old)) => delete(connection, &step.key, old).await?,
        (Action::Delete, Expect::Absent) => false,
    };
    if let (true, Action::Put { index, .. }) = (held, &step.action) {
        replace_index(connection, step, index).await?;
    }
    Ok(held)
}

async fn holds(connection: &mut SqliteConnection, key: &Key, expect: Expect) -> sqlx::Result<bool> {
    let found: Option<i64> = sqlx::query_scalar("SELECT version FROM documents WHERE collection = ? AND id = ?")
        .bind(key.collection)
        .bind(&key.id)
        .fetch_optional(connection)
        .await?;
    Ok(match expect {
        Expect::Absent => found.is_none(),
        Expect::Version(version) => found == Some(to_sql(version.0)),
    })
}

async fn insert(connection: &mut SqliteConnection, key: &Key, body: &str, version: u64) -> sqlx::Result<bool> {
    let sql = "INSERT INTO documents (collection, id, version, body) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING";
    let insert = sqlx::query(sql).bind(key.collection).bind(&key.id).bind(to_sql(version)).bind(body);
    Ok(insert.execute(connection).await?.rows_affected() == 1)
}

async fn update(
    connection: &mut SqliteConnection,
    key: &Key,
    body: &str,
    old: Version,
    version: u64,
) -> sqlx::Result<bool> {
    let sql = "UPDATE documents SET version = ?, body = ? WHERE collection = ? AND id = ? AND version = ?";
    let update = sqlx::query(sql).bind(to_sql(version)).bind(body);
    let update = update.bind(key.collection).bind(&key.id).bind(to_sql(old.0));
    Ok(update.execute(connection).await?.rows_affected() == 1)
}

async fn delete(connection: &mut SqliteConnection, key: &Key, old: Version) -> sqlx::Result<bool> {
    let sql = "DELETE FROM documents WHERE collection = ? AND id = ? AND version = ?";
    let delete = sqlx::query(sql).bind(key.collection).bind(&key.id).bind(to_sql(old.0));
    Ok(delete.execute(connection).await?.rows_affected() == 1)
}

async fn replace_index(connection: &mut SqliteConnection, step: &Step, index: &[IndexEntry]) -> sqlx::Result<()> {
    let Key { collection, id } = &step.key;
    if let Expect::Version(_) = step.expect {
        let clear = sqlx::query("DELETE FROM document_index WHERE collection = ? AND id = ?");
        clear.bind(*collection).bind(id).execute(&mut *connection).await?;
    }
    for entry in index {
        let sql = "INSERT INTO document_index (collection, name, value, id) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING";
        let insert = sqlx::query(sql).bind(*collection).bind(entry.name).bind(&entry.value).bind(id);
        insert.execute(&mut *connection).await?;
    }
    Ok(())
}

async fn log_change(connection: &mut SqliteConnection, seq: u64, key: &Key) -> sqlx::Result<()> {
    let insert = sqlx::query("INSERT INTO changes (seq, collection, id) VALUES (?, ?, ?)");
    insert.bind(to_sql(seq)).bind(key.collection).bind(&key.id).execute(connection).await?;
    Ok(())
}

async fn execute(connection: &mut SqliteConnection, sql: &'static str) -> sqlx::Result<()> {
    sqlx::query(sql).execute(connection).await?;
    Ok(())
}

/// Whether another connection holds a lock that this one needs (SQLITE_BUSY in any of its extended forms).
pub(super) fn is_busy(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|e| e.code()).and_then(|code| code.parse::<i32>().ok());
    code.is_some_and(|code| code & 0xff == 5)
}
