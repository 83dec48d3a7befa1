//! Everything stops and starts again: nodes are unlocked and channels active without a call, and nothing was re-made.

use crate::harness::{self, Deployment, Setup, eventually};
use scale_lnd::dev::reaper::Signal;
use serde_json::json;
use std::time::Duration;

#[test]
fn after_a_restart_of_everything_nodes_unlock_and_channels_come_back() {
    harness::run(Duration::from_secs(300), async {
        let mut d = Deployment::start(Setup::default()).await;
        let api = d.api();
        d.create_users(&["alice", "bob"]).await;
        api.confirmed("alice", 1_000_000).await;
        let payreq = api.invoice("bob", 50_000).await;
        let paid = api.post("pay", json!({ "uuid": "alice", "payreq": payreq, "wait": 50 })).await;
        api.finished(paid).await.ok();

        d.end_masters().await;
        d.kill_agent().await;
        for pid in d.lnd_pids().await {
            d.world.reaper.signal(pid, Signal::TERM).await.unwrap();
        }
        eventually("all lnds have ended", Duration::from_secs(60), || async {
            d.lnd_pids().await.is_empty().then_some(())
        })
        .await;
        d.start_agent(&[]).await;
        d.start_master(&[]).await;

        let api = d.api();
        eventually("the channel is active again", Duration::from_secs(90), || async {
            let answer = api.get("listchannels", &[("uuid", "alice")]).await;
            let channel = answer.body["channels"].get(0)?.clone();
            (channel["active"] == true && channel["remote_balance"] == "50000").then_some(channel)
        })
        .await;
        let payreq = api.invoice("bob", 1_000).await;
        let paid = api.post("pay", json!({ "uuid": "alice", "payreq": payreq, "open": "never", "wait": 50 })).await;
        assert_eq!(api.finished(paid).await.ok()["payment"]["status"], "SUCCEEDED");
        d.stop().await;
    });
}

#[test]
fn killing_the_agent_stops_no_lnd_and_the_next_agent_adopts_them() {
    harness::run(Duration::from_secs(240), async {
        let mut d = Deployment::start(Setup::default()).await;
        d.create_users(&["alice"]).await;
        let before = d.lnd_pids().await;
        d.kill_agent().await;
        assert_eq!(d.lnd_pids().await, before, "no lnd minds");
        d.start_agent(&[]).await;
        // A new node proves that the new agent works.
        d.create_users(&["bob"]).await;
        let after = d.lnd_pids().await;
        assert!(before.iter().all(|pid| after.contains(pid)), "the old one runs on: {before:?} {after:?}");
        assert_eq!(after.len(), 2);
        assert_eq!(d.api().get("getinfo", &[("uuid", "alice")]).await.status, 200);
        d.stop().await;
    });
}
