use super::super::host::HostPort;
use super::super::values::{Amount, ChannelPoint, FeeBound, Limit, Memo, Payreq, Pubkey, Wait};
use super::*;
use crate::model::amount::Sat;
use crate::model::ids::Uuid;
use serde_json::json;

params! {
    /// A bit of everything.
    struct Sample {
        /// The user.
        uuid: Uuid,
        /// How much,
        /// in satoshi.
        amt: Amount,
        /// For what.
        memo: Option<Memo>,
        /// Whether to.
        force: Option<bool>,
    }
}

const KEY: &str = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";

fn query(text: &str) -> Result<Sample, Refusal> {
    Given::from_query(Some(text))?.read()
}

fn body(value: &Value) -> Result<Sample, Refusal> {
    Given::from_json(value.to_string().as_bytes())?.read()
}

fn faults<T: std::fmt::Debug>(outcome: Result<T, Refusal>) -> Vec<(String, String)> {
    let refusal = outcome.expect_err("refused");
    assert_eq!(refusal.code, Code::InvalidParameters);
    refusal.faults.into_iter().map(|fault| (fault.parameter, fault.message)).collect()
}

fn names<T: std::fmt::Debug>(outcome: Result<T, Refusal>) -> Vec<String> {
    faults(outcome).into_iter().map(|(name, _)| name).collect()
}

#[test]
fn a_query_and_a_body_say_the_same() {
    let by_get = query("uuid=a%2Eb&amt=1000&memo=50%25+off&force=true").expect("good");
    let by_post = body(&json!({"uuid": "a.b", "amt": 1000, "memo": "50% off", "force": true})).expect("good");
    for sample in [by_get, by_post] {
        assert_eq!((sample.uuid.as_str(), sample.amt), ("a.b", Amount(Sat(1000))));
        assert_eq!((sample.memo, sample.force), (Some(Memo("50% off".into())), Some(true)));
    }
    let bare = body(&json!({"uuid": "a", "amt": 1, "memo": null})).expect("null is left out");
    assert_eq!((bare.memo, bare.force), (None, None));
}

#[test]
fn all_faults_are_named_at_once() {
    let found = names(query("uuid=&amt=-1&force=maybe&colour=red&memo=a&memo=b"));
    assert_eq!(found, ["uuid", "amt", "memo", "force", "colour"]);
    let found = names(body(&json!({"uuid": 7, "amt": "1000", "force": "true", "memo": ["x"], "extra": {}})));
    assert_eq!(found, ["uuid", "amt", "memo", "force", "extra"]);
    assert_eq!(names(query("")), ["uuid", "amt"]);
}

