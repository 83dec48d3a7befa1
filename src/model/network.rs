//! The bitcoin networks a deployment can be for.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A bitcoin network, named as lnd names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// btcd's simulation network.
    Simnet,
    /// Bitcoin Core's regression test network.
    Regtest,
    /// The fourth test network (BIP 94).
    Testnet4,
    /// The signed test network (BIP 325).
    Signet,
    /// Bitcoin.
    Mainnet,
}

impl Network {
    /// All there are.
    pub const ALL: [Self; 5] = [Self::Simnet, Self::Regtest, Self::Testnet4, Self::Signet, Self::Mainnet];

    /// The name, as in lnd's `--bitcoin.<name>`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Simnet => "simnet",
            Self::Regtest => "regtest",
            Self::Testnet4 => "testnet4",
            Self::Signet => "signet",
            Self::Mainnet => "mainnet",
        }
    }

    /// Reads the name; `None` where it is not one of these.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|network| network.as_str() == text)
    }

    /// Whether coins are free and everything is on private machines: limits may be unset, peers may be private addresses.
    #[must_use]
    pub fn is_playground(self) -> bool {
        matches!(self, Self::Simnet | Self::Regtest)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
