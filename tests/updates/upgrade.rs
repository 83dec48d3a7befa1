//! One node to another lnd: from 0.20.1-beta to 0.21.2-beta for real, with its channels and its money; and back, where what the
//! release names is no good.

use crate::harness::{self, Api, Deployment, Files, Pauses, Setup, eventually};
use scale_lnd::dev::reaper::Signal;
use scale_lnd::model::release::Sha256;
use scale_lnd::model::work::upgrade::UpgradeStep;
use scale_lnd::release::signing::{self, NewKey, Protection};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(300);
const SOON: Duration = Duration::from_secs(120);
pub(super) const OLD: &str = "0.20.1-beta commit=v0.20.1-beta";
pub(super) const NEW: &str = "0.21.2-beta commit=v0.21.2-beta";

/// No node has this label, so that the rollout begins with nobody by itself: here nodes are updated one by one.
const LATER: &str = "canary_label = \"nobody\"";

/// A deployment whose host has the lnd before, and believes releases that are signed with this key.
pub(super) struct Fleet {
    pub(super) d: Deployment,
    files: Files,
    key: NewKey,
    /// Of the host's agent.
    env: Vec<(&'static str, String)>,
}

fn bin(variable: &str) -> PathBuf {
    PathBuf::from(std::env::var(variable).unwrap_or_else(|_| panic!("{variable}: see Makefile"))).join("lnd")
}

impl Fleet {
    pub(super) async fn start(initial_funding_sat: u64) -> Self {
        Self::start_with(Setup { initial_funding_sat, ..Setup::default() }).await
    }

    pub(super) async fn start_with(setup: Setup) -> Self {
        let key = signing::generate(&Protection::None).unwrap();
        let public = key.public.lines().last().unwrap().to_owned();
        let more = format!("[updates]\ntrusted_keys = [\"{public}\"]\n");
        let mut d = Deployment::start(Setup { slots: 0, more, ..setup }).await;
        let env = vec![
            ("SCALE_LND_AGENT_LND", bin("FORMER_NODE_BIN").display().to_string()),
            ("SCALE_LND_AGENT_RELEASE_KEYS", public),
            ("SCALE_LND_AGENT_RELEASE_DEPLOYMENT", "test".to_owned()),
        ];
        d.another_host_with("", 20, &with(&env, &[])).await;
        Self { d, files: Files::start().await, key, env }
    }