#[test]
fn duplicates_are_seen_in_json_too() {
    let given = Given::from_json(br#"{"uuid": "a", "amt": 1, "amt": 2}"#).expect("JSON");
    assert_eq!(faults(given.read::<Sample>()), [("amt".into(), "is given more than once".into())]);
    let given = Given::from_json(br#"{"uuid": "a", "amt": 1, "x": 2, "x": 3}"#).expect("JSON");
    assert_eq!(names(given.read::<Sample>()), ["x"], "an unknown one is named once");
}

#[test]
fn amounts_are_whole_positive_and_at_most_all_there_is() {
    for good in ["1", "0001", "2100000000000000"] {
        assert!(Amount::from_text(good).is_ok(), "{good}");
    }
    for bad in [
        "",
        "0",
        "-1",
        "-0",
        "1.5",
        "1e3",
        "+5",
        " 5",
        "5 ",
        "0x5",
        "NaN",
        "2100000000000001",
        "99999999999999999999999",
    ] {
        assert!(Amount::from_text(bad).is_err(), "{bad}");
    }
    for good in [json!(1), json!(5.0), json!(2_100_000_000_000_000_u64)] {
        assert!(Amount::from_json(&good).is_ok(), "{good}");
    }
    for bad in [
        json!(0),
        json!(-1),
        json!(1.5),
        json!(-1.0),
        json!(1e30),
        json!("1"),
        json!(true),
        json!([1]),
        json!(2_100_000_000_000_001_u64),
    ] {
        assert!(Amount::from_json(&bad).is_err(), "{bad}");
    }
    assert!(FeeBound::from_text("0").is_ok() && FeeBound::from_text("-1").is_err());
    assert_eq!(Amount::from_text("2100000000000001").expect_err("too much"), "must be at most 2100000000000000");
    assert_eq!(Amount::from_text("-5").expect_err("negative"), "must be at least 1");
}

#[test]
fn waiting_and_paging_have_bounds() {
    assert!(Wait::from_text("0").is_ok() && Wait::from_text("50").is_ok() && Wait::from_text("51").is_err());
    assert!(Limit::from_text("0").is_err() && Limit::from_text("1000").is_ok() && Limit::from_text("1001").is_err());
}

#[test]
fn uuids_are_of_the_agreed_characters() {
    let longest = "x".repeat(128);
    for good in ["a", "A.b_c~d-9", longest.as_str()] {
        assert!(<Uuid as Parameter>::from_text(good).is_ok(), "{good}");
    }
    let too_long = "x".repeat(129);
    for bad in ["", "a b", "a/b", "ä", "a%", "a\0", too_long.as_str()] {
        assert!(<Uuid as Parameter>::from_text(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn keys_are_points_on_the_curve() {
    assert_eq!(Pubkey::from_text(&KEY.to_uppercase()).expect("a point").0, KEY);
    // x = 5 has no point; the others have the wrong form.
    let off_curve = format!("02{:064x}", 5);
    let uncompressed = format!("04{}", "11".repeat(64));
    for bad in [off_curve.as_str(), &KEY[..64], &uncompressed, "", "zz"] {
        assert!(Pubkey::from_text(bad).is_err(), "{bad}");
    }
}

#[test]
fn channel_points_and_payment_requests() {
    let txid = "ab".repeat(32);
    assert_eq!(ChannelPoint::from_text(&format!("{}:1", txid.to_uppercase())).expect("good").0, format!("{txid}:1"));
    for bad in [txid.clone(), format!("{txid}:"), format!("{txid}:-1"), format!("{txid}:70000"), "x:0".into()] {
        assert!(ChannelPoint::from_text(&bad).is_err(), "{bad}");
    }
    assert_eq!(Payreq::from_text("LIGHTNING:lnbc1").expect("good").0, "lnbc1");
    assert!(Payreq::from_text("").is_err() && Payreq::from_text("lightning:").is_err());
}

#[test]
fn what_is_no_json_object_is_malformed() {
    for bad in ["{", "[]", "5", "\"x\"", "{\"a\":1}x", "{'a':1}", "null", "{\"a\":1e999}", "\u{feff}{}"] {
        assert_eq!(Given::from_json(bad.as_bytes()).expect_err(bad).code, Code::MalformedBody, "{bad}");
    }
    assert_eq!(Given::from_json(b"{\"a\": \xff}").expect_err("not UTF-8").code, Code::MalformedBody);
    assert_eq!(Given::from_json(b"").expect("nothing"), Given::default());
    assert_eq!(names(Given::from_query(Some("uuid=%ff&amt=1"))), ["uuid"]);
}

#[test]
fn the_canonical_form_knows_no_order_no_method_and_no_wait() {
    let canonical = |given: Result<Given, Refusal>| given.expect("good").canonical();
    let by_get = canonical(Given::from_query(Some("uuid=a&amt=5&wait=1&force=true")));
    let by_post = canonical(Given::from_json(br#"{"force": true, "amt": 5, "uuid": "a", "memo": null}"#));
    assert_eq!(by_get, by_post);
    assert_ne!(by_get, canonical(Given::from_query(Some("uuid=a&amt=6&force=true"))));
}

#[test]
fn the_description_is_made_of_the_same_fields() {
    let described = Sample::describe();
    let shape: Vec<_> = described.iter().map(|d| (d.name, d.required, d.about)).collect();
    assert_eq!(shape[1], ("amt", true, "How much, in satoshi."));
    assert_eq!(shape[2], ("memo", false, "For what."));
    assert_eq!(described[3].schema, json!({"type": "boolean"}));
    assert!(<HostPort as Parameter>::schema()["type"] == "string");
}

#[test]
fn more_parameters_than_any_call_has_are_refused_before_they_are_read() {
    let of_query = |number: usize| (0..number).map(|n| format!("x{n}=%FF&")).collect::<String>();
    let of_body = |number: usize| {
        let members: Vec<String> = (0..number).map(|n| format!("\"x{n}\": null")).collect();
        format!("{{{}}}", members.join(", "))
    };
    let refused = |outcome: Result<Given, Refusal>| {
        let refusal = outcome.expect_err("refused");
        assert_eq!((refusal.code, refusal.faults.len()), (Code::InvalidParameters, 0));
        assert!(refusal.message.contains("more than 64 parameters"), "{}", refusal.message);
    };
    // As many as there may be are read, and it is their own faults that are told.
    assert_eq!(names(Given::from_query(Some(&of_query(64)))).len(), 64);
    refused(Given::from_query(Some(&of_query(65))));
    assert_eq!(Given::from_json(of_body(64).as_bytes()), Ok(Given::default()));
    refused(Given::from_json(of_body(65).as_bytes()));
    assert!(not_too_many(&of_query(64)).is_ok() && not_too_many(&of_query(65)).is_err());
    let cut_off = of_body(70).replace('}', "");
    assert_eq!(Given::from_json(cut_off.as_bytes()).map_err(|refusal| refusal.code), Err(Code::MalformedBody));
}
