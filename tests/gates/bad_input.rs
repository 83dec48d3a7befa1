//! The table of bad input, row by row: status, code, parameters at fault, told in a snapshot.

use super::money::ADDRESS;
use super::payreqs::{self, Payreq};
use crate::harness::{Answer, Api};
use lightning_invoice::Currency;
use reqwest::Method;
use serde_json::{Value, json};
use std::fmt::Write;

/// Sends the rows and notes what came.
struct Table<'a> {
    api: &'a Api,
    told: String,
    /// What differs from run to run, and what stands for it.
    names: Vec<(String, &'static str)>,
}

impl Table<'_> {
    async fn get(&mut self, row: &str, call: &str, query: &[(&str, &str)]) {
        let answer = self.api.get(call, query).await;
        self.note(row, &answer);
    }

    async fn post(&mut self, row: &str, call: &str, body: Value) {
        let answer = self.api.post(call, body).await;
        self.note(row, &answer);
    }

    fn note(&mut self, row: &str, answer: &Answer) {
        assert!((400..500).contains(&answer.status), "{row}: {} {}", answer.status, answer.text);
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{row}");
        let mut body = answer.body.clone();
        let object = body.as_object_mut().unwrap();
        // They follow from the code.
        object.remove("type");
        object.remove("title");
        assert_eq!(object.remove("status"), Some(json!(answer.status)), "{row}");
        let mut body = body.to_string();
        for (value, name) in &self.names {
            body = body.replace(value, name);
        }
        writeln!(self.told, "{row}\n    {} {body}", answer.status).unwrap();
    }
}

pub async fn each_row_has_its_answer(api: &Api) {
    let pubkey = |uuid: &'static str| async move {
        let info = api.get("getinfo", &[("uuid", uuid)]).await.ok();
        info["identity_pubkey"].as_str().unwrap().to_owned()
    };
    let (alice, bob) = (pubkey("alice").await, pubkey("bob").await);
    let names = vec![(alice.clone(), "<alice>"), (bob.clone(), "<bob>")];
    let mut table = Table { api, told: String::new(), names };
    uuids(&mut table).await;
    amounts(&mut table).await;
    payment_requests(&mut table).await;
    peers(&mut table, &alice, &bob).await;
    forms(&mut table).await;
    insta::assert_snapshot!("bad_input", table.told);
}

async fn uuids(table: &mut Table<'_>) {
    let long = "x".repeat(129);
    table.get("no uuid", "getinfo", &[]).await;
    table.get("an empty uuid", "getinfo", &[("uuid", "")]).await;
    table.get("a uuid of 129 characters", "getinfo", &[("uuid", &long)]).await;
    table.get("a uuid with a slash", "getinfo", &[("uuid", "a/../b")]).await;
    table.post("a uuid with a space", "create", json!({ "uuid": "a b" })).await;
    table.post("a uuid that is a number", "create", json!({ "uuid": 7 })).await;
    table.get("an unknown user", "getinfo", &[("uuid", "nobody")]).await;
}

async fn amounts(table: &mut Table<'_>) {
    for amt in ["0", "-1", "1.5", "2100000000000001", "1e3", "ten", ""] {
        let row = format!("an invoice over {amt:?}, by GET");
        table.get(&row, "invoice", &[("uuid", "alice"), ("amt", amt)]).await;
    }
    for amt in [json!(0), json!(-1), json!(1.5), json!(2_100_000_000_000_001_u64), json!("1000"), json!(true)] {
        let row = format!("an invoice over {amt}, by POST");
        table.post(&row, "invoice", json!({ "uuid": "alice", "amt": amt })).await;
    }
    table.post("a withdrawal of nothing", "withdraw", json!({ "uuid": "alice", "address": ADDRESS, "amt": 0 })).await;
    table.post("a withdrawal of no amount", "withdraw", json!({ "uuid": "alice", "address": ADDRESS })).await;
    for amt in [json!(-1), json!(1.5), json!(2_100_000_000_000_001_u64)] {
        let row = format!("a withdrawal of {amt}");
        table.post(&row, "withdraw", json!({ "uuid": "alice", "address": ADDRESS, "amt": amt })).await;
    }
    let both = json!({ "uuid": "alice", "address": ADDRESS, "amt": 1000, "all": true });
    table.post("a withdrawal of an amount and all", "withdraw", both).await;
    let elsewhere = "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4";
    let body = json!({ "uuid": "alice", "address": elsewhere, "amt": 1000 });
    table.post("a withdrawal to another network", "withdraw", body).await;
}

