//! The ways a pay can go: too little money, a payee who is away, money that is not confirmed yet, an invoice that expires
//! too soon, limits.

use super::close::used_sat;
use crate::harness::events::Events;
use crate::harness::{self, Api, Deployment, Setup, eventually};
use scale_lnd::dev::reaper::Signal;
use serde_json::{Value, json};
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(240);

async fn pay(api: &Api, body: Value) -> crate::harness::Answer {
    let answer = api.post("pay", body).await;
    api.finished(answer).await
}

#[test]
fn pay_with_too_little_is_refused_before_any_effect() {
    harness::run(DEADLINE, async {
        let d = Deployment::start(Setup::default()).await;
        let api = d.api();
        d.create_users(&["alice", "bob"]).await;
        api.confirmed("alice", 1_000_000).await;
        let payreq = api.invoice("bob", 5_000_000).await;
        let answer = api.post("pay", json!({ "uuid": "alice", "payreq": payreq })).await;
        assert_eq!(answer.problem(409), "insufficient_funds");
        assert!(answer.body["details"]["needed_sat"].as_u64().unwrap() > 5_000_000, "{:#}", answer.body);
        assert_eq!(answer.body["details"]["wallet_sat"], 1_000_000);
        let operations = api.get("operations", &[]).await.ok();
        let pays = operations["operations"].as_array().unwrap().iter().filter(|o| o["kind"] == "pay").count();
        assert_eq!(pays, 0, "nothing was done");

        let payreq = api.invoice("bob", 50_000).await;
        let tight = json!({ "uuid": "alice", "payreq": payreq, "max_open_fee": 1, "wait": 50 });
        assert_eq!(pay(&api, tight).await.problem(409), "open_fee_too_high");
        let never = json!({ "uuid": "alice", "payreq": payreq, "open": "never", "wait": 50 });
        assert_eq!(pay(&api, never).await.problem(409), "insufficient_funds");
        // After a definite failure the same invoice can be paid.
        let paid = pay(&api, json!({ "uuid": "alice", "payreq": payreq, "wait": 50 })).await.ok();
        assert_eq!(paid["payment"]["status"], "SUCCEEDED");
        d.stop().await;
    });
}

