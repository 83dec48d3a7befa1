//! What should happen.

use super::moto::{data_volume, is_terminated, tag};
use super::{Cloud, Compute, DEADLINE, LIMIT, deployment};
use crate::harness::emulator::Emulator;
use crate::harness::{self, Api, Deployment, eventually};
use futures::future::join_all;
use scale_lnd::model::work::launch::LaunchStep;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::time::Duration;

#[test]
fn a_create_starts_an_instance_and_its_lnd() {
    harness::run(DEADLINE, async {
        let cloud = Cloud::start(Compute::default()).await;
        cloud.d.api().create("alice").await;
        cloud.works("alice").await;
        let instance = cloud.only_instance().await;
        assert_eq!(tag(&instance, "Name"), "lnd-alice");
        assert_eq!(tag(&instance, "scale-lnd-deployment"), "test");
        assert_eq!(tag(&instance, "scale-lnd-generation"), "1");
        assert_eq!(instance.subnet_id(), Some(cloud.account.subnets[0].as_str()));
        assert_eq!(instance.instance_type().unwrap().as_str(), "t3.small");
        let user_data = cloud.account.user_data(instance.instance_id().unwrap()).await;
        assert!(user_data.len() < 16 * 1024);
        // The launch does not keep what makes a host join.
        let host = tag(&instance, "scale-lnd-host");
        let (_, token) = user_data.split_once(&format!("{host}.")).unwrap();
        let launches = format!("{:?}", cloud.launches().await);
        assert!(launches.contains(&host) && !launches.contains(&token[..64]), "{launches}");
        assert!(!cloud.d.logs().values().any(|log| log.contains(&token[..64])));

        let hosts: serde_json::Value =
            serde_json::from_str(&cloud.d.config_cli(&["host", "list", "--json"]).await).unwrap();
        assert_eq!(hosts[0]["instance"].as_str(), instance.instance_id());
        assert_eq!(hosts[0]["data_volume"].as_str(), Some(data_volume(&instance).unwrap().as_str()));

        // Each has a host of their own; one that joined takes no machine's place.
        let (bob, carol) = (cloud.create_later("bob"), cloud.create_later("carol"));
        bob.await.unwrap();
        carol.await.unwrap();
        let mut names: Vec<String> = cloud.account.living().await.iter().map(|i| tag(i, "Name")).collect();
        names.sort_unstable();
        assert_eq!(names, ["lnd-alice", "lnd-bob", "lnd-carol"]);
        cloud.stop().await;
    });
}

/// On three masters with one Firestore.
#[test]
fn fifty_creates_of_one_uuid_give_one_instance() {
    harness::run(DEADLINE, async {
        let firestore = Some(Emulator::shared().await.url.clone());
        let mut cloud = Cloud::start(Compute { firestore, ..Compute::default() }).await;
        for _ in 0..2 {
            cloud.d.start_master(&[]).await;
        }
        let apis: Vec<Api> = (0..3).map(|master| cloud.d.api_of(master)).collect();
        let calls = (0..50).map(|n| apis[n % 3].post("create", json!({ "uuid": "alice", "wait": 50 })));
        let answers = join_all(calls).await;
        let ends =
            join_all(answers.into_iter().zip(apis.iter().cycle()).map(|(answer, api)| api.finished(answer))).await;
        let pubkeys: HashSet<String> = ends.into_iter().map(|end| end.ok()["identity_pubkey"].to_string()).collect();
        assert_eq!(pubkeys.len(), 1);
        let operations = apis[1].get("operations", &[("limit", "100")]).await.ok();
        assert_eq!(operations["operations"].as_array().unwrap().len(), 1);
        assert_eq!(tag(&cloud.only_instance().await, "Name"), "lnd-alice");
        assert_eq!((cloud.proxy.calls("RunInstances"), cloud.account.instances().await.len()), (1, 1));
        cloud.stop().await;
    });
}

