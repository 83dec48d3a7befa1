//! The API over a real router and a real store, as far as no lnd is needed.

mod answers;
mod gates;
mod operations;
mod server;
mod webhook;

use super::dispatch::Dispatcher;
use super::{AppState, router};
use crate::apikey::ApiKey;
use crate::app::directory::Directory;
use crate::app::{Parts, Service};
use crate::clock::{SharedClock, SystemClock};
use crate::config::HttpSection;
use crate::model::Network;
use crate::model::app::{ApiKeyRecord, Scope};
use crate::model::ids::{AppId, HostId, NodeId, OperationId, Uuid};
use crate::model::node::{Funding, Node, NodeName, Phase, Process, Runtime, WalletState};
use crate::model::operation::{Operation, Owner, State};
use crate::model::work::Work;
use crate::model::work::delete::{Delete, DeleteStep};
use crate::store::Store;
use crate::store::repo::{self, Entity};
use crate::store::sqlite::{SqliteOptions, SqliteStore};
use axum::Router;
use axum::body::{Body, to_bytes};
use http::{HeaderMap, Request, StatusCode, header};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

/// Longer than anything here takes, so that a test that hangs fails.
pub(super) const SOON: Duration = Duration::from_secs(10);

pub(super) struct Api {
    pub router: Router,
    pub state: AppState,
    pub store: Arc<dyn Store>,
    pub shutdown: CancellationToken,
    _folder: TempDir,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(super) struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub bytes: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes)
            .unwrap_or_else(|e| panic!("{e}: {:?}", String::from_utf8_lossy(&self.bytes)))
    }

    /// The status and the code of a refusal.
    pub fn refusal(&self) -> (u16, String) {
        assert_eq!(self.headers[header::CONTENT_TYPE], "application/problem+json");
        let body = self.json();
        assert_eq!(body["status"], self.status.as_u16());
        (self.status.as_u16(), body["code"].as_str().expect("a code").to_owned())
    }

    pub fn faults(&self) -> Vec<String> {
        let body = self.json();
        let faults = body["faults"].as_array().cloned().unwrap_or_default();
        faults.iter().map(|fault| fault["parameter"].as_str().expect("a name").to_owned()).collect()
    }
}

pub(super) fn config() -> HttpSection {
    HttpSection {
        listen: ([127, 0, 0, 1], 0).into(),
        tls_cert: None,
        tls_key: None,
        allow_plain_http: false,
        changing_gets: true,
        body_limit_bytes: 4096,
        header_timeout: Duration::from_secs(2),
        request_timeout: SOON,
        answer_timeout: SOON,
        max_connections: 64,
        max_concurrency: 64,
        max_per_node: 16,
        per_key_per_second: 10_000,
        per_key_burst: 10_000,
    }
}

impl Api {
    pub async fn new() -> Self {
        Self::with(config(), true).await
    }

    /// With a feed that is followed, or with one that nobody hears of.
    pub async fn with(config: HttpSection, follows: bool) -> Self {
        let folder = TempDir::new().expect("a folder");
        let opened = SqliteStore::open(&folder.path().join("db"), SqliteOptions::default()).await;
        let api = Self::on(Arc::new(opened.expect("a store")), folder, config).await;
        if follows {
            let directory = &api.state.directory;
            tokio::spawn(Arc::clone(directory.feed()).run(Arc::clone(&api.store), CancellationToken::new()));
            until(|| directory.is_fresh()).await;
        }
        api
    }

    /// On this store, with a feed that nobody hears of yet.
    pub async fn on(store: Arc<dyn Store>, folder: TempDir, config: HttpSection) -> Self {
        let clock: SharedClock = Arc::new(SystemClock);
        let parts = Parts::for_tests(Arc::clone(&store), Arc::clone(&clock));
        let shutdown = CancellationToken::new();
        let directory = Directory::start(Arc::clone(&parts), config.max_per_node, CancellationToken::new());
        let directory = directory.await.expect("a directory");
        let service = Service::new(Arc::clone(&parts), Arc::clone(&directory));
        let network = Network::Simnet;
        let webhook = None;
        let state = AppState { service, directory, store: Arc::clone(&store), clock, network, webhook };
        let dispatcher = Dispatcher::new(state.clone(), config, shutdown.clone());
        let router = router::router(Arc::new(dispatcher));
        Self { router, state, store, shutdown, _folder: folder }
    }

