//! A process's own certificate and key, which renewal replaces under the running connections and listeners.

use std::{fmt, sync::Arc};

use arc_swap::ArcSwap;
use rustls::{
    SignatureScheme,
    client::ResolvesClientCert,
    crypto::aws_lc_rs,
    pki_types::{PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use super::{CaCert, Fingerprint, Peer, PkiError, ca::first_certificate};

/// A certificate of the deployment with its key. Clones share it, so [`Self::replace`] reaches every TLS
/// configuration made from it; the next handshake presents the new one.
#[derive(Clone)]
pub struct Credentials(Arc<ArcSwap<Current>>);

struct Current {
    key: Arc<CertifiedKey>,
    own: Peer,
    issuer: Fingerprint,
}

impl Credentials {
    /// From the issued certificate and its key, both PEM. Fails unless they belong together and to this deployment.
    pub fn from_pem(cert_pem: &str, key_pem: &str, ca: &CaCert) -> Result<Self, PkiError> {
        Ok(Self(Arc::new(ArcSwap::from_pointee(Current::from_pem(cert_pem, key_pem, ca)?))))
    }

    /// Puts a renewed certificate in place of the old one.
    pub fn replace(&self, cert_pem: &str, key_pem: &str, ca: &CaCert) -> Result<(), PkiError> {
        self.0.store(Arc::new(Current::from_pem(cert_pem, key_pem, ca)?));
        Ok(())
    }

    /// What the certificate says of its holder: identity, serial, validity.
    pub fn own(&self) -> Peer {
        self.0.load().own.clone()
    }

    /// The CA that has issued it.
    pub fn issuer(&self) -> Fingerprint {
        self.0.load().issuer
    }

    fn key(&self) -> Arc<CertifiedKey> {
        self.0.load().key.clone()
    }
}

impl Current {
    fn from_pem(cert_pem: &str, key_pem: &str, ca: &CaCert) -> Result<Self, PkiError> {
        let leaf = first_certificate(cert_pem)?;
        let own = Peer::from_cert(&leaf, ca.deployment())?;
        let secret = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).map_err(|_| PkiError::Key)?;
        // The CA's certificate goes with it: a new agent knows only its fingerprint.
        let chain = vec![leaf, ca.der().clone()];
        let key = CertifiedKey::from_der(chain, secret, &aws_lc_rs::default_provider()).map_err(|_| PkiError::Key)?;
        Ok(Self { key: Arc::new(key), own, issuer: ca.fingerprint() })
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let own = self.own();
        write!(f, "Credentials({:?}, {:?}, key redacted)", own.identity, own.serial)
    }
}

impl ResolvesServerCert for Credentials {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.key())
    }
}

impl ResolvesClientCert for Credentials {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.key())
    }

    fn has_certs(&self) -> bool {
        true
    }
}
