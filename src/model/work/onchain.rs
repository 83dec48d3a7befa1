//! On-chain sends that can be repeated freely: fund under a lock of our own, finalize, keep the raw transaction, publish.
//! Used by `withdraw` and by the treasury's funding of new wallets.

use super::plan::Coin;
use crate::model::amount::Sat;
use crate::model::ids::{NodeId, OperationId};
use serde::{Deserialize, Serialize};

/// A withdrawal under way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Withdraw {
    /// Where to, checked for the network.
    pub address: String,
    /// How much.
    pub amount: WithdrawAmount,
    /// What was set aside for it, fees not counted: `All` sends no more than that.
    pub at_most_sat: Sat,
    /// The most that may go to miners.
    pub max_fee_sat: Sat,
    /// The step.
    pub step: SendStep,
}

impl Withdraw {
    /// The same sending, at the same step or the next.
    pub(super) fn may_become(&self, next: &Self) -> bool {
        let at_same_step = Self { step: self.step.clone(), ..next.clone() };
        at_same_step == *self && self.step.may_become(&next.step)
    }
}

/// How much is withdrawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WithdrawAmount {
    /// This much.
    Sat(Sat),
    /// Everything that is confirmed, less the fee.
    All,
}

/// Version, lock time, counts and marker of a transaction (BIP 141), tenths of a vbyte.
const FRAME_VSIZE_TENTHS: u64 = 105;
/// The smallest of the usual outputs (P2WPKH), tenths of a vbyte.
const OUTPUT_VSIZE_TENTHS: u64 = 310;

impl WithdrawAmount {
    /// The least that sending this much out of `coins` can cost: as few of them as suffice, one output, no change. `None`
    /// where all of them together do not pay for it.
    #[must_use]
    pub fn least_fee(self, coins: &[Coin], sat_per_vbyte: u64) -> Option<Sat> {
        let mut largest_first: Vec<&Coin> = coins.iter().collect();
        largest_first.sort_by_key(|coin| std::cmp::Reverse(coin.value_sat));
        let (mut value, mut tenths) = (Sat(0), FRAME_VSIZE_TENTHS + OUTPUT_VSIZE_TENTHS);
        let fee = |tenths: u64| Sat(tenths.div_ceil(10).saturating_mul(sat_per_vbyte));
        for coin in largest_first {
            value = value.saturating_add(coin.value_sat);
            tenths = tenths.saturating_add(coin.input_vsize_tenths);
            if matches!(self, Self::Sat(amount) if value >= amount.saturating_add(fee(tenths))) {
                return Some(fee(tenths));
            }
        }
        matches!(self, Self::All if value > fee(tenths)).then(|| fee(tenths))
    }
}

/// A transaction of the treasury under way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FundingBatch {
    /// Whom it funds.
    pub outputs: Vec<FundingOutput>,
    /// The step.
    pub step: SendStep,
}

/// One output of a [`FundingBatch`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FundingOutput {
    /// The create that asked.
    pub operation: OperationId,
    /// Its node.
    pub node: NodeId,
    /// Where to.
    pub address: String,
    /// How much.
    pub amount_sat: Sat,
}

/// The steps of a send.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case")]
pub enum SendStep {
    /// Choose and lock inputs (walletrpc FundPsbt) under the operation's lock id.
    Fund,
    /// Sign (walletrpc FinalizePsbt).
    Finalize {
        /// The funded packet, base64.
        psbt: String,
        /// What goes to miners.
        fee_sat: Sat,
    },
    /// Publish (walletrpc PublishTransaction), which may be repeated.
    Publish {
        /// The signed transaction, hexadecimal.
        raw_tx: String,
        /// Its id.
        txid: String,
        /// What goes to miners.
        fee_sat: Sat,
    },
}

impl SendStep {
    /// What was chosen is signed, what was signed is published: another transaction could be a second one.
    pub(super) fn may_become(&self, next: &Self) -> bool {
        let forward =
            matches!((self, next), (Self::Fund, Self::Finalize { .. }) | (Self::Finalize { .. }, Self::Publish { .. }));
        forward || self == next
    }

    /// The names of all, in order.
    pub const NAMES: [&'static str; 3] = ["fund", "finalize", "publish"];

    /// The name in the API.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Fund => "fund",
            Self::Finalize { .. } => "finalize",
            Self::Publish { .. } => "publish",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn coins(values: &[u64]) -> Vec<Coin> {
        let coin = |value: &u64| Coin { outpoint: String::new(), value_sat: Sat(*value), input_vsize_tenths: 585 };
        values.iter().map(coin).collect()
    }

    #[test]
    fn the_least_fee_is_that_of_the_fewest_coins() {
        let coins = coins(&[1_000, 50_000, 20_000]);
        let sending = |amount| WithdrawAmount::Sat(Sat(amount)).least_fee(&coins, 10);
        assert_eq!(sending(40_000), Some(Sat(1_000)), "one input: 100 vbytes");
        assert_eq!(sending(49_001), Some(Sat(1_590)), "with its fee it needs another: 158.5 vbytes");
        assert_eq!(sending(71_000), None, "nothing is left for the fee");
        assert_eq!(WithdrawAmount::All.least_fee(&coins, 10), Some(Sat(2_170)), "all three");
        assert_eq!(WithdrawAmount::All.least_fee(&coins, 1_000), None, "they are not worth it");
        assert_eq!(WithdrawAmount::All.least_fee(&[], 1), None);
    }
}
