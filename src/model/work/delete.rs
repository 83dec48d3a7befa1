//! `delete`: stop the lnd and leave a tombstone, once nothing is left to lose.

use serde::{Deserialize, Serialize};

/// A delete under way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Delete {
    /// The step.
    pub step: DeleteStep,
}

/// The steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeleteStep {
    /// Make sure that no funds, channels or pending closes remain.
    Check,
    /// Stop the lnd; its exit is confirmed.
    Stop,
    /// Free the slot (the folder is set aside, not deleted) and leave the tombstone.
    Release,
}

impl DeleteStep {
    /// All of them, in order.
    pub const ALL: [Self; 3] = [Self::Check, Self::Stop, Self::Release];

    /// The name in the API.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Check => "check",
            Self::Stop => "stop",
            Self::Release => "release",
        }
    }
}
