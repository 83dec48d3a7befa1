//! Amounts, with their unit in the type.

use serde::{Deserialize, Serialize};
use std::fmt;

/// All the bitcoin there can be, in satoshi.
pub const MAX_SAT: u64 = 21_000_000 * 100_000_000;

/// Satoshi.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sat(pub u64);

/// Thousandths of a satoshi.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Msat(pub u64);

impl Sat {
    /// An amount as lnd's messages have it. What is below zero counts as nothing.
    #[must_use]
    pub fn from_lnd(sat: i64) -> Self {
        Self(u64::try_from(sat).unwrap_or(0))
    }

    /// In thousandths. Saturates, far above all the bitcoin there can be.
    #[must_use]
    pub fn to_msat(self) -> Msat {
        Msat(self.0.saturating_mul(1000))
    }

    /// The sum, or the largest number there is.
    #[must_use]
    pub fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// The difference, or zero.
    #[must_use]
    pub fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl Msat {
    /// An amount as lnd's messages have it. What is below zero counts as nothing.
    #[must_use]
    pub fn from_lnd(msat: i64) -> Self {
        Self(u64::try_from(msat).unwrap_or(0))
    }

    /// In whole satoshi, rounded up: what a limit or a reserve has to count.
    #[must_use]
    pub fn to_sat_ceil(self) -> Sat {
        Sat(self.0.div_ceil(1000))
    }
}

impl fmt::Display for Sat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} sat", self.0)
    }
}
