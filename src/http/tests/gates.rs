//! What a call must pass before its handler: key, scope, method, rate, content type, parameters.

use super::super::route::{Effect, Methods};
use super::super::router::routes;
use super::*;
use crate::error::StoreError;
use crate::model::app::Scope::{Invoice, Manage, Operator, Pay, Read};
use crate::store::{self, Cursor, Document, Expect, FeedItem, Key, Page, Query, Version, Write};
use futures::stream::BoxStream;
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

fn concrete(path: &str) -> String {
    path.replace("{id}", "op00000000000000000000000000000000")
}

#[tokio::test]
async fn without_a_key_only_health_and_the_description_answer() {
    let api = Api::new().await;
    for path in ["/healthz", "/readyz", "/lnd/v1/openapi.json", "/lnd/v1/docs"] {
        assert_eq!(api.get("", path).await.status, StatusCode::OK, "{path}");
    }
    let mut bodies = BTreeSet::new();
    let strange = ["/", "/lnd/v1/", "/lnd/v1/nothing", "/lnd/v1/operations/x/y/z", "/metrics"].map(str::to_owned);
    for path in routes().iter().map(|route| concrete(route.path)).chain(strange) {
        for method in ["GET", "POST", "HEAD", "DELETE"] {
            let answer = api.send(request(method, "", &path, None)).await;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{method} {path}");
            assert!(answer.headers.contains_key(header::WWW_AUTHENTICATE));
            if method != "HEAD" {
                bodies.insert(answer.bytes);
            }
        }
    }
    assert_eq!(bodies.len(), 1, "all the same");
}

