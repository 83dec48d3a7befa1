//! What may go wrong, and still ends well; or says what it needs.

use super::moto::{data_volume, is_terminated, tag};
use super::{Cloud, Compute, DEADLINE, LIMIT};
use crate::harness::{self, Pauses, eventually};
use serde_json::json;

#[test]
fn a_lost_reply_gives_one_instance() {
    harness::run(DEADLINE, async {
        let cloud = Cloud::start(Compute::default()).await;
        cloud.proxy.set(|faults| faults.lost = 2);
        cloud.d.api().create("alice").await;
        cloud.works("alice").await;
        // The host has joined, and alice has her lnd, before EC2 has said that there is an instance.
        cloud.launch_is("succeeded").await;
        assert_eq!(cloud.proxy.calls("RunInstances"), 3, "asked until there was an answer");
        assert_eq!(cloud.account.instances().await.len(), 1);
        cloud.stop().await;
    });
}

#[test]
fn an_answer_that_never_comes_is_looked_for_and_found() {
    harness::run(DEADLINE, async {
        let cloud = Cloud::start(Compute { join_within_seconds: 15, ..Compute::default() }).await;
        cloud.proxy.set(|faults| faults.lost = usize::MAX);
        cloud.d.api().create("alice").await;
        cloud.works("alice").await;
        cloud.launch_is("succeeded").await;
        assert!(cloud.proxy.calls("RunInstances") > 2);
        assert_eq!(cloud.account.instances().await.len(), 1);
        cloud.stop().await;
    });
}

#[test]
fn no_capacity_in_the_first_zone_leads_to_the_next() {
    harness::run(DEADLINE, async {
        let cloud = Cloud::start(Compute::default()).await;
        let [first, second] = cloud.account.subnets.clone();
        cloud.proxy.set(|faults| faults.full = [first.clone(), second.clone()].into());
        let create = cloud.create_later("alice");
        cloud.launch_says("no capacity").await;
        assert!(cloud.account.instances().await.is_empty());
        cloud.proxy.set(|faults| faults.full = [first].into());
        create.await.unwrap();
        cloud.works("alice").await;
        let instance = cloud.only_instance().await;
        assert_eq!(instance.subnet_id(), Some(second.as_str()));
        assert_eq!(instance.instance_type().unwrap().as_str(), "t3.medium");
        assert_eq!(cloud.account.instances().await.len(), 1);
        cloud.stop().await;
    });
}

#[test]
fn a_throttled_account_is_asked_more_slowly() {
    harness::run(DEADLINE, async {
        let cloud = Cloud::start(Compute::default()).await;
        cloud.proxy.set(|faults| faults.throttled = 3);
        let begun = std::time::Instant::now();
        let (alice, bob) = (cloud.create_later("alice"), cloud.create_later("bob"));
        alice.await.unwrap();
        bob.await.unwrap();
        // Three pauses for both together, the last of 2 s at least.
        assert!(begun.elapsed().as_millis() >= 2_500, "{:?}", begun.elapsed());
        assert_eq!(cloud.proxy.calls("RunInstances"), 5, "three were too many");
        assert_eq!(cloud.account.instances().await.len(), 2);
        cloud.stop().await;
    });
}

/// EC2 has accepted it, and takes its time.
#[test]
fn an_instance_that_stays_pending_is_waited_for() {
    harness::run(DEADLINE, async {
        let cloud = Cloud::start(Compute::default()).await;
        cloud.machines.wait(true);
        cloud.proxy.set(|faults| faults.pending = true);
        let create = cloud.create_later("alice");
        cloud.launch_says("boots").await;
        let looks = cloud.proxy.calls("DescribeInstances");
        eventually("it was looked at, again and again", LIMIT, || async {
            (cloud.proxy.calls("DescribeInstances") >= looks + 3).then_some(())
        })
        .await;
        cloud.launch_says("boots").await;
        let first = cloud.only_instance().await.instance_id().unwrap().to_owned();
        cloud.machines.wait(false);
        // Its agent has joined before EC2 says that it runs.
        create.await.unwrap();
        cloud.works("alice").await;
        cloud.proxy.set(|faults| faults.pending = false);
        cloud.works("alice").await;
        assert_eq!(cloud.proxy.calls("RunInstances"), 1, "asked for once");
        assert_eq!(cloud.only_instance().await.instance_id(), Some(first.as_str()));
        cloud.stop().await;
    });
}

