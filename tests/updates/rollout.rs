//! A wanted release comes to every node by itself, canaries first, and one that is no good stops at the first of them.

use super::upgrade::{Fleet, NEW, OLD, keep_paying, one_that_crashes, pay, the_new_lnd};
use crate::harness::emulator::Emulator;
use crate::harness::events::Events;
use crate::harness::{self, Api, Setup, eventually};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(420);
const SOON: Duration = Duration::from_secs(180);
const FROM_OLD: &str = "version = \"0.21.2-beta\"\nupdate_from = [\"0.20.1-beta\"]\n";
/// As fast as it goes, but for what nodes share.
const FAST: &str =
    "bake_seconds = 1\nmax_unavailable = 3\nmax_unavailable_per_host = 3\nprogress_deadline_seconds = 90\n";
const IMPATIENT: &str =
    "bake_seconds = 1\nmax_unavailable = 3\nmax_unavailable_per_host = 3\nprogress_deadline_seconds = 8\n";

async fn operator(fleet: &Fleet) -> Api {
    let last = fleet.d.masters.len() - 1;
    fleet.d.api_of(last).with_key(&fleet.d.operator_key().await)
}

/// The rollout, once it is in this state.
async fn rollout_is(operator: &Api, serial: u64, state: &str) -> Value {
    eventually(&format!("rollout {serial} is {state}"), SOON, || async {
        let rollout = operator.get(&format!("rollouts/{serial}"), &[]).await.ok();
        (rollout["state"] == state && rollout["under_way"] == json!({})).then_some(rollout)
    })
    .await
}

/// The results of all upgrades to this release, oldest first, with when each began and ended.
async fn upgrades(operator: &Api, serial: u64) -> Vec<Value> {
    let listed = operator.get("operations", &[("limit", "200")]).await.ok();
    let of_it = |operation: &&Value| operation["kind"] == "upgrade" && operation["result"]["serial"] == serial;
    listed["operations"].as_array().unwrap().iter().rev().filter(of_it).cloned().collect()
}

async fn versions(fleet: &Fleet, uuids: &[&str]) -> Vec<String> {
    let mut versions = Vec::new();
    for uuid in uuids {
        versions.push(fleet.version(uuid).await);
    }
    versions
}

#[test]
fn a_bad_release_stops_at_its_canary_and_a_good_one_comes_to_all() {
    harness::run(DEADLINE, async {
        let users = ["alice", "bob", "carol", "dave"];
        let mut fleet = Fleet::start(1_000_000).await;
        let api = fleet.d.api();
        fleet.d.create_users(&users).await;
        api.confirmed("alice", 1_000_000).await;
        pay(&api, "alice", "bob", 50_000).await;
        // Two masters, one of which follows the plan.
        fleet.d.start_master(&[]).await;
        let operator = operator(&fleet).await;
        assert_eq!(operator.get("rollouts/7", &[]).await.problem(404), "rollout_not_found");

        let revert = format!("{FROM_OLD}revert_to = [\"0.20.1-beta\"]\n");
        fleet.release(7, one_that_crashes(), &revert, IMPATIENT).await;
        let halted = rollout_is(&operator, 7, "halted").await;
        let (failed, canaries) = (halted["failed"].as_object().unwrap(), halted["canaries"].as_array().unwrap());
        assert_eq!((failed.len(), canaries.len()), (1, 1), "{halted:#}");
        assert!(failed.contains_key(canaries[0].as_str().unwrap()), "{halted:#}");
        let with_channels = [fleet.d.node_id("alice").await, fleet.d.node_id("bob").await];
        assert!(with_channels.iter().any(|id| canaries[0] == **id), "one with channels proves more: {halted:#}");
        assert!(halted["why"].as_str().unwrap().contains("The node is back on 0.20.1-beta"), "{halted:#}");
        assert_eq!(versions(&fleet, &users).await, [OLD; 4], "every other node is untouched, the canary is back");
        pay(&api, "alice", "bob", 1_000).await;
        let waiting = operator.get("rollouts/7/nodes", &[]).await.ok();
        let reason = |id: &Value| {
            let nodes = waiting["nodes"].as_array().unwrap();
            nodes.iter().find(|node| node["node"] == *id).map(|node| node["reason"].clone())
        };
        assert_eq!(reason(&canaries[0]), Some(json!("failed")), "{waiting:#}");
        assert_eq!(waiting["nodes"].as_array().unwrap().len(), 4, "{waiting:#}");
        assert_eq!(operator.post("rollouts/7/pause", json!({})).await.problem(409), "rollout_state");
        assert_eq!(api.post("rollouts/7/abort", json!({})).await.status, 403, "an app's key");

        let end = Arc::new(AtomicBool::new(false));
        let paying = tokio::spawn(keep_paying(fleet.d.api(), Arc::clone(&end)));
        fleet.release(8, the_new_lnd(), FROM_OLD, FAST).await;
        let mut events = Events::follow(&operator, "/lnd/v1/rollouts/8", None).await;
        let done = rollout_is(&operator, 8, "done").await;
        end.store(true, Ordering::Relaxed);
        let paid = paying.await.unwrap();
        assert_eq!(versions(&fleet, &users).await, [NEW; 4], "{done:#}");
        assert_eq!(operator.get("rollouts/7", &[]).await.ok()["state"], "superseded");
        assert_eq!((&done["progress"]["updated"], &done["failed"]), (&json!(4), &json!({})), "{done:#}");
        let first = events.next().await.unwrap();
        assert_eq!(first.data["serial"], 8);

        let all = upgrades(&operator, 8).await;
        let of: BTreeMap<&str, &Value> = all.iter().map(|one| (one["result"]["uuid"].as_str().unwrap(), one)).collect();
        assert_eq!((all.len(), of.len()), (4, 4), "each node once: {all:#?}");
        let (alice, bob) = (of["alice"], of["bob"]);
        let at = |one: &Value, when: &str| one[when].as_str().unwrap().to_owned();
        let apart =
            at(alice, "updated_at") <= at(bob, "created_at") || at(bob, "updated_at") <= at(alice, "created_at");
        assert!(apart, "they share a channel: {alice:#} {bob:#}");
        let first_end = at(&all[0], "updated_at");
        assert!(all[1..].iter().all(|one| at(one, "created_at") > first_end), "the canary goes alone: {all:#?}");
        api.in_channels("bob", 51_000 + 100 * paid).await;
        pay(&api, "bob", "alice", 20_000).await;
        let watched = fleet.d.config_cli(&["rollout", "watch"]).await;
        assert!(watched.contains("4/4 done"), "{watched}");
        fleet.d.stop().await;
    });
}

