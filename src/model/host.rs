//! Hosts: machines with slots for lnds, and how they become part of the fleet.

use super::ids::{HostId, NodeId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use time::OffsetDateTime;

/// How far a host is on its way into the fleet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Enrolment {
    /// A join token was given out; nobody has used it.
    Invited {
        /// SHA-256 of the token, hexadecimal.
        token_sha256: String,
        /// When the token stops working.
        #[serde(with = "time::serde::rfc3339")]
        expires_at: OffsetDateTime,
    },
    /// The agent has a certificate.
    Enrolled {
        /// SHA-256 of the token that was used, so that a lost answer can be given again to the same key.
        token_sha256: String,
        /// SHA-256 of the agent's public key (SubjectPublicKeyInfo), hexadecimal.
        public_key_sha256: String,
        /// Serial number of its newest certificate, hexadecimal.
        serial: String,
        /// The certificate (PEM), to be given again if its answer was lost.
        certificate_pem: String,
        /// When it was enrolled.
        #[serde(with = "time::serde::rfc3339")]
        at: OffsetDateTime,
    },
    /// The operator took it out; its certificates are void.
    Revoked,
}

/// What an agent last said about its machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostReport {
    /// scale-lnd's version on the host.
    pub agent_version: String,
    /// lnd's version on the host.
    pub lnd_version: String,
    /// Free space where the lnds live, bytes.
    pub disk_free_bytes: u64,
    /// Size of that file system, bytes.
    pub disk_total_bytes: u64,
}

/// A host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Host {
    /// Its name.
    pub id: HostId,
    /// Counts machines that have been this host; orders and reports carry it.
    pub generation: u64,
    /// Whether it belongs to the fleet.
    pub enrolment: Enrolment,
    /// Where masters reach its agent and lnds (an IP address), told at enrolment.
    pub address: Option<std::net::IpAddr>,
    /// Port of its agent, told at enrolment.
    pub agent_port: Option<u16>,
    /// How many lnds it takes.
    pub capacity: u16,
    /// Who is in which slot.
    pub slots: BTreeMap<u16, NodeId>,
    /// What its agent last said.
    pub report: Option<HostReport>,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

impl Host {
    /// The slot of `node`, where it has one.
    #[must_use]
    pub fn slot_of(&self, node: &NodeId) -> Option<u16> {
        self.slots.iter().find(|(_, n)| *n == node).map(|(slot, _)| *slot)
    }

    /// The first free slot of a host that can be used.
    #[must_use]
    pub fn free_slot(&self) -> Option<u16> {
        let usable = matches!(self.enrolment, Enrolment::Enrolled { .. }) && self.address.is_some();
        if !usable {
            return None;
        }
        (0..self.capacity).find(|slot| !self.slots.contains_key(slot))
    }
}
