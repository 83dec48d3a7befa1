//! Plans the channel that a payment needs: its capacity, the coins it is made of, what that costs. Pure.

use super::pay::PayTerms;
use crate::model::amount::{Msat, Sat};
use crate::model::problem::{Code, Refusal};

/// lnd refuses smaller channels (`lnwallet.MinChanFundingSize`).
pub const MIN_CAPACITY: Sat = Sat(20_000);
/// Both anchors (BOLT 3: 330 each).
const ANCHORS: u64 = 660;
/// Commitment weight with two HTLCs (BOLT 3: 1124 + 172 each), at lnd's cap of 10 sat/vbyte for anchor channels
/// (`max-commit-fee-rate-anchors`), doubled: the opener must keep that buffer (lnd's FeeBuffer).
const COMMITMENT_HEADROOM: u64 = 2 * (1124 + 2 * 172) * 2500 / 1000;
/// The largest channel without `protocol.wumbo-channels` is smaller; this is all the bitcoin there can be.
const MAX_CAPACITY: Sat = Sat(crate::model::amount::MAX_SAT);

/// A coin of the wallet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coin {
    /// `txid:index`.
    pub outpoint: String,
    /// Its value.
    pub value_sat: Sat,
    /// Virtual size of an input that spends it, in tenths of a vbyte.
    pub input_vsize_tenths: u64,
}

/// What the wallet has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wallet {
    /// Coins with a confirmation that nothing has locked.
    pub confirmed: Vec<Coin>,
    /// Money that will be there once confirmed.
    pub unconfirmed_sat: Sat,
}

/// What is to be done about a payment that needs a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpeningPlan {
    /// Open it now.
    Open(Funding),
    /// The money will suffice once it is confirmed.
    Wait,
}

/// The funding of a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Funding {
    /// The capacity.
    pub capacity_sat: Sat,
    /// What the transaction costs.
    pub fee_sat: Sat,
    /// Its inputs; every one of them is needed.
    pub outpoints: Vec<String>,
}

/// The smallest capacity over which `payment` and `max_fee` can leave a fresh channel that is all ours: the peer's 1%
/// reserve, the commitment fee with headroom and the anchors stay behind.
#[must_use]
pub fn needed_capacity(payment: Msat, max_fee: Sat) -> Sat {
    let leaves = payment.to_sat_ceil().saturating_add(max_fee).0;
    let with_overhead = leaves.saturating_add(COMMITMENT_HEADROOM + ANCHORS);
    let with_reserve = with_overhead.saturating_mul(100).div_ceil(99).saturating_add(1);
    Sat(with_reserve).max(MIN_CAPACITY)
}

/// The bound on the cost of opening, where none was given: 1% of the capacity, at least 2,000.
#[must_use]
pub fn default_max_open_fee(capacity: Sat) -> Sat {
    Sat(capacity.0 / 100).max(Sat(2_000))
}

/// What may at most leave the node for these terms: the payment, its routing fee and the cost of an opening.
#[must_use]
pub fn worst_case(terms: &PayTerms) -> Sat {
    let opening = match terms.open {
        super::pay::OpenPolicy::Never => Sat(0),
        super::pay::OpenPolicy::Auto => terms.max_open_fee_sat.unwrap_or_else(|| default_max_open_fee(capacity(terms))),
    };
    terms.amount_msat.to_sat_ceil().saturating_add(terms.max_fee_sat).saturating_add(opening)
}

/// The capacity of a channel opened for these terms.
#[must_use]
pub fn capacity(terms: &PayTerms) -> Sat {
    needed_capacity(terms.amount_msat, terms.max_fee_sat).max(terms.capacity_sat.unwrap_or_default())
}

/// Plans the opening.
///
/// # Errors
/// [`Code::InsufficientFunds`] when not even the unconfirmed money suffices, [`Code::OpenFeeTooHigh`] when the funding
/// transaction would cost more than the terms allow.
pub fn plan(terms: &PayTerms, wallet: &Wallet, sat_per_vbyte: u64) -> Result<OpeningPlan, Refusal> {
    let capacity = capacity(terms).min(MAX_CAPACITY);
    let bound = terms.max_open_fee_sat.unwrap_or_else(|| default_max_open_fee(capacity));
    match select(&wallet.confirmed, capacity, sat_per_vbyte) {
        Some(funding) if funding.fee_sat > bound => {
            let refusal = Refusal::new(Code::OpenFeeTooHigh, "opening a channel costs more than max_open_fee")
                .with("needed_sat", funding.fee_sat.0)
                .with("max_open_fee_sat", bound.0);
            Err(refusal)
        }
        Some(funding) => Ok(OpeningPlan::Open(funding)),
        None => {
            let confirmed: u64 = wallet.confirmed.iter().map(|c| c.value_sat.0).sum();
            let there = Sat(confirmed).saturating_add(wallet.unconfirmed_sat);
            // Two inputs are a fair guess for coins that are not there yet.
            let guess = transaction_fee(&[680, 680], sat_per_vbyte);
            let needed = capacity.saturating_add(guess);
            if wallet.unconfirmed_sat > Sat(0) && there >= needed {
                return Ok(OpeningPlan::Wait);
            }
            let message = "the wallet has not enough for the channel that this payment needs";
            let refusal = Refusal::new(Code::InsufficientFunds, message)
                .with("wallet_confirmed_sat", confirmed)
                .with("wallet_unconfirmed_sat", wallet.unconfirmed_sat.0)
                .with("needed_sat", needed.0)
                .with("channel_capacity_sat", capacity.0);
            Err(refusal)
        }
    }
}

