//! Closing: what it costs is limited before and counted after; a close that hangs is forced; a restart is no failure.

use crate::harness::{self, Answer, Api, Deployment, Setup, eventually};
use scale_lnd::dev::reaper::Signal;
use serde_json::{Value, json};
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(300);

/// What counts against the app's limit of outgoing money today.
pub async fn used_sat(d: &Deployment) -> u64 {
    let apps: Value = serde_json::from_str(&d.config_cli(&["app", "list", "--json"]).await).unwrap();
    let used = apps[0]["outgoing_sat_per_day"].as_str().unwrap().split('/').next().unwrap();
    used.parse().unwrap()
}

async fn limit_outgoing(d: &Deployment, sat: &str) {
    d.config_cli(&["app", "limits", "app", "--outgoing-sat-per-day", sat]).await;
}

/// Pays so that a channel opens; returns the peer and the channel, and what was paid in fees is counted already.
async fn opened(api: &Api, from: &str, to: &str) -> (String, String) {
    let payreq = api.invoice(to, 50_000).await;
    let paid = api.post("pay", json!({ "uuid": from, "payreq": payreq, "wait": 50 })).await;
    let paid = api.finished(paid).await.ok();
    let text = |name: &str| paid["channel"][name].as_str().unwrap_or_else(|| panic!("{paid:#}")).to_owned();
    (text("peer"), text("channel_point"))
}

async fn close(api: &Api, mut body: Value) -> Answer {
    body["wait"] = json!(50);
    let answer = api.post("closechannel", body).await;
    api.finished(answer).await
}

async fn channel(api: &Api, uuid: &str, channel_point: &str) -> Option<Value> {
    let listed = api.get("listchannels", &[("uuid", uuid)]).await.ok();
    listed["channels"].as_array().unwrap().iter().find(|c| c["channel_point"] == channel_point).cloned()
}

/// The same, once the payment that opened it is out of its commitment, which an HTLC makes larger and so dearer.
async fn at_rest(api: &Api, uuid: &str, channel_point: &str) -> Value {
    eventually("the channel is at rest", Duration::from_secs(30), || async {
        channel(api, uuid, channel_point).await.filter(|channel| channel["pending_htlcs"] == json!([]))
    })
    .await
}

async fn closes(api: &Api) -> Vec<Value> {
    let operations = api.get("operations", &[("limit", "100")]).await.ok();
    let all = operations["operations"].as_array().unwrap().iter();
    all.filter(|o| o["kind"] == "closechannel").cloned().collect()
}

/// What the closing transaction left of the channel's capacity, as the wallet that gets an output of it shows.
async fn went_to_miners(api: &Api, uuid: &str, capacity: &Value, txid: &Value) -> u64 {
    let capacity: u64 = capacity.as_str().unwrap().parse().unwrap();
    let outputs = eventually("the closing transaction is in the wallet", Duration::from_secs(30), || async {
        let listed = api.get("transactions", &[("uuid", uuid), ("limit", "200")]).await.ok();
        let tx = listed["transactions"].as_array()?.iter().find(|tx| tx["tx_hash"] == *txid)?;
        tx["output_details"].as_array().cloned()
    })
    .await;
    capacity - outputs.iter().map(|o| o["amount"].as_str().unwrap().parse::<u64>().unwrap()).sum::<u64>()
}

