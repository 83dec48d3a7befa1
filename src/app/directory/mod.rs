//! What a master knows by heart: API keys, which node is whose, the nodes themselves with warm connections. It follows the
//! change feed, so that a warm read asks no Store, and so that a revoked key and a moved node are noticed everywhere.

mod bulkhead;
mod handle;
mod joined;
mod keyring;

pub use handle::{Lnd, NodeHandle, NodeState, unknown_user};

use super::feed::{Feed, STALE_AFTER};
use super::{Parts, refuse};
use crate::apikey::ApiKeyId;
use crate::error::StoreError;
use crate::model::app::ApiKeyRecord;
use crate::model::ids::{AppId, NodeId, Uuid};
use crate::model::node::{Node, NodeName, Runtime};
use crate::model::problem::Refusal;
use crate::store::repo::{self, Entity};
use crate::store::{Change, Document};
use keyring::Keyring;
use moka::sync::Cache;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio_util::sync::CancellationToken;

/// What nobody has asked for, and what has not changed, for this long is forgotten.
const IDLE: Duration = Duration::from_secs(300);
const MOST_NODES: u64 = 20_000;
const MOST_NAMES: u64 = 100_000;
const MARKS: usize = 256;
/// How often what is idle is looked for, while nobody asks.
const SWEEP: Duration = Duration::from_secs(30);

/// The directory of one master.
#[derive(Debug)]
pub struct Directory {
    parts: Arc<Parts>,
    keyring: Keyring,
    names: Cache<String, NodeId>,
    nodes: Cache<NodeId, Arc<NodeHandle>>,
    /// Counts changes of nodes, by hash: whoever fills the cache sees whether one passed by in the meantime.
    marks: [AtomicU64; MARKS],
    hasher: RandomState,
    max_calls_per_node: usize,
    /// When all that the feed had told was last known here.
    caught_up: Mutex<Option<Instant>>,
}

