//! What a close may cost: pure arithmetic.

use super::*;
use bitcoin::absolute::LockTime;
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, TxIn, TxOut, Witness};
use proptest::prelude::*;

const CAPACITY: Sat = Sat(100_000);

/// A closing transaction with outputs of these values and script lengths, signed with signatures of the largest size.
fn closing(outputs: &[(u64, usize)]) -> Transaction {
    let witness = Witness::from_slice(&[vec![], vec![0; 72], vec![0; 73], vec![0; 71]]);
    let input =
        TxIn { previous_output: OutPoint::null(), script_sig: ScriptBuf::new(), sequence: Sequence::MAX, witness };
    let output = outputs.iter().map(|&(sat, script)| TxOut {
        value: Amount::from_sat(sat),
        script_pubkey: ScriptBuf::from_bytes(vec![0x51; script]),
    });
    Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input: vec![input], output: output.collect() }
}

#[test]
fn no_closing_transaction_is_larger_than_the_largest() {
    // lnd counts both signatures with 73 bytes, and so one more than can be here.
    let largest = u64::try_from(closing(&[(1, 34), (1, 42)]).vsize()).unwrap();
    assert!((LARGEST_CLOSE_VBYTES - 1..=LARGEST_CLOSE_VBYTES).contains(&largest), "{largest}");
}

proptest! {
    /// Whatever was asked for: what is frozen suffices now, and lnd, which negotiates up to the rate, stays within the bound.
    #[test]
    fn the_rate_keeps_the_bound(
        rate in 1u64..10_000, max_fee in proptest::option::of(0u64..10_000_000), commit_fee in 0u64..100_000,
    ) {
        let needed = LARGEST_CLOSE_VBYTES * rate;
        match CloseFee::cooperative(CAPACITY, Sat(commit_fee), max_fee.map(Sat), rate) {
            Ok(fee) => {
                prop_assert!(fee.max_sat_per_vbyte >= rate);
                prop_assert!(fee.max_sat_per_vbyte * LARGEST_CLOSE_VBYTES <= fee.max_fee_sat.0);
                prop_assert!(max_fee.is_none_or(|asked| fee.max_fee_sat == Sat(asked)));
                prop_assert_eq!(fee.reserved(), fee.max_fee_sat);
                let forced = fee.turned_forced(None).expect("no bound, no refusal");
                prop_assert!(forced.reserved() >= fee.reserved() && forced.reserved().0 >= commit_fee);
            }
            Err(refusal) => {
                prop_assert!(max_fee.is_some_and(|asked| asked < needed));
                prop_assert_eq!(refusal.code, Code::FeeTooHigh);
                prop_assert_eq!(&refusal.details["needed_sat"], &serde_json::json!(needed));
            }
        }
    }
}

#[test]
fn a_forced_close_costs_the_commitment_fee_or_is_refused() {
    assert_eq!(CloseFee::forced(CAPACITY, Sat(2_810), None).map(|fee| fee.reserved()), Ok(Sat(2_810)));
    assert_eq!(CloseFee::forced(CAPACITY, Sat(2_810), Some(Sat(9_000))).map(|fee| fee.reserved()), Ok(Sat(2_810)));
    let refusal = CloseFee::forced(CAPACITY, Sat(2_810), Some(Sat(2_809))).expect_err("too dear");
    assert_eq!(refusal.code, Code::FeeTooHigh);
    let running = CloseFee::cooperative(CAPACITY, Sat(2_810), Some(Sat(402)), 2).expect("just enough");
    assert!(running.turned_forced(Some(Sat(2_809))).is_err());
}

#[test]
fn what_was_paid_is_what_the_outputs_lack() {
    let fee = CloseFee::forced(CAPACITY, Sat(2_810), None).expect("no bound");
    let tx = closing(&[(60_000, 34), (39_600, 22)]);
    let (txid, raw) = (tx.compute_txid().to_string(), bitcoin::consensus::encode::serialize_hex(&tx));
    assert_eq!(fee.paid(&txid, &raw), Some(Sat(400)));
    assert_eq!(fee.paid(&"00".repeat(32), &raw), None, "another transaction");
    assert_eq!(fee.paid(&txid, "beef"), None);
}
