//! Hosts that are not what they were: one that the operator took out, and one that lies. Creates are where a host could get
//! secrets and money that are not its own.

use super::{files_named, setup, store};
use crate::harness::{self, Answer, Api, Deployment, eventually};
use scale_lnd::model::work::create::{FundingRequest, FundingState};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(240);
const A_WHILE: Duration = Duration::from_secs(60);

/// Fault points of the masters that are started from now on, at which work pauses.
struct Pauses(PathBuf);

impl Pauses {
    /// Ends the masters and starts one that pauses at each of `points`, once.
    async fn at(d: &mut Deployment, points: &[&str]) -> Self {
        let dir = d.path("faults");
        std::fs::create_dir(&dir).unwrap();
        d.end_masters().await;
        let plan: Vec<String> = points.iter().map(|point| format!("{point}=pause")).collect();
        d.start_master(&[("SCALE_LND_FAULT", &plan.join(",")), ("SCALE_LND_FAULT_DIR", dir.to_str().unwrap())]).await;
        Self(dir)
    }

    async fn reached(&self, point: &str) {
        eventually(&format!("{point} is reached"), A_WHILE, || async {
            self.0.join(format!("{point}.reached")).exists().then_some(())
        })
        .await;
    }

    fn go(&self, point: &str) {
        std::fs::write(self.0.join(format!("{point}.go")), b"").unwrap();
    }
}

/// Asks for a node and does not wait for it.
async fn ask_for(api: &Api, uuid: &str) -> Answer {
    let accepted = api.post("create", json!({ "uuid": uuid, "wait": 0 })).await;
    assert_eq!(accepted.status, 202, "{}", accepted.text);
    accepted
}

/// The operation of an answer, once it is so.
async fn once(api: &Api, accepted: &Answer, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let path = format!("operations/{}", accepted.body["id"].as_str().unwrap());
    eventually(what, A_WHILE, || async {
        let operation = api.get(&path, &[]).await.ok();
        is_so(&operation).then_some(operation)
    })
    .await
}

/// Four creates are under way on a host when it is taken out, and its agent comes back with the certificate that was
/// good before. Nobody is given an order, a secret or money there; whoever has no wallet yet gets a node elsewhere.
#[test]
fn a_revoked_host_gets_no_orders_no_secrets_and_no_money() {
    harness::run(DEADLINE, async {
        let mut d = Deployment::start(setup()).await;
        let (funding, sealing, making) =
            ("create.await_funding.before", "create.seal_secrets.before", "create.init_wallet.before");
        let pauses = Pauses::at(&mut d, &[funding, sealing, making]).await;
        let api = d.api();
        let sealed = ask_for(&api, "sealed").await;
        pauses.reached(sealing).await;
        let made = ask_for(&api, "made").await;
        pauses.reached(making).await;
        let funded = ask_for(&api, "funded").await;
        pauses.reached(funding).await;
        d.kill_agent().await;
        let started = ask_for(&api, "started").await;
        once(&api, &started, "it waits for the agent", |op| op["step"] == "start_lnd").await;

        let hosts: Value = serde_json::from_str(&d.config_cli(&["host", "list", "--json"]).await).unwrap();
        d.config_cli(&["host", "revoke", hosts[0]["host"].as_str().unwrap()]).await;
        d.start_agent(&[]).await;
        for point in [funding, sealing, making] {
            pauses.go(point);
        }
        for (accepted, step) in [(&made, "init_wallet"), (&funded, "deposit_address")] {
            let parked = once(&api, accepted, "it is parked", |op| op["state"] == "parked").await;
            assert_eq!(parked["step"], step, "{parked:#}");
        }
        for accepted in [&started, &sealed] {
            once(&api, accepted, "it looks for another host", |op| op["step"] == "place").await;
        }
        d.another_host("-2", 4).await;
        for accepted in [started, sealed] {
            api.finished(accepted).await.ok();
        }

        let wallets = files_named(&d.path("host"), "wallet.db");
        let own = d.node_id("funded").await;
        assert!(wallets.iter().all(|path| path.display().to_string().contains(&own)), "{wallets:?}");
        assert!(!d.path("host/nodes").join(d.node_id("started").await).exists());
        let requests = store::all::<FundingRequest>(&store::open(&d).await).await;
        assert_eq!(requests.len(), 2, "of those on the new host: {requests:?}");
        assert!(requests.iter().all(|request| matches!(request.state, FundingState::Published { .. })));
        d.stop().await;
    });
}
