//! Looks into the Store of a deployment, beside its masters.

use crate::harness::Deployment;
use scale_lnd::app::keys::Keys;
use scale_lnd::config::Config;
use scale_lnd::deployment::open_store;
use scale_lnd::model::app::{ApiKeyRecord, App};
use scale_lnd::model::limits::Usage;
use scale_lnd::model::network::Network;
use scale_lnd::model::node::{Backup, BackupHead, ClosePointer, Node, NodeName, PaymentPointer};
use scale_lnd::model::operation::{IdempotencyRecord, Operation};
use scale_lnd::model::work::create::FundingRequest;
use scale_lnd::seal::Sealer;
use scale_lnd::store::Store;
use scale_lnd::store::repo::{self, Entity};
use scale_lnd::store::sqlite::{SqliteOptions, SqliteStore};
use std::collections::BTreeSet;
use std::sync::Arc;

pub async fn open(d: &Deployment) -> SqliteStore {
    SqliteStore::open(&d.path("store.db"), SqliteOptions::default()).await.unwrap()
}

/// The Store of a deployment, whichever it is.
pub async fn of(d: &Deployment) -> Arc<dyn Store> {
    open_store(&Config::load(Some(&d.config), [], &[]).unwrap()).await.unwrap()
}

/// What opens this deployment's secrets.
pub fn keys(d: &Deployment) -> Keys {
    let sealer = Sealer::from_file(&d.path("seal.key")).unwrap();
    Keys::new(Arc::new(sealer), "test".to_owned(), Network::Simnet)
}

/// All of a kind.
pub async fn all<T: Entity>(store: &dyn Store) -> Vec<T> {
    repo::list_all::<T>(store, None).await.unwrap().into_iter().map(|found| found.value).collect()
}

/// The node of a user of the app `app`.
pub async fn node(store: &SqliteStore, uuid: &str) -> Node {
    let nodes = all::<Node>(store).await;
    nodes.into_iter().find(|node| node.app.as_str() == "app" && node.uuid.as_str() == uuid).unwrap()
}

/// What calls can change, document by document with its version. Not the keys and limits, which the tests themselves
/// change by the command line, nor what masters and agents write without being asked.
pub async fn everything(d: &Deployment) -> BTreeSet<String> {
    let store = open(d).await;
    let mut found = BTreeSet::new();
    collect::<Node>(&store, &mut found).await;
    collect::<NodeName>(&store, &mut found).await;
    collect::<Operation>(&store, &mut found).await;
    collect::<IdempotencyRecord>(&store, &mut found).await;
    collect::<PaymentPointer>(&store, &mut found).await;
    collect::<ClosePointer>(&store, &mut found).await;
    collect::<FundingRequest>(&store, &mut found).await;
    collect::<Usage>(&store, &mut found).await;
    found
}

async fn collect<T: Entity>(store: &SqliteStore, into: &mut BTreeSet<String>) {
    let all = repo::list_all::<T>(store, None).await.unwrap();
    into.extend(all.into_iter().map(|d| format!("{} {} {:?}", T::COLLECTION, d.value.id(), d.version)));
}

/// The newest backup of a node, and which one would be restored.
pub async fn backup(store: &SqliteStore, node: &Node) -> Option<(BackupHead, Backup)> {
    let head = repo::get::<BackupHead>(store, node.id.as_str()).await.unwrap()?.value;
    let newest = repo::get::<Backup>(store, &Backup::id_of(&node.id, head.newest)).await.unwrap()?.value;
    Some((head, newest))
}

/// The ids of all apps and keys: proof that the Store that was looked into is the one in use.
pub async fn apps_and_keys(store: &SqliteStore) -> (usize, usize) {
    (all::<App>(store).await.len(), all::<ApiKeyRecord>(store).await.len())
}
