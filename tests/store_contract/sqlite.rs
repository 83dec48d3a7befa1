//! SQLite held to the contract, and what only it can be asked.

mod processes;
mod trouble;

use super::Data;
use async_trait::async_trait;
use scale_lnd::store::Store;
use scale_lnd::store::sqlite::{SqliteOptions, SqliteStore};
use std::path::PathBuf;
use std::sync::Arc;
use tempfile::TempDir;

/// A database file in a folder of its own.
struct File(TempDir);

impl File {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("store.db")
    }

    async fn open(&self, options: SqliteOptions) -> SqliteStore {
        SqliteStore::open(&self.path(), options).await.expect("the database opens")
    }
}

#[async_trait]
impl Data for File {
    async fn handle(&self) -> Arc<dyn Store> {
        Arc::new(self.open(SqliteOptions::default()).await)
    }

    async fn another(&self) -> Box<dyn Data> {
        Box::new(Self::new())
    }
}

async fn fresh() -> File {
    File::new()
}

mod contract {
    crate::store_contract::contract!(super::super::fresh);
}