#[test]
fn what_a_close_costs_is_limited_before_and_counted_after() {
    harness::run(DEADLINE, async {
        let d = Deployment::start(Setup::default()).await;
        let api = d.api();
        d.create_users(&["alice", "bob"]).await;
        api.confirmed("alice", 1_000_000).await;
        let (bob, point) = opened(&api, "alice", "bob").await;
        let used = used_sat(&d).await;
        let open = at_rest(&api, "alice", &point).await;

        // Refused before any effect.
        limit_outgoing(&d, &(used + 100).to_string()).await;
        let refused = close(&api, json!({ "uuid": "alice", "pubkey": bob })).await;
        assert_eq!(refused.problem(409), "limit_exceeded");
        assert_eq!(refused.body["details"]["limit_name"], "outgoing_sat_per_day");
        assert_eq!(refused.body["details"]["used"], used);
        limit_outgoing(&d, "none").await;
        let refused = close(&api, json!({ "uuid": "alice", "pubkey": bob, "max_fee": 401 })).await;
        assert_eq!(refused.problem(409), "fee_too_high");
        assert_eq!(refused.body["details"], json!({ "needed_sat": 402, "max_fee_sat": 401 }));
        let refused = close(&api, json!({ "uuid": "alice", "pubkey": bob, "force": true, "max_fee": 1 })).await;
        assert_eq!(refused.problem(409), "fee_too_high");
        assert_eq!(refused.body["details"]["needed_sat"].to_string(), open["commit_fee"].as_str().unwrap());
        assert!(closes(&api).await.is_empty(), "nothing was done");
        assert_eq!(used_sat(&d).await, used);
        assert!(channel(&api, "alice", &point).await.is_some());

        // Cooperative: within the bound, and counted to the satoshi.
        let closed = close(&api, json!({ "uuid": "alice", "pubkey": bob, "max_fee": 402 })).await.ok();
        let fee = closed["fee_sat"].as_u64().unwrap();
        assert!((1..=402).contains(&fee), "{closed:#}");
        assert_eq!(went_to_miners(&api, "alice", &open["capacity"], &closed["closing_txid"]).await, fee);
        assert_eq!(used_sat(&d).await, used + fee);

        // Forced: the commitment's fee.
        let (bob, point) = opened(&api, "alice", "bob").await;
        let (used, open) = (used_sat(&d).await, at_rest(&api, "alice", &point).await);
        let closed = close(&api, json!({ "uuid": "alice", "pubkey": bob, "force": true })).await.ok();
        assert_eq!(closed["fee_sat"].to_string(), open["commit_fee"].as_str().unwrap(), "{closed:#}");
        assert_eq!(used_sat(&d).await, used + closed["fee_sat"].as_u64().unwrap());

        // Who has not opened the channel pays nothing, so no limit is in the way.
        let (_, point) = opened(&api, "alice", "bob").await;
        let used = used_sat(&d).await;
        limit_outgoing(&d, "1").await;
        let alice = api.get("getinfo", &[("uuid", "alice")]).await.ok()["identity_pubkey"].clone();
        let closed = close(&api, json!({ "uuid": "bob", "pubkey": alice, "channel_point": point })).await.ok();
        assert_eq!(closed["fee_sat"], 0);
        assert_eq!(used_sat(&d).await, used);
        d.stop().await;
    });
}

