//! Each rule of lnd's JSON, on messages that need it. That whole answers equal lnd's is tested against a real node.

use std::collections::BTreeMap;

use serde::Serialize;

use super::super::proto::lnrpc::channel_point::FundingTxid;
use super::super::proto::lnrpc::{self, CommitmentType};
use super::*;

fn json(message: &impl Serialize) -> String {
    serde_json::to_string(message).unwrap()
}

#[test]
fn everything_unset_is_there_in_the_order_of_declaration() {
    assert_eq!(
        json(&lnrpc::HtlcAttempt::default()),
        r#"{"attempt_id":"0","status":"IN_FLIGHT","route":null,"attempt_time_ns":"0","resolve_time_ns":"0","failure":null,"preimage":""}"#
    );
    assert_eq!(
        json(&lnrpc::PendingChannelsResponse::default()),
        r#"{"total_limbo_balance":"0","pending_open_channels":[],"pending_closing_channels":[],"pending_force_closing_channels":[],"waiting_close_channels":[]}"#
    );
    assert_eq!(json(&lnrpc::GetInfoRequest {}), "{}");
}

#[test]
fn members_of_a_oneof_are_there_only_when_set() {
    let mut point = lnrpc::ChannelPoint::default();
    assert_eq!(json(&point), r#"{"output_index":0}"#);
    point.funding_txid = Some(FundingTxid::FundingTxidBytes(Vec::new()));
    assert_eq!(json(&point), r#"{"funding_txid_bytes":"","output_index":0}"#);
    point.funding_txid = Some(FundingTxid::FundingTxidStr("ab".into()));
    assert_eq!(json(&point), r#"{"funding_txid_str":"ab","output_index":0}"#);
}

#[test]
fn a_message_in_a_oneof_is_written_in_full() {
    let update = lnrpc::CloseStatusUpdate {
        update: Some(lnrpc::close_status_update::Update::CloseInstant(lnrpc::InstantUpdate { num_pending_htlcs: 2 })),
    };
    assert_eq!(json(&update), r#"{"close_instant":{"num_pending_htlcs":2}}"#);
}

#[test]
fn optional_fields_are_there_only_when_set_even_to_zero() {
    let mut config = lnrpc::BlindedPathConfig::default();
    assert_eq!(json(&config), r#"{"node_omission_list":[],"incoming_channel_list":[]}"#);
    config.num_hops = Some(0);
    config.node_omission_list = vec![vec![1, 2]];
    config.incoming_channel_list = vec![u64::MAX];
    assert_eq!(
        json(&config),
        r#"{"num_hops":0,"node_omission_list":["AQI="],"incoming_channel_list":["18446744073709551615"]}"#
    );
}

#[test]
fn enums_go_by_name_and_unknown_ones_by_number() {
    let of = |number| {
        let channel = lnrpc::Channel { commitment_type: number, ..Default::default() };
        serde_json::to_value(channel).unwrap()["commitment_type"].clone()
    };
    assert_eq!(of(CommitmentType::Anchors.into()), "ANCHORS");
    assert_eq!(of(7), "TAPROOT", "of two names the first declared");
    assert_eq!(of(4711), 4711);
    assert_eq!(of(-1), -1);
}

#[test]
fn integers_of_64_bits_are_strings_and_of_32_bits_numbers() {
    let amount = lnrpc::Amount { sat: u64::MAX, msat: 0 };
    assert_eq!(json(&amount), r#"{"sat":"18446744073709551615","msat":"0"}"#);
    let tx = lnrpc::Transaction { amount: i64::MIN, num_confirmations: -3, ..Default::default() };
    let tx = serde_json::to_value(tx).unwrap();
    assert_eq!(tx["amount"], "-9223372036854775808");
    assert_eq!(tx["num_confirmations"], -3);
}

#[test]
fn map_keys_are_strings_in_the_order_of_their_numbers() {
    let feature = |name: &str| lnrpc::Feature { name: name.into(), is_required: false, is_known: true };
    let pay_req =
        lnrpc::PayReq { features: BTreeMap::from([(17, feature("b")), (9, feature("a"))]), ..Default::default() };
    assert!(
        json(&pay_req)
            .contains(r#""features":{"9":{"name":"a","is_required":false,"is_known":true},"17":{"name":"b","#)
    );
    let payment =
        lnrpc::Payment { first_hop_custom_records: BTreeMap::from([(65_536, vec![255])]), ..Default::default() };
    assert!(json(&payment).contains(r#""first_hop_custom_records":{"65536":"/w=="}"#));
    assert_eq!(serde_json::to_value(&payment).unwrap()["first_hop_custom_records"]["65536"], "/w==", "as a value, too");
}

#[test]
fn bytes_of_any_length_are_padded_base64() {
    for len in [0, 1, 2, 32, 95, 96, 97, 500] {
        let bytes: Vec<u8> = (0..len).map(|i| (i * 7 % 256) as u8).collect();
        let expected = format!("\"{}\"", STANDARD.encode(&bytes));
        assert_eq!(json(&Base64(&bytes)), expected, "{len} bytes");
    }
}

#[test]
fn floats_look_as_go_writes_them() {
    for (value, expected) in [
        (0.0, "0"),
        (1.0, "1"),
        (-2.0, "-2"),
        (0.5, "0.5"),
        (0.000_000_1, "1e-7"),
        (1e21, "1e+21"),
        (f64::NAN, "\"NaN\""),
        (f64::INFINITY, "\"Infinity\""),
        (f64::NEG_INFINITY, "\"-Infinity\""),
    ] {
        assert_eq!(json(&Double(value)), expected);
    }
}

#[test]
fn text_is_escaped() {
    let peer = lnrpc::LightningAddress { pubkey: "\"\\\n\u{1}é\u{1f600}<&".into(), host: String::new() };
    assert_eq!(json(&peer), "{\"pubkey\":\"\\\"\\\\\\n\\u0001é\u{1f600}<&\",\"host\":\"\"}");
}

#[test]
fn secrets_are_not_in_debug() {
    let init = lnrpc::InitWalletRequest {
        wallet_password: b"hunter22".to_vec(),
        extended_master_key: "xprv".into(),
        ..Default::default()
    };
    assert_eq!(format!("{init:?}"), "InitWalletRequest { .. }");
    let invoice = lnrpc::Invoice { r_preimage: vec![7; 32], ..Default::default() };
    assert_eq!(format!("{invoice:?}"), "Invoice { .. }");
}

#[test]
fn the_descriptor_set_names_the_messages() {
    let set = super::super::proto::DESCRIPTOR_SET;
    assert!(set.windows(15).any(|window| window == b"GetInfoResponse"));
}
