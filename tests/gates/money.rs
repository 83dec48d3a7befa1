//! Not enough money anywhere, over a limit: refused before any effect, with what is there and what is needed.

use super::operations::detail;
use super::payreqs::{self, Payreq};
use crate::harness::{Api, Deployment};
use serde_json::json;
use std::time::Duration;

/// An address of this network that nobody here has.
pub const ADDRESS: &str = "sb1qw508d6qejxtdg4y5r3zarvary0c5xw7krxe8se";

pub async fn what_is_too_dear_is_refused(d: &Deployment, api: &Api) {
    let too_much = json!({ "uuid": "alice", "payreq": payreqs::good(5_000_000) });
    let refused = api.post("pay", too_much).await;
    assert_eq!(refused.problem(409), "insufficient_funds");
    assert!(detail(&refused, "needed_sat").as_u64().unwrap() > 5_000_000, "{}", refused.text);
    assert_eq!(*detail(&refused, "wallet_sat"), 1_000_000);
    assert_eq!(*detail(&refused, "channels_sat"), 0);

    let no_channel = json!({ "uuid": "alice", "payreq": payreqs::good(50_000), "open": "never" });
    let refused = api.post("pay", no_channel).await;
    assert_eq!(refused.problem(409), "insufficient_funds");
    assert_eq!(*detail(&refused, "needed_sat"), 50_000);

    let tight = json!({ "uuid": "alice", "payreq": payreqs::good(50_000), "max_open_fee": 1 });
    let refused = api.post("pay", tight).await;
    assert_eq!(refused.problem(409), "open_fee_too_high");
    assert!(detail(&refused, "needed_sat").as_u64().unwrap() > 1, "{}", refused.text);
    assert_eq!(*detail(&refused, "max_open_fee_sat"), 1);

    // Money for the channel, but not for opening it, too.
    let to_the_last = json!({ "uuid": "alice", "payreq": payreqs::good(50_000), "amt": 1_000_000 });
    let refused = api.post("pay", to_the_last).await;
    assert_eq!(refused.problem(409), "insufficient_funds");
    assert!(detail(&refused, "needed_sat").as_u64().unwrap() > 1_000_000, "{}", refused.text);

    let hasty = Payreq { expiry: Duration::from_secs(9), ..Payreq::good(50_000) }.text();
    let refused = api.post("pay", json!({ "uuid": "alice", "payreq": hasty })).await;
    assert_eq!(refused.problem(409), "invoice_expires_too_soon");

    let refused = api.post("withdraw", json!({ "uuid": "alice", "address": ADDRESS, "amt": 1_000_001 })).await;
    assert_eq!(refused.problem(409), "insufficient_funds");
    assert_eq!(*detail(&refused, "needed_sat"), 1_000_001);
    assert_eq!(*detail(&refused, "wallet_confirmed_sat"), 1_000_000);

    let too_dear = json!({ "uuid": "alice", "address": ADDRESS, "amt": 500_000, "max_fee": 1 });
    let refused = api.post("withdraw", too_dear).await;
    assert_eq!(refused.problem(409), "fee_too_high");
    assert!(detail(&refused, "needed_sat").as_u64().unwrap() > 1, "{}", refused.text);

    limits(d, api).await;
}

async fn limits(d: &Deployment, api: &Api) {
    d.config_cli(&["app", "limits", "app", "--outgoing-sat-per-day", "10000", "--nodes", "2"]).await;
    let pay = json!({ "uuid": "alice", "payreq": payreqs::good(50_000) });
    let withdraw = json!({ "uuid": "alice", "address": ADDRESS, "amt": 10_001 });
    for (call, body, limit) in [
        ("pay", pay, "outgoing_sat_per_day"),
        ("withdraw", withdraw, "outgoing_sat_per_day"),
        ("create", json!({ "uuid": "carol" }), "nodes"),
    ] {
        let refused = api.post(call, body).await;
        assert_eq!(refused.problem(409), "limit_exceeded", "{call}");
        assert_eq!(*detail(&refused, "limit_name"), limit, "{}", refused.text);
    }
    assert_eq!(api.get("node", &[("uuid", "carol")]).await.problem(404), "user_not_found");
    d.config_cli(&["app", "limits", "app", "--outgoing-sat-per-day", "none", "--nodes", "none"]).await;
}