#[tokio::test]
async fn only_the_key_itself_opens() {
    let api = Api::new().await;
    let good = api.shop().await;
    assert_eq!(api.get(&good, "nodes").await.status, StatusCode::OK);
    let other_secret = format!("{}{}", &good[..good.len() - 4], "0000");
    let never_made = ApiKey::generate("simnet", &mut rand::rng()).expect("a key").expose().to_owned();
    let elsewhere = good.replace("simnet", "mainnet");
    for bad in [other_secret, never_made, elsewhere, good.to_uppercase(), "slnd_".into(), "x".repeat(10_000)] {
        assert_eq!(api.get(&bad, "nodes").await.refusal(), (401, "unauthorized".into()));
    }
    let mut twice = request("GET", &good, "nodes", None);
    twice.headers_mut().append(header::AUTHORIZATION, format!("Bearer {good}").parse().expect("a value"));
    assert_eq!(api.send(twice).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_revoked_key_is_noticed_without_asking_the_store() {
    let api = Api::new().await;
    let key = api.shop().await;
    assert_eq!(api.get(&key, "nodes").await.status, StatusCode::OK);
    let id = key.parse::<ApiKey>().expect("a key").id().clone();
    api.change::<ApiKeyRecord>(id.as_str(), |key| key.revoked_at = Some(OffsetDateTime::now_utc())).await;
    let noticed = async { while api.get(&key, "nodes").await.status != StatusCode::UNAUTHORIZED {} };
    tokio::time::timeout(Duration::from_secs(5), noticed).await.expect("within 5 s");
}

#[tokio::test]
async fn a_record_that_cannot_be_read_opens_nothing_and_hides_no_revocation() {
    let api = Api::with(config(), false).await;
    let (key, broken) = (api.shop().await, api.shop().await);
    let id = |key: &str| key.parse::<ApiKey>().expect("a key").id().as_str().to_owned();
    let found = repo::get::<ApiKeyRecord>(&*api.store, &id(&broken)).await.expect("a store").expect("a key");
    let put = Write::Put {
        key: repo::key::<ApiKeyRecord>(id(&broken)),
        expect: Expect::Version(found.version),
        body: json!({ "schema": 1, "scopes": "none that is known" }),
        index: Vec::new(),
    };
    api.store.commit(vec![put]).await.expect("commits");
    // The feed begins with a resync: all keys are read, the broken one among them.
    let (directory, store) = (Arc::clone(&api.state.directory), Arc::clone(&api.store));
    tokio::spawn(Arc::clone(directory.feed()).run(store, CancellationToken::new()));
    until(|| directory.is_fresh()).await;
    assert_eq!(api.get(&key, "nodes").await.status, StatusCode::OK);
    assert_eq!(api.get(&broken, "nodes").await.refusal(), (401, "unauthorized".into()));
    api.change::<ApiKeyRecord>(&id(&key), |key| key.revoked_at = Some(OffsetDateTime::now_utc())).await;
    let noticed = async { while api.get(&key, "nodes").await.status != StatusCode::UNAUTHORIZED {} };
    tokio::time::timeout(Duration::from_secs(5), noticed).await.expect("within 5 s");
}

/// A Store that tells of changes and lists nothing as long as it is told so.
#[derive(Debug)]
struct NoLists(Arc<dyn Store>, AtomicBool);

#[async_trait::async_trait]
impl Store for NoLists {
    async fn get(&self, key: &Key) -> store::Result<Option<Document>> {
        self.0.get(key).await
    }
    async fn commit(&self, writes: Vec<Write>) -> store::Result<Vec<Version>> {
        self.0.commit(writes).await
    }
    async fn list(&self, query: &Query) -> store::Result<Page> {
        if self.1.load(Ordering::Relaxed) {
            return Err(StoreError::Unavailable("for this test".to_owned()));
        }
        self.0.list(query).await
    }
    async fn changes(&self, cursor: Option<Cursor>) -> store::Result<BoxStream<'static, store::Result<FeedItem>>> {
        self.0.changes(cursor).await
    }
}

#[tokio::test]
async fn a_master_that_hears_of_changes_but_cannot_apply_them_moves_no_money() {
    let folder = TempDir::new().expect("a folder");
    let sqlite = SqliteStore::open(&folder.path().join("db"), SqliteOptions::default()).await.expect("a store");
    let store = Arc::new(NoLists(Arc::new(sqlite), AtomicBool::new(false)));
    let api = Api::on(store.clone(), folder, config()).await;
    let key = api.shop().await;
    store.1.store(true, Ordering::Relaxed);
    let directory = Arc::clone(&api.state.directory);
    tokio::spawn(Arc::clone(directory.feed()).run(store.clone(), CancellationToken::new()));
    until(|| directory.feed().is_fresh()).await;
    // What must be read again after the resync cannot be.
    let refused = api.post(&key, "create", &json!({ "uuid": "alice", "wait": 0 })).await;
    assert_eq!(refused.refusal(), (503, "not_ready".into()));
    assert_eq!(api.get("", "/readyz").await.status, StatusCode::SERVICE_UNAVAILABLE);
    store.1.store(false, Ordering::Relaxed);
    until(|| directory.is_fresh()).await;
    let accepted = api.post(&key, "create", &json!({ "uuid": "alice", "wait": 0 })).await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn every_route_wants_its_scope() {
    let api = Api::new().await;
    for scope in [Read, Invoice, Pay, Manage, Operator] {
        let key = api.key((scope != Operator).then_some("shop"), &[scope]).await;
        for route in routes() {
            let method = if route.takes_post() { "POST" } else { "GET" };
            let answer = api.send(request(method, &key, &concrete(route.path), Some(&json!({})))).await;
            let expected = route.scopes.contains(&scope);
            let is_refused = answer.status == StatusCode::FORBIDDEN;
            assert_ne!(is_refused, expected, "{scope:?} {} {}", route.path, answer.status);
        }
    }
}

#[tokio::test]
async fn methods_are_those_of_the_route_and_head_never_acts() {
    let api = Api::new().await;
    let app = api.shop().await;
    let operator = api.key(None, &[Operator]).await;
    for route in routes() {
        let path = concrete(route.path);
        let key = if route.scopes == [Operator] { &operator } else { &app };
        for (method, fits) in [
            ("GET", route.methods != Methods::Post),
            ("POST", route.methods != Methods::Get),
            ("HEAD", route.methods != Methods::Post && route.effect == Effect::Looks),
            ("PUT", false),
            ("DELETE", false),
            ("OPTIONS", false),
        ] {
            let answer = api.send(request(method, key, &path, None)).await;
            let is_refused = answer.status == StatusCode::METHOD_NOT_ALLOWED;
            assert_ne!(is_refused, fits, "{method} {path}: {}", answer.status);
            assert_eq!(answer.headers.contains_key(header::ALLOW), is_refused, "{method} {path}");
        }
    }
    assert_eq!(api.send(request("HEAD", &app, "create?uuid=a", None)).await.headers[header::ALLOW], "GET, POST");
    assert_eq!(api.get(&app, "withdraw").await.refusal(), (405, "method_not_allowed".into()));
    assert_eq!(api.get(&app, "nothing").await.refusal(), (404, "not_found".into()));
}

#[tokio::test]
async fn changing_gets_can_be_switched_off() {
    let api = Api::with(HttpSection { changing_gets: false, ..config() }, true).await;
    let key = api.shop().await;
    for route in routes().iter().filter(|route| !route.scopes.contains(&Operator)) {
        let answer = api.get(&key, &concrete(route.path)).await;
        let is_refused = answer.status == StatusCode::METHOD_NOT_ALLOWED;
        assert_eq!(is_refused, route.methods == Methods::Post || route.effect != Effect::Looks, "{}", route.path);
    }
}

#[tokio::test]
async fn every_route_names_what_it_misses_and_what_it_does_not_know() {
    let api = Api::new().await;
    let key = api.shop().await;
    for route in routes().iter().filter(|route| route.scopes != [Operator] && route.path_parameter().is_none()) {
        let required: Vec<_> = route.params.iter().filter(|p| p.required).map(|p| p.name.to_owned()).collect();
        let expected: Vec<_> = required.iter().cloned().chain(["bogus".to_owned()]).collect();
        let answer = api.post(&key, route.path, &json!({"bogus": 1})).await;
        assert_eq!(answer.refusal(), (400, "invalid_parameters".into()), "{}", route.path);
        assert_eq!(answer.faults(), expected, "{}", route.path);
        if route.takes_get(true) {
            let answer = api.get(&key, &format!("{}?bogus=1", route.path)).await;
            assert_eq!(answer.faults(), expected, "{}", route.path);
        }
    }
}

#[tokio::test]
async fn a_post_is_json_and_says_so() {
    let api = Api::new().await;
    let key = api.shop().await;
    let with_type = |content_type: Option<&str>, body: &'static str| {
        let mut request = request("POST", &key, "getinfo", None);
        if let Some(value) = content_type {
            request.headers_mut().insert(header::CONTENT_TYPE, value.parse().expect("a value"));
        }
        *request.body_mut() = Body::from(body);
        request
    };
    let unknown = (404, "user_not_found".to_owned());
    for good in ["application/json", "Application/JSON; charset=UTF-8", "application/json;charset=\"utf-8\""] {
        assert_eq!(api.send(with_type(Some(good), r#"{"uuid":"a"}"#)).await.refusal(), unknown, "{good}");
    }
    for bad in
        [None, Some("text/plain"), Some("application/x-www-form-urlencoded"), Some("application/json; charset=latin1")]
    {
        let answer = api.send(with_type(bad, r#"{"uuid":"a"}"#)).await;
        assert_eq!(answer.refusal(), (415, "unsupported_media_type".into()), "{bad:?}");
    }
    let malformed = (400, "malformed_body".to_owned());
    for bad in ["{", "[]", "uuid=a", "{\"uuid\":\"a\"}{}"] {
        assert_eq!(api.send(with_type(Some("application/json"), bad)).await.refusal(), malformed, "{bad}");
    }
    let in_query = api.post(&key, "getinfo?uuid=a&x=1", &json!({"uuid": "a"})).await;
    assert_eq!((in_query.refusal().0, in_query.faults()), (400, vec!["uuid".into(), "x".into()]));
}

#[tokio::test]
async fn bodies_have_a_limit_whether_or_not_they_tell_their_length() {
    let api = Api::new().await;
    let key = api.shop().await;
    let large = json!({"uuid": "x".repeat(5000)});
    let refused = api.post(&key, "getinfo", &large).await;
    assert_eq!(refused.refusal(), (413, "body_too_large".into()));
    assert_eq!(refused.headers[header::CONNECTION], "close", "what was not read would be taken for the next request");
    let mut refused_unread = request("POST", "", "getinfo", Some(&large));
    refused_unread.headers_mut().insert(header::CONTENT_LENGTH, http::HeaderValue::from(5012));
    assert_eq!(api.send(refused_unread).await.headers[header::CONNECTION], "close");
    let mut chunked = request("POST", &key, "getinfo", Some(&json!({})));
    let chunks = futures::stream::iter((0..100).map(|_| Ok::<_, std::io::Error>("x".repeat(100))));
    *chunked.body_mut() = Body::from_stream(chunks);
    assert_eq!(api.send(chunked).await.refusal(), (413, "body_too_large".into()));
}

#[tokio::test]
async fn a_key_that_asks_too_often_is_told_when_to_come_back() {
    let api = Api::with(HttpSection { per_key_per_second: 1, per_key_burst: 3, ..config() }, true).await;
    let (greedy, modest) = (api.shop().await, api.shop().await);
    for _ in 0..3 {
        assert_eq!(api.get(&greedy, "nodes").await.status, StatusCode::OK);
    }
    let refused = api.get(&greedy, "nodes").await;
    assert_eq!(refused.refusal(), (429, "rate_limited".into()));
    assert!(refused.headers.contains_key(header::RETRY_AFTER));
    assert_eq!(api.get(&modest, "nodes").await.status, StatusCode::OK, "each key has its own");
}

#[tokio::test]
async fn a_master_that_hears_nothing_refuses_to_change_anything() {
    let api = Api::with(config(), false).await;
    let key = api.shop().await;
    assert_eq!(api.get(&key, "nodes").await.status, StatusCode::OK, "reading still works: the store answers");
    for (path, body) in [("create", json!({"uuid": "a"})), ("newaddress", json!({"uuid": "a"}))] {
        let answer = api.post(&key, path, &body).await;
        assert_eq!(answer.refusal(), (503, "not_ready".into()), "{path}");
        assert!(answer.headers.contains_key(header::RETRY_AFTER));
    }
    assert_eq!(api.get("", "/readyz").await.refusal(), (503, "not_ready".into()));
    assert_eq!(api.get("", "/healthz").await.status, StatusCode::OK);
}

#[tokio::test]
async fn an_idempotency_key_has_a_form() {
    let api = Api::new().await;
    let key = api.shop().await;
    let long = "x".repeat(256);
    for bad in ["", "\"\"", long.as_str()] {
        let mut request = request("POST", &key, "newaddress", Some(&json!({"uuid": "a"})));
        request.headers_mut().insert("idempotency-key", bad.parse().expect("a value"));
        assert_eq!(api.send(request).await.faults(), ["Idempotency-Key"], "{bad}");
    }
}