#[test]
fn spare_slots_wait_for_creates_and_are_refilled_up_to_the_ceiling() {
    harness::run(DEADLINE, async {
        let cloud = Cloud::start(Compute { spare_slots: 1, max_hosts: 2, ..Compute::default() }).await;
        enrolled(&cloud.d, 1).await;
        let runs = cloud.proxy.calls("RunInstances");
        cloud.d.api().create("alice").await;
        enrolled(&cloud.d, 2).await;
        assert_eq!(cloud.proxy.calls("RunInstances"), runs + 1, "one for the next, none for alice");
        cloud.d.api().create("bob").await;
        cloud.works("bob").await;
        // No third host may be made, so there is none for the next.
        let answer = cloud.d.api().post("create", serde_json::json!({ "uuid": "carol", "wait": 30 })).await;
        assert_eq!(answer.body["code"], "no_capacity", "{:#}", answer.body);
        assert_eq!(cloud.account.instances().await.len(), 2);
        cloud.stop().await;
    });
}

async fn enrolled(d: &Deployment, count: usize) {
    eventually(&format!("{count} hosts have joined"), LIMIT, || async {
        let listed = d.config_cli(&["host", "list", "--json"]).await;
        let listed: Vec<serde_json::Value> = serde_json::from_str(&listed).unwrap();
        (listed.iter().filter(|host| host["state"] == "enrolled").count() == count).then_some(())
    })
    .await;
}

#[test]
fn two_users_share_an_instance_and_the_third_gets_another() {
    harness::run(DEADLINE, async {
        let shared = Compute { nodes_per_host: 2, initial_funding_sat: 1_000_000, ..Compute::default() };
        let cloud = Cloud::start(shared).await;
        let api = cloud.d.api();
        let (alice, bob) = (cloud.create_later("alice"), cloud.create_later("bob"));
        alice.await.unwrap();
        bob.await.unwrap();
        let first = cloud.only_instance().await;
        let first = first.instance_id().unwrap();
        cloud.d.api().create("carol").await;
        assert_eq!(cloud.account.living().await.len(), 2, "carol has no room on the first");

        let nodes: Vec<Value> = serde_json::from_str(&cloud.d.config_cli(&["node", "list", "--json"]).await).unwrap();
        let of = |uuid: &str| nodes.iter().find(|node| node["uuid"] == uuid).unwrap();
        assert_eq!(of("alice")["host"], of("bob")["host"]);
        assert_ne!(of("alice")["host"], of("carol")["host"]);
        let mut folders = Vec::new();
        let mut at = Vec::new();
        for uuid in ["alice", "bob"] {
            let node = of(uuid)["node"].as_str().unwrap();
            let folder = cloud.machines.path(first, "/var/lib/scale-lnd/nodes").join(node).join("instance");
            assert!(folder.join("lnd/data/chain/bitcoin/simnet/wallet.db").exists(), "{}", folder.display());
            let conf = std::fs::read_to_string(folder.join("lnd.conf")).unwrap();
            assert!(conf.contains(&format!("lnddir={}", folder.join("lnd").display())), "{conf}");
            let listens = conf.lines().filter_map(|line| line.split_once("listen=").map(|(_, at)| at.to_owned()));
            at.extend(listens);
            folders.push(folder);
        }
        assert_ne!(folders[0], folders[1]);
        let mut distinct = at.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!((at.len(), distinct.len()), (6, 6), "gRPC, peers and REST of two: {at:?}");

        // Each pays the other: bob over the channel that alice's payment opened.
        api.confirmed("alice", 1_000_000).await;
        for (payer, payee, sat) in [("alice", "bob", 200_000), ("bob", "alice", 50_000)] {
            let payreq = api.invoice(payee, sat).await;
            let answer = api.post("pay", json!({ "uuid": payer, "payreq": payreq, "wait": 50 })).await;
            let paid = api.finished(answer).await.ok();
            assert_eq!(paid["payment"]["status"], "SUCCEEDED", "{payer} pays {payee}: {paid:#}");
            if payee == "bob" {
                api.in_channels("bob", sat).await;
            }
        }
        cloud.stop().await;
    });
}

