//! Apps, their API keys and what they may cost.

use super::ids::AppId;
use crate::apikey::{ApiKeyHash, ApiKeyId};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

/// What a key may do. `Operator` belongs to the deployment, never to an app.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Look: getinfo, balances, lists, operations.
    Read,
    /// Make invoices and addresses.
    Invoice,
    /// Spend: pay, withdraw.
    Pay,
    /// Create and delete nodes, open and close channels, peers.
    Manage,
    /// Hosts, keys, parked operations, rollouts: the deployment itself.
    Operator,
}

impl Scope {
    /// The name, as in the API and the CLI.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Invoice => "invoice",
            Self::Pay => "pay",
            Self::Manage => "manage",
            Self::Operator => "operator",
        }
    }
}

/// What an app may cost. Unset means refused, except on simnet and regtest, where it means no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Nodes that exist at a time.
    pub nodes: Option<u64>,
    /// Creates within an hour (UTC clock hour).
    pub creates_per_hour: Option<u64>,
    /// Funding by the treasury within a day (UTC), in satoshi, fees not counted.
    pub funding_sat_per_day: Option<u64>,
    /// Money that leaves its nodes within a day (UTC), in satoshi: amounts and all fees.
    pub outgoing_sat_per_day: Option<u64>,
}

impl Limits {
    /// All of them, by name.
    #[must_use]
    pub fn all(&self) -> [(&'static str, Option<u64>); 4] {
        [
            ("nodes", self.nodes),
            ("creates_per_hour", self.creates_per_hour),
            ("funding_sat_per_day", self.funding_sat_per_day),
            ("outgoing_sat_per_day", self.outgoing_sat_per_day),
        ]
    }

    /// The names of those that are not set.
    #[must_use]
    pub fn unset(&self) -> Vec<&'static str> {
        self.all().into_iter().filter(|(_, limit)| limit.is_none()).map(|(name, _)| name).collect()
    }
}

/// An app.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct App {
    /// Its name.
    pub id: AppId,
    /// What it may cost.
    pub limits: Limits,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

/// An API key at rest: only its hash.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ApiKeyRecord {
    /// The public half of its name.
    pub id: ApiKeyId,
    /// The app it belongs to; none for an operator's key.
    pub app: Option<AppId>,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// What the key is recognised by.
    pub hash: ApiKeyHash,
    /// What the operator wrote down about it.
    pub note: String,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When it was revoked.
    #[serde(with = "time::serde::rfc3339::option")]
    pub revoked_at: Option<OffsetDateTime>,
}
