//! The sealing key in KMS, with masters and lnds that are real.

mod authority;
pub mod kms;

use crate::gates::store::{all, open};
use crate::harness::{self, Deployment, Setup, eventually};
use kms::{ENV, Kms};
use scale_lnd::model::node::{Node, Secrets};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(300);
const LIMIT: Duration = Duration::from_secs(90);

async fn sealed_by(kms: &Kms, key: &str) -> Deployment {
    let env = ENV.map(|(name, value)| (name, value.to_owned())).to_vec();
    let seal = Some(kms.lines(key));
    Deployment::start(Setup { slots: 4, initial_funding_sat: 0, env, seal, ..Setup::default() }).await
}

/// Under which versions the nodes' secrets are sealed.
async fn versions(d: &Deployment) -> Vec<u32> {
    let nodes = all::<Node>(&open(d).await).await;
    let mut versions = Vec::new();
    for node in nodes {
        let Some(Secrets { seed, wallet_password, macaroon_root_key, invoice_key }) = node.secrets else { continue };
        versions.extend([seed, wallet_password, macaroon_root_key, invoice_key].map(|sealed| sealed.key_version()));
    }
    versions.sort_unstable();
    versions.dedup();
    versions
}

/// Calls to every master, one after the other, until it is told to stop.
struct Calls {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    running: tokio::task::JoinHandle<()>,
}

impl Calls {
    fn start(d: &Deployment, uuid: &'static str) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let apis: Vec<_> = (0..d.masters.len()).map(|index| d.api_of(index)).collect();
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&done));
        let running = tokio::spawn(async move {
            while !stopped.load(Ordering::Relaxed) {
                for api in &apis {
                    let address = api.post("newaddress", json!({ "uuid": uuid })).await;
                    assert_eq!(address.status, 200, "{:#}", address.body);
                    let info = api.get("getinfo", &[("uuid", uuid)]).await;
                    assert_eq!(info.status, 200, "{:#}", info.body);
                }
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self { stop, done, running }
    }

    async fn some_more(&self) {
        let before = self.done.load(Ordering::Relaxed);
        eventually("calls go on", LIMIT, || async {
            assert!(!self.running.is_finished(), "a call has failed");
            (self.done.load(Ordering::Relaxed) > before + 2).then_some(())
        })
        .await;
    }

    async fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.running.await.unwrap();
    }
}

#[test]
fn a_deployment_sealed_by_kms_changes_its_key_while_it_serves() {
    harness::run(DEADLINE, async {
        let (kms, key) = (Kms::start().await, Kms::key().await);
        let mut d = sealed_by(&kms, &key).await;
        d.start_master(&[]).await;
        d.create_users(&["alice"]).await;
        assert_eq!(versions(&d).await, [1]);

        let calls = Calls::start(&d, "alice");
        calls.some_more().await;
        let api = d.api();
        let bob = tokio::spawn(async move { api.create("bob").await });
        let said = d.config_cli(&["keys", "rotate"]).await;
        assert!(said.contains("were sealed again under sealing key 2; nothing needs an older one"), "{said}");
        calls.some_more().await;
        bob.await.unwrap();
        calls.end().await;
        assert_eq!(versions(&d).await, [2]);
        let listed: Value = serde_json::from_str(&d.config_cli(&["keys", "list", "--json"]).await).unwrap();
        assert_eq!(listed, json!([{ "version": 2, "state": "seals", "wrapped_by": key }]));

        // Masters that run do not need KMS; one that starts needs it for the newer key alone.
        kms.set(|faults| faults.denied = true);
        d.create_users(&["carol"]).await;
        kms.set(|faults| faults.denied = false);
        d.end_masters().await;
        kms.calls();
        d.start_master(&[]).await;
        assert_eq!(kms.calls(), ["Decrypt"]);
        for uuid in ["alice", "bob", "carol"] {
            eventually(&format!("{uuid}'s lnd answers"), LIMIT, || async {
                let address = d.api().post("newaddress", json!({ "uuid": uuid })).await;
                (address.status == 200).then_some(())
            })
            .await;
        }
        for log in d.logs().values() {
            assert!(!log.contains("parked"), "{log}");
        }
        d.stop().await;
    });
}

/// Bob's secrets are sealed when there is one key, and stored when that is retired: no wallet is made before they stand under
/// the one in use.
#[test]
fn a_create_that_seals_under_a_key_that_is_retired_meanwhile_seals_again() {
    harness::run(DEADLINE, async {
        let (kms, key) = (Kms::start().await, Kms::key().await);
        let mut d = sealed_by(&kms, &key).await;
        d.create_users(&["alice"]).await;
        d.end_masters().await;
        let faults = d.path("faults");
        std::fs::create_dir_all(&faults).unwrap();
        let point = "create.seal_secrets.after";
        let plan = format!("{point}=pause");
        d.start_master(&[("SCALE_LND_FAULT", &plan), ("SCALE_LND_FAULT_DIR", faults.to_str().unwrap())]).await;
        let accepted = d.api().post("create", json!({ "uuid": "bob", "wait": 0 })).await;
        assert_eq!(accepted.status, 202, "{:#}", accepted.body);
        let reached = faults.join(format!("{point}.reached"));
        eventually(point, LIMIT, || async { reached.exists().then_some(()) }).await;

        // Killed after alice's, and again gone on with.
        let killed = d.faulty_config_cli(&["keys", "rotate"], "keys.rewrap.node=kill").await;
        assert_eq!(killed.code, None, "{killed:?}");
        let said = d.config_cli(&["keys", "rotate"]).await;
        assert!(said.contains("this change had been begun before"), "{said}");
        assert_eq!(versions(&d).await, [2], "of alice");
        std::fs::write(faults.join(format!("{point}.go")), "").unwrap();
        let end = d.api().operation_end(accepted.body["id"].as_str().unwrap(), LIMIT).await;
        assert_eq!(end["state"], "succeeded", "{end:#}");
        assert_eq!(versions(&d).await, [2], "of both");

        // One that has nothing but the newer key opens what was made.
        d.end_masters().await;
        d.start_master(&[]).await;
        for uuid in ["alice", "bob"] {
            eventually(&format!("{uuid}'s lnd answers"), LIMIT, || async {
                (d.api().post("newaddress", json!({ "uuid": uuid })).await.status == 200).then_some(())
            })
            .await;
        }
        d.stop().await;
    });
}
