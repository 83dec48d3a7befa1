//! The TLS of every connection between masters and agents: TLS 1.3 with certificates of the deployment's CA, HTTP/2, and
//! no session resumption, since a resumed session would skip the look at which certificates still count.

use std::sync::Arc;

use rustls::{
    ClientConfig, Error, ServerConfig,
    client::{Resumption, danger::ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::ServerName,
    server::{NoServerSessionStorage, WebPkiClientVerifier},
    version::TLS13,
};

use super::{
    CaCert, ClientTls, Credentials, Fingerprint, Identity, PkiError, Serial, ServerTls,
    verify::{Accept, ClientVerifier, EnrolmentVerifier, Policy, ServerVerifier, roots, server_verifier},
};

const ALPN_HTTP2: &[u8] = b"h2";

/// Whom a process believes: the CA of its deployment; all of its certificates, or some ([`Trust::only`]).
#[derive(Clone, Debug)]
pub struct Trust {
    ca: CaCert,
    only: Option<Arc<[Serial]>>,
}

impl Trust {
    pub fn new(ca: CaCert) -> Self {
        Self { ca, only: None }
    }

    pub fn ca(&self) -> &CaCert {
        &self.ca
    }

    /// Believes none but these certificates any more: what was superseded or revoked is void, however good its signature.
    #[must_use]
    pub fn only(self, serials: &[Serial]) -> Self {
        Self { only: Some(serials.into()), ..self }
    }

    /// How an agent listens: to masters only.
    pub fn agent_server(&self, own: &Credentials) -> Result<ServerTls, PkiError> {
        self.server(own, Accept::Master, true)
    }

    /// How a master listens to agents. A client without a certificate gets in, because one that enrols has none; who it
    /// is, [`super::peer_identity`] says. A certificate that is presented must be an agent's and good.
    pub fn master_server(&self, own: &Credentials) -> Result<ServerTls, PkiError> {
        self.server(own, Accept::AnyAgent, false)
    }

    /// How a master reaches one host's agent, and no other's.
    pub fn dial_agent(&self, own: &Credentials, host_id: &str) -> Result<ClientTls, PkiError> {
        let agent = Identity::Agent { host_id: host_id.into() };
        self.client(own, Accept::Agent { host_id: host_id.into() }, &agent)
    }

    /// How an agent that has its certificate reaches any master.
    pub fn dial_master(&self, own: &Credentials) -> Result<ClientTls, PkiError> {
        self.client(own, Accept::Master, &any_master())
    }

    fn policy(&self, accept: Accept) -> Policy {
        Policy { deployment: self.ca.deployment().to_owned(), accept, only: self.only.clone() }
    }

    fn server(&self, own: &Credentials, accept: Accept, mandatory: bool) -> Result<ServerTls, PkiError> {
        let provider = provider();
        let mut webpki = WebPkiClientVerifier::builder_with_provider(roots(&self.ca)?, provider.clone());
        if !mandatory {
            webpki = webpki.allow_unauthenticated();
        }
        let webpki = webpki.build().map_err(|error| Error::General(error.to_string()))?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(Arc::new(ClientVerifier { webpki, policy: self.policy(accept) }))
            .with_cert_resolver(Arc::new(own.clone()));
        config.alpn_protocols = vec![ALPN_HTTP2.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(ServerTls::new(config, self.ca.deployment()))
    }

    fn client(&self, own: &Credentials, accept: Accept, server: &Identity) -> Result<ClientTls, PkiError> {
        let provider = provider();
        let webpki = server_verifier(&self.ca, &provider)?;
        let verifier = ServerVerifier { webpki, policy: self.policy(accept) };
        client(provider, Arc::new(verifier), Some(own), server)
    }
}

/// How a new agent reaches a master: it has no certificate, and knows the CA by the fingerprint that
/// came with its join token.
pub fn for_enrolment(ca: Fingerprint) -> Result<ClientTls, PkiError> {
    let provider = provider();
    let verifier = EnrolmentVerifier { ca, provider: provider.clone() };
    client(provider, Arc::new(verifier), None, &any_master())
}

fn client(
    provider: Arc<CryptoProvider>,
    verifier: Arc<dyn ServerCertVerifier>,
    own: Option<&Credentials>,
    server: &Identity,
) -> Result<ClientTls, PkiError> {
    let name = ServerName::try_from(server.dns_name()).map_err(|_| PkiError::Name { what: "host_id" })?;
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match own {
        Some(own) => config.with_client_cert_resolver(Arc::new(own.clone())),
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = vec![ALPN_HTTP2.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(ClientTls::new(config, name))
}

/// All masters share a name, so the id in this one does not matter.
fn any_master() -> Identity {
    Identity::Master { id: String::new() }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}
