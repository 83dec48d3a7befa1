//! What every call must pass, and what every answer must be: lnd's JSON against lnd's own REST, scopes and apps, bad
//! input, nodes that are not there, operations and idempotency, secrets, the channel backup. Each test has one
//! deployment, and many checks on it.

mod backup;
mod bad_input;
mod expiry;
mod hosts;
mod idempotency;
mod money;
mod node_states;
mod operations;
mod parity;
mod payreqs;
mod reads;
mod scopes;
mod sealed;
mod secrets;
mod seed;
pub mod store;

use crate::harness::{self, Api, Deployment, Setup};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(240);

/// No rate limit in the way of a test that asks everything.
fn setup() -> Setup {
    let more = "[http]\nper_key_per_second = 10000\nper_key_burst = 10000\n".to_owned();
    Setup { more, ..Setup::default() }
}

/// One channel, then two: everything that needs a payment.
#[test]
fn two_users_and_a_payment_pass_the_gates() {
    harness::run(DEADLINE, async {
        let d = Deployment::start(setup()).await;
        let api = d.api();
        create(&api, &["alice", "bob"]).await;
        api.confirmed("alice", 1_000_000).await;
        let payreq = api.invoice("bob", 50_000).await;
        let paid = api.post("pay", json!({ "uuid": "alice", "payreq": payreq, "wait": 50 })).await;
        let paid = api.finished(paid).await.ok();
        let channel_point = paid["channel"]["channel_point"].as_str().unwrap();

        backup::is_stored_at_once_and_becomes_the_good_one(&d, "alice", channel_point).await;
        backup::one_that_covers_fewer_never_becomes_the_good_one(&d, "alice").await;
        parity::every_answer_is_lnds_own(&d, &api, &payreq, &paid["payment"]).await;
        reads::show_what_was_answered_before(&api).await;
        operations::can_be_followed_and_resumed(&api).await;
        operations::a_close_wants_to_know_which_channel(&api).await;
        idempotency::keys_replay_and_refuse(&d, &api).await;
        seed::is_what_the_node_is_made_of(&d, "alice").await;
        secrets::occur_nowhere(&d, &api, &payreq).await;
        d.stop().await;
    });
}

/// No channel: everything that is refused.
#[test]
fn what_must_be_refused_is_refused_and_does_nothing() {
    harness::run(DEADLINE, async {
        let mut d = Deployment::start(setup()).await;
        let api = d.api();
        create(&api, &["alice", "bob"]).await;
        api.confirmed("alice", 1_000_000).await;
        api.confirmed("bob", 1_000_000).await;
        funding_is_told_confirmed(&api, &["alice", "bob"]).await;

        let before = store::everything(&d).await;
        scopes::open_what_they_name_and_nothing_else(&d, &api).await;
        scopes::another_apps_user_is_as_unknown_as_nobody(&d, &api).await;
        scopes::a_revoked_key_opens_nothing(&d, &api).await;
        bad_input::each_row_has_its_answer(&api).await;
        assert_eq!(store::everything(&d).await, before, "what was refused has changed something");
        money::what_is_too_dear_is_refused(&d, &api).await;
        assert_eq!(store::everything(&d).await, before, "what was too dear has changed something");
        refusals_show_no_place(&d, &api);

        parity::peers_come_and_go(&d, &api).await;
        node_states::a_dead_node_slows_nobody(&d, &api).await;
        node_states::a_stopped_node_says_so(&mut d, &api).await;
        node_states::a_node_being_created_says_so(&d, &api).await;
        let api = node_states::a_locked_node_says_so(&mut d).await;
        refusals_show_no_place(&d, &api);
        sealed::secrets_of_another_node_do_not_open(&mut d).await;
        d.stop().await;
    });
}

/// A chain of its own, because it is taken away.
#[test]
fn a_node_that_is_behind_and_one_that_was_stopped_say_so() {
    harness::run(DEADLINE, async {
        let (d, chain) = node_states::on_a_chain_of_its_own().await;
        node_states::a_node_that_is_behind_the_chain_says_so(&d, chain).await;
        node_states::a_node_that_was_stopped_by_an_order_says_so(&d).await;
        d.stop().await;
    });
}

async fn create(api: &Api, uuids: &[&str]) {
    futures::future::join_all(uuids.iter().map(|uuid| api.create(uuid))).await;
}

/// The API with another key, once the master has heard of that key: another process has made it.
async fn with_new_key(api: &Api, key: &str) -> Api {
    let api = api.with_key(key);
    harness::eventually("the new key is known", Duration::from_secs(5), || async {
        (api.get("operations", &[]).await.status != 401).then_some(())
    })
    .await;
    api
}

/// Until then the Store still changes by itself.
async fn funding_is_told_confirmed(api: &Api, uuids: &[&str]) {
    for uuid in uuids {
        harness::eventually(&format!("{uuid}'s funding is confirmed"), Duration::from_secs(30), || async {
            let node = api.get("node", &[("uuid", uuid)]).await;
            (node.body["funding"]["state"] == "confirmed").then_some(())
        })
        .await;
    }
    // The list asks no lnd: it says so when it was written down.
    harness::eventually("the list says so, too", Duration::from_secs(30), || async {
        let listed = api.get("nodes", &[]).await.ok();
        let mut listed = listed["nodes"].as_array().unwrap().iter();
        listed.all(|node| node["funding"]["state"] == "confirmed").then_some(())
    })
    .await;
    for uuid in uuids {
        let node = api.get("node", &[("uuid", uuid)]).await.ok();
        let listed = api.get("nodes", &[]).await.ok();
        let listed = listed["nodes"].as_array().unwrap().iter().find(|listed| listed["uuid"] == *uuid).unwrap();
        assert_eq!(listed["funding"], node["funding"]);
    }
}

/// Of what was refused so far: no path of this machine, no address of a host, no key.
fn refusals_show_no_place(d: &Deployment, api: &Api) {
    let key_secret = d.key.rsplit('_').next().unwrap();
    let (dir, home) = (std::env::temp_dir(), std::env::var("HOME").unwrap_or_else(|_| "/home".to_owned()));
    assert!(d.dir.path().starts_with(&dir));
    let dir = dir.to_str().unwrap();
    let seen = api.seen.lock().unwrap();
    let refusals: Vec<_> = seen.iter().filter(|answer| answer.status >= 400).collect();
    assert!(!refusals.is_empty(), "nothing was refused, so nothing was looked at");
    for answer in refusals {
        for forbidden in [dir, home.as_str(), "127.0.0.1", "localhost", "[::1]", key_secret] {
            assert!(!answer.text.contains(forbidden), "{forbidden} in {}", answer.text);
        }
        assert_ne!(answer.status, 500, "{}", answer.text);
    }
}

/// The files with this name below `dir`.
fn files_named(dir: &Path, name: &str) -> Vec<PathBuf> {
    all_files(dir).into_iter().filter(|path| path.file_name().is_some_and(|n| n == name)).collect()
}

/// Every file below `dir`.
fn all_files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.append(&mut all_files(&entry.path())),
            Ok(kind) if kind.is_file() => found.push(entry.path()),
            _ => {}
        }
    }
    found
}

/// The sorted names of an object.
fn names(value: &Value) -> Vec<&str> {
    let mut names: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    names.sort_unstable();
    names
}