    /// Makes a key and returns it as its owner holds it.
    pub async fn key(&self, app: Option<&str>, scopes: &[Scope]) -> String {
        let key = ApiKey::generate("simnet", &mut rand::rng()).expect("a key");
        let record = ApiKeyRecord {
            id: key.id().clone(),
            app: app.map(|app| AppId::parse(app).expect("an app")),
            scopes: scopes.to_vec(),
            hash: key.hash(),
            note: String::new(),
            created_at: OffsetDateTime::UNIX_EPOCH,
            revoked_at: None,
        };
        self.put(&record).await;
        key.expose().to_owned()
    }

    /// A key of `shop` that may do all that an app may.
    pub async fn shop(&self) -> String {
        self.key(Some("shop"), &[Scope::Read, Scope::Invoice, Scope::Pay, Scope::Manage]).await
    }

    pub async fn put<T: Entity>(&self, value: &T) {
        self.store.commit(vec![repo::create(value).expect("encodes")]).await.expect("commits");
    }

    pub async fn change<T: Entity + Clone>(&self, id: &str, change: impl Fn(&mut T) + Send + Sync) {
        let changed = repo::modify::<T, crate::error::StoreError>(&*self.store, id, |value| {
            change(value);
            Ok(true)
        });
        changed.await.expect("commits").expect("exists");
    }

    /// A node of `app`, with what its host says of it.
    pub async fn node(&self, app: &str, uuid: &str, phase: Phase, runtime: Option<(Process, WalletState)>) -> NodeId {
        let id = NodeId::random(&mut rand::rng());
        let (app, uuid) = (AppId::parse(app).expect("an app"), Uuid::parse(uuid).expect("a uuid"));
        let at = OffsetDateTime::UNIX_EPOCH;
        self.put(&NodeName { app: app.clone(), uuid: uuid.clone(), node: id.clone() }).await;
        self.put(&Node {
            id: id.clone(),
            app,
            uuid,
            phase,
            create_operation: OperationId::random(at, &mut rand::rng()),
            placement: None,
            endpoint: None,
            secrets: None,
            wallet_may_exist: false,
            identity_pubkey: None,
            deposit_address: None,
            funding: Funding::None,
            lnd: None,
            created_at: at,
        })
        .await;
        if let Some((process, wallet)) = runtime {
            let (node, host) = (id.clone(), HostId::random(&mut rand::rng()));
            self.put(&Runtime { node, host, generation: 1, sequence: 1, process, wallet, starts: 1, at }).await;
        }
        id
    }

    pub async fn operation(&self, app: Option<&str>, state: State) -> OperationId {
        let at = OffsetDateTime::now_utc();
        let id = OperationId::random(at, &mut rand::rng());
        let owner = app
            .map(|app| Owner { app: AppId::parse(app).expect("an app"), uuid: Uuid::parse("alice").expect("a uuid") });
        self.put(&Operation {
            id: id.clone(),
            owner,
            node: None,
            host: None,
            work: Work::Delete(Delete { step: DeleteStep::Check }),
            state,
            progress: "looking".to_owned(),
            reservation: None,
            created_at: at,
            updated_at: at,
        })
        .await;
        id
    }

    pub async fn send(&self, request: Request<Body>) -> Answer {
        let answering = self.router.clone().oneshot(request);
        let response = tokio::time::timeout(SOON, answering).await.expect("in time").expect("infallible");
        let (parts, body) = response.into_parts();
        let bytes = tokio::time::timeout(SOON, to_bytes(body, usize::MAX)).await.expect("in time").expect("a body");
        Answer { status: parts.status, headers: parts.headers, bytes: bytes.to_vec() }
    }

    pub async fn get(&self, key: &str, path: &str) -> Answer {
        self.send(request("GET", key, path, None)).await
    }

    pub async fn post(&self, key: &str, path: &str, body: &Value) -> Answer {
        self.send(request("POST", key, path, Some(body))).await
    }
}

/// A request; `path` is below `/lnd/v1/` unless it begins with a slash.
pub(super) fn request(method: &str, key: &str, path: &str, body: Option<&Value>) -> Request<Body> {
    let uri = if path.starts_with('/') { path.to_owned() } else { format!("/lnd/v1/{path}") };
    let mut request = Request::builder().method(method).uri(uri);
    if !key.is_empty() {
        request = request.header(header::AUTHORIZATION, format!("Bearer {key}"));
    }
    match body {
        Some(body) => request.header(header::CONTENT_TYPE, "application/json").body(Body::from(body.to_string())),
        None => request.body(Body::empty()),
    }
    .expect("a request")
}

/// Waits until something that will be true soon is.
pub(super) async fn until(mut is_true: impl FnMut() -> bool) {
    let waiting = async {
        while !is_true() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, waiting).await.expect("it never became true");
}
