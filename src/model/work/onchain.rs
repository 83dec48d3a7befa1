//! On-chain sends that can be repeated freely: fund under a lock of our own, finalize, keep the raw transaction, publish.
//! Used by `withdraw` and by the treasury's funding of new wallets.

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
