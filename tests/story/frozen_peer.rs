//! lnd goes on opening a channel after its client is gone. A peer that is frozen during the negotiation, a master that is
//! killed meanwhile and another that goes on must still end in one channel.

use crate::harness::{self, Deployment, Setup, eventually};
use crate::matrix::checks;
use scale_lnd::dev::reaper::Signal;
use serde_json::json;
use std::time::Duration;

#[test]
fn a_peer_frozen_during_the_opening_and_a_killed_master_still_make_one_channel() {
    harness::run(Duration::from_secs(300), async {
        let mut d = Deployment::start(Setup::default()).await;
        d.create_users(&["alice", "bob"]).await;
        d.api().confirmed("alice", 1_000_000).await;
        let before = checks::Openings::of(&d, "alice").await;
        let payreq = d.api().invoice("bob", 60_000).await;
        let bob = d.api().get("getinfo", &[("uuid", "bob")]).await.ok();
        let bob = d.lnd_pid_of(bob["identity_pubkey"].as_str().unwrap()).await;
        d.end_masters().await;

        let faults = d.path("faults");
        std::fs::create_dir_all(&faults).unwrap();
        let env = [("SCALE_LND_FAULT", "pay.open.before=pause"), ("SCALE_LND_FAULT_DIR", faults.to_str().unwrap())];
        let doomed = d.start_master(&env).await;
        let call = json!({ "uuid": "alice", "payreq": payreq, "wait": 50 });
        let unanswered = tokio::spawn({
            let (api, call) = (d.api(), call.clone());
            async move { api.try_post("pay", call).await }
        });
        eventually("the opening is about to begin", Duration::from_secs(60), || async {
            faults.join("pay.open.before.reached").exists().then_some(())
        })
        .await;
        d.world.reaper.signal(bob, Signal::STOP).await.unwrap();
        std::fs::write(faults.join("pay.open.before.go"), b"").unwrap();
        // Nothing tells that lnd has begun to negotiate: the frozen peer is silent, and a reservation is not shown.
        tokio::time::sleep(Duration::from_secs(2)).await;
        d.kill_master(doomed).await;
        let _lost = unanswered.await.unwrap();

        d.start_master(&[]).await;
        // The new master is at it while the peer is still frozen; then the peer wakes, and with it the old negotiation.
        tokio::time::sleep(Duration::from_secs(4)).await;
        d.world.reaper.signal(bob, Signal::CONT).await.unwrap();
        let api = d.api();
        let paid = loop {
            let answer = api.post("pay", call.clone()).await;
            if answer.status != 503 {
                break api.finished(answer).await;
            }
        };
        // Where the peer was frozen for too long the payment fails for good, and may then be tried again.
        if paid.status != 200 {
            assert!(["peer_unreachable", "channel_open_failed"].contains(&paid.problem(409)), "{:#}", paid.body);
            let again = api.post("pay", call).await;
            assert_eq!(api.finished(again).await.ok()["payment"]["status"], "SUCCEEDED");
        }
        api.in_channels("bob", 60_000).await;
        let point = "a frozen peer and a killed master";
        before.one_more(&d, "alice", point).await;
        checks::one_payment(&d, "alice", "bob", &payreq, point).await;
        checks::no_orphan(&d, point).await;
        d.stop().await;
    });
}
