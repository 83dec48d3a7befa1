//! What users do where the Store is Firestore, with one master and with three, and what it costs there.

use super::story;
use crate::gates::store;
use crate::harness::asked::{COUNTED, asked};
use crate::harness::emulator::Emulator;
use crate::harness::events::Events;
use crate::harness::{self, Api, Deployment, Pauses, Setup, eventually};
use futures::future::join_all;
use scale_lnd::error::Error;
use scale_lnd::model::node::Node;
use scale_lnd::store::repo;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::time::Duration;

async fn setup() -> Setup {
    Setup { firestore: Some(Emulator::shared().await.url.clone()), ..Setup::default() }
}

#[test]
fn the_story_is_the_same_on_firestore() {
    harness::run(Duration::from_secs(240), async {
        let d = Deployment::start(setup().await).await;
        story(&d).await;
        d.stop().await;
    });
}

/// docs/firestore.md says these numbers.
#[test]
fn what_a_create_and_a_pay_cost_is_bounded_and_a_warm_call_costs_nothing() {
    harness::run(Duration::from_secs(240), async {
        let d = Deployment::start(Setup { more: COUNTED.to_owned(), ..setup().await }).await;
        let api = d.api();
        let (_, before) = asked(&d, 0);
        d.create_users(&["alice"]).await;
        api.confirmed("alice", 1_000_000).await;
        let (create, _) = asked(&d, before);
        println!("a create: {create:?}");
        assert!((1..=40).contains(&create.commits) && create.writes <= 80, "{create:?}");

        d.create_users(&["bob"]).await;
        let payreq = api.invoice("bob", 50_000).await;
        pay(&api, &payreq).await;
        api.in_channels("bob", 50_000).await;
        let payreq = api.invoice("bob", 1_000).await;
        let (_, before) = asked(&d, 0);
        pay(&api, &payreq).await;
        let (paid, _) = asked(&d, before);
        println!("a pay over a channel: {paid:?}");
        assert!((1..=15).contains(&paid.commits) && paid.writes <= 30, "{paid:?}");

        api.get("getinfo", &[("uuid", "alice")]).await.ok();
        idle(&d).await;
        let (_, before) = asked(&d, 0);
        for _ in 0..20 {
            api.get("getinfo", &[("uuid", "alice")]).await.ok();
        }
        let (warm, _) = asked(&d, before);
        assert_eq!((warm.reads, warm.commits), (0, 0), "{warm:?}");
        d.stop().await;
    });
}

/// Agents look around several times a second here, and nobody hears of it: an idle fleet costs by masters, not by hosts.
#[test]
fn idle_hosts_cost_nothing() {
    harness::run(Duration::from_secs(240), async {
        let mut d = Deployment::start(Setup { slots: 0, more: COUNTED.to_owned(), ..setup().await }).await;
        let mut hosts = Vec::new();
        for suffix in ["a", "b", "c"] {
            hosts.push(d.another_host_with(suffix, 1, &[("SCALE_LND_AGENT_LOOK_EVERY_MS", "300")]).await);
        }
        eventually("all have joined and said how they are", Duration::from_secs(60), || async {
            let listed: Value = serde_json::from_str(&d.config_cli(&["host", "list", "--json"]).await).unwrap();
            let known = listed.as_array().unwrap().iter().filter(|host| host["lnd"].is_string()).count();
            (known == hosts.len()).then_some(())
        })
        .await;
        // Ten looks each.
        idle(&d).await;
        // One that is away is not written down either: it is asked, and the others take what comes.
        d.kill_another_agent(0).await;
        d.create_users(&["alice", "bob"]).await;
        let listed: Value = serde_json::from_str(&d.config_cli(&["host", "list", "--json"]).await).unwrap();
        let used =
            |id: &str| listed.as_array().unwrap().iter().find(|host| host["host"] == id).unwrap()["used"].clone();
        assert_eq!(hosts.iter().map(|id| used(id)).collect::<Vec<_>>(), [json!(0), json!(1), json!(1)]);
        d.stop().await;
    });
}

/// Nodes that nobody uses: once what was begun has ended (reports, backups), the master's heartbeat and nothing else for 3 s.
async fn idle(d: &Deployment) {
    eventually("nothing is asked of Firestore", Duration::from_secs(40), || async {
        let (_, before) = asked(d, 0);
        tokio::time::sleep(Duration::from_secs(3)).await;
        let (asked, _) = asked(d, before);
        (asked.reads == 0 && asked.commits == 0).then_some(())
    })
    .await;
}

async fn pay(api: &Api, payreq: &str) {
    let answer = api.post("pay", json!({ "uuid": "alice", "payreq": payreq, "wait": 50 })).await;
    assert_eq!(api.finished(answer).await.ok()["payment"]["status"], "SUCCEEDED");
}

