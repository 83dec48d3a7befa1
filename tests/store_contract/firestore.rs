//! Firestore held to the contract on Google's emulator, and what only it can be asked.

mod locking;
mod outages;
mod refusals;

use super::Data;
use super::tools::{OTHERS, THINGS};
use crate::harness::emulator::{self, Emulator};
use async_trait::async_trait;
use scale_lnd::store::Store;
use scale_lnd::store::firestore::{FirestoreOptions, FirestoreStore};
use std::sync::Arc;

/// A project of its own in the emulator.
struct Project {
    emulator: &'static Emulator,
    name: String,
}

impl Project {
    fn options(&self) -> FirestoreOptions {
        options(&self.emulator.url, &self.name)
    }

    async fn open(&self) -> FirestoreStore {
        FirestoreStore::open(self.options()).await.expect("the database opens")
    }
}

fn options(url: &str, project: &str) -> FirestoreOptions {
    FirestoreOptions {
        api_url: Some(url.to_owned()),
        collections: vec![THINGS, OTHERS],
        ..FirestoreOptions::new(project)
    }
}

#[async_trait]
impl Data for Project {
    async fn handle(&self) -> Arc<dyn Store> {
        Arc::new(self.open().await)
    }

    async fn another(&self) -> Box<dyn Data> {
        Box::new(Self { emulator: self.emulator, name: emulator::project() })
    }

    /// Firestore's queries are of one instant. Its emulator's are not quite: with four readers 8 of 4,081 were torn, in a
    /// read-only transaction 27 of 5,562, at a given time 7 of 5,720; only locking transactions gave none.
    async fn numbers_now(&self, _: &dyn Store) -> Vec<u64> {
        locking::numbers(&self.emulator.url, &self.name).await
    }
}

async fn fresh() -> Project {
    Project { emulator: Emulator::shared().await, name: emulator::project() }
}

mod contract {
    crate::store_contract::contract!(super::super::fresh);
}