/// What makes each instance end is not answered with ever more of them.
#[test]
fn where_each_instance_ends_the_next_one_waits() {
    harness::run(DEADLINE, async {
        let cloud = Cloud::start(Compute::default()).await;
        cloud.machines.wait(true);
        cloud.proxy.set(|faults| faults.ends = true);
        let create = cloud.create_later("alice");
        cloud.launch_says("(Client.InvalidKMSKey.InvalidState: see its key), like the one before it").await;
        assert_eq!(cloud.proxy.calls("RunInstances"), 2, "the second at once, the third later");
        assert!(cloud.account.living().await.is_empty());
        cloud.proxy.set(|faults| faults.ends = false);
        cloud.machines.wait(false);
        create.await.unwrap();
        cloud.works("alice").await;
        assert_eq!(cloud.proxy.calls("RunInstances"), 3);
        cloud.stop().await;
    });
}

#[test]
fn no_request_of_a_user_waits_for_ec2() {
    harness::run(DEADLINE, async {
        let cloud = Cloud::start(Compute::default()).await;
        cloud.create_later("alice").await.unwrap();
        let api = cloud.d.api();
        cloud.proxy.hold();
        let accepted = api.post("create", json!({ "uuid": "bob", "wait": 0 })).await;
        assert_eq!(accepted.status, 202, "{accepted:?}");
        for action in ["RunInstances", "DescribeInstances"] {
            eventually(&format!("{action} waits"), LIMIT, || async { cloud.proxy.holds(action).then_some(()) }).await;
        }
        for call in ["getinfo", "walletbalance", "listchannels"] {
            assert_eq!(api.get(call, &[("uuid", "alice")]).await.status, 200, "{call}");
        }
        let operation = format!("operations/{}", accepted.body["id"].as_str().unwrap());
        assert_eq!(api.get(&operation, &[]).await.ok()["state"], "running");
        assert!(cloud.proxy.holds("RunInstances"), "all of it while EC2 says nothing");
        cloud.proxy.release();
        cloud.works("bob").await;
        assert_eq!(cloud.account.living().await.len(), 2);
        cloud.stop().await;
    });
}

#[test]
fn what_the_operator_must_do_is_said_and_then_it_goes_on() {
    harness::run(DEADLINE, async {
        let cloud = Cloud::start(Compute::default()).await;
        cloud.proxy.set(|faults| faults.denied = true);
        let create = cloud.create_later("alice");
        cloud.launch_says("AWS does not allow it: UnauthorizedOperation").await;
        cloud.proxy.set(|faults| faults.denied = false);
        create.await.unwrap();
        cloud.works("alice").await;
        assert_eq!(cloud.account.instances().await.len(), 1);
        cloud.stop().await;
    });
}

#[test]
fn missing_credentials_are_said_and_given_ones_are_used() {
    harness::run(DEADLINE, async {
        let mut cloud = Cloud::start(Compute { credentials: false, ..Compute::default() }).await;
        let create = cloud.create_later("alice");
        cloud.launch_says("AWS does not allow it").await;
        create.abort();
        cloud.d.end_masters().await;
        let given = [("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test")];
        cloud.d.start_master(&given).await;
        cloud.create_later("alice").await.unwrap();
        cloud.works("alice").await;
        assert_eq!(cloud.account.instances().await.len(), 1);
        cloud.stop().await;
    });
}