#[test]
fn three_masters_on_one_firestore_are_one() {
    harness::run(Duration::from_secs(240), async {
        let mut d = Deployment::start(setup().await).await;
        d.start_master(&[]).await;
        d.start_master(&[]).await;
        let apis: Vec<Api> = (0..3).map(|master| d.api_of(master)).collect();

        // Fifty creates of one uuid on all of them: one node, one operation.
        let calls = (0..50).map(|n| apis[n % 3].post("create", json!({ "uuid": "alice", "wait": 50 })));
        let answers = join_all(calls).await;
        let ends =
            join_all(answers.into_iter().zip(apis.iter().cycle()).map(|(answer, api)| api.finished(answer))).await;
        let pubkeys: HashSet<String> = ends.into_iter().map(|end| end.ok()["identity_pubkey"].to_string()).collect();
        assert_eq!(pubkeys.len(), 1);
        let operations = apis[1].get("operations", &[("limit", "100")]).await.ok();
        assert_eq!(operations["operations"].as_array().unwrap().len(), 1);
        assert_eq!(apis[2].confirmed("alice", 1).await, 1_000_000, "one funding");

        // A key that is revoked is refused by all of them within 5 s.
        let key = d.create_key("app", "read").await;
        let others: Vec<Api> = apis.iter().map(|api| api.with_key(&key)).collect();
        for api in &others {
            eventually("the key is known", Duration::from_secs(5), || async {
                (api.get("nodes", &[]).await.status == 200).then_some(())
            })
            .await;
        }
        let id = key.split('_').nth(2).unwrap();
        d.config_cli(&["key", "revoke", id]).await;
        let refused = others.iter().map(|api| {
            eventually("the key is refused", Duration::from_secs(5), || async {
                (api.get("nodes", &[]).await.status == 401).then_some(())
            })
        });
        join_all(refused).await;
        a_moved_node_is_noticed_by_all(&d, &apis).await;

        // Work goes on when two of them are killed, whichever of them had it, and who follows it at the third sees all of it.
        let accepted = apis[0].post("create", json!({ "uuid": "bob", "wait": 0 })).await;
        assert_eq!(accepted.status, 202, "{}", accepted.text);
        let location = format!("/lnd/v1/operations/{}", accepted.body["id"].as_str().unwrap());
        let mut events = Events::follow(&apis[2], &location, None).await;
        assert_eq!(events.next().await.unwrap().data["state"], "running");
        d.kill_master(0).await;
        d.kill_master(1).await;
        let mut last = Value::Null;
        while let Some(event) = events.next().await {
            last = event.data;
        }
        assert_eq!(last["state"], "succeeded", "{last:#}");
        d.stop().await;
    });
}

/// To where nobody is, so that it is seen, and back.
async fn a_moved_node_is_noticed_by_all(d: &Deployment, apis: &[Api]) {
    let store = store::of(d).await;
    let id = store::all::<Node>(&*store).await.remove(0).id;
    for (address, status) in [("127.77.77.77", 503), ("127.0.0.1", 200)] {
        let moved = repo::modify::<Node, Error>(&*store, id.as_str(), |node| {
            node.endpoint.as_mut().unwrap().address = address.parse().unwrap();
            Ok(true)
        });
        moved.await.unwrap().unwrap();
        let noticed = apis.iter().map(|api| {
            eventually("the move is noticed", Duration::from_secs(5), || async {
                (api.get("getinfo", &[("uuid", "alice")]).await.status == status).then_some(())
            })
        });
        join_all(noticed).await;
    }
}

#[test]
fn what_a_killed_master_worked_at_is_taken_over_within_15_s() {
    harness::run(Duration::from_secs(240), async {
        // The lease that masters have unless told otherwise.
        let mut d = Deployment::start(Setup { lease_ttl_ms: 8_000, ..setup().await }).await;
        d.end_masters().await;
        let faults = d.path("faults");
        std::fs::create_dir_all(&faults).unwrap();
        let env =
            [("SCALE_LND_FAULT", "create.start_lnd.before=pause"), ("SCALE_LND_FAULT_DIR", faults.to_str().unwrap())];
        let doomed = d.start_master(&env).await;
        let accepted = d.api_of(doomed).post("create", json!({ "uuid": "alice", "wait": 0 })).await;
        let id = accepted.body["id"].as_str().unwrap();
        eventually("the step is reached", Duration::from_secs(60), || async {
            faults.join("create.start_lnd.before.reached").exists().then_some(())
        })
        .await;
        let other = d.start_master(&[]).await;
        d.kill_master(doomed).await;
        eventually("the other master goes on with it", Duration::from_secs(15), || async {
            let operation = d.api_of(other).get(&format!("operations/{id}"), &[]).await.ok();
            (operation["progress"] != "starting lnd").then_some(())
        })
        .await;
        let end = d.api_of(other).operation_end(id, Duration::from_secs(90)).await;
        assert_eq!(end["state"], "succeeded", "{end:#}");
        d.stop().await;
    });
}

