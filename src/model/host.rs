//! Hosts: machines with slots for lnds, and how they become part of the fleet.

use super::ids::{HostId, NodeId, OperationId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use time::{Duration, OffsetDateTime};

/// A host that refuses everything would otherwise have a write for each.
const REFUSAL_NOTED_EVERY: Duration = Duration::minutes(1);

/// A join token that was given out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Invitation {
    /// [`token_digest`] of the token.
    pub token_sha256: String,
    /// When the token stops working.
    #[serde(with = "time::serde::rfc3339")]
    pub expires_at: OffsetDateTime,
    /// The fingerprints of the authorities that it names, the one that issued first: by another's certificate whoever has it
    /// recognises no master. None: it was given out when there was only one, ever.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub authorities: Vec<String>,
}

/// What is kept of a join token: SHA-256 over the host, its generation and the secret, hexadecimal. So a token is good for
/// this machine and no other.
#[must_use]
pub fn token_digest(host: &HostId, generation: u64, secret: &str) -> String {
    super::ids::digest_id(&["join", host.as_str(), &generation.to_string(), secret])
}

/// How far a host is on its way into the fleet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Enrolment {
    /// A join token was given out; nobody has used it.
    Invited(Invitation),
    /// The agent has a certificate.
    Enrolled {
        /// [`token_digest`] of the token that was used, so that a lost answer can be given again to the same key.
        token_sha256: String,
        /// SHA-256 of the agent's public key (SubjectPublicKeyInfo), hexadecimal.
        public_key_sha256: String,
        /// Serial number of its newest certificate, hexadecimal.
        serial: String,
        /// That of the certificate it asked for the newest with: good until the answer has arrived, and beyond.
        previous_serial: Option<String>,
        /// The certificate (PEM), to be given again if its answer was lost.
        certificate_pem: String,
        /// When that certificate expires.
        #[serde(with = "time::serde::rfc3339")]
        expires_at: OffsetDateTime,
        /// The operator's word that the same machine may enrol again.
        reinvitation: Option<Invitation>,
        /// When it was enrolled.
        #[serde(with = "time::serde::rfc3339")]
        at: OffsetDateTime,
    },
    /// The operator took it out; its certificates are void.
    Revoked,
}

/// What somebody who shows a join token gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// A new certificate.
    Issue,
    /// The one that was issued for this token and key before: its answer was lost.
    Again(String),
}

/// Why somebody who shows a join token gets nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotAdmitted {
    /// There is no such host, or the token is not one of its.
    #[error("the join token is not known")]
    WrongToken,
    /// The token was good once.
    #[error("the join token has expired")]
    Expired,
    /// Somebody with another key has used the token, or the host had another key before. Two machines want to be one.
    #[error("the join token was used with another key")]
    OtherKey,
    /// The host was taken out.
    #[error("the host is revoked")]
    Revoked,
}

/// A change of the free space that is worth a report: one part in so many of the whole.
const DISK_STEPS: u64 = 50;

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

impl HostReport {
    /// Whether it says anything that somebody would act on, after `old`: another version, another disk, or one fuller or
    /// emptier by a fiftieth.
    #[must_use]
    pub fn is_news_after(&self, old: &Self) -> bool {
        let disk = old.disk_free_bytes.abs_diff(self.disk_free_bytes);
        (&old.agent_version, &old.lnd_version, old.disk_total_bytes)
            != (&self.agent_version, &self.lnd_version, self.disk_total_bytes)
            || disk > self.disk_total_bytes / DISK_STEPS
    }
}

/// What is known of a host that the deployment has made for itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hosting {
    /// The node that it was made for, until that has a slot. Nobody else gets one meanwhile.
    pub wanted_for: Option<NodeId>,
    /// Whether its machine is terminated: then nothing is put there any more.
    pub gone: bool,
    /// The newest recovery, so that there is one at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery: Option<OperationId>,
}