#[test]
fn kills_of_the_master_at_each_step_end_in_one_instance() {
    harness::run(Duration::from_secs(600), async {
        let mut cloud = Cloud::start(Compute::default()).await;
        let steps = ["freeze", "run", "await_join"];
        assert!(steps.iter().all(|step| LaunchStep::NAMES.contains(step)));
        let mut points = vec!["hosting.make.before".to_owned(), "hosting.make.after".to_owned()];
        points.extend(steps.iter().flat_map(|step| ["before", "after"].map(|when| format!("launch.{step}.{when}"))));
        for (n, point) in points.iter().enumerate() {
            eprintln!("the master is killed at {point}");
            let uuid = format!("user{n}");
            cloud.d.end_masters().await;
            let doomed = cloud.d.start_master(&[("SCALE_LND_FAULT", &format!("{point}=kill"))]).await;
            let api = cloud.d.api();
            let body = serde_json::json!({ "uuid": uuid, "wait": 50 });
            let unanswered = tokio::spawn(async move { api.try_post("create", body).await });
            cloud.d.master_died(doomed).await;
            let _lost = unanswered.await.unwrap();
            cloud.d.start_master(&[]).await;
            cloud.create_later(&uuid).await.unwrap();
            cloud.works(&uuid).await;
            let instances = cloud.account.instances().await;
            assert_eq!(instances.len(), n + 1, "one instance for {uuid}, struck at {point}: {instances:#?}");
            assert!(!instances.iter().any(is_terminated), "{point}");
            assert_eq!(cloud.account.tagged("Name", &format!("lnd-{uuid}")).await.len(), 1, "{point}");
        }
        cloud.stop().await;
    });
}

#[test]
fn two_deployments_in_one_account_do_not_touch_each_others_instances() {
    harness::run(DEADLINE, async {
        let cloud = Cloud::start(Compute::default()).await;
        // Of the same name, even.
        let other = deployment(&cloud.account, &cloud.proxy, &Compute::default()).await;
        cloud.d.api().create("alice").await;
        other.api().create("alice").await;
        let instances = cloud.account.tagged("Name", "lnd-alice").await;
        assert_eq!(instances.len(), 2);
        assert_ne!(tag(&instances[0], "scale-lnd-authority"), tag(&instances[1], "scale-lnd-authority"));
        cloud.works("alice").await;
        assert_eq!(other.api().get("getinfo", &[("uuid", "alice")]).await.status, 200);
        // Both have looked several times by now, and neither has seen a stranger.
        let looks = cloud.proxy.calls("DescribeInstances");
        eventually("both have looked again", LIMIT, || async {
            (cloud.proxy.calls("DescribeInstances") >= looks + 6).then_some(())
        })
        .await;
        for log in cloud.d.logs().values().chain(other.logs().values()) {
            assert!(!log.contains("ALARM"), "{log}");
        }
        other.stop().await;
        cloud.stop().await;
    });
}

#[test]
fn an_instance_that_comes_back_at_another_address_is_found_again() {
    harness::run(DEADLINE, async {
        let cloud = Cloud::start(Compute::default()).await;
        cloud.d.api().create("alice").await;
        cloud.works("alice").await;
        let instance = cloud.only_instance().await;
        let old = instance.private_ip_address().unwrap().to_owned();
        let new = format!("{}.99", old.rsplit_once('.').unwrap().0);
        cloud.proxy.set(|faults| drop(faults.moved.insert(old, new.clone())));
        cloud.machines.restart_at(instance.instance_id().unwrap(), &new).await;
        cloud.works("alice").await;
        let hosts = cloud.d.config_cli(&["host", "list", "--json"]).await;
        assert!(hosts.contains(&new), "{hosts}");
        cloud.stop().await;
    });
}
