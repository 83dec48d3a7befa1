//! What belongs to the deployment as a whole.

use super::Network;
use crate::seal::Sealed;
use serde::{Deserialize, Serialize};
use std::fmt;
use time::OffsetDateTime;

/// What a Store knows of the deployment it belongs to. One document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Deployment {
    /// Its name.
    pub name: String,
    /// Its network.
    pub network: Network,
    /// A known text sealed under every version of the sealing key that may have sealed something here: all must open, or
    /// secrets would be lost. One newer than [`Deployment::sealing`] is announced: nothing is sealed under it yet.
    pub key_checks: Vec<Sealed>,
    /// The version under which secrets are sealed from now on. None in a Store in which no rotation was begun since programs
    /// know of this: the newest that there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealing: Option<u32>,
    /// The sealing keys that a key service has wrapped. Those in files or in the environment are not here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub wrapped: Vec<WrappedKey>,
    /// When the Store was made.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

impl Deployment {
    /// The id of the only document.
    pub const ID: &'static str = "deployment";

    /// The version under which secrets are sealed.
    #[must_use]
    pub fn sealing(&self) -> u32 {
        self.sealing.unwrap_or_else(|| self.newest())
    }

    /// The newest version of the sealing key, be it only announced.
    #[must_use]
    pub fn newest(&self) -> u32 {
        self.versions().into_iter().max().unwrap_or_default()
    }

    /// The versions of the sealing key that whoever works here must have.
    #[must_use]
    pub fn versions(&self) -> Vec<u32> {
        self.key_checks.iter().map(Sealed::key_version).collect()
    }
}

/// A sealing key, wrapped by a key of a key service, which alone can unwrap it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrappedKey {
    /// The version of the sealing key.
    pub version: u32,
    /// The key that has wrapped it: its ARN.
    pub by: String,
    /// The wrapped key as the service gave it, base64.
    pub blob: String,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

impl fmt::Debug for WrappedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WrappedKey(v{} by {})", self.version, self.by)
    }
}
