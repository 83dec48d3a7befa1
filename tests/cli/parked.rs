//! `scale-lnd operation`: one that waits for a person is found, its cause is removed, and it goes on where it was.

use crate::harness::{self, Deployment, Setup, eventually};
use scale_lnd::lnd::grant::Grant;
use scale_lnd::lnd::macaroon::{RootKey, bake};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

/// The treasury's macaroon is one that the treasury does not know; later it is the right one.
#[test]
fn a_parked_operation_goes_on_when_its_cause_is_gone() {
    harness::run(Duration::from_secs(180), async {
        let mut d = Deployment::start(Setup::default()).await;
        d.end_masters().await;
        let right = std::fs::read_to_string(&d.config).unwrap();
        let wrong = d.path("wrong.macaroon");
        let unknown = bake(&RootKey::from_bytes([9; 32]), [0; 16], &Grant::Withdraw.ops(), &[]);
        std::fs::write(&wrong, unknown.as_bytes()).unwrap();
        std::fs::set_permissions(&wrong, std::fs::Permissions::from_mode(0o600)).unwrap();
        let funding = d.world.treasury.funding_macaroon.display().to_string();
        assert!(right.contains(&funding));
        std::fs::write(&d.config, right.replace(&funding, wrong.to_str().unwrap())).unwrap();
        d.start_master(&[]).await;

        let accepted = d.api().post("create", json!({ "uuid": "alice", "wait": 0 })).await;
        assert_eq!(accepted.status, 202, "{}", accepted.text);
        let parked = eventually("the funding is parked", Duration::from_secs(60), || async {
            let listed = d.config_cli(&["operation", "list", "--state", "parked", "--json"]).await;
            let listed: Vec<Value> = serde_json::from_str(&listed).unwrap();
            listed.into_iter().next()
        })
        .await;
        assert_eq!(
            (&parked["kind"], &parked["step"], &parked["code"]),
            (&json!("funding"), &json!("fund"), &json!("parked"))
        );
        let id = parked["id"].as_str().unwrap();
        let shown: Value = serde_json::from_str(&d.config_cli(&["operation", "show", id]).await).unwrap();
        assert_eq!(shown["state"]["state"], "parked", "{shown:#}");
        let create = accepted.body["id"].as_str().unwrap();
        let running = d.try_config_cli(&["operation", "retry", create]).await;
        assert_eq!(
            (running.code, running.err.contains("is not parked, it is running")),
            (Some(1), true),
            "{running:?}"
        );

        d.end_masters().await;
        std::fs::write(&d.config, right).unwrap();
        d.start_master(&[]).await;
        // A restart alone frees nothing: a person has the word.
        assert_eq!(d.api().get("walletbalance", &[("uuid", "alice")]).await.problem(503), "node_creating");
        assert_eq!(d.config_cli(&["operation", "retry", id]).await, format!("operation {id} runs again\n"));
        d.api().finished(accepted).await.ok();
        assert_eq!(d.api().confirmed("alice", 1).await, 1_000_000, "funded, and once");
        let again = d.try_config_cli(&["operation", "retry", id]).await;
        assert_eq!((again.code, again.err.contains("is not parked, it is succeeded")), (Some(1), true), "{again:?}");
        d.stop().await;
    });
}
