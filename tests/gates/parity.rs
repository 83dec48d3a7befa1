//! Every answer that is lnd's is what lnd's own REST gives on the same node: the same names, the same values.

use super::names;
use crate::harness::{Api, Deployment};
use crate::lnd_rest::Rest;
use scale_lnd::lnd::macaroon::Macaroon;
use serde_json::{Value, json};
use std::time::Duration;

/// Some values change between two calls by themselves (bytes sent, the height): such a pair is asked for again.
const TRIES: usize = 50;
const PAUSE: Duration = Duration::from_millis(100);

/// The call, its parameters, the path of lnd's REST.
type Pair<'a> = (&'a str, &'a [(&'a str, &'a str)], String);

pub async fn every_answer_is_lnds_own(d: &Deployment, api: &Api, payreq: &str) {
    let decoded = api.get("decodepayreq", &[("uuid", "alice"), ("payreq", payreq)]).await.ok();
    let hash = decoded["payment_hash"].as_str().unwrap();
    for uuid in ["alice", "bob"] {
        let rest = rest_of(d, uuid).await;
        let of_user = [("uuid", uuid)];
        let payreq_too = [("uuid", uuid), ("payreq", payreq)];
        let hash_too = [("uuid", uuid), ("payment_hash", hash)];
        let incomplete_too = [("uuid", uuid), ("include_incomplete", "true")];
        let mut pairs: Vec<Pair> = vec![
            ("getinfo", &of_user, "/v1/getinfo".into()),
            ("walletbalance", &of_user, "/v1/balance/blockchain".into()),
            ("channelbalance", &of_user, "/v1/balance/channels".into()),
            ("listchannels", &of_user, "/v1/channels".into()),
            ("listpeers", &of_user, "/v1/peers".into()),
            ("decodepayreq", &payreq_too, format!("/v1/payreq/{payreq}")),
            ("listinvoices", &of_user, "/v1/invoices?num_max_invoices=100".into()),
            ("listpayments", &of_user, "/v1/payments?max_payments=100".into()),
            ("listpayments", &incomplete_too, "/v1/payments?max_payments=100&include_incomplete=true".into()),
            ("transactions", &of_user, "/v1/transactions?max_transactions=100".into()),
        ];
        if uuid == "bob" {
            pairs.push(("lookupinvoice", &hash_too, format!("/v1/invoice/{hash}")));
        }
        for (call, params, path) in pairs {
            same(api, &rest, call, params, &path).await;
        }
        same_names(api, &rest, uuid).await;
    }
    let payments = api.get("listpayments", &[("uuid", "alice")]).await.ok();
    assert_eq!(payments["payments"].as_array().map(Vec::len), Some(1), "there was something to compare");
}

/// lnd's own REST of a user's node, with a macaroon that the operator was given for it.
pub async fn rest_of(d: &Deployment, uuid: &str) -> Rest {
    let out = d.path(&format!("credentials-{uuid}"));
    let out = out.to_str().unwrap();
    let grants = "read,address,invoice";
    let verb = ["node", "credentials", "--app", "app", "--uuid", uuid, "--out", out, "--grant", grants];
    let lncli = d.config_cli(&verb).await;
    let server = lncli.split_whitespace().find_map(|word| word.strip_prefix("--rpcserver=")).unwrap();
    let (address, rpc_port) = server.rsplit_once(':').unwrap();
    let rest_port = rpc_port.parse::<u16>().unwrap() + 2;
    let macaroon = std::fs::read(d.path(&format!("credentials-{uuid}")).join("read-address-invoice.macaroon")).unwrap();
    Rest::new(&format!("{address}:{rest_port}"), &Macaroon::parse(&macaroon).unwrap())
}

/// By GET, by POST and from lnd itself: the same.
async fn same(api: &Api, rest: &Rest, call: &str, params: &[(&str, &str)], path: &str) {
    let mut body = json!({});
    for (name, value) in params {
        body[*name] = value.parse::<bool>().map_or_else(|_| json!(value), Value::Bool);
    }
    let mut last = Value::Null;
    for _ in 0..TRIES {
        let by_get = without_cursor(api.get(call, params).await.ok());
        let by_post = without_cursor(api.post(call, body.clone()).await.ok());
        let theirs: Value = serde_json::from_str(&rest.get(path).await).unwrap();
        if by_get == theirs && by_post == theirs {
            return;
        }
        last = json!({ "get": by_get, "post": by_post, "lnd": theirs });
        tokio::time::sleep(PAUSE).await;
    }
    panic!("{call} {params:?} differs:\n{last:#}");
}

/// Lists have one name more than lnd's.
fn without_cursor(mut answer: Value) -> Value {
    answer.as_object_mut().unwrap().remove("next_cursor");
    answer
}

/// Calls that make something new each time answer with the same names.
async fn same_names(api: &Api, rest: &Rest, uuid: &str) {
    let address = api.post("newaddress", json!({ "uuid": uuid })).await.ok();
    let theirs: Value = serde_json::from_str(&rest.get("/v1/newaddress?type=WITNESS_PUBKEY_HASH").await).unwrap();
    assert_eq!(names(&address), names(&theirs));
    assert!(address["address"].as_str().unwrap().starts_with("sb1q"), "{address}");

    let invoice = api.post("invoice", json!({ "uuid": uuid, "amt": 7, "memo": "tea", "expiry": 600 })).await.ok();
    let theirs = rest.post("/v1/invoices", json!({ "value": "7", "memo": "tea", "expiry": "600", "private": true }));
    let theirs: Value = serde_json::from_str(&theirs.await).unwrap();
    assert_eq!(names(&invoice), names(&theirs));
    let decode = |invoice: &Value| invoice["payment_request"].as_str().unwrap().to_owned();
    let (ours, theirs) = (decode(&invoice), decode(&theirs));
    let ours = api.get("decodepayreq", &[("uuid", uuid), ("payreq", &ours)]).await.ok();
    let theirs = api.get("decodepayreq", &[("uuid", uuid), ("payreq", &theirs)]).await.ok();
    for name in ["num_satoshis", "description", "expiry", "cltv_expiry", "destination", "features"] {
        assert_eq!(ours[name], theirs[name], "{name}");
    }
}

/// Connecting and disconnecting: lnd's one name; being connected already is a success.
pub async fn peers_come_and_go(d: &Deployment, api: &Api) {
    let bob = api.get("node", &[("uuid", "bob")]).await.ok();
    let pubkey = &bob["identity_pubkey"];
    let add = json!({ "uuid": "alice", "pubkey": pubkey, "host": bob["p2p_address"] });
    for _ in 0..2 {
        assert_eq!(names(&api.post("addpeer", add.clone()).await.ok()), ["status"]);
    }
    same(api, &rest_of(d, "alice").await, "listpeers", &[("uuid", "alice")], "/v1/peers").await;
    let listed = api.get("listpeers", &[("uuid", "alice")]).await.ok();
    assert!(listed["peers"].as_array().unwrap().iter().any(|peer| peer["pub_key"] == *pubkey), "{listed:#}");
    let gone = api.post("deletepeer", json!({ "uuid": "alice", "pubkey": pubkey })).await.ok();
    assert_eq!(names(&gone), ["status"]);
}
