//! The deployment's own certificates: who is a master, who is the agent of which host, and how they talk TLS.
//!
//! One CA for each deployment ([`Ca`]). Its holder alone says who somebody is: an [`Identity`] is a URI in the
//! certificate, put there by the issuer and never taken from a request. [`Trust`] builds the two sides of every
//! connection between masters and agents; [`lnd_cert`] makes the certificate of an lnd, which is pinned instead.

mod ca;
mod credentials;
pub mod lnd_cert;
mod quota;
mod tls;
mod transport;
mod verify;

use std::{fmt, str::FromStr};

use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer};

pub use ca::{Ca, CaCert, DEFAULT_LIFETIME, Issued, make_csr, make_csr_for, public_key_hash};
pub use credentials::Credentials;
pub use quota::Source;
pub use tls::{Standing, Trust, for_enrolment};
pub use transport::{
    ClientTls, ConnectedPeer, PeerStream, ServerTls, connected_peer, only_good_peers, peer_identity, source, standing,
};

const SCHEME: &str = "scale-lnd://";
const DNS_SUFFIX: &str = "scale-lnd.internal";

/// Who a certificate of the deployment speaks for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Identity {
    /// May command every agent.
    Master { id: String },
    /// May command nobody, and report for its own host only.
    Agent { host_id: String },
}

impl Identity {
    /// The DNS name in the certificate. All masters share one, since an agent may reach any of them.
    pub fn dns_name(&self) -> String {
        match self {
            Self::Master { .. } => format!("master.{DNS_SUFFIX}"),
            Self::Agent { host_id } => format!("{host_id}.agent.{DNS_SUFFIX}"),
        }
    }

    fn uri(&self, deployment: &str) -> String {
        match self {
            Self::Master { id } => format!("{SCHEME}{deployment}/master/{id}"),
            Self::Agent { host_id } => format!("{SCHEME}{deployment}/agent/{host_id}"),
        }
    }

    fn parse_uri(uri: &str) -> Option<(&str, Self)> {
        let mut parts = uri.strip_prefix(SCHEME)?.split('/');
        let (deployment, role, id) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() || !is_deployment(deployment) || !is_label(id) {
            return None;
        }
        match role {
            "master" => Some((deployment, Self::Master { id: id.into() })),
            "agent" => Some((deployment, Self::Agent { host_id: id.into() })),
            _ => None,
        }
    }

    fn id(&self) -> &str {
        match self {
            Self::Master { id } => id,
            Self::Agent { host_id } => host_id,
        }
    }
}

/// An id is part of a DNS name, so it is one lower-case label of it.
fn is_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'))
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn is_deployment(text: &str) -> bool {
    (1..=63).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// The serial number of a certificate the deployment's CA issued.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Serial([u8; 16]);

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Serial({self})")
    }
}

impl FromStr for Serial {
    type Err = PkiError;

    fn from_str(text: &str) -> Result<Self, PkiError> {
        let mut serial = Self([0; 16]);
        hex::decode_to_slice(text, &mut serial.0).map_err(|_| PkiError::Name { what: "serial" })?;
        Ok(serial)
    }
}

/// The SHA-256 of a certificate's DER form; 64 hexadecimal digits as text.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    pub fn of(certificate: &CertificateDer<'_>) -> Self {
        Self(Sha256::digest(certificate).into())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

impl FromStr for Fingerprint {
    type Err = PkiError;

    fn from_str(text: &str) -> Result<Self, PkiError> {
        let mut fingerprint = Self([0; 32]);
        hex::decode_to_slice(text, &mut fingerprint.0).map_err(|_| PkiError::Name { what: "fingerprint" })?;
        Ok(fingerprint)
    }
}

/// The CAs that a new agent may find its master by: one, or while one takes over from another several. As text their
/// fingerprints, with commas between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pins(Vec<Fingerprint>);

impl Pins {
    /// These; `None` where there is none.
    pub fn new(pins: Vec<Fingerprint>) -> Option<Self> {
        (!pins.is_empty()).then_some(Self(pins))
    }

    pub fn all(&self) -> &[Fingerprint] {
        &self.0
    }

    pub fn contains(&self, fingerprint: Fingerprint) -> bool {
        self.0.contains(&fingerprint)
    }
}

