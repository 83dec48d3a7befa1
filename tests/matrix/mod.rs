//! The kill matrix: for every step of create, pay, closechannel and withdraw, just before and just after its effect, the
//! master is killed (and started again, or another takes over), or the host agent is, or the master is stopped past its claim
//! while a second one takes over, and then woken. Afterwards there is exactly one of everything.
//!
//! The steps come from the model: one that is added there is struck here.

mod blows;
pub mod checks;

use crate::harness::emulator::Emulator;
use crate::harness::{self, Deployment, Setup};
pub use blows::stop_between_commits;
use blows::{Blow, Call, strike};
use scale_lnd::model::work::close::CloseStep;
use scale_lnd::model::work::create::CreateStep;
use scale_lnd::model::work::onchain::SendStep;
use scale_lnd::model::work::pay::PayStep;
use serde_json::json;
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(900);

/// The points of a kind of work, in order.
fn points(kind: &str, steps: impl IntoIterator<Item = &'static str>) -> Vec<String> {
    let both = |step| ["before", "after"].map(|when| format!("{kind}.{step}.{when}"));
    steps.into_iter().flat_map(both).collect()
}

/// Where the Store is a file.
async fn sqlite() -> Setup {
    Setup { initial_funding_sat: 3_000_000, slots: 40, ..Setup::default() }
}

/// Where it is Firestore.
async fn firestore() -> Setup {
    Setup { firestore: Some(Emulator::shared().await.url.clone()), ..sqlite().await }
}

async fn create_survives(blow: Blow, setup: Setup) {
    let mut d = Deployment::start(Setup { initial_funding_sat: 1_000_000, ..setup }).await;
    // The money of a create is sent by an operation of the treasury's.
    let mut all = points("create", CreateStep::ALL.map(CreateStep::name));
    all.extend(points("funding", SendStep::NAMES));
    for (n, point) in all.iter().enumerate() {
        let uuid = format!("user{n}");
        let call = Call::new("create", json!({ "uuid": uuid, "wait": 50 }));
        strike(&mut d, blow, point, &call).await;
        checks::one_node(&d, &uuid, point).await;
    }
    checks::no_secret_is_lost(&d, all.len()).await;
    d.stop().await;
}

async fn pay_survives(blow: Blow, setup: Setup) {
    let mut d = Deployment::start(setup).await;
    d.create_users(&["alice", "bob"]).await;
    d.api().confirmed("alice", 3_000_000).await;
    for point in points("pay", PayStep::NAMES) {
        let before = checks::Openings::of(&d, "alice").await;
        let payreq = d.api().invoice("bob", 60_000).await;
        let call = Call::new("pay", json!({ "uuid": "alice", "payreq": payreq, "wait": 50 }));
        strike(&mut d, blow, &point, &call).await;
        checks::one_payment(&d, "alice", "bob", &payreq, &point).await;
        before.one_more(&d, "alice", &point).await;
        checks::no_orphan(&d, &point).await;
    }
    d.stop().await;
}

async fn close_survives(blow: Blow, setup: Setup) {
    let mut d = Deployment::start(setup).await;
    d.create_users(&["alice", "bob"]).await;
    d.api().confirmed("alice", 3_000_000).await;
    for point in points("closechannel", CloseStep::ALL.map(CloseStep::name)) {
        let payreq = d.api().invoice("bob", 60_000).await;
        let paid = d.api().post("pay", json!({ "uuid": "alice", "payreq": payreq, "wait": 50 })).await;
        let paid = d.api().finished(paid).await.ok();
        let channel_point = paid["channel"]["channel_point"].as_str().unwrap().to_owned();
        let pubkey = paid["channel"]["peer"].as_str().unwrap();
        let body = json!({ "uuid": "alice", "pubkey": pubkey, "channel_point": channel_point, "wait": 50 });
        strike(&mut d, blow, &point, &Call::new("closechannel", body)).await;
        checks::one_close(&d, "alice", &channel_point, &point).await;
        checks::no_orphan(&d, &point).await;
    }
    d.stop().await;
}

async fn withdraw_survives(blow: Blow, setup: Setup) {
    let mut d = Deployment::start(setup).await;
    d.create_users(&["alice", "bob"]).await;
    d.api().confirmed("alice", 3_000_000).await;
    for (n, point) in points("withdraw", SendStep::NAMES).into_iter().enumerate() {
        // The change of the one before.
        d.api().confirmed("alice", 1_000_000).await;
        let address = d.api().post("newaddress", json!({ "uuid": "bob" })).await.ok();
        let address = address["address"].as_str().unwrap().to_owned();
        let amount = 50_000 + n as u64;
        let body = json!({ "uuid": "alice", "address": address, "amt": amount, "wait": 50 });
        let call = Call::new("withdraw", body).with_idempotency_key(&point);
        strike(&mut d, blow, &point, &call).await;
        checks::one_withdrawal(&d, "alice", amount, &point).await;
        checks::no_orphan(&d, &point).await;
    }
    d.stop().await;
}

macro_rules! matrix {
    ($($name:ident: $survives:ident($blow:ident, $store:ident);)*) => {
        $(#[test]
        fn $name() {
            harness::run(DEADLINE, async { $survives(Blow::$blow, $store().await).await });
        })*
    };
}

matrix! {
    create_survives_kills_of_the_master: create_survives(KillMaster, sqlite);
    create_survives_kills_of_the_agent: create_survives(KillAgent, sqlite);
    create_survives_a_master_stopped_past_its_claim: create_survives(StopMaster, sqlite);
    pay_survives_kills_of_the_master: pay_survives(KillMaster, sqlite);
    pay_survives_kills_of_the_agent: pay_survives(KillAgent, sqlite);
    pay_survives_a_master_stopped_past_its_claim: pay_survives(StopMaster, sqlite);
    close_survives_kills_of_the_master: close_survives(KillMaster, sqlite);
    close_survives_kills_of_the_agent: close_survives(KillAgent, sqlite);
    close_survives_a_master_stopped_past_its_claim: close_survives(StopMaster, sqlite);
    withdraw_survives_kills_of_the_master: withdraw_survives(KillMaster, sqlite);
    withdraw_survives_kills_of_the_agent: withdraw_survives(KillAgent, sqlite);
    withdraw_survives_a_master_stopped_past_its_claim: withdraw_survives(StopMaster, sqlite);
    // On Firestore masters are many: what one leaves, another takes over.
    create_on_firestore_is_taken_over: create_survives(TakeOver, firestore);
    pay_on_firestore_is_taken_over: pay_survives(TakeOver, firestore);
    pay_on_firestore_survives_a_master_stopped_past_its_claim: pay_survives(StopMaster, firestore);
    close_on_firestore_is_taken_over: close_survives(TakeOver, firestore);
    withdraw_on_firestore_is_taken_over: withdraw_survives(TakeOver, firestore);
    withdraw_on_firestore_survives_a_master_stopped_past_its_claim: withdraw_survives(StopMaster, firestore);
}
