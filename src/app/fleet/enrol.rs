//! Certificates for agents: the first against a join token, the next against the one before.

use super::Fleet;
use crate::error::{Error, StoreError};
use crate::model::HostId;
use crate::model::host::{Admission, Enrolment, Host, NotAdmitted, token_digest};
use crate::pki::{self, Identity, Issued, Peer, PkiError};
use crate::store::repo;
use std::net::IpAddr;

/// What an agent that has joined is told.
#[derive(Debug, Clone)]
pub struct Enrolled {
    /// Its certificate (PEM).
    pub certificate_pem: String,
    /// Who it is now.
    pub host: HostId,
    /// Its generation.
    pub generation: u64,
}

/// Why a certificate is not issued.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// The token or the certificate that was shown does not allow it.
    #[error(transparent)]
    NotAdmitted(#[from] NotAdmitted),
    /// The request itself is wrong.
    #[error("the request: {0}")]
    Request(#[source] PkiError),
    /// Not the agent's fault; it may ask again.
    #[error(transparent)]
    Failed(#[from] Error),
}

impl From<StoreError> for EnrolError {
    fn from(error: StoreError) -> Self {
        Self::Failed(error.into())
    }
}

/// Where masters reach an agent.
pub type Address = (IpAddr, u16);

impl Fleet {
    /// Makes whoever shows this token the host it was given out for. May be repeated with the same key.
    pub async fn enrol(&self, token: &str, csr_pem: &str, address: Address) -> Result<Enrolled, EnrolError> {
        let (id, rest) = token.split_once('.').ok_or(NotAdmitted::WrongToken)?;
        // What may be between them is for the agent; the secret is good for one generation as it is.
        let secret = rest.rsplit('.').next().unwrap_or(rest);
        let id = HostId::parse(id).ok_or(NotAdmitted::WrongToken)?;
        let key_sha256 = hex::encode(pki::public_key_hash(csr_pem).map_err(EnrolError::Request)?);
        let mut answer = None;
        let _issuing = self.issuing.read().await;
        let enrol = |host: &mut Host| {
            let now = self.clock.now();
            let token_sha256 = token_digest(&host.id, host.generation, secret);
            let certificate_pem = match host.admit(&token_sha256, &key_sha256, now)? {
                Admission::Again(certificate_pem) => certificate_pem,
                Admission::Issue => {
                    let issued = self.issue(&host.id, csr_pem)?;
                    host.note_joined();
                    host.enrolment = Enrolment::Enrolled {
                        token_sha256,
                        public_key_sha256: key_sha256.clone(),
                        serial: issued.serial.to_string(),
                        previous_serial: None,
                        certificate_pem: issued.cert_pem.clone(),
                        expires_at: issued.validity.not_after,
                        reinvitation: None,
                        at: now,
                    };
                    issued.cert_pem
                }
            };
            (host.address, host.agent_port) = (Some(address.0), Some(address.1));
            answer = Some(Enrolled { certificate_pem, host: host.id.clone(), generation: host.generation });
            Ok::<_, EnrolError>(true)
        };
        let enrolled = repo::modify::<Host, EnrolError>(&*self.store, id.as_str(), enrol).await;
        alarm(&enrolled, id.as_str());
        enrolled?;
        answer.ok_or_else(|| NotAdmitted::WrongToken.into())
    }

    /// The next certificate for the host that `peer` shows a good certificate of; the key stays.
    pub async fn renew(&self, peer: &Peer, csr_pem: &str) -> Result<String, EnrolError> {
        let Identity::Agent { host_id } = &peer.identity else { return Err(NotAdmitted::WrongToken.into()) };
        let asking = hex::encode(pki::public_key_hash(csr_pem).map_err(EnrolError::Request)?);
        let shown = peer.serial.to_string();
        let mut answer = None;
        let _issuing = self.issuing.read().await;
        let renew = |host: &mut Host| {
            if !host.is_spoken_for_by(&shown) {
                return Err(EnrolError::NotAdmitted(NotAdmitted::Revoked));
            }
            let issued = self.issue(&host.id, csr_pem)?;
            if let Enrolment::Enrolled {
                public_key_sha256, serial, previous_serial, certificate_pem, expires_at, ..
            } = &mut host.enrolment
            {
                if *public_key_sha256 != asking {
                    return Err(EnrolError::NotAdmitted(NotAdmitted::OtherKey));
                }
                *previous_serial = Some(shown.clone());
                *serial = issued.serial.to_string();
                certificate_pem.clone_from(&issued.cert_pem);
                *expires_at = issued.validity.not_after;
            }
            answer = Some(issued.cert_pem);
            Ok(true)
        };
        let renewed = repo::modify::<Host, EnrolError>(&*self.store, host_id, renew).await;
        alarm(&renewed, host_id);
        renewed?;
        answer.ok_or_else(|| NotAdmitted::WrongToken.into())
    }

    /// A certificate that says agent of this host, whatever the request says.
    fn issue(&self, host: &HostId, csr_pem: &str) -> Result<Issued, EnrolError> {
        let identity = Identity::Agent { host_id: host.to_string() };
        let known = self.authorities.load();
        known
            .issuing
            .issue_from_csr(csr_pem, &identity, self.certificate_life, self.clock.now(), &mut rand::rng())
            .map_err(EnrolError::Request)
    }
}

/// Two machines want to be one host: a token or a certificate was stolen, or a machine was restored from a copy. A person
/// has to look.
fn alarm<T>(outcome: &Result<T, EnrolError>, host: &str) {
    if let Err(EnrolError::NotAdmitted(NotAdmitted::OtherKey)) = outcome {
        tracing::error!(host.id = host, "ALARM: somebody with another key wants to be this host");
    }
}
