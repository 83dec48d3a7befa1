//! What belongs to the deployment as a whole.

use crate::seal::Sealed;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

/// The deployment's certificate authority, which masters and agents know each other by. One document, made by the first
/// master.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Authority {
    /// Its certificate (PEM).
    pub certificate_pem: String,
    /// Its private key (PEM). Sealed for owner `deployment`, field `ca_key`.
    pub key: Sealed,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

impl Authority {
    /// The id of the only document.
    pub const ID: &'static str = "ca";
}
