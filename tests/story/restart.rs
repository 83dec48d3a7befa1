//! Everything stops and starts again: nodes are unlocked and channels active without a call, and nothing was re-made.

use crate::gates::store;
use crate::harness::{self, Deployment, Setup, eventually};
use crate::lnd_rest::Rest;
use scale_lnd::dev::reaper::Signal;
use scale_lnd::model::NodeId;
use scale_lnd::model::node::{Runtime, WalletState};
use serde_json::json;
use std::collections::HashMap;
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
        api.in_channels("bob", 50_000).await;
        let (alice, bob) = (Rest::of(&d, "alice", "read").await, Rest::of(&d, "bob", "read").await);
        let starts = starts(&d).await;
        assert_eq!(starts.len(), 2);

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

        // Nobody calls: what there is to see is in the Store, and in the lnds themselves.
        everyone_is_active_again(&d, &starts).await;
        for (rest, side) in [(&alice, "remote_balance"), (&bob, "local_balance")] {
            eventually("the channel is active again", Duration::from_secs(90), || async {
                let channels = rest.get("/v1/channels").await;
                let [channel] = channels["channels"].as_array()?.as_slice() else { panic!("{channels:#}") };
                assert_eq!(channel[side], "50000", "{channel:#}");
                (channel["active"] == true).then_some(())
            })
            .await;
        }
        let api = d.api();
        let payreq = api.invoice("bob", 1_000).await;
        let paid = api.post("pay", json!({ "uuid": "alice", "payreq": payreq, "open": "never", "wait": 50 })).await;
        assert_eq!(api.finished(paid).await.ok()["payment"]["status"], "SUCCEEDED");
        d.stop().await;
    });
}

/// How often each node's lnd has been started, as the Store has it.
async fn starts(d: &Deployment) -> HashMap<NodeId, u64> {
    let runtimes = store::all::<Runtime>(&store::open(d).await).await;
    runtimes.into_iter().map(|runtime| (runtime.node, runtime.starts)).collect()
}

/// Waits until the agent has told of each node that its lnd, started anew, is unlocked and serves.
async fn everyone_is_active_again(d: &Deployment, before: &HashMap<NodeId, u64>) {
    let opened = store::open(d).await;
    eventually("the agent tells that all are active", Duration::from_secs(90), || async {
        let runtimes = store::all::<Runtime>(&opened).await;
        let active =
            |runtime: &Runtime| runtime.starts > before[&runtime.node] && runtime.wallet == WalletState::ServerActive;
        runtimes.iter().all(active).then_some(())
    })
    .await;
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
