//! `Idempotency-Key`: the same again, 422 for something else, and each API key has its own.

use super::with_new_key;
use crate::harness::{Answer, Api, Deployment};
use reqwest::Method;
use serde_json::{Value, json};

async fn post(api: &Api, call: &str, key: &str, body: Value) -> Answer {
    let quoted = format!("\"{key}\"");
    let answer = api.request(Method::POST, call, &[], Some(body), &[("idempotency-key", &quoted)]).await;
    answer.unwrap()
}

pub async fn keys_replay_and_refuse(d: &Deployment, api: &Api) {
    an_invoice_is_made_once(d, api).await;
    an_address_is_given_once(api).await;
    a_withdrawal_is_sent_once(api).await;
    create_again_returns_the_node(api).await;
    a_key_that_joined_stands_for_what_it_joined(api).await;
}

async fn an_invoice_is_made_once(d: &Deployment, api: &Api) {
    let body = json!({ "uuid": "bob", "amt": 123, "memo": "once" });
    let first = post(api, "invoice", "invoice-1", body.clone()).await.ok();
    let again = post(api, "invoice", "invoice-1", body.clone()).await;
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    assert_eq!(again.ok(), first);
    let query = [("uuid", "bob"), ("amt", "123"), ("memo", "once")];
    let by_get = api.request(Method::GET, "invoice", &query, None, &[("idempotency-key", "invoice-1")]).await.unwrap();
    assert_eq!(by_get.ok(), first, "by whatever method, and however it is quoted");

    let another = json!({ "uuid": "bob", "amt": 124, "memo": "once" });
    assert_eq!(post(api, "invoice", "invoice-1", another).await.problem(422), "idempotency_key_reused");
    assert_eq!(
        post(api, "newaddress", "invoice-1", json!({ "uuid": "bob" })).await.problem(422),
        "idempotency_key_reused"
    );

    let other_key = with_new_key(api, &d.create_key("app", "invoice").await).await;
    let others = post(&other_key, "invoice", "invoice-1", body.clone()).await.ok();
    assert_ne!(others["r_hash"], first["r_hash"], "each API key has its own");
    let plain = api.post("invoice", body).await.ok();
    assert_ne!(plain["r_hash"], first["r_hash"]);
}

async fn an_address_is_given_once(api: &Api) {
    let first = post(api, "newaddress", "address-1", json!({ "uuid": "bob" })).await.ok();
    assert_eq!(post(api, "newaddress", "address-1", json!({ "uuid": "bob" })).await.ok(), first);
    assert_ne!(api.post("newaddress", json!({ "uuid": "bob" })).await.ok(), first);
}

async fn a_withdrawal_is_sent_once(api: &Api) {
    let address = api.post("newaddress", json!({ "uuid": "bob" })).await.ok()["address"].clone();
    let body = |amt: u64, wait: u64| json!({ "uuid": "alice", "address": address, "amt": amt, "wait": wait });
    let first = post(api, "withdraw", "withdraw-1", body(30_000, 0)).await;
    let id = first.header("x-operation-id").expect("an operation").to_owned();
    let again = post(api, "withdraw", "withdraw-1", body(30_000, 50)).await;
    assert_eq!(again.header("x-operation-id"), Some(id.as_str()), "how long to wait is no part of what is asked");
    let done = api.finished(again).await.ok();
    assert_eq!(done["amount_sat"], 30_000, "{done:#}");
    assert_eq!(post(api, "withdraw", "withdraw-1", body(30_000, 50)).await.ok(), done);
    assert_eq!(post(api, "withdraw", "withdraw-1", body(30_001, 50)).await.problem(422), "idempotency_key_reused");
}

async fn create_again_returns_the_node(api: &Api) {
    let before = api.get("operations", &[("limit", "1000")]).await.ok();
    let info = api.get("getinfo", &[("uuid", "alice")]).await.ok();
    let again = api.post("create", json!({ "uuid": "alice" })).await.ok();
    assert_eq!(again["identity_pubkey"], info["identity_pubkey"]);
    assert_eq!(api.get("create", &[("uuid", "alice")]).await.ok(), again);
    let count = |listed: &Value| listed["operations"].as_array().unwrap().len();
    assert_eq!(count(&api.get("operations", &[("limit", "1000")]).await.ok()), count(&before));
}

async fn a_key_that_joined_stands_for_what_it_joined(api: &Api) {
    let joined = post(api, "create", "create-1", json!({ "uuid": "alice" })).await.ok();
    assert_eq!(post(api, "create", "create-1", json!({ "uuid": "alice" })).await.ok(), joined);
    let other = post(api, "create", "create-1", json!({ "uuid": "nobody-yet" })).await;
    assert_eq!(other.problem(422), "idempotency_key_reused");
    assert_eq!(api.get("node", &[("uuid", "nobody-yet")]).await.problem(404), "user_not_found", "nothing was done");
}