/// Since which generation there may be wallets on a host's machines: an lnd is started by an order, and orders go to agents
/// that have joined.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Joined {
    /// It was not recorded: the host is older than the record, or was changed by a program that knows nothing of it.
    #[default]
    Unknown,
    /// No machine has ever joined as this host.
    NotYet,
    /// The first that ever did was of this generation. Written in the commit that let it.
    First {
        /// The generation.
        generation: u64,
    },
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
    /// Which generation was the first to join.
    #[serde(default)]
    pub joined: Joined,
    /// Where masters reach its agent and lnds (an IP address), told at enrolment.
    pub address: Option<std::net::IpAddr>,
    /// Port of its agent, told at enrolment.
    pub agent_port: Option<u16>,
    /// How many lnds it takes.
    pub capacity: u16,
    /// Who is in which slot.
    pub slots: BTreeMap<u16, NodeId>,
    /// For one whose machine was started by the deployment itself (`[compute]`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compute: Option<Hosting>,
    /// What its agent last said.
    pub report: Option<HostReport>,
    /// When it last refused to start an lnd.
    #[serde(default, with = "time::serde::rfc3339::option")]
    pub refused_at: Option<OffsetDateTime>,
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

    /// Whether whoever shows this token and holds this key becomes this host.
    pub fn admit(&self, token_sha256: &str, key_sha256: &str, now: OffsetDateTime) -> Result<Admission, NotAdmitted> {
        let good = |invitation: &Invitation| {
            if invitation.expires_at > now { Ok(Admission::Issue) } else { Err(NotAdmitted::Expired) }
        };
        match &self.enrolment {
            Enrolment::Revoked => Err(NotAdmitted::Revoked),
            Enrolment::Invited(invitation) if same(&invitation.token_sha256, token_sha256) => good(invitation),
            Enrolment::Invited(_) => Err(NotAdmitted::WrongToken),
            Enrolment::Enrolled {
                token_sha256: used,
                public_key_sha256,
                certificate_pem,
                expires_at,
                reinvitation,
                ..
            } => {
                let again = reinvitation.as_ref().filter(|invitation| same(&invitation.token_sha256, token_sha256));
                if again.is_none() && !same(used, token_sha256) {
                    return Err(NotAdmitted::WrongToken);
                }
                if public_key_sha256 != key_sha256 {
                    return Err(NotAdmitted::OtherKey);
                }
                match again {
                    Some(invitation) => good(invitation),
                    None if *expires_at > now => Ok(Admission::Again(certificate_pem.clone())),
                    None => Err(NotAdmitted::Expired),
                }
            }
        }
    }

    /// Whether the holder of the certificate with this serial number speaks for this host. A certificate that is not
    /// listed here is void, however good its signature.
    #[must_use]
    pub fn is_spoken_for_by(&self, shown: &str) -> bool {
        match &self.enrolment {
            Enrolment::Enrolled { serial, previous_serial, .. } => {
                serial == shown || previous_serial.as_deref() == Some(shown)
            }
            Enrolment::Invited(_) | Enrolment::Revoked => false,
        }
    }

    /// The invitation that somebody may still use.
    #[must_use]
    pub fn open_invitation(&self, now: OffsetDateTime) -> Option<&Invitation> {
        let invitation = match &self.enrolment {
            Enrolment::Invited(invitation) => Some(invitation),
            Enrolment::Enrolled { reinvitation, .. } => reinvitation.as_ref(),
            Enrolment::Revoked => None,
        };
        invitation.filter(|invitation| invitation.expires_at > now && !invitation.token_sha256.is_empty())
    }

    /// Whether its agent has a certificate that is still good and shows it somewhere.
    #[must_use]
    pub fn is_certified(&self, now: OffsetDateTime) -> bool {
        matches!(&self.enrolment, Enrolment::Enrolled { expires_at, .. } if *expires_at > now) && !self.is_gone()
    }

    /// Whether the operator took it out. There is no way back.
    #[must_use]
    pub fn is_revoked(&self) -> bool {
        matches!(self.enrolment, Enrolment::Revoked)
    }

    /// Whether lnds can be put there: it belongs to the fleet, it is known where it is, and it is not gone.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        matches!(self.enrolment, Enrolment::Enrolled { .. }) && self.address.is_some() && !self.is_gone()
    }

    /// Whether its machine is known to be terminated.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.compute.as_ref().is_some_and(|hosting| hosting.gone)
    }

    /// Notes that its machine joins now.
    pub fn note_joined(&mut self) {
        if self.joined == Joined::NotYet {
            self.joined = Joined::First { generation: self.generation };
        }
    }

    /// Whether no machine of this generation ever was this host, nor can be: then no wallet ever was on one.
    ///
    /// - lnds are started by orders only, and those go to an agent that has joined, in the generation in which it did.
    /// - None has joined in this generation: the first to join, of which every joining commit takes note, is of a later one,
    ///   or there is none yet.
    /// - None can join any more: a join token is good for one generation, and the host's is a later one by now.
    ///
    /// Generations only grow and the first stays the first, so what is true of a document that was read some time ago is true
    /// now. It says nothing of generations after the first that joined: to one that recovers a host, the wallets are attached.
    #[must_use]
    pub fn was_never(&self, generation: u64) -> bool {
        let before_the_first = match self.joined {
            Joined::Unknown => false,
            Joined::NotYet => true,
            Joined::First { generation: first } => generation < first,
        };
        before_the_first && generation < self.generation
    }

    /// The node that it is kept for.
    #[must_use]
    pub fn wanted_for(&self) -> Option<&NodeId> {
        self.compute.as_ref()?.wanted_for.as_ref()
    }

    /// Keeps it for `node` no longer. False where it was not.
    pub fn release_from(&mut self, node: &NodeId) -> bool {
        let wanted_for = self.compute.as_mut().map(|hosting| &mut hosting.wanted_for);
        wanted_for.and_then(|wanted_for| wanted_for.take_if(|wanted_for| wanted_for == node)).is_some()
    }

    /// Notes that it refuses to start lnds. False where that was noted a moment ago.
    pub fn refused(&mut self, now: OffsetDateTime) -> bool {
        let is_news = self.refused_at.is_none_or(|at| now - at >= REFUSAL_NOTED_EVERY);
        if is_news {
            self.refused_at = Some(now);
        }
        is_news
    }

    /// The first free slot of a host that can be used.
    #[must_use]
    pub fn free_slot(&self) -> Option<u16> {
        if !self.is_usable() {
            return None;
        }
        (0..self.capacity).find(|slot| !self.slots.contains_key(slot))
    }
}