/// What a transaction with these inputs (tenths of a vbyte each) and two outputs costs, both of the largest of the usual
/// kinds: a funding output, or any other, and change.
#[must_use]
pub fn transaction_fee(inputs: &[u64], sat_per_vbyte: u64) -> Sat {
    let tenths: u64 = 110 + 2 * 430 + inputs.iter().sum::<u64>();
    Sat(tenths.div_ceil(10).saturating_mul(sat_per_vbyte))
}

/// Largest first, so that every coin chosen is needed: a repeat that finds one of them spent cannot succeed with the rest.
fn select(coins: &[Coin], capacity: Sat, sat_per_vbyte: u64) -> Option<Funding> {
    let mut sorted: Vec<&Coin> = coins.iter().collect();
    sorted.sort_by(|a, b| b.value_sat.cmp(&a.value_sat).then_with(|| a.outpoint.cmp(&b.outpoint)));
    let (mut sum, mut inputs, mut outpoints) = (Sat(0), Vec::new(), Vec::new());
    for coin in sorted {
        sum = sum.saturating_add(coin.value_sat);
        inputs.push(coin.input_vsize_tenths);
        outpoints.push(coin.outpoint.clone());
        let fee_sat = transaction_fee(&inputs, sat_per_vbyte);
        if sum >= capacity.saturating_add(fee_sat) {
            return Some(Funding { capacity_sat: capacity, fee_sat, outpoints });
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::pay::OpenPolicy;
    use super::*;
    use proptest::prelude::*;
    use time::OffsetDateTime;

    fn terms(amount: u64, max_fee: u64, wished: Option<u64>, bound: Option<u64>) -> PayTerms {
        PayTerms {
            payreq: String::new(),
            payment_hash: String::new(),
            payee: String::new(),
            amount_msat: Sat(amount).to_msat(),
            amount_is_ours: false,
            max_fee_sat: Sat(max_fee),
            expires_at: OffsetDateTime::UNIX_EPOCH,
            open: OpenPolicy::Auto,
            capacity_sat: wished.map(Sat),
            max_open_fee_sat: bound.map(Sat),
            peer: String::new(),
            peer_address: None,
        }
    }

    fn coins(values: &[u64]) -> Vec<Coin> {
        let coin = |(i, v): (usize, &u64)| Coin {
            outpoint: format!("{i:064x}:0"),
            value_sat: Sat(*v),
            input_vsize_tenths: 580,
        };
        values.iter().enumerate().map(coin).collect()
    }

    proptest! {
        /// The planned channel can carry the payment and its fee, costs no more than allowed, and is paid for by its inputs,
        /// each of which is needed.
        #[test]
        fn a_plan_holds_what_it_promises(
            amount in 1u64..5_000_000, max_fee in 0u64..50_000, wished in proptest::option::of(1u64..10_000_000),
            bound in 0u64..100_000, rate in 1u64..200, values in proptest::collection::vec(300u64..4_000_000, 0..12),
            unconfirmed in 0u64..10_000_000,
        ) {
            let terms = terms(amount, max_fee, wished, Some(bound));
            let wallet = Wallet { confirmed: coins(&values), unconfirmed_sat: Sat(unconfirmed) };
            match plan(&terms, &wallet, rate) {
                Ok(OpeningPlan::Open(f)) => {
                    prop_assert!(f.fee_sat.0 <= bound);
                    let keeps = f.capacity_sat.0 / 100 + COMMITMENT_HEADROOM + ANCHORS;
                    prop_assert!(f.capacity_sat.0 - keeps >= amount + max_fee);
                    prop_assert!(f.capacity_sat.0 >= wished.unwrap_or(0) && f.capacity_sat >= MIN_CAPACITY);
                    let chosen: Vec<u64> = wallet.confirmed.iter()
                        .filter(|c| f.outpoints.contains(&c.outpoint)).map(|c| c.value_sat.0).collect();
                    let sum: u64 = chosen.iter().sum();
                    prop_assert!(sum >= f.capacity_sat.0 + f.fee_sat.0);
                    let smallest = chosen.iter().min().copied().unwrap_or(0);
                    let cheaper = f.fee_sat.0 - 58 * rate - rate;
                    prop_assert!(sum - smallest < f.capacity_sat.0 + cheaper.max(rate) + 60 * rate);
                }
                Ok(OpeningPlan::Wait) => prop_assert!(unconfirmed > 0),
                Err(refusal) => {
                    prop_assert!(matches!(refusal.code, Code::InsufficientFunds | Code::OpenFeeTooHigh));
                    prop_assert!(refusal.details.contains_key("needed_sat"));
                }
            }
        }
    }

    #[test]
    fn small_payments_get_the_smallest_channel() {
        assert_eq!(needed_capacity(Msat(1), Sat(10)), MIN_CAPACITY);
    }

    #[test]
    fn unconfirmed_money_that_will_suffice_makes_it_wait() {
        let wallet = Wallet { confirmed: coins(&[5_000]), unconfirmed_sat: Sat(100_000) };
        assert_eq!(plan(&terms(10_000, 100, None, None), &wallet, 2), Ok(OpeningPlan::Wait));
        let poor = Wallet { unconfirmed_sat: Sat(1_000), ..wallet };
        let refusal = plan(&terms(10_000, 100, None, None), &poor, 2).expect_err("too little");
        assert_eq!(refusal.code, Code::InsufficientFunds);
    }
}
