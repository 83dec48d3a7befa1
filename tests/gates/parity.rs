//! Every answer that is lnd's is what lnd's own REST gives on the same node: the same names, the same values.

use super::names;
use crate::harness::{Api, Deployment, eventually};
use crate::lnd_rest::Rest;
use serde_json::{Value, json};
use std::time::Duration;

/// Some values change between two calls by themselves (bytes sent, the height): such a pair is asked for again.
const TRIES: usize = 50;
const PAUSE: Duration = Duration::from_millis(100);

/// The call, its parameters, the path of lnd's REST.
type Pair<'a> = (&'a str, &'a [(&'a str, &'a str)], String);

/// `payment`: what the pay of `payreq`, the only one so far, was answered with.
pub async fn every_answer_is_lnds_own(d: &Deployment, api: &Api, payreq: &str, payment: &Value) {
    let decoded = api.get("decodepayreq", &[("uuid", "alice"), ("payreq", payreq)]).await.ok();
    let hash = decoded["payment_hash"].as_str().unwrap();
    for uuid in ["alice", "bob"] {
        let rest = Rest::of(d, uuid, "read,address,invoice").await;
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
        if uuid == "alice" {
            let payments = &rest.get("/v1/payments?max_payments=100").await["payments"];
            assert_eq!(payments.as_array().map(Vec::len), Some(1), "there was something to compare");
            assert_eq!(*payment, payments[0], "the payment in pay's answer is lnd's own, key for key");
        }
    }
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
        let theirs = rest.get(path).await;
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
    let theirs = rest.get("/v1/newaddress?type=WITNESS_PUBKEY_HASH").await;
    assert_eq!(names(&address), names(&theirs));
    assert!(address["address"].as_str().unwrap().starts_with("sb1q"), "{address}");

    let invoice = api.post("invoice", json!({ "uuid": uuid, "amt": 7, "memo": "tea", "expiry": 600 })).await.ok();
    let theirs = json!({ "value": "7", "memo": "tea", "expiry": "600", "private": true });
    let theirs = rest.post("/v1/invoices", theirs).await;
    assert_eq!(names(&invoice), names(&theirs));
    let decode = |invoice: &Value| invoice["payment_request"].as_str().unwrap().to_owned();
    let (ours, theirs) = (decode(&invoice), decode(&theirs));
    let ours = api.get("decodepayreq", &[("uuid", uuid), ("payreq", &ours)]).await.ok();
    let theirs = api.get("decodepayreq", &[("uuid", uuid), ("payreq", &theirs)]).await.ok();
    for name in ["num_satoshis", "description", "expiry", "cltv_expiry", "destination", "features"] {
        assert_eq!(ours[name], theirs[name], "{name}");
    }
}

/// Connecting and disconnecting, first by lnd's own REST and then by ours: the same answers. Being connected already, which
/// is lnd's no, is a success of ours.
pub async fn peers_come_and_go(d: &Deployment, api: &Api) {
    let rest = Rest::of(d, "alice", "read,peers").await;
    let bob = api.get("node", &[("uuid", "bob")]).await.ok();
    let (pubkey, host) = (bob["identity_pubkey"].as_str().unwrap(), &bob["p2p_address"]);
    let (add, remove) = (json!({ "uuid": "alice", "pubkey": pubkey, "host": host }), format!("/v1/peers/{pubkey}"));
    let their_add = json!({ "addr": { "pubkey": pubkey, "host": host }, "perm": false });

    let their_add = rest.post("/v1/peers", their_add).await;
    is_peer(api, pubkey, true).await;
    let their_remove = rest.delete(&remove).await;
    is_peer(api, pubkey, false).await;

    assert_eq!(api.post("addpeer", add.clone()).await.ok(), their_add);
    is_peer(api, pubkey, true).await;
    assert_eq!(names(&api.post("addpeer", add).await.ok()), names(&their_add), "connected already");
    same(api, &rest, "listpeers", &[("uuid", "alice")], "/v1/peers").await;
    let gone = api.post("deletepeer", json!({ "uuid": "alice", "pubkey": pubkey })).await.ok();
    assert_eq!(gone, their_remove);
    is_peer(api, pubkey, false).await;
}

/// Waits until alice's lnd has this peer, or has it no longer: lnd answers a little before.
async fn is_peer(api: &Api, pubkey: &str, wanted: bool) {
    eventually(&format!("is a peer: {wanted}"), Duration::from_secs(20), || async {
        let listed = api.get("listpeers", &[("uuid", "alice")]).await.ok();
        let found = listed["peers"].as_array().unwrap().iter().any(|peer| peer["pub_key"] == pubkey);
        (found == wanted).then_some(())
    })
    .await;
}
