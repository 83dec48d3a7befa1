//! `closechannel`: freeze the channel point and what the close may cost, reach the peer, close, done when pending on chain.

use crate::model::amount::Sat;
use crate::model::problem::{Code, Refusal};
use bitcoin::Transaction;
use serde::{Deserialize, Serialize};

/// A close under way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Close {
    /// The peer (hexadecimal).
    pub pubkey: String,
    /// The channel, `txid:index`, frozen when the operation was accepted.
    pub channel_point: String,
    /// Whether to close without the peer.
    pub force: bool,
    /// What it may cost this node; `None` where the peer has opened the channel, and so pays.
    #[serde(default)]
    pub fee: Option<CloseFee>,
    /// Whether lnd may have been asked for a cooperative close: from then on lnd may go on with it by itself, and only what
    /// is seen on chain tells its end.
    #[serde(default)]
    pub asked: bool,
    /// The step.
    pub step: CloseStep,
}

impl Close {
    /// The same channel with the same bound; what was forced stays forced, and what lnd was asked for is taken back only by
    /// going back to the peer.
    pub(super) fn may_become(&self, next: &Self) -> bool {
        let (now, then) = (self.step, next.step);
        let same = self.channel_point == next.channel_point && self.pubkey == next.pubkey && self.fee == next.fee;
        let asked = next.asked || !self.asked || then == CloseStep::Connect;
        same && self.force == next.force && asked && (now <= then || !next.asked)
    }
}

/// What a close may cost the node that has opened the channel. Frozen when the operation is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloseFee {
    /// The channel's capacity: what the closing transaction does not pay out of it went to miners.
    pub capacity_sat: Sat,
    /// The most that a cooperative close may cost.
    pub max_fee_sat: Sat,
    /// The fee rate at which no cooperative closing transaction costs more than that; 0 where only force was asked for.
    pub max_sat_per_vbyte: u64,
    /// What a forced close costs: the fee of the commitment transaction.
    pub commit_fee_sat: Sat,
}

/// Virtual size of the largest cooperative closing transaction, vbytes: one input with a 2-of-2 multisig witness of 222
/// bytes, our output (34-byte script), the peer's (42 bytes, the longest witness program). 804 weight units, as lnd counts.
const LARGEST_CLOSE_VBYTES: u64 = (4 * (8 + 1 + 41 + 1 + 43 + 51) + 2 + 222) / 4;
/// How far above the cost at the current fee rate a close may go unless told otherwise; lnd's own factor.
const DEFAULT_FACTOR: u64 = 3;

impl CloseFee {
    /// The bound of a cooperative close: as asked for, or else three times what the largest one costs at `sat_per_vbyte`.
    ///
    /// # Errors
    /// [`Code::FeeTooHigh`] when `max_fee` does not suffice at `sat_per_vbyte`.
    pub fn cooperative(
        capacity_sat: Sat,
        commit_fee_sat: Sat,
        max_fee: Option<Sat>,
        sat_per_vbyte: u64,
    ) -> Result<Self, Refusal> {
        let needed = Sat(LARGEST_CLOSE_VBYTES.saturating_mul(sat_per_vbyte));
        let max_fee_sat = max_fee.unwrap_or(Sat(needed.0.saturating_mul(DEFAULT_FACTOR)));
        within(max_fee_sat, needed)?;
        let max_sat_per_vbyte = max_fee_sat.0 / LARGEST_CLOSE_VBYTES;
        Ok(Self { capacity_sat, max_fee_sat, max_sat_per_vbyte, commit_fee_sat })
    }

    /// The cost of a forced close.
    ///
    /// # Errors
    /// [`Code::FeeTooHigh`] when it is more than `max_fee`.
    pub fn forced(capacity_sat: Sat, commit_fee_sat: Sat, max_fee: Option<Sat>) -> Result<Self, Refusal> {
        within(max_fee.unwrap_or(commit_fee_sat), commit_fee_sat)?;
        Ok(Self { capacity_sat, max_fee_sat: commit_fee_sat, max_sat_per_vbyte: 0, commit_fee_sat })
    }

    /// The same close, forced now.
    ///
    /// # Errors
    /// As for [`CloseFee::forced`].
    pub fn turned_forced(self, max_fee: Option<Sat>) -> Result<Self, Refusal> {
        within(max_fee.unwrap_or(self.commit_fee_sat), self.commit_fee_sat)?;
        Ok(Self { max_fee_sat: self.max_fee_sat.max(self.commit_fee_sat), ..self })
    }

    /// What to set aside. A cooperative close that was asked for may still win against a forced one, so a close that was
    /// turned holds the dearer of both.
    #[must_use]
    pub fn reserved(&self) -> Sat {
        self.max_fee_sat
    }

    /// What this transaction (hexadecimal) took out of the channel for miners; a balance too small for an output is in it.
    /// `None` where it is not the transaction `txid`.
    #[must_use]
    pub fn paid(&self, txid: &str, raw_tx: &str) -> Option<Sat> {
        let tx: Transaction = bitcoin::consensus::encode::deserialize_hex(raw_tx).ok()?;
        let paid_out: u64 = tx.output.iter().map(|output| output.value.to_sat()).sum();
        let is_it = tx.compute_txid().to_string() == txid && tx.input.len() == 1;
        is_it.then(|| self.capacity_sat.saturating_sub(Sat(paid_out)))
    }
}

fn within(max_fee: Sat, needed: Sat) -> Result<(), Refusal> {
    if needed <= max_fee {
        return Ok(());
    }
    let refusal = Refusal::new(Code::FeeTooHigh, "the closing transaction would cost more than max_fee");
    Err(refusal.with("needed_sat", needed.0).with("max_fee_sat", max_fee.0))
}

/// The steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CloseStep {
    /// See to it that the peer is there: a cooperative close needs it, and until it was asked for nothing has happened.
    Connect,
    /// Ask lnd to close, unless it already does; the closing transaction is the result.
    Close,
}

impl CloseStep {
    /// All of them, in order.
    pub const ALL: [Self; 2] = [Self::Connect, Self::Close];

    /// The name in the API.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Close => "close",
        }
    }
}

#[cfg(test)]
#[path = "close_tests.rs"]
mod tests;
