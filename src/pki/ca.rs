//! The deployment's certificate authority: it alone decides who a key belongs to.

use std::fmt;

use rand::CryptoRng;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber, SubjectPublicKeyInfo,
};
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer, pem::PemObject};
use sha2::{Digest, Sha256};
use time::{Duration, OffsetDateTime};
use x509_parser::{certification_request::X509CertificationRequest, prelude::FromDer};
use zeroize::Zeroizing;

use super::{
    Fingerprint, Identity, Peer, PkiError, SCHEME, Serial, Validity, is_deployment, is_label, only_uri, parse,
};

/// How long an issued certificate is valid unless configured otherwise.
pub const DEFAULT_LIFETIME: Duration = Duration::days(30);
const CA_LIFETIME: Duration = Duration::days(20 * 365);
/// Clocks of hosts differ; a fresh certificate must not be from the future anywhere.
const BACKDATED: Duration = Duration::minutes(5);
/// Far above any real request; a parser should not see more of a stranger's bytes.
const CSR_MAX_LEN: usize = 8 * 1024;

/// The CA's certificate: what masters and agents trust.
#[derive(Clone, PartialEq, Eq)]
pub struct CaCert {
    der: CertificateDer<'static>,
    deployment: String,
}

impl CaCert {
    /// Reads the certificate of a CA of this system. That it is the right one, the caller knows by other means.
    pub fn from_pem(pem: &str) -> Result<Self, PkiError> {
        Self::from_der(&first_certificate(pem)?)
    }

    /// Like [`Self::from_pem`], and it must be the very one with this fingerprint.
    pub fn from_pem_pinned(pem: &str, fingerprint: Fingerprint) -> Result<Self, PkiError> {
        let ca = Self::from_pem(pem)?;
        if ca.fingerprint() == fingerprint { Ok(ca) } else { Err(PkiError::Fingerprint) }
    }

    pub(super) fn from_der(der: &CertificateDer<'_>) -> Result<Self, PkiError> {
        let parsed = parse(der)?;
        let deployment = only_uri(&parsed)?
            .strip_prefix(SCHEME)
            .and_then(|rest| rest.strip_suffix("/ca"))
            .filter(|deployment| is_deployment(deployment) && parsed.is_ca())
            .ok_or(PkiError::Certificate)?
            .to_owned();
        Ok(Self { der: der.clone().into_owned(), deployment })
    }

    pub fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    pub fn pem(&self) -> String {
        to_pem(&self.der)
    }

    pub fn deployment(&self) -> &str {
        &self.deployment
    }

    /// What an invitation says beside its join token, so that a new agent knows the CA before it has any certificate.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.der)
    }

    /// Which of these has issued the first certificate of a PEM file: the one whose key its signature is of. They may all
    /// have one name.
    pub fn issuer_of<'a>(cas: &'a [Self], cert_pem: &str) -> Result<Option<&'a Self>, PkiError> {
        let leaf = first_certificate(cert_pem)?;
        let leaf = parse(&leaf)?;
        for ca in cas {
            if leaf.verify_signature(Some(parse(&ca.der)?.public_key())).is_ok() {
                return Ok(Some(ca));
            }
        }
        Ok(None)
    }
}

impl fmt::Debug for CaCert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CaCert({}, {})", self.deployment, self.fingerprint())
    }
}

/// A certificate as issued.
#[derive(Clone, Debug)]
pub struct Issued {
    /// The leaf alone; [`super::Credentials`] adds the CA's certificate to what is presented.
    pub cert_pem: String,
    /// To be stored, so that the certificate can be revoked.
    pub serial: Serial,
    pub validity: Validity,
}

/// The CA with its secret key, which is wiped when dropped. Only masters have it.
pub struct Ca {
    cert: CaCert,
    key: Zeroizing<KeyPair>,
}

impl fmt::Debug for Ca {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ca({:?}, key redacted)", self.cert)
    }
}

impl Ca {
    /// A new CA with a fresh P-256 key.
    pub fn create(deployment: &str, now: OffsetDateTime, rng: &mut impl CryptoRng) -> Result<Self, PkiError> {
        if !is_deployment(deployment) {
            return Err(PkiError::Name { what: "deployment" });
        }
        let mut params = params(now, CA_LIFETIME, random_serial(rng));
        params.distinguished_name.push(DnType::CommonName, format!("scale-lnd CA of {deployment}"));
        params.subject_alt_names = vec![SanType::URI(format!("{SCHEME}{deployment}/ca").try_into()?)];
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = Zeroizing::new(KeyPair::generate()?);
        let cert = CaCert::from_der(params.self_signed(&*key)?.der())?;
        Ok(Self { cert, key })
    }

    /// Reads back what [`CaCert::pem`] and [`Self::key_pem`] gave. Fails unless the key is the certificate's.
    pub fn from_pem(cert_pem: &str, key_pem: &str) -> Result<Self, PkiError> {
        let cert = CaCert::from_pem(cert_pem)?;
        let key = Zeroizing::new(KeyPair::from_pem(key_pem).map_err(|_| PkiError::Key)?);
        if parse(&cert.der)?.public_key().raw != key.subject_public_key_info() {
            return Err(PkiError::Key);
        }
        Ok(Self { cert, key })
    }

