//! The peer may close a channel before the step that opened it is repeated: it is found all the same, and no second one is
//! opened and paid for.

use crate::harness::{self, Deployment, Setup, eventually};
use crate::matrix::checks;
use serde_json::json;
use std::time::Duration;

#[test]
fn a_channel_that_the_peer_closed_meanwhile_is_not_opened_again() {
    harness::run(Duration::from_secs(300), async {
        let mut d = Deployment::start(Setup::default()).await;
        d.create_users(&["alice", "bob"]).await;
        d.api().confirmed("alice", 1_000_000).await;
        let before = checks::Openings::of(&d, "alice").await;
        let payreq = d.api().invoice("bob", 60_000).await;
        let alice = d.api().get("getinfo", &[("uuid", "alice")]).await.ok();
        d.end_masters().await;

        let faults = d.path("faults");
        std::fs::create_dir_all(&faults).unwrap();
        let env = [("SCALE_LND_FAULT", "pay.open.after=pause"), ("SCALE_LND_FAULT_DIR", faults.to_str().unwrap())];
        let doomed = d.start_master(&env).await;
        let call = json!({ "uuid": "alice", "payreq": payreq, "wait": 50 });
        let unanswered = tokio::spawn({
            let (api, call) = (d.api(), call.clone());
            async move { api.try_post("pay", call).await }
        });
        eventually("the channel is opened, and nobody has noted it", Duration::from_secs(60), || async {
            faults.join("pay.open.after.reached").exists().then_some(())
        })
        .await;
        let api = d.api();
        let opened = eventually("bob has the channel", Duration::from_secs(60), || async {
            let listed = api.get("listchannels", &[("uuid", "bob")]).await;
            let channel = listed.body["channels"].as_array()?.first()?.clone();
            (channel["active"] == true).then_some(channel)
        })
        .await;
        let close = json!({ "uuid": "bob", "pubkey": alice["identity_pubkey"], "force": true, "wait": 50 });
        let closed = api.finished(api.post("closechannel", close).await).await.ok();
        assert_eq!(closed["channel_point"], opened["channel_point"]);
        d.kill_master(doomed).await;
        let _lost = unanswered.await.unwrap();

        d.start_master(&[]).await;
        let api = d.api();
        let failed = eventually("the new master is ready for it", Duration::from_secs(60), || async {
            let answer = api.post("pay", call.clone()).await;
            (answer.status != 503).then_some(answer)
        })
        .await;
        let failed = api.finished(failed).await;
        assert_eq!(failed.problem(409), "channel_open_failed", "{:#}", failed.body);
        let told = &failed.body["details"]["channel"];
        assert_eq!(told["channel_point"], opened["channel_point"], "what it leaves behind: {:#}", failed.body);
        before.one_in_vain(&d, "alice", "a close by the peer").await;
        d.stop().await;
    });
}