#[test]
fn an_unknown_template_is_said_and_a_right_one_is_used() {
    harness::run(DEADLINE, async {
        let mut cloud = Cloud::start(Compute { template: Some("lt-00000000000000000"), ..Compute::default() }).await;
        let create = cloud.create_later("alice");
        cloud.launch_says("InvalidLaunchTemplateId.NotFoundException").await;
        create.abort();
        // The operator puts it right; what was frozen for the wrong one is given up.
        cloud.d.end_masters().await;
        let config = std::fs::read_to_string(&cloud.d.config).unwrap();
        let config = config.replace("lt-00000000000000000", &cloud.account.template);
        std::fs::write(&cloud.d.config, config).unwrap();
        cloud.d.start_master(&[]).await;
        cloud.create_later("alice").await.unwrap();
        cloud.works("alice").await;
        assert_eq!(cloud.account.instances().await.len(), 1);
        cloud.stop().await;
    });
}

#[test]
fn a_host_that_never_joins_is_terminated_and_replaced() {
    harness::run(DEADLINE, async {
        let mut cloud = Cloud::start(Compute { join_within_seconds: 12, ..Compute::default() }).await;
        cloud.machines.next_stays_dark();
        let create = cloud.create_later("alice");
        cloud.launch_says("boots").await;
        // The way back is as sure as the way there.
        for point in ["launch.retire.before", "launch.retire.after"] {
            cloud.d.end_masters().await;
            let doomed = cloud.d.spawn_master(&[("SCALE_LND_FAULT", &format!("{point}=kill"))]).await;
            cloud.d.master_died(doomed).await;
        }
        create.abort();
        cloud.d.start_master(&[]).await;
        cloud.create_later("alice").await.unwrap();
        cloud.works("alice").await;
        let (gone, living): (Vec<_>, Vec<_>) = cloud.account.instances().await.into_iter().partition(is_terminated);
        assert_eq!((gone.len(), living.len()), (1, 1));
        let [before, now] = [&gone[0], &living[0]];
        assert_eq!(tag(before, "scale-lnd-host"), tag(now, "scale-lnd-host"), "the same host");
        assert_eq!((tag(before, "scale-lnd-generation"), tag(now, "scale-lnd-generation")), ("1".into(), "2".into()));
        cloud.stop().await;
    });
}

#[test]
fn one_that_dies_while_it_boots_is_replaced_at_once() {
    harness::run(DEADLINE, async {
        let cloud = Cloud::start(Compute::default()).await;
        cloud.machines.next_stays_dark();
        let create = cloud.create_later("alice");
        let dying = eventually("an instance", LIMIT, || async {
            cloud.account.instances().await.first().and_then(|instance| instance.instance_id().map(str::to_owned))
        })
        .await;
        cloud.launch_says("boots").await;
        cloud.machines.have_seen(&dying).await;
        cloud.account.terminate(&dying).await;
        create.await.unwrap();
        cloud.works("alice").await;
        assert_ne!(cloud.only_instance().await.instance_id(), Some(dying.as_str()));
        cloud.stop().await;
    });
}

/// Before there can be a wallet, the create goes on elsewhere; after that, nothing is decided for the operator.
#[test]
fn one_that_dies_during_a_create_is_left_for_another_until_a_wallet_may_exist() {
    harness::run(DEADLINE, async {
        let mut cloud = Cloud::start(Compute::default()).await;
        let points = ["create.start_lnd.before", "create.init_wallet.after"];
        let pauses = Pauses::at(&mut cloud.d, &points).await;
        let api = cloud.d.api();
        let accepted = api.post("create", json!({ "uuid": "alice", "wait": 0 })).await;
        let id = accepted.body["id"].as_str().unwrap();
        let mut dead = Vec::new();
        for point in points {
            pauses.reached(point).await;
            let dying = cloud.only_instance().await.instance_id().unwrap().to_owned();
            cloud.account.terminate(&dying).await;
            dead.push(dying);
            eventually("the end is told", LIMIT, || async {
                let told = "ALARM: a host's instance is terminated";
                let count: usize = cloud.d.logs().values().map(|log| log.matches(told).count()).sum();
                (count == dead.len()).then_some(())
            })
            .await;
            pauses.go(point);
        }
        let parked = eventually("the create is parked", LIMIT, || async {
            let operation = api.get(&format!("operations/{id}"), &[]).await.ok();
            (operation["state"] == "parked").then_some(operation)
        })
        .await;
        assert!(parked.to_string().contains("scale-lnd host recover h"), "{parked:#}");
        assert_ne!(dead[0], dead[1], "another one after the first");
        assert!(cloud.account.living().await.is_empty(), "no third");
        cloud.stop().await;
    });
}

