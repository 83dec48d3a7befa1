//! The end of a node: refused while there is something to lose, and then for good.

use crate::harness::{self, Deployment, Setup, eventually};
use serde_json::json;
use std::time::Duration;

#[test]
fn a_node_is_deleted_only_once_it_is_empty_and_its_uuid_never_gets_another() {
    harness::run(Duration::from_secs(240), async {
        let d = Deployment::start(Setup::default()).await;
        let api = d.api();
        d.create_users(&["alice", "bob"]).await;
        api.confirmed("alice", 1_000_000).await;

        let refused = api.finished(api.post("delete", json!({ "uuid": "alice", "wait": 50 })).await).await;
        assert_eq!(refused.problem(409), "node_not_empty");
        assert_eq!(refused.body["details"]["wallet_sat"], 1_000_000);
        assert_eq!(api.get("getinfo", &[("uuid", "alice")]).await.status, 200, "still in use");

        let address = api.post("newaddress", json!({ "uuid": "bob" })).await.ok();
        let all = json!({ "uuid": "alice", "address": address["address"], "all": true, "wait": 50 });
        let withdrawn = api.finished(api.post("withdraw", all).await).await.ok();
        let (amount, fee) = (withdrawn["amount_sat"].as_u64().unwrap(), withdrawn["fee_sat"].as_u64().unwrap());
        assert_eq!(amount + fee, 1_000_000, "{withdrawn:#}");
        eventually("the wallet is empty", Duration::from_secs(30), || async {
            let balance = api.get("walletbalance", &[("uuid", "alice")]).await;
            (balance.body["total_balance"] == "0").then_some(())
        })
        .await;

        let pids = d.lnd_pids().await.len();
        let deleted = api.finished(api.post("delete", json!({ "uuid": "alice", "wait": 50 })).await).await.ok();
        assert_eq!(deleted["deleted"], true);
        assert_eq!(d.lnd_pids().await.len(), pids - 1, "its lnd is stopped");
        assert_eq!(api.get("getinfo", &[("uuid", "alice")]).await.problem(409), "node_deleted");
        assert_eq!(api.post("create", json!({ "uuid": "alice" })).await.problem(409), "node_deleted");
        let again = api.finished(api.post("delete", json!({ "uuid": "alice", "wait": 50 })).await).await.ok();
        assert_eq!(again["deleted"], true, "asked again it is the same answer");
        let aside = std::fs::read_dir(d.path("host").join("removed")).unwrap().count();
        assert_eq!(aside, 1, "the folder is set aside, not deleted");
        d.stop().await;
    });
}
