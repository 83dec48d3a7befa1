//! The server on a real socket: TLS, slow clients, panics, an orderly end.

use super::super::dispatch::{Dispatcher, Target};
use super::super::params::params;
use super::super::route::{Answer as Answers, Effect, Methods, Route};
use super::super::{BoundServer, ServeError};
use super::*;
use crate::model::app::Scope::Read;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;

params! {
    /// None.
    pub struct Nothing {}
}

#[tokio::test]
async fn a_panic_is_a_problem_and_not_the_end() {
    let api = Api::new().await;
    let key = api.shop().await;
    let scopes: &'static [Scope] = &[Read];
    let route = Route::new("boom", Methods::Get, Effect::Looks, scopes, Answers::Own("Node"), |_, _: Nothing| async {
        panic!("on purpose");
    });
    let dispatcher = Dispatcher::new(api.state.clone(), config(), CancellationToken::new());
    let target = Target::Route(Arc::new(route), None);
    for _ in 0..2 {
        let response = dispatcher.handle(target.clone(), request("GET", &key, "boom", None)).await;
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let body = to_bytes(response.into_body(), usize::MAX).await.expect("a body");
        assert!(!String::from_utf8_lossy(&body).contains("purpose"));
    }
}

#[tokio::test]
async fn a_call_that_takes_too_long_is_ended_and_too_many_are_refused() {
    let api = Api::new().await;
    let key = api.shop().await;
    let scopes: &'static [Scope] = &[Read];
    let route = Route::new("slow", Methods::Get, Effect::Looks, scopes, Answers::Own("Node"), |_, _: Nothing| {
        std::future::pending()
    });
    let tight = HttpSection { request_timeout: Duration::from_millis(200), max_concurrency: 1, ..config() };
    let dispatcher = Dispatcher::new(api.state.clone(), tight, CancellationToken::new());
    let target = Target::Route(Arc::new(route), None);
    let call = || dispatcher.handle(target.clone(), request("GET", &key, "slow", None));
    let (first, second) = tokio::join!(call(), call());
    let code = async |response: axum::response::Response| {
        let body = to_bytes(response.into_body(), usize::MAX).await.expect("a body");
        serde_json::from_slice::<Value>(&body).expect("JSON")["code"].as_str().map(str::to_owned)
    };
    let mut codes = [code(first).await, code(second).await];
    codes.sort();
    assert_eq!(codes, [Some("overloaded".into()), Some("timeout".into())]);
}

#[tokio::test]
async fn one_app_cannot_take_all_the_places() {
    let api = Api::new().await;
    let (greedy, other) = (api.shop().await, api.key(Some("other"), &[Read]).await);
    let greedy_too = api.shop().await;
    let scopes: &'static [Scope] = &[Read];
    for effect in [Effect::Looks, Effect::Operates] {
        let route = Route::new("slow", Methods::Get, effect, scopes, Answers::Own("Node"), |_, _: Nothing| {
            std::future::pending()
        });
        let dispatcher = Arc::new(Dispatcher::new(
            api.state.clone(),
            HttpSection { max_concurrency: 4, ..config() },
            CancellationToken::new(),
        ));
        let target = Target::Route(Arc::new(route), None);
        let call = |key: &str| {
            let (dispatcher, target, request) =
                (Arc::clone(&dispatcher), target.clone(), request("GET", key, "slow", None));
            async move { dispatcher.handle(target, request).await }
        };
        // Its share of either kind; another key of the same app has no other.
        let share = if effect == Effect::Looks { 2 } else { 4 };
        let mut held: Vec<_> = (0..share).map(|_| Box::pin(call(&greedy))).collect();
        for held in &mut held {
            assert!(tokio::time::timeout(Duration::from_millis(20), held).await.is_err(), "it has a place and waits");
        }
        for key in [&greedy, &greedy_too] {
            assert_eq!(call(key).await.status(), StatusCode::TOO_MANY_REQUESTS);
        }
        let mut others = Box::pin(call(&other));
        assert!(tokio::time::timeout(Duration::from_millis(20), &mut others).await.is_err(), "others have theirs");
        drop(held);
        let mut again = Box::pin(call(&greedy));
        assert!(tokio::time::timeout(Duration::from_millis(20), &mut again).await.is_err(), "a place given back");
    }
}