#[test]
fn an_orphan_is_removed_only_where_no_wallet_can_ever_have_been() {
    harness::run(DEADLINE, async {
        let cloud = Cloud::start(Compute::default()).await;
        cloud.machines.next_stays_dark();
        let create = cloud.create_later("alice");
        cloud.launch_says("boots").await;
        let first = cloud.only_instance().await.instance_id().unwrap().to_owned();
        // Else it would be the next that stays dark.
        cloud.machines.have_seen(&first).await;
        cloud.account.terminate(&first).await;
        create.await.unwrap();
        cloud.works("alice").await;
        let host = cloud.only_instance().await;
        assert_eq!(tag(&host, "scale-lnd-generation"), "2", "the first that joined");
        // What comes late, of the generation that never joined and of the one that did; and a copy of the former.
        (0..3).for_each(|_| cloud.machines.next_stays_dark());
        let never = cloud.account.run_like(&host, 1, true).await;
        let joined = cloud.account.run_like(&host, 2, true).await;
        let copied = cloud.account.run_like(&host, 1, false).await;
        eventually("it is removed", LIMIT, || async {
            let all = cloud.account.instances().await;
            let it = all.iter().find(|instance| instance.instance_id() == Some(never.as_str()));
            it.filter(|instance| is_terminated(instance)).map(drop)
        })
        .await;
        eventually("the others are told", LIMIT, || async {
            let logs = cloud.d.logs();
            let told = |id: &str| {
                let alarms = logs.values().flat_map(|log| log.lines()).filter(|line| line.contains("ALARM"));
                alarms.filter(|line| line.contains(id)).count()
            };
            assert_eq!(told(&never), 0);
            (told(&joined) == 1 && told(&copied) == 1).then_some(())
        })
        .await;
        let looks = cloud.proxy.calls("DescribeInstances");
        eventually("it has been looked again", LIMIT, || async {
            (cloud.proxy.calls("DescribeInstances") >= looks + 3).then_some(())
        })
        .await;
        let mut left: Vec<_> =
            cloud.account.living().await.iter().map(|i| i.instance_id().unwrap().to_owned()).collect();
        left.sort_unstable();
        let mut wanted = vec![host.instance_id().unwrap().to_owned(), joined, copied];
        wanted.sort_unstable();
        assert_eq!(left, wanted);
        cloud.works("alice").await;
        cloud.stop().await;
    });
}

#[test]
fn one_that_dies_with_a_wallet_is_told_and_nothing_else_is_done_to_it() {
    harness::run(DEADLINE, async {
        let cloud = Cloud::start(Compute::default()).await;
        cloud.d.api().create("alice").await;
        cloud.works("alice").await;
        let dead = cloud.only_instance().await;
        cloud.account.terminate(dead.instance_id().unwrap()).await;
        eventually("the end is told", LIMIT, || async {
            let logs = cloud.d.logs();
            logs.values().any(|log| log.contains("ALARM: a host's instance is terminated")).then_some(())
        })
        .await;
        // Nobody is put there any more; alice's node stays hers.
        cloud.d.api().create("bob").await;
        cloud.works("bob").await;
        assert_eq!(tag(&cloud.only_instance().await, "Name"), "lnd-bob");
        let node = cloud.d.api().get("getinfo", &[("uuid", "alice")]).await;
        assert_eq!(node.status, 503, "{:#}", node.body);
        // Without its volume there is nothing to recover, and nothing is started instead.
        cloud.account.delete_volume(&data_volume(&dead).unwrap()).await;
        let recovery = cloud.recovery(&dead).await;
        eventually("the recovery says so", LIMIT, || async {
            let shown = cloud.operation(&recovery).await;
            let says = shown["progress"].as_str().unwrap().contains("does not exist any more");
            (shown["state"]["state"] == "parked" && says).then_some(())
        })
        .await;
        assert_eq!(tag(&cloud.only_instance().await, "Name"), "lnd-bob");
        cloud.stop().await;
    });
}
