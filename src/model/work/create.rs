//! `create`: from nothing to a funded node.

use crate::model::amount::Sat;
use serde::{Deserialize, Serialize};

/// A create under way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Create {
    /// What the treasury sends; zero: nothing.
    pub initial_funding_sat: Sat,
    /// The step.
    pub step: CreateStep,
}

impl Create {
    /// Forward; to another place while there is no wallet, and to and fro once there may be one, but never back to where
    /// there was none.
    pub(super) fn may_become(&self, next: &Self) -> bool {
        let placed_anew = !self.step.wallet_may_exist() && next.step == CreateStep::Place;
        let beyond_the_pivot = self.step.wallet_may_exist() && next.step.wallet_may_exist();
        let fits = self.step <= next.step || placed_anew || beyond_the_pivot;
        self.initial_funding_sat == next.initial_funding_sat && fits
    }
}

/// The steps. [`CreateStep::InitWallet`] is the pivot: before it a failed create cleans up after itself, after it it goes
/// forward or parks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CreateStep {
    /// Take a slot on a host.
    Place,
    /// Have the host start an lnd there and tell its certificate.
    StartLnd,
    /// Make seed, password and keys, and seal them.
    SealSecrets,
    /// Read them back, open them, and initialise the wallet with them.
    InitWallet,
    /// Prove the baked macaroon with a real call.
    ProveMacaroon,
    /// Wait until lnd is synced and everything runs.
    AwaitActive,
    /// Ask for an address to send to.
    DepositAddress,
    /// Wait until the treasury has published the funding.
    AwaitFunding,
}

impl CreateStep {
    /// All of them, in order.
    pub const ALL: [Self; 8] = [
        Self::Place,
        Self::StartLnd,
        Self::SealSecrets,
        Self::InitWallet,
        Self::ProveMacaroon,
        Self::AwaitActive,
        Self::DepositAddress,
        Self::AwaitFunding,
    ];

    /// The name in the API.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Place => "place",
            Self::StartLnd => "start_lnd",
            Self::SealSecrets => "seal_secrets",
            Self::InitWallet => "init_wallet",
            Self::ProveMacaroon => "prove_macaroon",
            Self::AwaitActive => "await_active",
            Self::DepositAddress => "deposit_address",
            Self::AwaitFunding => "await_funding",
        }
    }

    /// Whether a wallet may exist at this step.
    #[must_use]
    pub fn wallet_may_exist(self) -> bool {
        !matches!(self, Self::Place | Self::StartLnd | Self::SealSecrets)
    }
}

/// What the treasury is asked to send for a create. One document each, id = the operation's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FundingRequest {
    /// The create.
    pub operation: crate::model::OperationId,
    /// The node.
    pub node: crate::model::NodeId,
    /// Where to.
    pub address: String,
    /// How much.
    pub amount_sat: Sat,
    /// How far it is.
    pub state: FundingState,
}

/// How far a funding request is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum FundingState {
    /// Nobody has taken it.
    Waiting,
    /// It is part of a batch.
    Batched {
        /// The operation that sends it.
        batch: crate::model::OperationId,
    },
    /// Its transaction is published.
    Published {
        /// The transaction.
        txid: String,
    },
}

impl FundingState {
    /// The name, for the index.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Batched { .. } => "batched",
            Self::Published { .. } => "published",
        }
    }
}
