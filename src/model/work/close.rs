//! `closechannel`: freeze the channel point, close, done when pending on chain.

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
    /// The step.
    pub step: CloseStep,
}

/// The steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CloseStep {
    /// Ask lnd to close, unless it already does; the closing transaction is the result.
    Close,
}

impl CloseStep {
    /// All of them, in order.
    pub const ALL: [Self; 1] = [Self::Close];

    /// The name in the API.
    #[must_use]
    pub fn name(self) -> &'static str {
        "close"
    }
}
