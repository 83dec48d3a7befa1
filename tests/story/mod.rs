//! What users do, on a real simnet: the story of `make demo`, and the ways a pay can go.

mod close;
mod closed_meanwhile;
mod delete;
mod firestore;
mod frozen_peer;
mod neutrino;
mod pay;
mod put_off;
mod races;
mod restart;
mod shutdown;

use crate::harness::{self, Deployment, Setup};
use serde_json::json;
use std::time::Duration;

#[test]
fn smoke_two_users_get_nodes_and_one_pays_the_other() {
    harness::run(Duration::from_secs(240), async {
        let d = Deployment::start(Setup::default()).await;
        story(&d).await;
        d.stop().await;
    });
}

/// Alice pays bob over a channel that opens by itself, closes it and withdraws.
async fn story(d: &Deployment) {
    let api = d.api();
    d.create_users(&["alice", "bob"]).await;
    api.confirmed("alice", 1_000_000).await;

    let payreq = api.invoice("bob", 50_000).await;
    let first = api.post("pay", json!({ "uuid": "alice", "payreq": payreq, "wait": 50 })).await;
    let first = api.finished(first).await.ok();
    assert_eq!(first["payment"]["status"], "SUCCEEDED");
    assert_eq!(first["payment"]["value_sat"], "50000");
    assert!(first["channel"]["channel_point"].is_string(), "a channel opened by itself: {first:#}");

    api.in_channels("bob", 50_000).await;

    let small = api.invoice("bob", 1_000).await;
    let second = api.post("pay", json!({ "uuid": "alice", "payreq": small, "open": "never", "wait": 50 })).await;
    let second = api.finished(second).await.ok();
    assert!(second["channel"].is_null(), "over the channel that is there: {second:#}");

    let pubkey = first["channel"]["peer"].as_str().unwrap();
    let close = api.post("closechannel", json!({ "uuid": "alice", "pubkey": pubkey, "wait": 50 })).await;
    let close = api.finished(close).await.ok();
    assert_eq!(close["closing_txid"].as_str().unwrap().len(), 64);

    let address = api.post("newaddress", json!({ "uuid": "bob" })).await.ok();
    let body = json!({ "uuid": "alice", "address": address["address"], "amt": 20_000, "wait": 50 });
    let withdrawal = api.finished(api.post("withdraw", body).await).await.ok();
    assert_eq!(withdrawal["txid"].as_str().unwrap().len(), 64);
    assert_eq!(withdrawal["amount_sat"], 20_000);
}