#[test]
fn a_cooperative_close_that_hangs_is_forced_on_request() {
    harness::run(DEADLINE, async {
        let d = Deployment::start(Setup::default()).await;
        let api = d.api();
        d.create_users(&["alice", "bob"]).await;
        api.confirmed("alice", 1_000_000).await;
        let (bob, point) = opened(&api, "alice", "bob").await;
        api.in_channels("bob", 50_000).await;
        let used = used_sat(&d).await;
        let open = at_rest(&api, "alice", &point).await;
        let pid = d.lnd_pid_of(&bob).await;
        d.world.reaper.signal(pid, Signal::STOP).await.unwrap();

        let call = json!({ "uuid": "alice", "pubkey": bob, "max_fee": 402, "wait": 3 });
        let hanging = api.post("closechannel", call.clone()).await;
        assert_eq!(hanging.status, 202, "{:#}", hanging.body);
        assert_eq!(api.post("closechannel", call).await.body["id"], hanging.body["id"], "joined");
        assert_eq!(used_sat(&d).await, used + 402);

        // What force costs more is set aside first, or it is refused and the close is as it was.
        let commit_fee: u64 = open["commit_fee"].as_str().unwrap().parse().unwrap();
        assert!(commit_fee > 402, "{open:#}");
        limit_outgoing(&d, &(used + commit_fee - 1).to_string()).await;
        let refused = close(&api, json!({ "uuid": "alice", "pubkey": bob, "force": true })).await;
        assert_eq!(refused.problem(409), "limit_exceeded");
        assert_eq!(used_sat(&d).await, used + 402);
        limit_outgoing(&d, &(used + commit_fee).to_string()).await;
        let forced = close(&api, json!({ "uuid": "alice", "pubkey": bob, "force": true })).await.ok();
        assert_eq!(forced["force"], true, "{forced:#}");
        assert_eq!(forced["closing_txid"].as_str().unwrap().len(), 64);
        assert_eq!(forced["fee_sat"], commit_fee);
        assert_eq!(used_sat(&d).await, used + commit_fee);
        d.world.reaper.signal(pid, Signal::CONT).await.unwrap();

        let closes = closes(&api).await;
        assert_eq!(closes.len(), 1, "{closes:#?}");
        assert_eq!((&closes[0]["id"], &closes[0]["result"]), (&hanging.body["id"], &forced));
        assert!(channel(&api, "alice", &point).await.is_none());
        // It is this transaction that spends the channel, whatever the woken peer makes of the old negotiation: bob's part
        // of it is his at once.
        eventually("bob sees the commitment transaction", Duration::from_secs(60), || async {
            let listed = api.get("transactions", &[("uuid", "bob"), ("limit", "200")]).await;
            let spends = |tx: &Value| {
                tx["previous_outpoints"].as_array().is_some_and(|o| {
                    o.iter().any(|o| {
                        o["outpoint"].as_str().is_some_and(|o| o.starts_with(forced["closing_txid"].as_str().unwrap()))
                    })
                })
            };
            listed.body["transactions"]
                .as_array()?
                .iter()
                .any(|tx| spends(tx) || tx["tx_hash"] == forced["closing_txid"])
                .then_some(())
        })
        .await;
        d.stop().await;
    });
}

#[test]
fn a_close_right_after_a_restart_of_both_lnds_waits_for_the_peer() {
    harness::run(DEADLINE, async {
        let d = Deployment::start(Setup::default()).await;
        let api = d.api();
        d.create_users(&["alice", "bob"]).await;
        api.confirmed("alice", 1_000_000).await;
        let (bob, point) = opened(&api, "alice", "bob").await;
        let (before, bobs) = (d.lnd_pids().await, d.lnd_pid_of(&bob).await);
        for pid in &before {
            d.world.reaper.signal(*pid, Signal::KILL).await.unwrap();
        }
        // The peer comes back later: until then the channel is there and inactive.
        let bobs_next = eventually("bob's lnd runs again", Duration::from_secs(60), || async {
            let pids = d.lnd_pids().await;
            let new = pids.iter().all(|pid| !before.contains(pid)) && pids.len() == 2;
            if new { Some(d.lnd_pid_of(&bob).await) } else { None }
        })
        .await;
        assert_ne!(bobs_next, bobs);
        // Frozen any sooner it would have to be unlocked first when it wakes, which may take longer than a close waits.
        eventually("bob's lnd is unlocked", Duration::from_secs(60), || async {
            (api.get("getinfo", &[("uuid", "bob")]).await.status == 200).then_some(())
        })
        .await;
        d.world.reaper.signal(bobs_next, Signal::STOP).await.unwrap();
        // Inactive, as a rule. Where bob was faster than the signal it is active, until lnd misses its pings: then the close
        // hangs in its negotiation, and must end no worse.
        eventually("alice's lnd lists the channel", Duration::from_secs(60), || async {
            let listed = api.get("listchannels", &[("uuid", "alice")]).await;
            listed.body["channels"].as_array()?.iter().any(|c| c["channel_point"] == point).then_some(())
        })
        .await;
        let asked = tokio::spawn({
            let api = api.clone();
            async move { close(&api, json!({ "uuid": "alice", "pubkey": bob })).await }
        });
        tokio::time::sleep(Duration::from_secs(2)).await;
        d.world.reaper.signal(bobs_next, Signal::CONT).await.unwrap();
        let closed = asked.await.unwrap().ok();
        assert_eq!(closed["closing_txid"].as_str().unwrap().len(), 64, "{closed:#}");
        d.stop().await;
    });
}
