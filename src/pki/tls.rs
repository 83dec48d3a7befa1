//! The TLS of every connection between masters and agents: TLS 1.3 with certificates of the deployment's CA, HTTP/2, and
//! no session resumption, since a resumed session would skip the look at which certificates still count.

use std::{fmt, sync::Arc};

use arc_swap::ArcSwap;
use rustls::{
    ClientConfig, Error, RootCertStore, ServerConfig,
    client::{Resumption, WebPkiServerVerifier, danger::ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::ServerName,
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
    version::TLS13,
};
use tokio::sync::watch;

use super::{
    CaCert, ClientTls, Credentials, Identity, Pins, PkiError, Serial, ServerTls,
    verify::{Accept, ClientVerifier, EnrolmentVerifier, Policy, ServerVerifier},
};

const ALPN_HTTP2: &[u8] = b"h2";

/// Whom a process believes: the CAs of its deployment (one, and while another takes over from it both); all of their
/// certificates, or some ([`Trust::only`]). Clones share the CAs, so [`Trust::believe`] reaches every TLS configuration
/// made from it.
#[derive(Clone)]
pub struct Trust {
    deployment: Arc<str>,
    shared: Arc<Shared>,
    only: Option<Arc<[Serial]>>,
}

struct Shared {
    believed: ArcSwap<Believed>,
    /// Counts how often a CA was dropped.
    dropped: watch::Sender<u64>,
}

/// The CAs, and what webpki makes of them.
pub(super) struct Believed {
    cas: Vec<CaCert>,
    pub(super) servers: Arc<WebPkiServerVerifier>,
    pub(super) clients: Arc<dyn ClientCertVerifier>,
}

impl Believed {
    fn new(cas: Vec<CaCert>) -> Result<Self, PkiError> {
        let mut roots = RootCertStore::empty();
        for ca in &cas {
            roots.add(ca.der().clone())?;
        }
        let roots = Arc::new(roots);
        let broken = |error: rustls::client::VerifierBuilderError| PkiError::Tls(Error::General(error.to_string()));
        let servers = WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots), provider()).build();
        let clients = WebPkiClientVerifier::builder_with_provider(roots, provider()).build();
        Ok(Self { cas, servers: servers.map_err(broken)?, clients: clients.map_err(broken)? })
    }
}

impl Trust {
    /// In one CA.
    pub fn new(ca: CaCert) -> Result<Self, PkiError> {
        Self::in_all(vec![ca])
    }

    /// In all of these, which must be of one deployment.
    pub fn in_all(cas: Vec<CaCert>) -> Result<Self, PkiError> {
        let deployment: Arc<str> = cas.first().ok_or(PkiError::Nobody)?.deployment().into();
        if cas.iter().any(|ca| ca.deployment() != &*deployment) {
            return Err(PkiError::Deployment);
        }
        let shared = Shared { believed: ArcSwap::from_pointee(Believed::new(cas)?), dropped: watch::Sender::new(0) };
        Ok(Self { deployment, shared: Arc::new(shared), only: None })
    }

    /// From now on believes these and no others. What stands on one that is dropped ends: see [`Standing`].
    pub fn believe(&self, cas: Vec<CaCert>) -> Result<(), PkiError> {
        if cas.iter().any(|ca| ca.deployment() != &*self.deployment) {
            return Err(PkiError::Deployment);
        }
        if cas.is_empty() {
            return Err(PkiError::Nobody);
        }
        let before = self.shared.believed.swap(Arc::new(Believed::new(cas.clone())?));
        // After the swap: who stands since then was looked at by the new ones.
        if before.cas.iter().any(|ca| !cas.contains(ca)) {
            self.shared.dropped.send_modify(|dropped| *dropped += 1);
        }
        Ok(())
    }

    /// The CAs.
    pub fn cas(&self) -> Vec<CaCert> {
        self.shared.believed.load().cas.clone()
    }

    pub(super) fn believed(&self) -> Arc<Believed> {
        self.shared.believed.load_full()
    }

    pub(super) fn deployment(&self) -> &str {
        &self.deployment
    }

    /// To be taken before a handshake, and kept as long as its connection: whether that may go on.
    pub fn standing(&self) -> Standing {
        let dropped = self.shared.dropped.subscribe();
        let since = *dropped.borrow();
        Standing { since, dropped }
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
        Policy { deployment: self.deployment.to_string(), accept, only: self.only.clone() }
    }

    fn server(&self, own: &Credentials, accept: Accept, mandatory: bool) -> Result<ServerTls, PkiError> {
        let verifier = ClientVerifier { trust: self.clone(), policy: self.policy(accept), mandatory };
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_cert_resolver(Arc::new(own.clone()));
        config.alpn_protocols = vec![ALPN_HTTP2.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(ServerTls::new(config, self.clone()))
    }

    fn client(&self, own: &Credentials, accept: Accept, server: &Identity) -> Result<ClientTls, PkiError> {
        let verifier = ServerVerifier { trust: self.clone(), policy: self.policy(accept) };
        client(provider(), Arc::new(verifier), Some(own), server)
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust").field("cas", &self.cas()).field("only", &self.only).finish_non_exhaustive()
    }
}

/// What a connection rests on: the CAs that were believed at its handshake. It is over once one of them is dropped: the
/// connection may be one of its making. Another one may do.
#[derive(Clone, Debug)]
pub struct Standing {
    since: u64,
    dropped: watch::Receiver<u64>,
}

impl Standing {
    /// Whether the connection must not be used any more.
    pub fn is_over(&self) -> bool {
        *self.dropped.borrow() != self.since
    }

    /// Waits for that.
    pub async fn over(&self) {
        let mut dropped = self.dropped.clone();
        if dropped.wait_for(|dropped| *dropped != self.since).await.is_err() {
            // There is nobody left to drop anything.
            std::future::pending().await
        }
    }
}

/// How a new agent reaches a master: it has no certificate, and knows the CA by the fingerprints that came with its join
/// token.
pub fn for_enrolment(pins: impl Into<Pins>) -> Result<ClientTls, PkiError> {
    let provider = provider();
    let verifier = EnrolmentVerifier { pins: pins.into(), provider: provider.clone() };
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
