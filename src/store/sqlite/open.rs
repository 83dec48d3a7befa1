//! Opening: the file and its mode, the connections and their settings, the migrations.

use super::SqliteOptions;
use super::writer::{RETRY, is_busy};
use crate::files::{private_dir, sync_dir};
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection as _, SqliteConnection, SqlitePool};
use std::fs;
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// Why a database could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file or its folder cannot be made or protected.
    #[error("the database file cannot be prepared")]
    File(#[from] io::Error),
    /// A newer scale-lnd has been here. It has to be that one, or a newer one, that opens this database.
    #[error("the database has schema {found}, this scale-lnd knows schemas up to {known}: use a newer scale-lnd")]
    Newer {
        /// The schema of the database.
        found: i64,
        /// The newest one this binary knows.
        known: i64,
    },
    /// The migrations in the database are not the ones of this binary.
    #[error("the database does not have the schema of scale-lnd")]
    Schema(#[source] MigrateError),
    /// SQLite refused.
    #[error("the database cannot be opened")]
    Sqlite(#[from] sqlx::Error),
}

/// An open and migrated database.
pub(super) struct Opened {
    pub(super) writer: SqliteConnection,
    pub(super) connect: SqliteConnectOptions,
    pub(super) readers: SqlitePool,
    /// Tells this database's cursors from another's.
    pub(super) tag: u64,
}

pub(super) async fn open(path: &Path, options: &SqliteOptions) -> Result<Opened, OpenError> {
    let file = path.to_owned();
    tokio::task::spawn_blocking(move || prepare_file(&file)).await.map_err(io::Error::other)??;

    // The writer has its own way of waiting for other processes, and so has opening: see `writer::begin`.
    let connect = settings(path).busy_timeout(Duration::ZERO);
    let until = Instant::now() + options.timeout;
    let (writer, tag) = loop {
        match first_connection(&connect).await {
            Err(OpenError::Sqlite(e)) if is_busy(&e) && Instant::now() < until => tokio::time::sleep(RETRY).await,
            result => break result?,
        }
    };
    let readers = SqlitePoolOptions::new()
        .max_connections(options.readers)
        .acquire_timeout(options.timeout)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
        .connect_lazy_with(reading(&connect, options.timeout));
    Ok(Opened { writer, connect, readers, tag })
}

fn settings(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        // FULL: in WAL mode the fsync at each commit, without which a commit may be lost with the machine's power.
        .synchronous(SqliteSynchronous::Full)
        .pragma("fullfsync", "ON")
        .pragma("checkpoint_fullfsync", "ON")
        .foreign_keys(true)
        .pragma("journal_size_limit", "67108864")
        .pragma("temp_store", "MEMORY")
        .pragma("trusted_schema", "OFF")
        .disable_statement_logging()
}

/// What reads. Each connection has a cache of pages of its own, of 2 MB by default, which a master that looks at all its nodes
/// once fills in every one of them for nothing: the system has the same pages.
fn reading(connect: &SqliteConnectOptions, timeout: Duration) -> SqliteConnectOptions {
    connect.clone().busy_timeout(timeout / 2).pragma("query_only", "ON").pragma("cache_size", "-256")
}

/// Makes the file, if it is not there, and lets nobody else read it. SQLite gives its other files the same mode.
fn prepare_file(path: &Path) -> io::Result<()> {
    // Closing any descriptor of a file drops this process's locks on it, SQLite's too. So an existing database is never
    // opened here, and a new one is closed before another task of this process can have found it.
    static PREPARING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = PREPARING.lock().unwrap_or_else(PoisonError::into_inner);

    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    };
    private_dir(&folder)?;
    match fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => sync_dir(&folder),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            fs::set_permissions(path, fs::Permissions::from_mode(0o600))
        }
        Err(e) => Err(e),
    }
}