/// What a release has broken, and may not be taken back, is mended by the next one; and measured by how it was before the first.
#[test]
fn a_broken_node_is_mended_by_the_next_release() {
    harness::run(DEADLINE, async {
        let fleet = Fleet::start(1_000_000).await;
        let api = fleet.d.api();
        fleet.d.create_users(&["alice", "bob"]).await;
        api.confirmed("alice", 1_000_000).await;
        pay(&api, "alice", "bob", 50_000).await;
        let operator = operator(&fleet).await;
        let broken = String::from_utf8(one_that_crashes()).unwrap().replace("0.21.2", "0.21.1").into_bytes();
        fleet.release(7, broken, "version = \"0.21.1-beta\"\nupdate_from = [\"0.20.1-beta\"]\n", IMPATIENT).await;
        let halted = rollout_is(&operator, 7, "halted").await;
        assert!(halted["why"].as_str().unwrap().contains("It stays on 0.21.1-beta"), "{halted:#}");

        let from_both = "version = \"0.21.2-beta\"\nupdate_from = [\"0.20.1-beta\", \"0.21.1-beta\"]\n";
        fleet.release(8, the_new_lnd(), from_both, FAST).await;
        rollout_is(&operator, 8, "done").await;
        assert_eq!(versions(&fleet, &["alice", "bob"]).await, [NEW; 2]);
        let all = upgrades(&operator, 8).await;
        assert!(all.iter().any(|one| one["result"]["from"] == "0.21.1-beta"), "{all:#?}");
        pay(&api, "alice", "bob", 1_000).await;
        api.in_channels("bob", 51_000).await;
        fleet.d.stop().await;
    });
}