async fn payment_requests(table: &mut Table<'_>) {
    let own = table.api.invoice("alice", 50_000).await;
    let good = || Payreq::good(50_000);
    let rows = [
        ("garbage", "lnsb1nonsense".to_owned()),
        ("another network", Payreq { currency: Currency::Bitcoin, ..good() }.text()),
        ("expired", Payreq { has_expired: true, ..good() }.text()),
        ("own invoice", own),
        ("signature wrong", Payreq { is_forged: true, ..good() }.text()),
        ("no amount", Payreq { amount_sat: None, ..good() }.text()),
    ];
    for (row, payreq) in rows {
        table.post(&format!("pay: {row}"), "pay", json!({ "uuid": "alice", "payreq": payreq })).await;
    }
    let two = json!({ "uuid": "alice", "payreq": good().text(), "pay_amt": 1 });
    table.post("pay: two amounts", "pay", two).await;
    let none = Payreq { amount_sat: None, ..good() }.text();
    for name in ["pay_amt", "amt", "max_fee", "max_open_fee"] {
        for value in [json!(-1), json!(1.5), json!(2_100_000_000_000_001_u64), json!("ten")] {
            let mut body = json!({ "uuid": "alice", "payreq": none, "pay_amt": 1 });
            body[name] = value.clone();
            table.post(&format!("pay: {name} {value}"), "pay", body).await;
        }
    }
    let open = json!({ "uuid": "alice", "payreq": good().text(), "open": "perhaps" });
    table.post("pay: open neither auto nor never", "pay", open).await;
    for (row, payreq) in [
        ("garbage", "lnsb1nonsense".to_owned()),
        ("another network", Payreq { currency: Currency::Bitcoin, ..good() }.text()),
    ] {
        table.get(&format!("decodepayreq: {row}"), "decodepayreq", &[("uuid", "alice"), ("payreq", &payreq)]).await;
    }
}

async fn peers(table: &mut Table<'_>, alice: &str, bob: &str) {
    let off_curve = format!("02{:064x}", 5);
    for (what, pubkey) in
        [("no point", off_curve.as_str()), ("too short", &bob[..64]), ("too long", &format!("{bob}00"))]
    {
        for call in ["addpeer", "deletepeer", "closechannel"] {
            let mut body = json!({ "uuid": "alice", "pubkey": pubkey });
            if call == "addpeer" {
                body["host"] = json!("127.0.0.1:9");
            }
            table.post(&format!("{call}: a pubkey that is {what}"), call, body).await;
        }
    }
    let hosts =
        ["203.0.113.7", "tcp://203.0.113.7:9735", "no-such-host.invalid:9735", "0.0.0.0:9735", "169.254.169.254:80"];
    for host in hosts {
        let body = json!({ "uuid": "alice", "pubkey": bob, "host": host });
        table.post(&format!("addpeer: host {host}"), "addpeer", body).await;
    }
    let payreq = payreqs::good(50_000);
    let body = json!({ "uuid": "alice", "payreq": payreq, "pubkey": off_curve, "host": "x" });
    table.post("pay: pubkey and host", "pay", body).await;
    let myself = json!({ "uuid": "alice", "pubkey": alice, "host": "127.0.0.1:9" });
    table.post("addpeer: itself", "addpeer", myself).await;
    let nobody = json!({ "uuid": "alice", "pubkey": bob, "host": "127.0.0.1:9" });
    table.post("addpeer: nobody is there", "addpeer", nobody).await;
    let somebody = json!({ "uuid": "alice", "pubkey": payreqs::SOMEBODY });
    table.post("deletepeer: not a peer", "deletepeer", somebody.clone()).await;
    table.post("closechannel: no channel", "closechannel", somebody).await;
    let hash = "01".repeat(32);
    table.get("lookupinvoice: unknown", "lookupinvoice", &[("uuid", "alice"), ("payment_hash", &hash)]).await;
}

async fn forms(table: &mut Table<'_>) {
    table.get("a parameter twice", "getinfo", &[("uuid", "alice"), ("uuid", "bob")]).await;
    table.get("an unknown parameter", "getinfo", &[("uuid", "alice"), ("colour", "red")]).await;
    let all = [("amt", "-1"), ("expiry", "0"), ("colour", "red"), ("memo", "a"), ("memo", "b")];
    table.get("every fault at once, by GET", "invoice", &all).await;
    let all = json!({ "uuid": "", "amt": "x", "expiry": 0, "memo": 5, "colour": "red" });
    table.post("every fault at once, by POST", "invoice", all).await;
    table.get("wait of 51 seconds", "create", &[("uuid", "alice"), ("wait", "51")]).await;
    table.get("GET where only POST is", "withdraw", &[("uuid", "alice")]).await;
    table.get("no such call", "nothing", &[]).await;
    table.post("an operation of no form", "operations/x/y", json!({})).await;
    table.get("an operation that is none", "operations/nothing", &[]).await;

    let api = table.api;
    let in_query = api.request(Method::POST, "getinfo", &[("uuid", "alice")], Some(json!({})), &[]).await;
    table.note("a POST with a query", &in_query.unwrap());
    let empty_key = [("idempotency-key", "\"\"")];
    let invoice = json!({ "uuid": "alice", "amt": 5 });
    let empty_key = api.request(Method::POST, "invoice", &[], Some(invoice), &empty_key).await;
    table.note("an empty Idempotency-Key", &empty_key.unwrap());
    let large = "x".repeat(100_000);
    table.post("a body too large", "invoice", json!({ "uuid": "alice", "amt": 5, "memo": large })).await;
    for (row, content_type, body) in [
        ("text/plain", "text/plain", "{}"),
        ("a form", "application/x-www-form-urlencoded", "uuid=alice"),
        ("malformed JSON", "application/json", "{\"uuid\": \"alice\""),
        ("a list", "application/json", "[]"),
        ("a name twice in JSON", "application/json", "{\"uuid\": \"alice\", \"uuid\": \"bob\"}"),
    ] {
        let answer = api.post_text("getinfo", content_type, body).await;
        table.note(row, &answer);
    }
}