    /// Another agent on the host, with more in its environment.
    async fn replace_agent(&mut self, more: &[(&'static str, &str)]) {
        self.d.replace_another_agent(0, "", &with(&self.env, more)).await;
    }

    /// Wants a release of this serial with this file as its lnd. `more` is of its section.
    async fn want(&self, serial: u64, lnd: Vec<u8>, more: &str) {
        let progress = if more.is_empty() { 120 } else { 8 };
        let lnd_section = format!("version = \"0.21.2-beta\"\nupdate_from = [\"0.20.1-beta\"]\n{more}");
        self.release(serial, lnd, &lnd_section, &format!("{LATER}\nprogress_deadline_seconds = {progress}")).await;
    }

    /// The same, with all that is said of lnd and of the rollout.
    pub(super) async fn release(&self, serial: u64, lnd: Vec<u8>, lnd_section: &str, rollout: &str) {
        let name = format!("lnd-{serial}");
        let digest: Sha256 = self.files.put(&name, lnd);
        let machine = if std::env::consts::ARCH == "x86_64" { "x86_64" } else { "arm64" };
        let manifest = format!(
            "format = 1\ndeployment = \"test\"\nnetwork = \"simnet\"\nserial = {serial}\nexpires_at = 2099-01-01T00:00:00Z\n\
             [lnd]\n{lnd_section}\n\
             [lnd.artifacts.{machine}]\nurl = \"{}\"\nsha256 = \"{digest}\"\n\
             [rollout]\ndrain_deadline_seconds = 30\n{rollout}\n",
            self.files.url(&name),
        );
        let path = self.d.path(&format!("fleet-{serial}.toml"));
        std::fs::write(&path, &manifest).unwrap();
        let signature = signing::sign(manifest.as_bytes(), &self.key.secret, &Protection::None, "test").unwrap().0;
        std::fs::write(format!("{}.minisig", path.display()), signature).unwrap();
        self.d.config_cli(&["release", "apply", path.to_str().unwrap()]).await;
    }

    /// Begins to update a user's node.
    async fn update(&self, uuid: &str) -> String {
        let said = self.d.config_cli(&["node", "update", "--app", "app", "--uuid", uuid]).await;
        said.split(' ').nth(1).unwrap().to_owned()
    }

    async fn ended(&self, id: &str) -> Value {
        let operator = self.d.api().with_key(&self.d.operator_key().await);
        operator.operation_end(id, SOON).await
    }

    pub(super) async fn version(&self, uuid: &str) -> String {
        eventually("the node answers", SOON, || async {
            let info = self.d.api().get("getinfo", &[("uuid", uuid)]).await;
            (info.status == 200).then(|| info.body["version"].as_str().unwrap().to_owned())
        })
        .await
    }
}

fn with<'a>(env: &'a [(&'static str, String)], more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    env.iter().map(|(name, value)| (*name, value.as_str())).chain(more.iter().copied()).collect()
}

pub(super) fn the_new_lnd() -> Vec<u8> {
    std::fs::read(bin("SCALE_LND_NODE_BIN")).unwrap()
}

/// Says the right version, and ends when it is to run.
pub(super) fn one_that_crashes() -> Vec<u8> {
    b"#!/bin/sh\n[ \"$1\" = --version ] && exec echo 'lnd version 0.21.2-beta commit=v0.21.2-beta'\necho it crashes; exit 1\n"
        .to_vec()
}

pub(super) async fn pay(api: &Api, from: &str, to: &str, amt: u64) {
    let payreq = api.invoice(to, amt).await;
    let paid = api.post("pay", json!({ "uuid": from, "payreq": payreq, "wait": 50 })).await;
    assert_eq!(api.finished(paid).await.ok()["payment"]["status"], "SUCCEEDED");
}

/// What both have in channels.
async fn in_channels(api: &Api, uuid: &str) -> Value {
    eventually("the node answers", SOON, || async {
        let balance = api.get("channelbalance", &[("uuid", uuid)]).await;
        (balance.status == 200).then(|| balance.body["local_balance"]["sat"].clone())
    })
    .await
}

/// Pays from alice to bob again and again, until told to end; each is paid once, whatever happens to the nodes. Says how often.
pub(super) async fn keep_paying(api: Api, end: Arc<AtomicBool>) -> u64 {
    let mut paid = 0;
    while !end.load(Ordering::Relaxed) {
        let invoice = api.post("invoice", json!({ "uuid": "bob", "amt": 100 })).await;
        assert!(matches!(invoice.status, 200 | 503), "{}", invoice.text);
        let Some(payreq) = invoice.body["payment_request"].as_str().map(str::to_owned) else { continue };
        loop {
            let body = json!({ "uuid": "alice", "payreq": payreq, "open": "never", "wait": 50 });
            let answer = api.post("pay", body).await;
            match answer.status {
                200 => break,
                202 => {}
                503 => assert!(answer.header("retry-after").is_some(), "{}", answer.text),
                // Bob's node was replaced at that moment: nothing was paid, and it may be asked again.
                409 => assert!(["no_route", "payment_failed"].contains(&answer.problem(409)), "{}", answer.text),
                _ => panic!("{}", answer.text),
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        paid += 1;
    }
    paid
}

#[test]
fn nodes_get_the_wanted_lnd_with_their_channels_and_their_money() {
    harness::run(DEADLINE, async {
        let fleet = Fleet::start(1_000_000).await;
        let api = fleet.d.api();
        fleet.d.create_users(&["alice", "bob"]).await;
        api.confirmed("alice", 1_000_000).await;
        pay(&api, "alice", "bob", 50_000).await;
        assert_eq!(fleet.version("alice").await, OLD);
        let none = fleet.d.try_config_cli(&["node", "update", "--app", "app", "--uuid", "alice"]).await;
        assert!(none.err.contains("wants no release"), "{none:?}");

        fleet.want(7, the_new_lnd(), "").await;
        let end = Arc::new(AtomicBool::new(false));
        let paying = tokio::spawn(keep_paying(fleet.d.api(), Arc::clone(&end)));
        let before = fleet.d.api().get("listchannels", &[("uuid", "alice")]).await.ok();
        for uuid in ["alice", "bob"] {
            let ended = fleet.ended(&fleet.update(uuid).await).await;
            assert_eq!(ended["state"], "succeeded", "{ended:#}");
            let result = &ended["result"];
            assert_eq!((&result["from"], &result["unproven_channels"]), (&json!(OLD), &json!(0)), "{ended:#}");
            assert_eq!(fleet.version(uuid).await, NEW);
        }
        end.store(true, Ordering::Relaxed);
        let paid = paying.await.unwrap();
        assert!(paid > 0, "payments went on meanwhile");

        let channels = fleet.d.api().get("listchannels", &[("uuid", "alice")]).await.ok();
        let of = |listed: &Value| listed["channels"][0]["channel_point"].clone();
        assert_eq!(of(&channels), of(&before));
        assert_eq!(
            (channels["channels"].as_array().unwrap().len(), &channels["channels"][0]["active"]),
            (1, &json!(true))
        );
        pay(&api, "bob", "alice", 20_000).await;
        let bob = 50_000 + 100 * paid - 20_000;
        assert_eq!(in_channels(&api, "bob").await, json!(bob.to_string()), "every payment once");
        // There is nothing left to do.
        let again = fleet.ended(&fleet.update("alice").await).await;
        assert_eq!((&again["state"], &again["result"]["from"]), (&json!("succeeded"), &json!(NEW)), "{again:#}");
        fleet.d.stop().await;
    });
}

#[test]
fn an_lnd_that_is_no_good_is_taken_back_and_the_node_goes_on() {
    harness::run(DEADLINE, async {
        let fleet = Fleet::start(1_000_000).await;
        let api = fleet.d.api();
        fleet.d.create_users(&["alice", "bob"]).await;
        api.confirmed("alice", 1_000_000).await;
        pay(&api, "alice", "bob", 50_000).await;

        // It says another version than the release: nothing is touched.
        let pid = fleet.d.lnd_pids().await;
        fleet.want(7, b"#!/bin/sh\necho lnd version 0.21.1-beta commit=\n".to_vec(), "").await;
        let ended = fleet.ended(&fleet.update("alice").await).await;
        assert_eq!(
            (&ended["state"], &ended["error"]["code"]),
            (&json!("failed"), &json!("upgrade_failed")),
            "{ended:#}"
        );
        assert!(ended["error"]["detail"].as_str().unwrap().contains("says that it is 0.21.1-beta"), "{ended:#}");
        assert_eq!(fleet.d.lnd_pids().await, pid);

        // It crashes at its start: back to the one before, which the release says may follow.
        fleet.want(8, one_that_crashes(), "revert_to = [\"0.20.1-beta\"]").await;
        let ended = fleet.ended(&fleet.update("alice").await).await;
        assert_eq!(
            (&ended["state"], &ended["error"]["code"]),
            (&json!("failed"), &json!("upgrade_failed")),
            "{ended:#}"
        );
        assert!(ended["error"]["detail"].as_str().unwrap().contains("The node is back on 0.20.1-beta"), "{ended:#}");
        assert_eq!((fleet.version("alice").await, fleet.version("bob").await), (OLD.to_owned(), OLD.to_owned()));
        pay(&api, "alice", "bob", 1_000).await;

        // A better one follows.
        fleet.want(9, the_new_lnd(), "").await;
        let ended = fleet.ended(&fleet.update("alice").await).await;
        assert_eq!(ended["state"], "succeeded", "{ended:#}");
        assert_eq!(fleet.version("alice").await, NEW);
        pay(&api, "alice", "bob", 1_000).await;
        fleet.d.stop().await;
    });
}

/// A master that dies at any step of it is followed by another, which ends it: one lnd, one node.
#[test]
fn upgrades_survive_kills_of_the_master_at_every_step() {
    harness::run(Duration::from_secs(600), async {
        let mut fleet = Fleet::start(0).await;
        let points = UpgradeStep::NAMES.iter().flat_map(|step| ["before", "after"].map(|when| (step, when)));
        let points: Vec<_> = points.enumerate().map(|(n, (step, when))| (format!("user{n}"), step, when)).collect();
        fleet.d.create_users(&points.iter().map(|(uuid, ..)| uuid.as_str()).collect::<Vec<_>>()).await;
        let is_back = |step: &str| step.starts_with("back");
        fleet.want(7, one_that_crashes(), "revert_to = [\"0.20.1-beta\"]").await;
        for (uuid, step, when) in points.iter().filter(|(_, step, _)| is_back(step)) {
            killed_at(&mut fleet, uuid, &format!("upgrade.{step}.{when}"), OLD).await;
        }
        fleet.want(8, the_new_lnd(), "").await;
        for (uuid, step, when) in points.iter().filter(|(_, step, _)| !is_back(step)) {
            killed_at(&mut fleet, uuid, &format!("upgrade.{step}.{when}"), NEW).await;
        }
        fleet.d.stop().await;
    });
}

/// So does the host's agent: the next one goes on where it was, and there is one lnd.
#[test]
fn upgrades_survive_kills_of_the_agent() {
    harness::run(Duration::from_secs(600), async {
        let mut fleet = Fleet::start(0).await;
        let points = ["install.loaded", "install.kept", "stop.before", "stop.after"];
        let points = points.into_iter().chain(["start.before", "start.forked", "start.after"]);
        let points: Vec<(String, &str)> = points.enumerate().map(|(n, point)| (format!("user{n}"), point)).collect();
        fleet.d.create_users(&points.iter().map(|(uuid, _)| uuid.as_str()).collect::<Vec<_>>()).await;
        for (serial, (uuid, point)) in (7..).zip(&points) {
            // Another artifact each time, or it would be installed already.
            let lnd = [the_new_lnd(), vec![0; serial]].concat();
            fleet.want(serial as u64, lnd, "").await;
            fleet.replace_agent(&[("SCALE_LND_FAULT", &format!("lndserver.{point}=kill"))]).await;
            let id = fleet.update(uuid).await;
            fleet.d.another_agent_died(0).await;
            fleet.replace_agent(&[]).await;
            let ended = fleet.ended(&id).await;
            assert_eq!(ended["state"], "succeeded", "{point}: {ended:#}");
            assert_eq!(fleet.version(uuid).await, NEW, "{point}");
            assert_eq!(fleet.d.lnd_pids().await.len(), points.len(), "{point}: one lnd each");
        }
        fleet.d.stop().await;
    });
}

/// What one master has begun another ends, whatever becomes of the first; and woken, that one does nothing more.
#[test]
fn an_upgrade_is_taken_over_by_another_master() {
    harness::run(DEADLINE, async {
        let mut fleet = Fleet::start(0).await;
        fleet.d.create_users(&["alice"]).await;
        fleet.want(7, the_new_lnd(), "").await;
        fleet.d.end_masters().await;
        let pauses = Pauses::at(&mut fleet.d, &["upgrade.start.before"]).await;
        let id = fleet.update("alice").await;
        pauses.reached("upgrade.start.before").await;
        let sleeping = fleet.d.masters.len() - 1;
        let process = fleet.d.masters[sleeping].process.clone();
        fleet.d.freeze_master(&process).await;
        let other = fleet.d.start_master(&[]).await;
        let operator = fleet.d.api_of(other).with_key(&fleet.d.operator_key().await);
        let ended = operator.operation_end(&id, SOON).await;
        assert_eq!(ended["state"], "succeeded", "{ended:#}");
        let pids = fleet.d.lnd_pids().await;
        pauses.go("upgrade.start.before");
        fleet.d.signal(&process, Signal::CONT).await;
        let lost = eventually("the other hears that it is not its turn", SOON, || async {
            let log = std::fs::read_to_string(&fleet.d.masters[sleeping].log).unwrap();
            log.contains("work on this subject ends here").then_some(())
        });
        lost.await;
        assert_eq!(fleet.d.lnd_pids().await, pids, "nothing was started again");
        let info = fleet.d.api_of(other).get("getinfo", &[("uuid", "alice")]).await.ok();
        assert_eq!(info["version"], NEW);
        fleet.d.stop().await;
    });
}

async fn killed_at(fleet: &mut Fleet, uuid: &str, point: &str, version: &str) {
    fleet.d.end_masters().await;
    let dying = fleet.d.start_master(&[("SCALE_LND_FAULT", &format!("{point}=kill"))]).await;
    let id = fleet.update(uuid).await;
    fleet.d.master_died(dying).await;
    fleet.d.start_master(&[]).await;
    let ended = fleet.ended(&id).await;
    let state = if version == NEW { "succeeded" } else { "failed" };
    assert_eq!(ended["state"], state, "{point}: {ended:#}");
    assert_eq!(fleet.version(uuid).await, version, "{point}");
}
