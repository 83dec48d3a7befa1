//! GitHub's webhook, as far as nothing has to be found: signatures, forms, what is stored of a delivery, and how often.

use super::super::webhook::Webhook;
use super::*;
use crate::model::updates::{Delivery, Heard, Looked, Watched};
use axum::body::Bytes;
use futures::stream;
use hmac::{Hmac, KeyInit, Mac};
use rand::seq::SliceRandom;
use serde_json::json;
use sha2::Sha256;
use std::collections::BTreeSet;
use std::io;

const SECRET: &str = "It's a Secret to Everybody";
const COMMIT: &str = "6113728f27ae82c7b1a177c8d03f9e96e0adf246";

fn signature(secret: &str, body: &[u8]) -> String {
    let mut keyed = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("any length");
    keyed.update(body);
    format!("sha256={}", hex::encode(keyed.finalize().into_bytes()))
}

impl Api {
    /// Another master of the same deployment that takes webhooks.
    fn with_webhook(&self, secrets: &[&str]) -> Router {
        let secrets: Vec<secrecy::SecretString> = secrets.iter().map(|secret| (*secret).into()).collect();
        let watched = Watched { repository: "acme/fleet".to_owned(), branch: "main".to_owned() };
        let state = AppState { webhook: Some(Arc::new(Webhook::new(&secrets, watched))), ..self.state.clone() };
        router::router(Arc::new(Dispatcher::new(state, config(), self.shutdown.clone())))
    }

    async fn all<T: Entity>(&self) -> Vec<T> {
        repo::list_all::<T>(&*self.store, None).await.expect("a store").into_iter().map(|found| found.value).collect()
    }
}

/// A delivery; nothing of it is stored where it is not answered with 200 or 202.
async fn deliver(router: &Router, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
    let mut request = Request::builder().method("POST").uri("/lnd/v1/update");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = router.clone().oneshot(request.body(body.into()).expect("a request")).await.expect("infallible");
    let (parts, body) = response.into_parts();
    let bytes = to_bytes(body, usize::MAX).await.expect("a body");
    Answer { status: parts.status, headers: parts.headers, bytes: bytes.to_vec() }
}

fn push(commit: &str) -> Vec<u8> {
    json!({ "ref": "refs/heads/main", "after": commit, "repository": { "full_name": "acme/fleet" } })
        .to_string()
        .into_bytes()
}

async fn deliver_push(router: &Router, id: &str, commit: &str, secret: &str) -> Answer {
    let body = push(commit);
    let (signature, length) = (signature(secret, &body), body.len().to_string());
    let headers = [
        ("content-length", length.as_str()),
        ("content-type", "application/json"),
        ("x-github-event", "push"),
        ("x-github-delivery", id),
        ("x-hub-signature-256", &signature),
    ];
    deliver(router, &headers, body).await
}

/// Signed by others: GitHub's documentation, and the test suite and documentation of Octokit (webhooks-methods).
#[tokio::test]
async fn signatures_of_others_are_verified() {
    let api = Api::new().await;
    let hearts = "{\n  \"foo\": \"Foo\\n\\u001B[34mbar: ♥♥♥♥♥♥♥♥\\nthis-is-lost\\u001B[0m\\u001B[2K\"\n}\n";
    let vectors = [
        (SECRET, "Hello, World!", "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"),
        ("mysecret", "{\"foo\":\"bar\"}", "4864d2759938a15468b5df9ade20bf161da9b4f737ea61794142f3484236bda3"),
        ("mysecret", "{\n  \"foo\": \"bar\"\n}\n", "e3eccac34c43c7dc1cbb905488b1b81347fcc700a7b025697a9d07862256023f"),
        ("development", hearts, "9dacf9003316b09be07df56d86a2d0d6872e42a1e6c72c3bad9ff915a7c5603e"),
        (
            "development",
            "{\n  \"foo\": \"\\\\u001b\"\n}\n",
            "87316067e2011fae39998b18c46a14d83b3e7c3ffdd88fb2ee5afb7d11288e60",
        ),
    ];
    for (secret, body, digest) in vectors {
        let router = api.with_webhook(&["another", secret]);
        let sent = |body: String, digest: String| {
            let router = router.clone();
            async move {
                let signature = format!("sha256={digest}");
                let headers = [("content-type", "application/json"), ("x-hub-signature-256", signature.as_str())];
                deliver(&router, &headers, body).await.refusal()
            }
        };
        // Past the signature, the names are missing.
        let right = sent(body.to_owned(), digest.to_owned()).await;
        assert_eq!(right, (400, "invalid_parameters".into()), "{body:?}");
        let wrong = (401, "webhook_signature_wrong".into());
        assert_eq!(sent(format!("{body} "), digest.to_owned()).await, wrong);
        assert_eq!(sent(body.to_owned(), format!("0{}", &digest[1..]).replace("00", "01")).await, wrong);
    }
    assert!(api.all::<Delivery>().await.is_empty());
}

