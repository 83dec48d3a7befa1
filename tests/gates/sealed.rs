//! A sealed secret that another hand has put where it does not belong: its node cannot be used until it is put right, and
//! nobody else is harmed.

use super::store;
use crate::harness::{Deployment, eventually};
use scale_lnd::error::Error;
use scale_lnd::model::node::{Node, Secrets};
use scale_lnd::store::repo;
use serde_json::json;
use std::time::Duration;

async fn change(d: &Deployment, node: &Node, change: impl Fn(&mut Secrets) + Sync) {
    let store = store::open(d).await;
    let changed = repo::modify::<Node, Error>(&store, node.id.as_str(), |node| {
        node.secrets.as_mut().map(&change);
        Ok(true)
    });
    changed.await.unwrap().unwrap();
}

/// Good ciphertext, sealed for another node.
pub async fn secrets_of_another_node_do_not_open(d: &mut Deployment) {
    let [alice, bob] = {
        let store = store::open(d).await;
        [store::node(&store, "alice").await, store::node(&store, "bob").await]
    };
    let [own, others] = [&alice, &bob].map(|node| node.secrets.clone().unwrap().macaroon_root_key);
    d.end_masters().await;
    change(d, &alice, |secrets| secrets.macaroon_root_key = others.clone()).await;
    let master = d.start_master(&[]).await;
    let api = d.api_of(master);
    for (call, body) in [
        ("getinfo", json!({ "uuid": "alice" })),
        ("invoice", json!({ "uuid": "alice", "amt": 1_000 })),
        ("newaddress", json!({ "uuid": "alice" })),
    ] {
        let answer = api.post(call, body).await;
        assert_eq!(answer.problem(500), "internal", "{call}: {}", answer.text);
    }
    api.get("getinfo", &[("uuid", "bob")]).await.ok();
    let log = std::fs::read_to_string(&d.masters[master].log).unwrap();
    assert!(log.contains("something that must be true is not"), "{log}");

    change(d, &alice, |secrets| secrets.macaroon_root_key = own.clone()).await;
    eventually("it is put right", Duration::from_secs(10), || async {
        (api.get("getinfo", &[("uuid", "alice")]).await.status == 200).then_some(())
    })
    .await;
}