impl From<Fingerprint> for Pins {
    fn from(only: Fingerprint) -> Self {
        Self(vec![only])
    }
}

impl fmt::Display for Pins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&all.join(","))
    }
}

impl FromStr for Pins {
    type Err = PkiError;

    fn from_str(text: &str) -> Result<Self, PkiError> {
        text.split(',').map(|pin| pin.trim().parse()).collect::<Result<_, _>>().map(Self)
    }
}

/// From when until when a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    pub not_before: OffsetDateTime,
    pub not_after: OffsetDateTime,
}

impl Validity {
    /// Of the first certificate in a PEM file.
    pub fn of_pem(cert_pem: &str) -> Result<Self, PkiError> {
        Self::of(&ca::first_certificate(cert_pem)?)
    }

    fn of(certificate: &CertificateDer<'_>) -> Result<Self, PkiError> {
        Ok(Self::of_parsed(&parse(certificate)?))
    }

    fn of_parsed(certificate: &X509Certificate<'_>) -> Self {
        let validity = certificate.validity();
        Self { not_before: validity.not_before.to_datetime(), not_after: validity.not_after.to_datetime() }
    }

    /// When to renew it: after two thirds of its life.
    pub fn renew_at(&self) -> OffsetDateTime {
        self.not_before + (self.not_after - self.not_before) * 2 / 3
    }

    /// How long to wait before asking again whether it is time to renew: until then, but at most a minute, since clocks
    /// are set, and at least a second.
    pub fn next_look(&self, now: OffsetDateTime) -> std::time::Duration {
        let left = (self.renew_at() - now).clamp(time::Duration::SECOND, time::Duration::MINUTE);
        left.unsigned_abs()
    }

    pub fn contains(&self, now: OffsetDateTime) -> bool {
        self.not_before <= now && now <= self.not_after
    }
}

/// What a certificate of the deployment says about its holder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    pub identity: Identity,
    pub serial: Serial,
    pub validity: Validity,
}

impl Peer {
    /// Reads a certificate that a verifier has already traced to the CA of `deployment`.
    fn from_cert(certificate: &CertificateDer<'_>, deployment: &str) -> Result<Self, PkiError> {
        let parsed = parse(certificate)?;
        let uri = only_uri(&parsed)?;
        let (of, identity) = Identity::parse_uri(uri).ok_or(PkiError::Certificate)?;
        if of != deployment {
            return Err(PkiError::Deployment);
        }
        let serial = parsed.raw_serial().try_into().map_err(|_| PkiError::Certificate)?;
        Ok(Self { identity, serial: Serial(serial), validity: Validity::of_parsed(&parsed) })
    }

    /// Whether the certificate has not ended. A handshake checks it once; a connection outlives that.
    pub fn is_good(&self, now: OffsetDateTime) -> bool {
        self.validity.contains(now)
    }
}

/// Why a certificate, key or request is not accepted. Never shows a key.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    #[error("not a valid {what}")]
    Name { what: &'static str },
    #[error("the certificate request is malformed or its signature is wrong")]
    Csr,
    #[error("the certificate request is not for a P-256 key")]
    CsrKey,
    #[error("the certificate is malformed or not one of this system's")]
    Certificate,
    #[error("the private key is malformed or does not belong to the certificate")]
    Key,
    #[error("the certificate belongs to another deployment")]
    Deployment,
    #[error("whoever believes nobody cannot speak to anybody")]
    Nobody,
    #[error("the certificate is not the one with the expected fingerprint")]
    Fingerprint,
    #[error("cannot make the certificate")]
    Make(#[from] rcgen::Error),
    #[error("cannot set up TLS")]
    Tls(#[from] rustls::Error),
}

fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, PkiError> {
    match X509Certificate::from_der(certificate) {
        Ok(([], parsed)) => Ok(parsed),
        _ => Err(PkiError::Certificate),
    }
}

/// The one URI among the certificate's names; two would be ambiguous.
fn only_uri<'a>(certificate: &'a X509Certificate<'_>) -> Result<&'a str, PkiError> {
    let names = certificate.subject_alternative_name().ok().flatten().ok_or(PkiError::Certificate)?;
    let mut uris = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    match (uris.next(), uris.next()) {
        (Some(uri), None) => Ok(uri),
        _ => Err(PkiError::Certificate),
    }
}

#[cfg(test)]
mod tests;