/// Compares what is derived from secrets.
fn same(one: &str, other: &str) -> bool {
    use subtle::ConstantTimeEq;
    one.as_bytes().ct_eq(other.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

    fn host(enrolment: Enrolment) -> Host {
        Host {
            id: HostId::random(&mut rand::rng()),
            generation: 1,
            enrolment,
            joined: Joined::NotYet,
            address: None,
            agent_port: None,
            capacity: 2,
            slots: BTreeMap::new(),
            compute: None,
            report: None,
            refused_at: None,
            created_at: NOW,
        }
    }

    fn invitation(token: &str, minutes: i64) -> Invitation {
        Invitation {
            token_sha256: token.to_owned(),
            expires_at: NOW + Duration::minutes(minutes),
            authorities: Vec::new(),
        }
    }

    fn enrolled(reinvitation: Option<Invitation>, minutes: i64) -> Host {
        host(Enrolment::Enrolled {
            token_sha256: "t".to_owned(),
            public_key_sha256: "k".to_owned(),
            serial: "2".to_owned(),
            previous_serial: Some("1".to_owned()),
            certificate_pem: "pem".to_owned(),
            expires_at: NOW + Duration::minutes(minutes),
            reinvitation,
            at: NOW,
        })
    }

    #[test]
    fn an_invitation_is_good_once_and_for_a_while() {
        let invited = host(Enrolment::Invited(invitation("t", 1)));
        assert_eq!(invited.admit("t", "k", NOW), Ok(Admission::Issue));
        assert_eq!(invited.admit("x", "k", NOW), Err(NotAdmitted::WrongToken));
        assert_eq!(invited.admit("t", "k", NOW + Duration::minutes(1)), Err(NotAdmitted::Expired));
    }

    #[test]
    fn a_lost_answer_is_given_again_to_the_same_key_only() {
        let host = enrolled(None, 1);
        assert_eq!(host.admit("t", "k", NOW), Ok(Admission::Again("pem".to_owned())));
        assert_eq!(host.admit("t", "other", NOW), Err(NotAdmitted::OtherKey));
        assert_eq!(host.admit("x", "k", NOW), Err(NotAdmitted::WrongToken));
        assert!(host.is_spoken_for_by("2") && host.is_spoken_for_by("1") && !host.is_spoken_for_by("0"));
    }

    #[test]
    fn an_expired_certificate_needs_the_operators_word_and_the_old_key() {
        let later = NOW + Duration::minutes(2);
        assert_eq!(enrolled(None, 1).admit("t", "k", later), Err(NotAdmitted::Expired));
        let reinvited = enrolled(Some(invitation("u", 3)), 1);
        assert_eq!(reinvited.admit("u", "k", later), Ok(Admission::Issue));
        assert_eq!(reinvited.admit("u", "other", later), Err(NotAdmitted::OtherKey));
        assert_eq!(reinvited.admit("t", "k", later), Err(NotAdmitted::Expired));
        assert_eq!(reinvited.admit("u", "k", NOW + Duration::minutes(3)), Err(NotAdmitted::Expired));
    }

    #[test]
    fn only_before_the_first_that_joined_no_wallet_can_have_been() {
        let at = |generation, joined| Host { generation, joined, ..host(Enrolment::Revoked) };
        let is_never = |host: &Host| (1..5).filter(|generation| host.was_never(*generation)).collect::<Vec<_>>();
        assert_eq!(is_never(&at(1, Joined::NotYet)), [0_u64; 0], "its machine may still join");
        assert_eq!(is_never(&at(3, Joined::NotYet)), [1, 2]);
        assert_eq!(is_never(&at(3, Joined::First { generation: 3 })), [1, 2]);
        assert_eq!(is_never(&at(4, Joined::First { generation: 2 })), [1], "the third recovered the second's wallets");
        assert_eq!(is_never(&at(4, Joined::Unknown)), [0_u64; 0]);

        let mut joins = at(2, Joined::NotYet);
        joins.note_joined();
        (joins.generation, joins.enrolment) = (3, Enrolment::Revoked);
        joins.note_joined();
        assert_eq!(joins.joined, Joined::First { generation: 2 });
        let mut old = at(2, Joined::Unknown);
        old.note_joined();
        assert_eq!(old.joined, Joined::Unknown, "it may have joined before");
    }

    #[test]
    fn a_refusal_is_noted_once_a_minute() {
        let mut host = enrolled(None, 1);
        assert!(host.refused(NOW) && !host.refused(NOW + Duration::seconds(59)));
        assert_eq!(host.refused_at, Some(NOW));
        assert!(host.refused(NOW + Duration::minutes(1)));
        assert_eq!(host.refused_at, Some(NOW + Duration::minutes(1)));
    }

    #[test]
    fn a_revoked_host_stays_out() {
        assert_eq!(host(Enrolment::Revoked).admit("t", "k", NOW), Err(NotAdmitted::Revoked));
        assert!(!host(Enrolment::Revoked).is_spoken_for_by("2"));
    }
}
