//! The checks of a peer's certificate beyond what webpki makes: whose it is, and whether it still counts.

use std::sync::Arc;

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};

use super::{CaCert, Fingerprint, Identity, Peer, Pins, PkiError, Serial, Trust};

/// Whom to accept at the other end.
#[derive(Clone, Debug)]
pub(super) enum Accept {
    Master,
    AnyAgent,
    Agent { host_id: String },
}

impl Accept {
    fn allows(&self, identity: &Identity) -> bool {
        match (self, identity) {
            (Self::Master, Identity::Master { .. }) | (Self::AnyAgent, Identity::Agent { .. }) => true,
            (Self::Agent { host_id: wanted }, Identity::Agent { host_id }) => wanted == host_id,
            _ => false,
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Policy {
    pub deployment: String,
    pub accept: Accept,
    /// Where there is one, the list of the certificates that count.
    pub only: Option<Arc<[Serial]>>,
}

impl Policy {
    /// The certificate is known to be the CA's and in time; is its holder one we talk to?
    pub(super) fn check(&self, certificate: &CertificateDer<'_>) -> Result<(), Error> {
        let peer = Peer::from_cert(certificate, &self.deployment).map_err(refused)?;
        let listed = self.only.as_ref().is_none_or(|only| only.contains(&peer.serial));
        if !listed {
            return Err(CertificateError::Revoked.into());
        }
        if self.accept.allows(&peer.identity) {
            Ok(())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }
}

fn refused(error: PkiError) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
}

/// The client's check of a server: webpki's (chain, time, usage, name) with the CAs that are believed now, then the policy.
#[derive(Debug)]
pub(super) struct ServerVerifier {
    pub trust: Trust,
    pub policy: Policy,
}

impl ServerVerifier {
    fn webpki(&self) -> Arc<WebPkiServerVerifier> {
        Arc::clone(&self.trust.believed().servers)
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self.webpki().verify_server_cert(end_entity, intermediates, server_name, ocsp, now)?;
        self.policy.check(end_entity)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.webpki().verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.webpki().verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki().supported_verify_schemes()
    }
}

/// The server's check of a client: webpki's with the CAs that are believed now, then the policy.
#[derive(Debug)]
pub(super) struct ClientVerifier {
    pub trust: Trust,
    pub policy: Policy,
    /// Whether it must show a certificate.
    pub mandatory: bool,
}

impl ClientVerifier {
    fn webpki(&self) -> Arc<dyn ClientCertVerifier> {
        Arc::clone(&self.trust.believed().clients)
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // Nobody here has certificates to choose from, and all our CAs have one name.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.webpki().verify_client_cert(end_entity, intermediates, now)?;
        self.policy.check(end_entity)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.webpki().verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.webpki().verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki().supported_verify_schemes()
    }
}

/// A new agent's check of the master it enrols with: all it has is the CA's fingerprint, which came with its join token, so
/// the CA's certificate must be in the chain, and the leaf must be a master's under it.
#[derive(Debug)]
pub(super) struct EnrolmentVerifier {
    pub pins: Pins,
    pub provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for EnrolmentVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let pinned = intermediates
            .iter()
            .find(|certificate| self.pins.contains(Fingerprint::of(certificate)))
            .ok_or_else(|| refused(PkiError::Fingerprint))?;
        let ca = CaCert::from_der(pinned).map_err(refused)?;
        let policy = Policy { deployment: ca.deployment().to_owned(), accept: Accept::Master, only: None };
        let trust = Trust::new(ca).map_err(refused)?;
        ServerVerifier { trust, policy }.verify_server_cert(end_entity, &[], server_name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        // The configuration offers TLS 1.3 only.
        Err(Error::General("TLS 1.2 is not spoken here".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