#[test]
fn a_firestore_that_freezes_is_a_503_and_survived() {
    harness::run(Duration::from_secs(240), async {
        let emulator = Emulator::start(None).await;
        let d = Deployment::start(Setup { firestore: Some(emulator.url.clone()), ..setup().await }).await;
        let api = d.api();
        d.create_users(&["alice"]).await;
        api.get("getinfo", &[("uuid", "alice")]).await.ok();

        let address = api.post("newaddress", json!({ "uuid": "alice" })).await.ok();

        emulator.freeze().await;
        api.get("getinfo", &[("uuid", "alice")]).await.ok();
        let refused = api.post("create", json!({ "uuid": "bob", "wait": 0 })).await;
        assert_eq!(refused.status, 503, "{}", refused.text);
        assert!(refused.header("retry-after").is_some());
        let body = json!({ "uuid": "alice", "address": address["address"], "amt": 20_000, "wait": 0 });
        assert_eq!(api.post("withdraw", body).await.status, 503);

        emulator.resume().await;
        eventually("the master works again", Duration::from_secs(60), || async {
            let answer = api.post("create", json!({ "uuid": "bob", "wait": 50 })).await;
            (answer.status == 200).then_some(())
        })
        .await;
        assert!(d.masters[0].process.exit().is_none(), "the master never ended");
        d.stop().await;
    });
}

/// Away while a step of it has its effect: whatever had begun is done, once.
#[test]
fn a_firestore_that_is_away_during_an_operation_changes_nothing_about_its_end() {
    harness::run(Duration::from_secs(280), async {
        let emulator = Emulator::start(None).await;
        let mut d = Deployment::start(Setup { firestore: Some(emulator.url.clone()), ..setup().await }).await;
        let points =
            ["create.init_wallet.before", "pay.open.before", "closechannel.close.before", "withdraw.publish.before"];
        let pauses = Pauses::at(&mut d, &points).await;
        let api = d.api();
        let through = async |point: &str, call: &str, body: Value| {
            let accepted = api.post(call, body).await;
            assert_eq!(accepted.status, 202, "{}", accepted.text);
            pauses.reached(point).await;
            emulator.freeze().await;
            pauses.go(point);
            eventually("it is noticed", Duration::from_secs(60), || async {
                let refused = api.post("create", json!({ "uuid": "nobody", "wait": 0 })).await;
                (refused.status == 503).then_some(())
            })
            .await;
            emulator.resume().await;
            let id = accepted.body["id"].as_str().unwrap();
            eventually("it is at work again", Duration::from_secs(60), || async {
                (api.get(&format!("operations/{id}"), &[]).await.status == 200).then_some(())
            })
            .await;
            let end = api.operation_end(id, Duration::from_secs(90)).await;
            assert_eq!(end["state"], "succeeded", "{point}: {end:#}");
            end["result"].clone()
        };
        through(points[0], "create", json!({ "uuid": "alice", "wait": 0 })).await;
        api.confirmed("alice", 1_000_000).await;
        let bob = api.create("bob").await;
        let payreq = api.invoice("bob", 50_000).await;
        through(points[1], "pay", json!({ "uuid": "alice", "payreq": payreq, "wait": 0 })).await;
        api.in_channels("bob", 50_000).await;
        let channels = api.get("listchannels", &[("uuid", "alice")]).await.ok();
        assert_eq!(channels["channels"].as_array().unwrap().len(), 1, "{channels:#}");
        let body = json!({ "uuid": "alice", "pubkey": bob["identity_pubkey"], "wait": 0 });
        through(points[2], "closechannel", body).await;
        let address = api.post("newaddress", json!({ "uuid": "bob" })).await.ok();
        let body = json!({ "uuid": "alice", "address": address["address"], "amt": 20_000, "wait": 0 });
        let txid = through(points[3], "withdraw", body).await["txid"].clone();
        let sent = api.get("transactions", &[("uuid", "bob")]).await.ok();
        let arrived = sent["transactions"].as_array().unwrap().iter().filter(|tx| tx["amount"] == "20000");
        assert_eq!(arrived.map(|tx| tx["tx_hash"].clone()).collect::<Vec<_>>(), [txid]);
        d.stop().await;
    });
}
