//! Reads that many ask for at once are made once, and no answer is kept: nobody may be told anything older than their
//! question. (To the instant that is held by the tests of `app::directory::joined`; here it is seen on a real node.)

use crate::harness::Api;
use serde_json::json;
use tokio::task::JoinSet;

/// How many ask all the time.
const READERS: usize = 12;
const PAYMENTS: u64 = 10;
const AMOUNT_SAT: u64 = 100;

/// Each payment is answered before the payer's balance is asked for, so that the balance must show it, whichever reads of
/// others were under way when it was asked for.
pub async fn show_what_was_answered_before(api: &Api) {
    let mut readers = JoinSet::new();
    for _ in 0..READERS {
        let api = api.clone();
        readers.spawn(async move {
            loop {
                api.get("channelbalance", &[("uuid", "alice")]).await.ok();
            }
        });
    }
    let mut given_sat = given(api).await;
    for _ in 0..PAYMENTS {
        let payreq = api.invoice("bob", AMOUNT_SAT).await;
        let paid = api.post("pay", json!({ "uuid": "alice", "payreq": payreq, "wait": 50 })).await;
        assert_eq!(paid.ok()["payment"]["status"], "SUCCEEDED");
        let now_sat = given(api).await;
        assert!(now_sat >= given_sat + AMOUNT_SAT, "{now_sat} sat given after a payment, {given_sat} before it");
        given_sat = now_sat;
    }
    // They ask until they are dropped; one that has ended has failed.
    assert!(readers.try_join_next().is_none(), "a read failed");
}

/// What the other side has, or gets from payments whose last signatures are under way. (The payer's own balance is no
/// measure: it pays the commitment's fee, which differs with the payments in it.)
async fn given(api: &Api) -> u64 {
    let balance = api.get("channelbalance", &[("uuid", "alice")]).await.ok();
    let sat = |name: &str| balance[name]["sat"].as_str().unwrap().parse::<u64>().unwrap();
    sat("remote_balance") + sat("unsettled_remote_balance")
}
