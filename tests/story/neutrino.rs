//! lnds without a chain backend of their own: each asks the harness' btcd, as a peer, for compact block filters.

use crate::harness::{self, Deployment, Setup, eventually};
use serde_json::json;
use std::time::Duration;

#[test]
fn lnds_on_neutrino_are_created_and_funded_pay_receive_close_and_withdraw() {
    harness::run(Duration::from_secs(300), async {
        let d = Deployment::start(Setup { neutrino: true, ..Setup::default() }).await;
        let api = d.api();
        d.create_users(&["alice", "bob"]).await;
        // It is neutrino, and nothing else.
        let nodes = std::fs::read_dir(d.path("host/nodes")).unwrap().map(|entry| entry.unwrap().path());
        let confs = nodes.map(|node| std::fs::read_to_string(node.join("instance/lnd.conf")).unwrap());
        for conf in confs {
            assert!(conf.contains(&format!("\nneutrino.connect={}\n", d.world.chain.p2p)), "{conf}");
            assert!(!conf.contains("btcd."), "{conf}");
        }
        api.confirmed("alice", 1_000_000).await;

        let payreq = api.invoice("bob", 50_000).await;
        let paid = api.post("pay", json!({ "uuid": "alice", "payreq": payreq, "wait": 50 })).await;
        let paid = api.finished(paid).await.ok();
        assert_eq!(paid["payment"]["status"], "SUCCEEDED");
        let channel = paid["channel"]["channel_point"].as_str().expect("a channel opened by itself").to_owned();
        api.in_channels("bob", 50_000).await;

        let back = api.invoice("alice", 10_000).await;
        let body = json!({ "uuid": "bob", "payreq": back, "open": "never", "wait": 50 });
        eventually("bob pays back", Duration::from_secs(30), || async {
            let answer = api.finished(api.post("pay", body.clone()).await).await;
            if answer.status == 200 {
                return Some(());
            }
            // His lnd's router lags a little behind the channel. A definite no may be asked again.
            assert!(["no_route", "insufficient_funds"].contains(&answer.problem(409)), "{:#}", answer.body);
            None
        })
        .await;
        api.in_channels("bob", 40_000).await;
        // A channel is not closed while a payment is on its way through it; alice's side of it ends a moment later.
        eventually("nothing is on its way", Duration::from_secs(10), || async {
            let channels = api.get("listchannels", &[("uuid", "alice")]).await;
            channels.body["channels"][0]["pending_htlcs"].as_array()?.is_empty().then_some(())
        })
        .await;

        // What happens to the channel on the chain is noticed, too: alice's part comes back to her wallet.
        let pubkey = paid["channel"]["peer"].as_str().unwrap();
        let body = json!({ "uuid": "alice", "pubkey": pubkey, "channel_point": channel, "wait": 50 });
        let close = api.post("closechannel", body).await;
        assert_eq!(api.finished(close).await.ok()["closing_txid"].as_str().unwrap().len(), 64);
        eventually("the channel is gone", Duration::from_secs(60), || async {
            let channels = api.get("listchannels", &[("uuid", "alice")]).await;
            channels.body["channels"].as_array()?.is_empty().then_some(())
        })
        .await;
        api.confirmed("alice", 900_000).await;

        let address = api.post("newaddress", json!({ "uuid": "bob" })).await.ok();
        let body = json!({ "uuid": "alice", "address": address["address"], "amt": 20_000, "wait": 50 });
        let withdrawal = api.finished(api.post("withdraw", body).await).await.ok();
        assert_eq!(withdrawal["amount_sat"], 20_000);
        // All three: the funding, the part of the channel that was his, the withdrawal.
        api.confirmed("bob", 1_060_000).await;
        d.stop().await;
    });
}