#[tokio::test]
async fn an_answer_keeps_its_place_until_its_last_byte_is_gone() {
    let api = Api::new().await;
    let key = api.shop().await;
    let scopes: &'static [Scope] = &[Read];
    let tight = HttpSection { max_concurrency: 1, ..config() };
    let dispatcher = Dispatcher::new(api.state.clone(), tight, CancellationToken::new());
    let route = |stream: bool| {
        let answer = move |_, _: Nothing| async move {
            let endless = || Body::from_stream(futures::stream::pending::<Result<Vec<u8>, std::io::Error>>());
            Ok(axum::response::Response::new(if stream { endless() } else { Body::from("an answer") }))
        };
        let route = Route::new("answer", Methods::Get, Effect::Looks, scopes, Answers::Own("Node"), answer);
        Target::Route(Arc::new(route), None)
    };
    let (whole, stream) = (route(false), route(true));
    let call = async |target: &Target| dispatcher.handle(target.clone(), request("GET", &key, "answer", None)).await;
    // Events have a place of another kind.
    let events = call(&stream).await;
    let first = call(&whole).await;
    assert_eq!((events.status(), first.status()), (StatusCode::OK, StatusCode::OK));
    assert_eq!(call(&whole).await.status(), StatusCode::SERVICE_UNAVAILABLE, "it was not sent yet");
    let bytes = to_bytes(first.into_body(), usize::MAX).await.expect("a body");
    assert_eq!(call(&whole).await.status(), StatusCode::SERVICE_UNAVAILABLE, "its bytes wait for the client");
    drop(bytes);
    let unread = call(&whole).await;
    assert_eq!(unread.status(), StatusCode::OK, "it was sent");
    drop(unread);
    assert_eq!(call(&whole).await.status(), StatusCode::OK, "its client has gone");
}

async fn serve(api: &Api, config: HttpSection) -> (BoundUrl, tokio::task::JoinHandle<Result<(), ServeError>>) {
    let server = BoundServer::bind(config).expect("binds");
    let bound = BoundUrl { url: server.url(), address: server.address() };
    let close = api.shutdown.clone();
    let running = tokio::spawn(server.run(api.state.clone(), api.shutdown.clone(), close));
    (bound, running)
}

struct BoundUrl {
    url: String,
    address: std::net::SocketAddr,
}

#[tokio::test]
async fn listening_in_the_open_needs_a_certificate() {
    let open = HttpSection { listen: ([0, 0, 0, 0], 0).into(), ..config() };
    assert!(matches!(BoundServer::bind(open.clone()), Err(ServeError::Plain(_))));
    assert!(BoundServer::bind(HttpSection { allow_plain_http: true, ..open }).is_ok());
}

#[tokio::test]
async fn https_with_a_certificate() {
    let api = Api::new().await;
    let made =
        rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).expect("a certificate");
    let folder = TempDir::new().expect("a folder");
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).expect("written");
    std::fs::write(&key, made.signing_key.serialize_pem()).expect("written");
    let with_key = || HttpSection { tls_cert: Some(cert.clone()), tls_key: Some(key.clone()), ..config() };
    assert!(matches!(BoundServer::bind(with_key()), Err(ServeError::Certificate(..))), "everybody may read the key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).expect("set");
    let (bound, running) = serve(&api, with_key()).await;
    assert!(bound.url.starts_with("https://"));
    let _one_for_the_process = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let root = reqwest::Certificate::from_pem(made.cert.pem().as_bytes()).expect("a root");
    let client = reqwest::Client::builder().tls_certs_only([root]).timeout(SOON).build().expect("a client");
    let answer = client.get(format!("{}/healthz", bound.url)).send().await.expect("an answer");
    assert_eq!(answer.status(), 200);
    let plain = reqwest::get(format!("http://{}/healthz", bound.address)).await;
    assert!(plain.is_err(), "nothing is answered without TLS");
    api.shutdown.cancel();
    tokio::time::timeout(SOON, running).await.expect("ends").expect("no panic").expect("no error");
}

