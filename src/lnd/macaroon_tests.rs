use proptest::prelude::*;
use time::{Duration, macros::datetime};

use super::*;

fn root() -> RootKey {
    RootKey::from_bytes(std::array::from_fn(|i| i as u8))
}

fn nonce() -> [u8; 16] {
    std::array::from_fn(|i| i as u8)
}

fn signature(macaroon: &Macaroon) -> String {
    macaroon.hex()[macaroon.hex().len() - 64..].to_owned()
}

/// The vector that bakery v2.0.1 made.
#[test]
fn the_admin_macaroon_is_bakerys_byte_for_byte() {
    let macaroon = bake(&root(), nonce(), &Grant::Admin.ops(), &[]);
    assert_eq!(macaroon.as_bytes().len(), 293);
    assert_eq!(signature(&macaroon), "cab8e4f924e4b2bff79aa4fd47cab0dba8227e24a9d46cd8397b763dac483bd5");
    assert_eq!(hex::encode(macaroon.as_bytes()), macaroon.hex());
}

#[test]
fn time_before_is_rfc3339_in_utc() {
    let text = |at| Caveat::TimeBefore(at).condition();
    assert_eq!(text(datetime!(2026-11-23 08:05:09 UTC)), "time-before 2026-11-23T08:05:09Z");
    assert_eq!(text(datetime!(2026-11-23 01:30:00 +2)), "time-before 2026-11-22T23:30:00Z");
    assert_eq!(text(datetime!(2026-01-02 03:04:05.25 UTC)), "time-before 2026-01-02T03:04:05.250000000Z");
}

#[test]
fn a_time_that_has_no_utc_form_is_expired() {
    let at = datetime!(9999-12-31 23:59:59 -5);
    assert_eq!(Caveat::TimeBefore(at).condition(), "time-before 1970-01-01T00:00:00Z");
}

#[test]
fn a_caveat_stands_before_a_new_signature() {
    let plain = bake(&root(), nonce(), &[Op::uri("/lnrpc.Lightning/GetInfo")], &[]);
    let at = datetime!(2026-11-23 08:05:09 UTC);
    let narrowed = plain.with_caveat(Caveat::TimeBefore(at));
    let condition = b"time-before 2026-11-23T08:05:09Z";
    let mut expected = plain.as_bytes()[..plain.as_bytes().len() - TRAILER_LEN].to_vec();
    expected.extend([2, condition.len() as u8]);
    expected.extend(condition);
    expected.extend([0, 0, 6, 32]);
    expected.extend(hmac(&plain.as_bytes()[plain.as_bytes().len() - 32..], condition));
    assert_eq!(narrowed.as_bytes(), expected);
}

#[test]
fn nothing_of_a_secret_is_in_debug() {
    let macaroon = bake(&root(), nonce(), &Grant::Read.ops(), &[]);
    assert_eq!(format!("{macaroon:?} {:?}", root()), "Macaroon(redacted) RootKey(redacted)");
}

#[test]
fn what_is_no_version_2_macaroon_is_refused() {
    let good = bake(&root(), nonce(), &Grant::Pay.ops(), &[]);
    assert_eq!(Macaroon::parse(b""), Err(ParseError::Malformed));
    assert_eq!(Macaroon::parse(b"0014location lnd"), Err(ParseError::Version));
    assert_eq!(Macaroon::parse(good.as_bytes()), Ok(good.clone()));
    let mut longer = good.as_bytes().to_vec();
    longer.push(0);
    assert_eq!(Macaroon::parse(&longer), Err(ParseError::Malformed));
    // No identifier, and a caveat with its fields out of order.
    assert_eq!(Macaroon::parse(&[2, 1, 3, b'l', b'n', b'd', 0, 0, 6, 0]), Err(ParseError::Malformed));
}

#[test]
fn a_root_key_is_32_bytes() {
    assert!(RootKey::from_slice(&[7; 31]).is_none());
    assert!(RootKey::from_slice(&[7; 33]).is_none());
    assert_eq!(RootKey::from_slice(&[7; 32]).unwrap().as_bytes(), &[7; 32]);
}