/// The first connection turns a new file into a WAL database, and migrates it. Gives the database's tag too.
async fn first_connection(connect: &SqliteConnectOptions) -> Result<(SqliteConnection, u64), OpenError> {
    let mut connection = connect.connect().await?;
    migrate(&mut connection).await?;
    let tag: i64 = sqlx::query_scalar("SELECT tag FROM feed").fetch_one(&mut connection).await?;
    Ok((connection, super::from_sql(tag)))
}

/// All migrations in one transaction that is the database's only writer from its start: two processes that open a new
/// database at once migrate it once.
async fn migrate(writer: &mut SqliteConnection) -> Result<(), OpenError> {
    let mut transaction = writer.begin_with("BEGIN IMMEDIATE").await?;
    // `run` is this behind a trait whose futures the compiler cannot prove to be Send.
    match MIGRATIONS.run_direct(None, &mut *transaction, false).await {
        Ok(()) => Ok(transaction.commit().await?),
        Err(MigrateError::VersionMissing(found)) => {
            let known = MIGRATIONS.iter().map(|m| m.version).max().unwrap_or(0);
            if found > known {
                return Err(OpenError::Newer { found, known });
            }
            Err(OpenError::Schema(MigrateError::VersionMissing(found)))
        }
        Err(MigrateError::Execute(e)) => Err(OpenError::Sqlite(e)),
        Err(e) => Err(OpenError::Schema(e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::SqliteStore;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    async fn raw(path: &Path) -> SqliteConnection {
        settings(path).connect().await.unwrap()
    }

    #[tokio::test]
    async fn nobody_else_can_read_the_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/store.db");
        let _store = SqliteStore::open(&path, SqliteOptions::default()).await.unwrap();
        assert_eq!(mode(&dir.path().join("a")), 0o700);
        assert_eq!(mode(&dir.path().join("a/b")), 0o700);
        for file in ["store.db", "store.db-wal", "store.db-shm"] {
            assert_eq!(mode(&dir.path().join("a/b").join(file)), 0o600, "{file}");
        }
    }

    #[tokio::test]
    async fn the_settings_that_durability_rests_on_hold() {
        let dir = tempfile::tempdir().unwrap();
        let mut opened = open(&dir.path().join("store.db"), &SqliteOptions::default()).await.unwrap();
        let journal: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&mut opened.writer).await.unwrap();
        let synchronous: i64 = sqlx::query_scalar("PRAGMA synchronous").fetch_one(&mut opened.writer).await.unwrap();
        let keys: i64 = sqlx::query_scalar("PRAGMA foreign_keys").fetch_one(&mut opened.writer).await.unwrap();
        assert_eq!((journal.as_str(), synchronous, keys), ("wal", 2, 1));
        let write = sqlx::query("UPDATE feed SET last = 1").execute(&opened.readers).await;
        assert!(write.is_err(), "a reader wrote");
    }

    #[tokio::test]
    async fn a_newer_schema_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.db");
        drop(SqliteStore::open(&path, SqliteOptions::default()).await.unwrap());
        let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
                     VALUES (9999, 'from the future', TRUE, x'00', 0)";
        sqlx::query(newer).execute(&mut raw(&path).await).await.unwrap();
        let error = SqliteStore::open(&path, SqliteOptions::default()).await.unwrap_err();
        assert!(matches!(error, OpenError::Newer { found: 9999, .. }), "{error:?}");
        assert!(error.to_string().contains("use a newer scale-lnd"), "{error}");
    }

    #[tokio::test]
    async fn what_is_not_a_database_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.db");
        fs::write(&path, "not a database, but long enough to be taken for one by a careless reader".repeat(99))
            .unwrap();
        let error = SqliteStore::open(&path, SqliteOptions::default()).await.unwrap_err();
        assert!(matches!(error, OpenError::Sqlite(_)), "{error:?}");
    }

    #[tokio::test]
    async fn many_may_open_a_new_database_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.db");
        let open = || SqliteStore::open(&path, SqliteOptions::default());
        let opened = futures::future::join_all((0..8).map(|_| open())).await;
        for store in opened {
            store.unwrap();
        }
    }
}
