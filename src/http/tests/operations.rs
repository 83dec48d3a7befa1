//! Operations: who sees them, how they are told, and the stream of their changes.

use super::*;
use crate::model::app::Scope::{Operator, Read};
use crate::model::problem::{Code, Refusal};
use axum::body::BodyDataStream;
use futures::StreamExt;
use serde_json::json;

fn failed() -> State {
    State::Failed { error: Refusal::new(Code::NoRoute, "no way there").with("needed_sat", 5) }
}

fn parked() -> State {
    State::Parked { error: Refusal::new(Code::Internal, "somebody has to look") }
}

#[tokio::test]
async fn an_operation_is_told_whatever_became_of_it() {
    let api = Api::new().await;
    let key = api.shop().await;
    let succeeded = State::Succeeded { result: json!({"txid": "ab"}) };
    for (state, name) in
        [(State::Running, "running"), (succeeded, "succeeded"), (failed(), "failed"), (parked(), "parked")]
    {
        let id = api.operation(Some("shop"), state).await;
        let answer = api.get(&key, &format!("operations/{id}")).await;
        assert_eq!(answer.status, StatusCode::OK);
        let body = answer.json();
        assert_eq!((&body["id"], &body["state"], &body["uuid"]), (&json!(id.as_str()), &json!(name), &json!("alice")));
        assert_eq!(
            (&body["kind"], &body["step"], &body["progress"]),
            (&json!("delete"), &json!("check"), &json!("looking"))
        );
        assert_eq!(body["result"].is_null(), name != "succeeded");
        assert_eq!(body["error"].is_null(), !matches!(name, "failed" | "parked"));
    }
    let id = api.operation(Some("shop"), failed()).await;
    let error = &api.get(&key, &format!("operations/{id}")).await.json()["error"];
    assert_eq!(
        (&error["status"], &error["code"], &error["details"]["needed_sat"]),
        (&json!(409), &json!("no_route"), &json!(5))
    );
}

#[tokio::test]
async fn operations_are_seen_by_their_app_and_by_operators() {
    let api = Api::new().await;
    let (shop, rival) = (api.shop().await, api.key(Some("rival"), &[Read]).await);
    let operator = api.key(None, &[Operator]).await;
    let mine = api.operation(Some("shop"), State::Running).await;
    let treasurys = api.operation(None, State::Running).await;
    let unknown = OperationId::random(OffsetDateTime::UNIX_EPOCH, &mut rand::rng());
    let see = async |key: &str, id: &OperationId| api.get(key, &format!("operations/{id}")).await;
    assert_eq!(see(&shop, &mine).await.status, StatusCode::OK);
    assert_eq!(see(&operator, &mine).await.status, StatusCode::OK);
    assert_eq!(see(&operator, &treasurys).await.status, StatusCode::OK);
    let theirs = see(&rival, &mine).await;
    assert_eq!(theirs.refusal(), (404, "operation_not_found".into()));
    assert_eq!(theirs.bytes, see(&rival, &unknown).await.bytes);
    assert_eq!(see(&shop, &treasurys).await.bytes, theirs.bytes);
    assert_eq!(api.get(&shop, "operations/op1").await.faults(), ["id"]);
    let count = async |key: &str| api.get(key, "operations").await.json()["operations"].as_array().map(Vec::len);
    assert_eq!((count(&shop).await, count(&rival).await, count(&operator).await), (Some(1), Some(0), Some(2)));
}

#[tokio::test]
async fn only_an_operator_frees_a_parked_operation() {
    let api = Api::new().await;
    let (shop, operator) = (api.shop().await, api.key(None, &[Operator]).await);
    let id = api.operation(Some("shop"), parked()).await;
    let path = format!("operations/{id}/retry");
    assert_eq!(api.send(request("POST", &shop, &path, None)).await.refusal().0, 403);
    let freed = api.send(request("POST", &operator, &path, None)).await;
    assert_eq!((freed.status, &freed.json()["state"]), (StatusCode::OK, &json!("running")));
    assert_eq!(api.send(request("POST", &operator, &path, None)).await.refusal(), (409, "not_parked".into()));
}