#[tokio::test]
async fn what_is_not_signed_is_not_looked_at() {
    let api = Api::new().await;
    let router = api.with_webhook(&[SECRET]);
    let body = push(COMMIT);
    let good = signature(SECRET, &body);
    let sha1 = good.replace("sha256=", "sha1=");
    for headers in [
        vec![],
        vec![("x-hub-signature", good.as_str())],
        vec![("x-hub-signature-256", sha1.as_str())],
        vec![("x-hub-signature-256", &good[..70])],
        vec![("x-hub-signature-256", "sha256=")],
        vec![("x-hub-signature-256", good.as_str()), ("x-hub-signature-256", good.as_str())],
    ] {
        let answer = deliver(&router, &headers, body.clone()).await;
        assert_eq!(answer.refusal(), (401, "webhook_unsigned".into()), "{headers:?}");
    }
    // Nor is a key of the API a signature, or a signature a key.
    let operator = api.key(None, &[Scope::Operator]).await;
    let bearer = format!("Bearer {operator}");
    let answer = deliver(&router, &[("authorization", &bearer)], body).await;
    assert_eq!(answer.refusal(), (401, "webhook_unsigned".into()));
    assert_eq!(deliver_push(&router, "d1", COMMIT, "It's a Secret to everybody").await.refusal().0, 401);
    assert!(api.all::<Delivery>().await.is_empty() && api.all::<Operation>().await.is_empty());
}

#[tokio::test]
async fn without_a_webhook_there_is_none() {
    let api = Api::new().await;
    assert_eq!(deliver_push(&api.router, "d1", COMMIT, SECRET).await.refusal(), (404, "not_found".into()));
    let operator = api.key(None, &[Scope::Operator]).await;
    assert_eq!(api.post(&operator, "update", &json!({})).await.refusal().0, 405);
    let shop = api.shop().await;
    assert_eq!(api.get(&shop, "update").await.refusal(), (403, "forbidden".into()));
}

#[tokio::test]
async fn a_secret_is_changed_while_deliveries_come() {
    let api = Api::new().await;
    let router = api.with_webhook(&["new", "old"]);
    for (id, secret, status) in [("d1", "old", 202), ("d2", "new", 202), ("d3", "older", 401)] {
        assert_eq!(deliver_push(&router, id, COMMIT, secret).await.status.as_u16(), status);
    }
}