/// What lnd does at each call, written apart from `bake`: read the fields, then chain the signatures from the root key.
fn verifies(macaroon: &Macaroon, root: &RootKey) -> Result<(MacaroonId, Vec<String>), ParseError> {
    let mut reader = Reader(&macaroon.as_bytes()[1..]);
    let mut caveats = Vec::new();
    let mut signed = hmac(b"macaroons-key-generator", root.as_bytes());
    assert_eq!(reader.field()?, (FIELD_LOCATION, LOCATION));
    let (_, identifier) = reader.field()?;
    signed = hmac(&signed, identifier);
    assert_eq!((reader.byte()?, identifier[0]), (0, BAKERY_ID_V3));
    while reader.0[0] != 0 {
        let (_, caveat) = reader.field()?;
        assert_eq!(reader.byte()?, 0);
        signed = hmac(&signed, caveat);
        caveats.push(String::from_utf8_lossy(caveat).into_owned());
    }
    reader.byte()?;
    assert_eq!(reader.field()?, (FIELD_SIGNATURE, signed.as_slice()));
    Ok((MacaroonId::decode(&identifier[1..]).unwrap(), caveats))
}

fn any_op() -> impl Strategy<Value = Op> {
    ("[a-c]{1,2}", "[a-z/.]{1,200}").prop_map(|(entity, action)| Op { entity, action })
}

fn any_caveat() -> impl Strategy<Value = Caveat> {
    (0i64..4_000_000_000, 0i64..1_000_000_000).prop_map(|(s, ns)| {
        Caveat::TimeBefore(OffsetDateTime::UNIX_EPOCH + Duration::seconds(s) + Duration::nanoseconds(ns))
    })
}

proptest! {
    #[test]
    fn what_is_baked_verifies_and_says_what_was_asked(
        key: [u8; 32], nonce: [u8; 16],
        ops in proptest::collection::vec(any_op(), 0..12),
        caveats in proptest::collection::vec(any_caveat(), 0..4),
    ) {
        let root = RootKey::from_bytes(key);
        let macaroon = bake(&root, nonce, &ops, &caveats);
        prop_assert_eq!(&Macaroon::parse(macaroon.as_bytes()).unwrap(), &macaroon);
        let (id, conditions) = verifies(&macaroon, &root).unwrap();
        prop_assert_eq!(id.nonce, nonce.to_vec());
        prop_assert_eq!(id.storage_id, b"0");
        let mut wanted = ops.clone();
        wanted.sort();
        wanted.dedup();
        let entities: Vec<&str> = id.ops.iter().map(|op| op.entity.as_str()).collect();
        prop_assert!(entities.is_sorted_by(|a, b| a < b), "one group for each entity");
        let got: Vec<Op> =
            id.ops.iter().flat_map(|op| op.actions.iter().map(|action| Op::new(&op.entity, action))).collect();
        prop_assert_eq!(got, wanted);
        prop_assert_eq!(conditions.len(), caveats.len());
    }

    #[test]
    fn order_and_repetition_of_ops_change_nothing(ops in proptest::collection::vec(any_op(), 0..8)) {
        let backwards: Vec<Op> = ops.iter().rev().chain(&ops).cloned().collect();
        prop_assert_eq!(bake(&root(), nonce(), &ops, &[]), bake(&root(), nonce(), &backwards, &[]));
    }

    #[test]
    fn a_caveat_added_later_is_a_caveat_baked_in(caveats in proptest::collection::vec(any_caveat(), 1..4)) {
        let baked = bake(&root(), nonce(), &Grant::Pay.ops(), &caveats);
        let plain = Macaroon::parse(bake(&root(), nonce(), &Grant::Pay.ops(), &[]).as_bytes()).unwrap();
        prop_assert_eq!(caveats.into_iter().fold(plain, |m, c| m.with_caveat(c)), baked);
    }

    #[test]
    fn cut_short_is_refused(cut in 1usize..200) {
        let macaroon = bake(&root(), nonce(), &Grant::Admin.ops(), &[]);
        let bytes = macaroon.as_bytes();
        prop_assert!(Macaroon::parse(&bytes[..bytes.len() - cut]).is_err());
    }

    #[test]
    fn rubbish_is_an_error_and_no_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        if let Some(first) = bytes.first_mut() { *first = FORMAT_V2; }
        if let Ok(macaroon) = Macaroon::parse(&bytes) {
            let _ = macaroon.with_caveat(Caveat::TimeBefore(OffsetDateTime::UNIX_EPOCH));
        }
    }
}