#[test]
fn pay_waits_for_unconfirmed_money_that_will_suffice() {
    harness::run(DEADLINE, async {
        let d = Deployment::start(Setup::default()).await;
        let api = d.api();
        d.create_users(&["alice", "bob"]).await;
        // Not waiting for the funding's confirmation: that is the operation's business.
        let payreq = api.invoice("bob", 40_000).await;
        let paid = pay(&api, json!({ "uuid": "alice", "payreq": payreq, "wait": 50 })).await.ok();
        assert_eq!(paid["payment"]["status"], "SUCCEEDED");

        // Where it is seen: all that alice has left is on its way to herself, and no block comes.
        api.confirmed("alice", 900_000).await;
        let payreq = api.invoice("bob", 200_000).await;
        let address = api.post("newaddress", json!({ "uuid": "alice" })).await.ok();
        let held = d.world.hold_blocks().await;
        let to_herself = json!({ "uuid": "alice", "address": address["address"], "amt": 450_000, "wait": 50 });
        api.finished(api.post("withdraw", to_herself).await).await.ok();
        let wallet = api.get("walletbalance", &[("uuid", "alice")]).await.ok();
        assert_eq!(wallet["confirmed_balance"], "0", "{wallet:#}");
        let accepted = api.post("pay", json!({ "uuid": "alice", "payreq": payreq, "wait": 0 })).await;
        assert_eq!(accepted.status, 202, "{:#}", accepted.body);
        let mut events = Events::follow(&api, accepted.header("location").unwrap(), None).await;
        let waits = async {
            loop {
                let event = events.next().await.expect("it cannot end before there is money").data;
                assert_eq!(event["state"], "running", "{event:#}");
                if event["progress"] == "waiting for money to be confirmed" {
                    return;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), waits).await.expect("it says that it waits");
        drop(held);
        let ended = api.finished(accepted).await.ok();
        assert_eq!(ended["payment"]["status"], "SUCCEEDED");
        assert!(ended["channel"]["channel_point"].is_string(), "the money was needed: {ended:#}");
        d.stop().await;
    });
}

#[test]
fn pay_to_a_payee_who_is_away_says_so() {
    harness::run(DEADLINE, async {
        let d = Deployment::start(Setup::default()).await;
        let api = d.api();
        d.create_users(&["alice", "bob"]).await;
        api.confirmed("alice", 1_000_000).await;
        let payreq = api.invoice("bob", 40_000).await;
        let bob = api.get("getinfo", &[("uuid", "bob")]).await.ok();
        let pid = d.lnd_pid_of(bob["identity_pubkey"].as_str().unwrap()).await;
        d.world.reaper.signal(pid, Signal::STOP).await.unwrap();
        let answer = pay(&api, json!({ "uuid": "alice", "payreq": payreq, "wait": 50 })).await;
        d.world.reaper.signal(pid, Signal::CONT).await.unwrap();
        let code = answer.problem(409);
        assert!(["peer_unreachable", "channel_open_failed"].contains(&code), "{:#}", answer.body);
        d.stop().await;
    });
}

#[test]
fn pay_to_a_payee_whose_lnd_has_ended_opens_nothing() {
    harness::run(DEADLINE, async {
        let mut d = Deployment::start(Setup::default()).await;
        let api = d.api();
        d.create_users(&["alice", "bob"]).await;
        api.confirmed("alice", 1_000_000).await;
        let payreq = api.invoice("bob", 40_000).await;
        let bob = api.get("getinfo", &[("uuid", "bob")]).await.ok();
        let pid = d.lnd_pid_of(bob["identity_pubkey"].as_str().unwrap()).await;
        let used = used_sat(&d).await;
        // Nobody starts it again.
        d.kill_agent().await;
        d.world.reaper.signal(pid, Signal::KILL).await.unwrap();
        eventually("bob's lnd has ended", Duration::from_secs(10), || async {
            (!d.lnd_pids().await.contains(&pid)).then_some(())
        })
        .await;
        let answer = pay(&api, json!({ "uuid": "alice", "payreq": payreq, "wait": 50 })).await;
        assert_eq!(answer.problem(409), "peer_unreachable", "{:#}", answer.body);
        let channels = api.get("channelbalance", &[("uuid", "alice")]).await.ok();
        assert_eq!(channels["pending_open_local_balance"]["sat"], "0", "{channels:#}");
        let channels = api.get("listchannels", &[("uuid", "alice")]).await.ok();
        assert_eq!(channels["channels"], json!([]));
        let wallet = api.get("walletbalance", &[("uuid", "alice")]).await.ok();
        assert_eq!((&wallet["confirmed_balance"], &wallet["locked_balance"]), (&json!("1000000"), &json!("0")));
        assert_eq!(used_sat(&d).await, used, "what was set aside is given back");
        d.stop().await;
    });
}

#[test]
fn pay_of_an_invoice_about_to_expire_opens_nothing() {
    harness::run(DEADLINE, async {
        let d = Deployment::start(Setup::default()).await;
        let api = d.api();
        d.create_users(&["alice", "bob"]).await;
        api.confirmed("alice", 1_000_000).await;
        let answer = api.post("invoice", json!({ "uuid": "bob", "amt": 40_000, "expiry": 8 })).await.ok();
        let answer = pay(&api, json!({ "uuid": "alice", "payreq": answer["payment_request"], "wait": 50 })).await;
        assert!(["invoice_expires_too_soon", "payreq_expired"].contains(&answer.problem(409)), "{:#}", answer.body);
        let channels = api.get("listchannels", &[("uuid", "alice")]).await.ok();
        assert_eq!(channels["channels"].as_array().map(Vec::len), Some(0));
        d.stop().await;
    });
}

#[test]
fn what_an_app_may_cost_is_limited() {
    harness::run(DEADLINE, async {
        let d = Deployment::start(Setup::default()).await;
        let api = d.api();
        d.create_users(&["alice", "bob"]).await;
        api.confirmed("alice", 1_000_000).await;
        d.config_cli(&["app", "limits", "app", "--outgoing-sat-per-day", "10000", "--nodes", "2"]).await;
        let payreq = api.invoice("bob", 50_000).await;
        let answer = api.post("pay", json!({ "uuid": "alice", "payreq": payreq })).await;
        assert_eq!(answer.problem(409), "limit_exceeded");
        assert_eq!(answer.body["details"]["limit_name"], "outgoing_sat_per_day");
        let third = api.post("create", json!({ "uuid": "carol" })).await;
        assert_eq!(third.problem(409), "limit_exceeded");
        let unknown = api.get("node", &[("uuid", "carol")]).await;
        assert_eq!(unknown.problem(404), "user_not_found", "nothing was done");
        d.stop().await;
    });
}