#[tokio::test]
async fn bodies_of_every_wrong_kind_have_their_own_codes() {
    let api = Api::new().await;
    let router = api.with_webhook(&[SECRET]);
    let send = |kind: &'static str, body: &'static str| {
        let (router, signature) = (router.clone(), signature(SECRET, body.as_bytes()));
        async move {
            let headers = [
                ("content-type", kind),
                ("x-github-event", "push"),
                ("x-github-delivery", "d1"),
                ("x-hub-signature-256", &signature),
            ];
            deliver(&router, &headers, body).await
        }
    };
    let code = |answer: &Answer| answer.refusal();
    assert_eq!(code(&send("text/plain", "{}").await), (415, "unsupported_media_type".into()));
    assert_eq!(code(&send("application/json", "{").await), (400, "malformed_body".into()));
    assert_eq!(code(&send("application/x-www-form-urlencoded", "a=b").await), (400, "malformed_body".into()));

    let unnamed = signature(SECRET, b"{}");
    let mut headers = vec![("content-type", "application/json"), ("x-hub-signature-256", unnamed.as_str())];
    let answer = deliver(&router, &headers, "{}").await;
    assert_eq!(answer.faults(), ["X-GitHub-Delivery", "X-GitHub-Event"]);
    headers.extend([("x-github-delivery", "../x"), ("x-github-event", "a b")]);
    assert_eq!(deliver(&router, &headers, "{}").await.faults(), ["X-GitHub-Delivery", "X-GitHub-Event"]);

    // Too large by what it tells of itself, and by what comes.
    let told = [("content-length", "26214401"), headers[0], headers[1]];
    let answer = deliver(&router, &told, "{}").await;
    assert_eq!(code(&answer), (413, "body_too_large".into()));
    assert_eq!(answer.headers[header::CONNECTION], "close");
    let piece = Bytes::from(vec![b'x'; 1 << 20]);
    let endless = stream::repeat_with(move || Ok::<_, io::Error>(piece.clone()));
    let answer = deliver(&router, &headers[..2], Body::from_stream(endless)).await;
    assert_eq!(code(&answer), (413, "body_too_large".into()));
    let broken = stream::iter([Ok("{"), Err(io::Error::other("gone"))]);
    let answer = deliver(&router, &headers[..2], Body::from_stream(broken)).await;
    assert_eq!(code(&answer), (400, "malformed_body".into()));
    assert!(api.all::<Delivery>().await.is_empty() && api.all::<Operation>().await.is_empty());
}

#[tokio::test]
async fn a_form_is_as_good_as_json() {
    let api = Api::new().await;
    let router = api.with_webhook(&[SECRET]);
    let payload = String::from_utf8(push(COMMIT)).expect("text");
    let body = form_urlencoded::Serializer::new(String::new()).append_pair("payload", &payload).finish();
    let signature = signature(SECRET, body.as_bytes());
    let headers = [
        ("content-type", "application/x-www-form-urlencoded"),
        ("x-github-event", "push"),
        ("x-github-delivery", "d1"),
        ("x-hub-signature-256", &signature),
    ];
    let answer = deliver(&router, &headers, body).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    let operation = answer.json();
    let location = format!("/lnd/v1/operations/{}", operation["id"].as_str().expect("an id"));
    assert_eq!((operation["kind"].as_str(), operation["state"].as_str()), (Some("update"), Some("running")));
    assert_eq!(answer.headers[header::LOCATION], location);
    let operator = api.key(None, &[Scope::Operator]).await;
    assert_eq!(api.get(&operator, &location).await.json()["id"], operation["id"]);
}

#[tokio::test]
async fn what_says_nothing_is_stored_too_and_says_why() {
    let api = Api::new().await;
    let router = api.with_webhook(&[SECRET]);
    let send = |id: &'static str, event: &'static str, body: Value| {
        let body = body.to_string();
        let (router, signature) = (router.clone(), signature(SECRET, body.as_bytes()));
        async move {
            let headers = [
                ("content-type", "application/json"),
                ("x-github-event", event),
                ("x-github-delivery", id),
                ("x-hub-signature-256", &signature),
            ];
            let answer = deliver(&router, &headers, body).await;
            (answer.status.as_u16(), answer.json()["ignored"].as_str().unwrap_or_default().to_owned())
        }
    };
    let repository =
        |name: &str| json!({ "ref": "refs/heads/main", "after": COMMIT, "repository": { "full_name": name } });
    assert_eq!(send("d1", "ping", json!({ "zen": "x" })).await, (200, "ping".into()));
    assert_eq!(send("d2", "issues", json!({})).await, (202, "other_event".into()));
    assert_eq!(send("d3", "push", repository("acme/other")).await, (202, "other_repository".into()));
    let mut branch = repository("acme/fleet");
    branch["ref"] = json!("refs/heads/next");
    assert_eq!(send("d4", "push", branch).await, (202, "other_branch".into()));
    let operator = api.key(None, &[Scope::Operator]).await;
    let told = api.get(&operator, "update").await.json();
    assert_eq!(told["wanted"], Value::Null);
    let ids: BTreeSet<&str> =
        told["deliveries"].as_array().expect("a list").iter().map(|d| d["id"].as_str().expect("an id")).collect();
    assert_eq!(ids, BTreeSet::from(["d1", "d2", "d3", "d4"]));
    assert!(api.all::<Operation>().await.is_empty());
}