    pub fn cert(&self) -> &CaCert {
        &self.cert
    }

    /// The secret. To be sealed wherever it is kept.
    pub fn key_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.key.serialize_pem())
    }

    /// Certifies that the key in the request is `identity`'s. Nothing else of the request counts, whatever names it
    /// asks for; its signature proves that the asker has the key.
    pub fn issue_from_csr(
        &self,
        csr_pem: &str,
        identity: &Identity,
        lifetime: Duration,
        now: OffsetDateTime,
        rng: &mut impl CryptoRng,
    ) -> Result<Issued, PkiError> {
        if !is_label(identity.id()) {
            return Err(PkiError::Name { what: "id" });
        }
        let key = csr_public_key(csr_pem)?;
        let serial = random_serial(rng);
        let mut params = params(now, lifetime, serial);
        // TLS does not look at a trust anchor's own end, so a leaf must not outlive it.
        params.not_after = params.not_after.min(Validity::of(&self.cert.der)?.not_after);
        params.subject_alt_names = vec![
            SanType::URI(identity.uri(&self.cert.deployment).try_into()?),
            SanType::DnsName(identity.dns_name().try_into()?),
        ];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let issuer = Issuer::from_ca_cert_der(&self.cert.der, &*self.key)?;
        let certificate = params.signed_by(&key, &issuer)?;
        // As any verifier will read it.
        let Peer { validity, .. } = Peer::from_cert(certificate.der(), &self.cert.deployment)?;
        Ok(Issued { cert_pem: certificate.pem(), serial, validity })
    }

    /// A new key and its certificate at once, for a master's own use: (certificate, key as PEM).
    pub fn issue(
        &self,
        identity: &Identity,
        lifetime: Duration,
        now: OffsetDateTime,
        rng: &mut impl CryptoRng,
    ) -> Result<(Issued, Zeroizing<String>), PkiError> {
        let (key_pem, csr_pem) = make_csr()?;
        Ok((self.issue_from_csr(&csr_pem, identity, lifetime, now, rng)?, key_pem))
    }
}

/// A new P-256 key and a request that proves its possession and asks for nothing: (key, request), both PEM.
pub fn make_csr() -> Result<(Zeroizing<String>, String), PkiError> {
    let key = Zeroizing::new(KeyPair::generate()?);
    Ok((Zeroizing::new(key.serialize_pem()), csr(&key)?))
}

/// Another request for the same key, for a renewal.
pub fn make_csr_for(key_pem: &str) -> Result<String, PkiError> {
    csr(&Zeroizing::new(KeyPair::from_pem(key_pem).map_err(|_| PkiError::Key)?))
}

fn csr(key: &KeyPair) -> Result<String, PkiError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    Ok(params.serialize_request(key)?.pem()?)
}

/// SHA-256 of the public key (DER SubjectPublicKeyInfo) of a request whose signature is right: the same key asking
/// again is known by it.
pub fn public_key_hash(csr_pem: &str) -> Result<[u8; 32], PkiError> {
    Ok(Sha256::digest(csr_public_key(csr_pem)?.subject_public_key_info()).into())
}

fn csr_public_key(csr_pem: &str) -> Result<SubjectPublicKeyInfo, PkiError> {
    if csr_pem.len() > CSR_MAX_LEN {
        return Err(PkiError::Csr);
    }
    let der = CertificateSigningRequestDer::from_pem_slice(csr_pem.as_bytes()).map_err(|_| PkiError::Csr)?;
    let Ok(([], request)) = X509CertificationRequest::from_der(&der) else {
        return Err(PkiError::Csr);
    };
    request.verify_signature().map_err(|_| PkiError::Csr)?;
    let spki = request.certification_request_info.subject_pki.raw;
    let key = SubjectPublicKeyInfo::from_der(spki).map_err(|_| PkiError::CsrKey)?;
    if key.algorithm() == &PKCS_ECDSA_P256_SHA256 { Ok(key) } else { Err(PkiError::CsrKey) }
}

fn params(now: OffsetDateTime, lifetime: Duration, serial: Serial) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.not_before = now - BACKDATED;
    params.not_after = now + lifetime;
    params.serial_number = Some(SerialNumber::from_slice(&serial.0));
    params
}

/// Random but for the first two bits (01), so that it is positive and takes 16 bytes in DER.
fn random_serial(rng: &mut impl CryptoRng) -> Serial {
    let mut bytes = [0; 16];
    rng.fill_bytes(&mut bytes);
    bytes[0] = (bytes[0] & 0x3f) | 0x40;
    Serial(bytes)
}

pub(super) fn first_certificate(pem: &str) -> Result<CertificateDer<'static>, PkiError> {
    CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| PkiError::Certificate)
}

fn to_pem(der: &CertificateDer<'_>) -> String {
    use base64::{Engine, prelude::BASE64_STANDARD};

    let text = BASE64_STANDARD.encode(der);
    let lines: Vec<&str> = (0..text.len()).step_by(64).map(|at| &text[at..text.len().min(at + 64)]).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}
