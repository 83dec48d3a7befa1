//! TLS to an lnd that is known by exactly one certificate.
//!
//! lnd's certificate is self-signed, so there is no authority to ask: the connection is good if and only if the
//! server shows the pinned certificate byte for byte and proves that it has its key. Name and expiry say nothing more
//! then. A node that was moved, and another node at its old address, are told apart by this (design/money.md, rule 8).

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, SignatureScheme};
use sha2::{Digest, Sha256};
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};

/// How long the TCP connection, and then the TLS handshake, may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Pings while calls are open, so that a host that vanished is noticed. lnd allows one each 5 s.
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// A name for the handshake where the address has none that TLS could carry. Nobody checks it.
const ANY_NAME: &str = "lnd";

/// aws-lc-rs, whatever the process has as its default.
static PROVIDER: LazyLock<Arc<CryptoProvider>> =
    LazyLock::new(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()));

/// The one certificate by which an lnd is known. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct PinnedCert(Arc<CertificateDer<'static>>);

impl PinnedCert {
    pub fn from_der(der: impl Into<Vec<u8>>) -> Self {
        Self(Arc::new(CertificateDer::from(der.into())))
    }

    /// Reads a `tls.cert` as lnd writes it; the first certificate counts.
    pub fn from_pem(pem: &[u8]) -> Result<Self, TlsError> {
        CertificateDer::from_pem_slice(pem).map(|der| Self(Arc::new(der))).map_err(|_| TlsError::Certificate)
    }

    pub fn der(&self) -> &[u8] {
        &self.0
    }

    /// SHA-256 of the certificate.
    pub fn fingerprint(&self) -> [u8; 32] {
        Sha256::digest(self.der()).into()
    }
}

impl std::fmt::Debug for PinnedCert {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PinnedCert(sha256:{})", hex::encode(self.fingerprint()))
    }
}

/// Why no connection can even be tried.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("not a certificate in PEM form")]
    Certificate,
    #[error("not an address of the form host:port")]
    Address,
    #[error("TLS cannot be set up")]
    Setup(#[source] tonic::transport::Error),
}

/// A channel to the lnd at `address` (host:port) that speaks only to the holder of `cert`.
///
/// Nothing is sent before the first call, and a connection that broke is made anew by the next one.
pub fn channel(address: &str, cert: &PinnedCert) -> Result<Channel, TlsError> {
    let endpoint = Endpoint::from_shared(format!("https://{address}")).map_err(|_| TlsError::Address)?;
    let uri = endpoint.uri();
    let is_plain = uri.authority().is_some_and(|part| part == address) && !address.contains('@');
    let host = uri.port().and(uri.host()).filter(|host| is_plain && !host.is_empty()).ok_or(TlsError::Address)?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let name = if ServerName::try_from(host).is_ok() { host } else { ANY_NAME };
    let tls = ClientTlsConfig::new().domain_name(name).timeout(CONNECT_TIMEOUT);
    let endpoint = endpoint
        .tls_config_with_verifier(tls, Arc::new(PinVerifier(cert.clone())))
        .map_err(TlsError::Setup)?
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(false);
    Ok(endpoint.connect_lazy())
}

/// Accepts the pinned certificate and nothing else. The handshake's signature is verified as always, so that showing
/// the certificate is not enough: its key is needed.
#[derive(Debug)]
struct PinVerifier(PinnedCert);

impl ServerCertVerifier for PinVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if end_entity.as_ref() == self.0.der() {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &PROVIDER.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &PROVIDER.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        PROVIDER.signature_verification_algorithms.supported_schemes()
    }
}

/// Whether `error` is this module's refusal of a certificate that is not the pinned one.
pub(super) fn is_wrong_certificate(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        // An io::Error hides what it wraps from source().
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        let tls = match inner {
            Some(inner) => inner.downcast_ref::<rustls::Error>(),
            None => error.downcast_ref::<rustls::Error>(),
        };
        let refused = rustls::Error::from(CertificateError::ApplicationVerificationFailure);
        if tls == Some(&refused) {
            return true;
        }
        next = error.source();
    }
    false
}

#[cfg(test)]
#[path = "tls_tests.rs"]
mod tests;
