//! The certificate of an lnd, made by its host's agent and pinned by the master.
//!
//! lnd's own certificate is CA:TRUE, which rustls refuses as leaf and anchor at once, so the agent makes it: P-256,
//! CA:FALSE. lnd replaces an expired one at its start and thereby breaks the pin, so this lives 20 years, and the agent
//! looks at [`not_after`] before each start.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType,
};
use time::{Duration, OffsetDateTime};
use x509_parser::extensions::GeneralName;
use zeroize::Zeroizing;

use super::ca::first_certificate;
use super::{PkiError, Validity, parse};

const LIFETIME: Duration = Duration::days(20 * 365);
const BACKDATED: Duration = Duration::hours(1);

/// What goes into an lnd's `tls.cert` and `tls.key`.
#[derive(Clone)]
pub struct LndCert {
    pub cert_pem: String,
    /// Never leaves the host.
    pub key_pem: Zeroizing<String>,
}

impl std::fmt::Debug for LndCert {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LndCert").field("cert_pem", &self.cert_pem).finish_non_exhaustive()
    }
}

/// A self-signed certificate for localhost, the loopback addresses, and the addresses and names given.
pub fn make_lnd_cert(ips: &[IpAddr], dns: &[String], now: OffsetDateTime) -> Result<LndCert, PkiError> {
    let mut names = vec![SanType::DnsName("localhost".try_into()?)];
    for name in dns {
        names.push(SanType::DnsName(name.as_str().try_into()?));
    }
    let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    names.extend(loopback.iter().chain(ips).map(|&ip| SanType::IpAddress(ip)));
    let mut seen = std::collections::HashSet::new();
    names.retain(|name| seen.insert(name.clone()));

    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "lnd");
    params.subject_alt_names = names;
    params.not_before = now - BACKDATED;
    params.not_after = now + LIFETIME;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = Zeroizing::new(KeyPair::generate()?);
    let cert_pem = params.self_signed(&*key)?.pem();
    Ok(LndCert { cert_pem, key_pem: Zeroizing::new(key.serialize_pem()) })
}

/// Whether a `tls.cert` is of an lnd with this name.
pub fn names(cert_pem: &str, name: &str) -> Result<bool, PkiError> {
    let certificate = first_certificate(cert_pem)?;
    let parsed = parse(&certificate)?;
    let names = parsed.subject_alternative_name().map_err(|_| PkiError::Certificate)?;
    let mut names = names.into_iter().flat_map(|names| &names.value.general_names);
    Ok(names.any(|known| matches!(known, GeneralName::DNSName(known) if *known == name)))
}

/// When a `tls.cert` expires.
pub fn not_after(cert_pem: &str) -> Result<OffsetDateTime, PkiError> {
    Validity::of_pem(cert_pem).map(|validity| validity.not_after)
}