#[tokio::test]
async fn whoever_never_ends_their_headers_is_cut_off() {
    let api = Api::new().await;
    let (bound, _running) = serve(&api, HttpSection { header_timeout: Duration::from_secs(1), ..config() }).await;
    let ended = tokio::task::spawn_blocking(move || {
        let mut slow = TcpStream::connect(bound.address).expect("connects");
        slow.set_read_timeout(Some(SOON)).expect("set");
        slow.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: ").expect("sent");
        slow.read_to_end(&mut Vec::new())
    });
    let ended = tokio::time::timeout(SOON, ended).await.expect("in time").expect("no panic");
    assert!(ended.is_ok(), "the server closed the connection: {ended:?}");
}

#[tokio::test]
async fn an_http_2_client_that_opens_no_window_is_cut_off_and_its_place_is_free() {
    let api = Api::new().await;
    let key = api.shop().await;
    let tight = HttpSection { max_concurrency: 1, answer_timeout: Duration::from_secs(1), ..config() };
    let (bound, _running) = serve(&api, tight).await;
    let url = format!("{}/lnd/v1/operations", bound.url);
    let tcp = tokio::net::TcpStream::connect(bound.address).await.expect("connects");
    let (mut sender, connection) =
        h2::client::Builder::new().initial_window_size(0).handshake::<_, axum::body::Bytes>(tcp).await.expect("HTTP/2");
    let connection = tokio::spawn(connection);
    let request =
        Request::get(&url).header(header::AUTHORIZATION, format!("Bearer {key}")).body(()).expect("a request");
    let (answer, _) = sender.send_request(request, true).expect("sent");
    let answer = answer.await.expect("the answer's head needs no window");
    assert_eq!(answer.status(), 200);
    let _ended = tokio::time::timeout(SOON, connection).await.expect("it was cut off").expect("no panic");
    let _one_for_the_process = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let client = reqwest::Client::new();
    let called = async { while client.get(&url).bearer_auth(&key).send().await.expect("an answer").status() != 200 {} };
    tokio::time::timeout(SOON, called).await.expect("the only place is free again");
}

#[tokio::test]
async fn the_end_is_orderly() {
    let api = Api::new().await;
    let key = api.shop().await;
    let id = api.operation(Some("shop"), State::Running).await;
    let server = BoundServer::bind(config()).expect("binds");
    let bound = BoundUrl { url: server.url(), address: server.address() };
    let close = CancellationToken::new();
    let running = tokio::spawn(server.run(api.state.clone(), api.shutdown.clone(), close.clone()));
    let client = reqwest::Client::new();
    let mut stream = client
        .get(format!("{}/lnd/v1/operations/{id}", bound.url))
        .header("accept", "text/event-stream")
        .bearer_auth(&key)
        .send()
        .await
        .expect("a stream");
    assert!(stream.chunk().await.expect("an event").is_some());
    assert_eq!(reqwest::get(format!("{}/readyz", bound.url)).await.expect("an answer").status(), 200);
    api.shutdown.cancel();
    while stream.chunk().await.expect("an orderly end").is_some() {}
    // Balancers hear of it, and who asks what became of an operation is told.
    assert_eq!(reqwest::get(format!("{}/readyz", bound.url)).await.expect("an answer").status(), 503);
    let asked = client.get(format!("{}/lnd/v1/operations/{id}", bound.url)).bearer_auth(&key).send();
    assert_eq!(asked.await.expect("an answer").status(), 200);
    close.cancel();
    tokio::time::timeout(SOON, running)
        .await
        .expect("an open stream does not hold it up")
        .expect("no panic")
        .expect("no error");
    assert!(reqwest::get(format!("{}/healthz", bound.url)).await.is_err(), "nobody listens any more");
}