#[tokio::test]
async fn a_redelivery_does_nothing_unless_the_first_has_failed() {
    let api = Api::new().await;
    let router = api.with_webhook(&[SECRET]);
    let operation = |answer: Answer| answer.json()["id"].as_str().expect("an id").to_owned();
    let first = operation(deliver_push(&router, "d1", COMMIT, SECRET).await);
    assert_eq!(operation(deliver_push(&router, "d1", COMMIT, SECRET).await), first);
    assert_eq!(operation(deliver_push(&router, "d2", COMMIT, SECRET).await), first, "one place, one look");
    api.change::<Operation>(&first, |o| o.state = State::Succeeded { result: json!({}) }).await;
    assert_eq!(operation(deliver_push(&router, "d1", COMMIT, SECRET).await), first);
    assert_eq!(operation(deliver_push(&router, "d3", COMMIT, SECRET).await), first);
    let failed = crate::model::problem::Refusal::new(crate::model::problem::Code::ReleaseMalformed, "x");
    api.change::<Operation>(&first, |o| o.state = State::Failed { error: failed.clone() }).await;
    let second = operation(deliver_push(&router, "d1", COMMIT, SECRET).await);
    assert_ne!(second, first);
    assert_eq!(operation(deliver_push(&router, "d2", COMMIT, SECRET).await), second);
    let deliveries = api.all::<Delivery>().await;
    let points_to = |id: &str| deliveries.iter().find(|d| d.id.as_str() == id).map(|d| d.heard.clone());
    assert!(matches!(points_to("d1"), Some(Heard::Hint { operation, .. }) if operation.as_str() == second));
    assert!(matches!(points_to("d3"), Some(Heard::Hint { operation, .. }) if operation.as_str() == first));
}

/// A thousand deliveries of three commits, shuffled, a half of them forged and the others sent twice, at two masters at once.
#[tokio::test]
async fn a_storm_of_deliveries_is_three_looks() {
    const DELIVERIES: usize = 250;
    let api = Api::new().await;
    let masters = [api.with_webhook(&[SECRET]), api.with_webhook(&[SECRET])];
    let mut storm: Vec<(usize, bool)> = (0..DELIVERIES).flat_map(|id| [(id, true); 2]).collect();
    storm.extend((0..DELIVERIES * 2).map(|id| (id, false)));
    storm.shuffle(&mut rand::rng());
    let commit = |id: usize| format!("{:040x}", id % 3 + 1);
    let send = |(number, (id, is_true)): (usize, (usize, bool))| {
        let (master, commit) = (masters[number % 2].clone(), commit(id));
        async move {
            let secret = if is_true { SECRET } else { "forged" };
            let answer = deliver_push(&master, &format!("{is_true}-{id}"), &commit, secret).await;
            assert_eq!(answer.status.as_u16(), if is_true { 202 } else { 401 });
        }
    };
    let all =
        futures::StreamExt::for_each_concurrent(stream::iter(storm.into_iter().enumerate().map(send)), 32, |sent| sent);
    tokio::time::timeout(Duration::from_secs(120), all).await.expect("in time");
    let deliveries = api.all::<Delivery>().await;
    assert_eq!(deliveries.len(), DELIVERIES);
    assert!(deliveries.iter().all(|delivery| delivery.id.as_str().starts_with("true-")));
    let operations: BTreeSet<String> = api.all::<Operation>().await.iter().map(|o| o.id.to_string()).collect();
    let looked: BTreeSet<String> = api.all::<Looked>().await.iter().map(|l| l.operation.to_string()).collect();
    assert_eq!((operations.len(), &operations), (3, &looked));
    for delivery in deliveries {
        assert!(matches!(delivery.heard, Heard::Hint { operation, .. } if operations.contains(operation.as_str())));
    }
}