impl Directory {
    /// A directory that follows the feed until `stop`, with at most so many calls to one node at a time. Call it before
    /// [`Feed::run`], so that nothing is missed.
    ///
    /// # Errors
    /// The API keys cannot be read.
    pub async fn start(
        parts: Arc<Parts>,
        max_calls_per_node: usize,
        stop: CancellationToken,
    ) -> Result<Arc<Self>, StoreError> {
        let changes = parts.feed.subscribe();
        let directory = Arc::new(Self {
            keyring: Keyring::default(),
            names: Cache::builder().time_to_idle(IDLE).max_capacity(MOST_NAMES).build(),
            nodes: Cache::builder().time_to_idle(IDLE).max_capacity(MOST_NODES).build(),
            marks: std::array::from_fn(|_| AtomicU64::new(0)),
            hasher: RandomState::new(),
            max_calls_per_node,
            caught_up: Mutex::default(),
            parts,
        });
        directory.keyring.read_all(&*directory.parts.store).await?;
        let follower = Arc::clone(&directory);
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = follower.follow(changes) => {}
            }
        });
        Ok(directory)
    }

    /// Whether what is remembered can be trusted with money: the feed is alive, and what it told has been applied.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        let caught_up = *self.caught_up.lock().unwrap_or_else(PoisonError::into_inner);
        self.parts.feed.is_fresh() && caught_up.is_some_and(|at| at.elapsed() < STALE_AFTER)
    }

    /// The feed that is followed.
    #[must_use]
    pub fn feed(&self) -> &Arc<Feed> {
        &self.parts.feed
    }

    /// The API key with this id, unless it was revoked. Out of memory while the feed is fresh; else the Store has the word.
    ///
    /// # Errors
    /// The Store would have to be asked and does not answer.
    pub async fn api_key(&self, id: &ApiKeyId) -> Result<Option<Arc<ApiKeyRecord>>, Refusal> {
        let key = self.keyring.get(&*self.parts.store, id, self.is_fresh()).await;
        key.map_err(|error| refuse::store(&error))
    }

    /// The node of a user of an app.
    ///
    /// # Errors
    /// 404 where there is none.
    pub async fn node(&self, app: &AppId, uuid: &Uuid) -> Result<Arc<NodeHandle>, Refusal> {
        let name = NodeName::id_of(app, uuid);
        if let Some(id) = self.names.get(&name) {
            return self.by_id(&id).await?.ok_or_else(unknown_user);
        }
        let found = repo::get::<NodeName>(&*self.parts.store, &name).await.map_err(|error| refuse::store(&error))?;
        // A digest stands for the name; that it is this app's user is checked all the same.
        let found = found.map(|found| found.value).filter(|found| found.app == *app && found.uuid == *uuid);
        let id = found.ok_or_else(unknown_user)?.node;
        let handle = self.by_id(&id).await?.ok_or_else(unknown_user)?;
        self.names.insert(name, id);
        Ok(handle)
    }

    /// The node with this id.
    ///
    /// # Errors
    /// The Store would have to be asked and does not answer.
    pub async fn by_id(&self, id: &NodeId) -> Result<Option<Arc<NodeHandle>>, Refusal> {
        if let Some(handle) = self.nodes.get(id) {
            return Ok(Some(handle));
        }
        let store = &*self.parts.store;
        let before = self.mark(id).load(Ordering::Acquire);
        let read = tokio::try_join!(repo::get::<Node>(store, id.as_str()), repo::get::<Runtime>(store, id.as_str()));
        let (node, runtime) = read.map_err(|error| refuse::store(&error))?;
        let Some(node) = node else { return Ok(None) };
        let state = NodeState { node: node.value, runtime: runtime.map(|runtime| runtime.value) };
        let fresh = Arc::new(NodeHandle::new(Arc::clone(&self.parts), state, self.max_calls_per_node));
        let handle = self.nodes.entry_by_ref(id).or_insert(fresh).into_value();
        if self.mark(id).load(Ordering::Acquire) != before {
            // A change went by while this was not in the cache yet.
            handle.refresh().await?;
        }
        Ok(Some(handle))
    }

    fn mark(&self, id: &NodeId) -> &AtomicU64 {
        let hash = self.hasher.hash_one(id.as_str());
        &self.marks[usize::try_from(hash % MARKS as u64).unwrap_or(0)]
    }

    async fn follow(&self, mut changes: broadcast::Receiver<Arc<Change>>) {
        let mut sweep = tokio::time::interval(SWEEP);
        loop {
            let change = tokio::select! {
                change = changes.recv() => change,
                _ = sweep.tick() => {
                    self.nodes.run_pending_tasks();
                    self.names.run_pending_tasks();
                    continue;
                }
            };
            match change.as_deref() {
                Ok(Change::Put(document)) => self.put(document),
                Ok(Change::Deleted(key)) if key.collection == ApiKeyRecord::COLLECTION => self.keyring.forget(&key.id),
                Ok(Change::Deleted(_)) => {}
                Ok(Change::Resync) | Err(RecvError::Lagged(_)) => self.resync().await,
                Err(RecvError::Closed) => return,
            }
            if changes.is_empty() {
                *self.caught_up.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
            }
        }
    }

    fn put(&self, document: &Document) {
        match document.key.collection {
            ApiKeyRecord::COLLECTION => self.keyring.put(document),
            Node::COLLECTION => {
                self.change(document, |handle, node: Node| handle.put_node(node));
            }
            Runtime::COLLECTION => {
                self.change(document, |handle, runtime: Runtime| handle.put_runtime(Some(&runtime)));
            }
            _ => {}
        }
    }

    /// Changes what is cached. Whoever is just reading it from the Store sees the mark.
    fn change<T: Entity>(&self, document: &Document, apply: impl FnOnce(&NodeHandle, T)) {
        let Some(id) = NodeId::parse(&document.key.id) else { return };
        self.mark(&id).fetch_add(1, Ordering::Release);
        let Some(handle) = self.nodes.get(&id) else { return };
        match repo::decode_ref::<T>(document) {
            Ok(read) => apply(&handle, read.value),
            Err(error) => {
                tracing::error!(%error, "a changed document cannot be read");
                self.nodes.invalidate(&id);
            }
        }
    }

    /// There may be a gap: forget everything that could be wrong. Connections stay warm elsewhere.
    async fn resync(&self) {
        for mark in &self.marks {
            mark.fetch_add(1, Ordering::Release);
        }
        self.names.invalidate_all();
        self.nodes.invalidate_all();
        while let Err(error) = self.keyring.read_all(&*self.parts.store).await {
            tracing::warn!(%error, "the API keys cannot be read again");
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
}