/// One event of a stream: its id and its data.
async fn next(stream: &mut BodyDataStream, buffer: &mut String) -> Option<(String, Value)> {
    loop {
        if let Some((event, rest)) = buffer.split_once("\n\n").map(|(event, rest)| (event.to_owned(), rest.to_owned()))
        {
            *buffer = rest;
            let field =
                |name: &str| event.lines().find_map(|line| line.strip_prefix(name)).map(|v| v.trim().to_owned());
            let Some(data) = field("data:") else { continue };
            return Some((field("id:").expect("an id"), serde_json::from_str(&data).expect("JSON")));
        }
        let chunk = tokio::time::timeout(SOON, stream.next()).await.expect("in time")?;
        buffer.push_str(std::str::from_utf8(&chunk.expect("a chunk")).expect("text"));
    }
}

async fn open(api: &Api, key: &str, id: &OperationId, last: Option<&str>) -> (StatusCode, BodyDataStream) {
    let mut request = request("GET", key, &format!("operations/{id}"), None);
    request.headers_mut().insert(header::ACCEPT, "text/event-stream".parse().expect("a value"));
    if let Some(last) = last {
        request.headers_mut().insert("last-event-id", last.parse().expect("a value"));
    }
    let response = api.router.clone().oneshot(request).await.expect("infallible");
    (response.status(), response.into_body().into_data_stream())
}

#[tokio::test]
async fn a_stream_tells_every_change_and_ends_with_the_operation() {
    let api = Api::new().await;
    let key = api.shop().await;
    let id = api.operation(Some("shop"), State::Running).await;
    let (status, mut stream) = open(&api, &key, &id, None).await;
    assert_eq!(status, StatusCode::OK);
    let mut buffer = String::new();
    let (first, body) = next(&mut stream, &mut buffer).await.expect("the state now");
    assert_eq!(body["state"], "running");
    api.change::<Operation>(id.as_str(), |operation| operation.progress = "half way".into()).await;
    let (second, body) = next(&mut stream, &mut buffer).await.expect("a change");
    assert_eq!(body["progress"], "half way");
    assert_ne!(first, second);

    let (_, mut resumed) = open(&api, &key, &id, Some(&second)).await;
    api.change::<Operation>(id.as_str(), |operation| operation.state = State::Succeeded { result: json!(7) }).await;
    let mut other = String::new();
    let (third, body) = next(&mut resumed, &mut other).await.expect("only what is new");
    assert_eq!((&body["state"], &body["result"]), (&json!("succeeded"), &json!(7)));
    assert_eq!(next(&mut stream, &mut buffer).await.expect("the end").0, third);
    assert_eq!(next(&mut stream, &mut buffer).await, None);
    assert_eq!(next(&mut resumed, &mut other).await, None);

    assert_eq!(open(&api, &key, &id, Some(&third)).await.0, StatusCode::NO_CONTENT, "do not come back");
    let (_, mut late) = open(&api, &key, &id, Some(&first)).await;
    assert_eq!(next(&mut late, &mut String::new()).await.expect("the end").0, third);
}

#[tokio::test]
async fn streams_end_with_the_server_and_with_their_key() {
    let api = Api::new().await;
    let (key, doomed) = (api.shop().await, api.shop().await);
    let id = api.operation(Some("shop"), State::Running).await;
    let (_, mut stream) = open(&api, &key, &id, None).await;
    let (_, mut losing) = open(&api, &doomed, &id, None).await;
    let (mut one, mut two) = (String::new(), String::new());
    assert!(next(&mut stream, &mut one).await.is_some() && next(&mut losing, &mut two).await.is_some());
    let name = doomed.parse::<ApiKey>().expect("a key").id().clone();
    api.change::<ApiKeyRecord>(name.as_str(), |key| key.revoked_at = Some(OffsetDateTime::now_utc())).await;
    let ended = tokio::time::timeout(SOON, next(&mut losing, &mut two)).await.expect("within 5 s or so");
    assert_eq!(ended, None, "the key was revoked");
    api.shutdown.cancel();
    assert_eq!(next(&mut stream, &mut one).await, None, "the server ends");
}
