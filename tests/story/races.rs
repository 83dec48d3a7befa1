//! Many at once: one node, one payment.

use crate::harness::{self, Deployment, Setup, eventually};
use futures::future::join_all;
use serde_json::json;
use std::collections::HashSet;
use std::time::Duration;

#[test]
fn fifty_creates_of_one_uuid_give_one_node_and_one_funding() {
    harness::run(Duration::from_secs(240), async {
        let d = Deployment::start(Setup::default()).await;
        let api = d.api();
        let calls = (0..50).map(|_| api.post("create", json!({ "uuid": "alice", "wait": 50 })));
        let answers = join_all(calls).await;
        let answers = join_all(answers.into_iter().map(|answer| api.finished(answer))).await;
        let pubkeys: HashSet<String> =
            answers.into_iter().map(|answer| answer.ok()["identity_pubkey"].to_string()).collect();
        assert_eq!(pubkeys.len(), 1);
        let total = api.confirmed("alice", 1).await;
        assert_eq!(total, 1_000_000, "one funding");
        let operations = api.get("operations", &[("limit", "100")]).await.ok();
        assert_eq!(operations["operations"].as_array().unwrap().len(), 1);
        assert_eq!(std::fs::read_dir(d.path("host").join("nodes")).unwrap().count(), 1);
        d.stop().await;
    });
}

#[test]
fn two_hundred_pays_of_one_invoice_pay_once_and_all_say_so() {
    harness::run(Duration::from_secs(300), async {
        let d = Deployment::start(Setup {
            more: "[http]\nper_key_per_second = 10000\nper_key_burst = 10000\n".to_owned(),
            ..Setup::default()
        })
        .await;
        let api = d.api();
        d.create_users(&["alice", "bob"]).await;
        api.confirmed("alice", 1_000_000).await;
        let payreq = api.invoice("bob", 50_000).await;
        let calls = (0..200).map(|_| api.post("pay", json!({ "uuid": "alice", "payreq": payreq, "wait": 50 })));
        let answers = join_all(calls).await;
        let answers = join_all(answers.into_iter().map(|answer| api.finished(answer))).await;
        let preimages: HashSet<String> = answers
            .into_iter()
            .map(|answer| {
                let body = answer.ok();
                assert_eq!(body["payment"]["status"], "SUCCEEDED");
                body["payment"]["payment_preimage"].to_string()
            })
            .collect();
        assert_eq!(preimages.len(), 1);
        api.in_channels("bob", 50_000).await;
        d.stop().await;
    });
}

#[test]
fn the_same_uuid_in_two_apps_is_two_users() {
    harness::run(Duration::from_secs(240), async {
        let d = Deployment::start(Setup::default()).await;
        let api = d.api();
        d.config_cli(&["app", "create", "other"]).await;
        let other = api.with_key(&d.create_key("other", "read,invoice,pay,manage").await);
        eventually("the other app's key is known", Duration::from_secs(10), || async {
            (other.get("nodes", &[]).await.status == 200).then_some(())
        })
        .await;
        let (ours, theirs) = futures::future::join(api.create("alice"), other.create("alice")).await;
        assert_ne!(ours["identity_pubkey"], theirs["identity_pubkey"]);
        api.confirmed("alice", 1_000_000).await;
        let payreq = other.invoice("alice", 10_000).await;
        let paid = api.post("pay", json!({ "uuid": "alice", "payreq": payreq, "wait": 50 })).await;
        assert_eq!(api.finished(paid).await.ok()["channel"]["peer"], theirs["identity_pubkey"]);
        other.in_channels("alice", 10_000).await;
        for api in [&api, &other] {
            assert_eq!(api.get("nodes", &[]).await.ok()["nodes"].as_array().unwrap().len(), 1);
        }
        d.stop().await;
    });
}