/// An operator's words; and masters that die before and after each of the keeper's commits: each node once, nothing lost.
#[test]
fn a_rollout_survives_its_masters_and_heeds_its_operator() {
    harness::run(DEADLINE, async {
        let mut fleet = Fleet::start(0).await;
        let users = ["alice", "bob", "carol"];
        fleet.d.create_users(&users).await;
        fleet.d.end_masters().await;
        // Each dies where it does; what is begun goes on under the next.
        let first = fleet.d.start_master(&[("SCALE_LND_FAULT", "rollouts.begin.before=kill")]).await;
        fleet.release(7, the_new_lnd(), FROM_OLD, FAST).await;
        fleet.d.master_died(first).await;
        for point in ["begin.after", "note.before", "note.after"] {
            let master = fleet.d.spawn_master(&[("SCALE_LND_FAULT", &format!("rollouts.{point}=kill"))]).await;
            fleet.d.master_died(master).await;
        }
        let said = fleet.d.config_cli(&["rollout", "pause"]).await;
        assert!(said.contains("rollout 7 is paused"), "{said}");
        fleet.d.start_master(&[]).await;
        let operator = operator(&fleet).await;
        let paused = rollout_is(&operator, 7, "paused").await;
        let reasons = operator.get("rollouts/7/nodes", &[]).await.ok();
        let nodes = reasons["nodes"].as_array().unwrap();
        assert!(!nodes.is_empty() && nodes.iter().all(|node| node["reason"] == "not_running"), "{reasons:#}");
        assert_eq!(operator.post("rollouts/7/resume", json!({})).await.ok()["state"], "running", "{paused:#}");
        let done = rollout_is(&operator, 7, "done").await;
        assert_eq!(done["progress"]["updated"], 3, "{done:#}");
        assert_eq!(versions(&fleet, &users).await, [NEW; 3]);
        let all = upgrades(&operator, 7).await;
        assert_eq!(all.len(), 3, "each node once: {all:#?}");
        assert_eq!(operator.post("rollouts/7/resume", json!({})).await.problem(409), "rollout_state");

        // One that comes later gets it, too; after an abort nobody does.
        fleet.d.create_users(&["dave"]).await;
        eventually("dave has the release", SOON, || async { (fleet.version("dave").await == NEW).then_some(()) }).await;
        fleet.release(8, the_new_lnd(), FROM_OLD, FAST).await;
        rollout_is(&operator, 8, "done").await;
        assert_eq!(upgrades(&operator, 8).await.len(), 0, "all have that version");
        fleet.d.stop().await;
    });
}

/// On Firestore nobody hears of two collections' changes in their order. And what one master has begun another ends.
#[test]
fn a_rollout_on_firestore_is_taken_over() {
    harness::run(DEADLINE, async {
        let firestore = Some(Emulator::shared().await.url.clone());
        let mut fleet = Fleet::start_with(Setup { initial_funding_sat: 0, firestore, ..Setup::default() }).await;
        let users = ["alice", "bob", "carol", "dave"];
        fleet.d.create_users(&users).await;
        fleet.d.end_masters().await;
        let first = fleet.d.start_master(&[("SCALE_LND_FAULT", "rollouts.note.before=kill")]).await;
        fleet.release(7, the_new_lnd(), FROM_OLD, FAST).await;
        fleet.d.start_master(&[]).await;
        fleet.d.master_died(first).await;
        let operator = operator(&fleet).await;
        rollout_is(&operator, 7, "done").await;
        assert_eq!(versions(&fleet, &users).await, [NEW; 4]);
        let all = upgrades(&operator, 7).await;
        assert_eq!(all.len(), 4, "each node once: {all:#?}");
        fleet.d.stop().await;
    });
}

/// Says the right version, runs, and never answers.
fn one_that_hangs() -> Vec<u8> {
    String::from_utf8(one_that_crashes()).unwrap().replace("echo it crashes; exit 1", "exec sleep 600").into_bytes()
}

#[test]
fn other_lnds_that_are_no_good_stop_at_the_canary_too() {
    harness::run(DEADLINE, async {
        let users = ["alice", "bob"];
        let fleet = Fleet::start(0).await;
        fleet.d.create_users(&users).await;
        let operator = operator(&fleet).await;

        let revert = format!("{FROM_OLD}revert_to = [\"0.20.1-beta\"]\n");
        fleet.release(7, one_that_hangs(), &revert, IMPATIENT).await;
        let hangs = rollout_is(&operator, 7, "halted").await;
        assert_eq!(hangs["failed"].as_object().unwrap().len(), 1, "{hangs:#}");
        assert!(hangs["why"].as_str().unwrap().contains("The node is back on 0.20.1-beta"), "{hangs:#}");
        assert_eq!(versions(&fleet, &users).await, [OLD; 2]);

        // It is another version than the release says: found before anything is touched.
        let pids = fleet.d.lnd_pids().await;
        let other = b"#!/bin/sh\necho lnd version 0.21.1-beta commit=\n".to_vec();
        fleet.release(8, other, FROM_OLD, IMPATIENT).await;
        let wrong = rollout_is(&operator, 8, "halted").await;
        assert!(wrong["why"].as_str().unwrap().contains("says that it is 0.21.1-beta"), "{wrong:#}");
        assert_eq!(fleet.d.lnd_pids().await, pids);

        // An operator who tries again hears the same again, of the same node alone.
        assert_eq!(operator.post("rollouts/8/retry", json!({})).await.ok()["state"], "running");
        let again = rollout_is(&operator, 8, "halted").await;
        assert_eq!(again["failed"], wrong["failed"], "{again:#}");
        assert_eq!(operator.post("rollouts/8/abort", json!({})).await.ok()["state"], "aborted");
        assert_eq!(versions(&fleet, &users).await, [OLD; 2]);

        fleet.release(9, the_new_lnd(), FROM_OLD, FAST).await;
        rollout_is(&operator, 9, "done").await;
        assert_eq!(versions(&fleet, &users).await, [NEW; 2]);
        fleet.d.stop().await;
    });
}
