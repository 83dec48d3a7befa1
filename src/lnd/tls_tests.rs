//! Which servers a pinned connection accepts. The servers are real ones, on loopback.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::super::{LndClient, LndErrorKind};
use super::*;

struct Identity {
    cert: CertificateDer<'static>,
    key: KeyPair,
}

fn identity(change: impl FnOnce(&mut CertificateParams)) -> Identity {
    let mut params = CertificateParams::new(vec!["somewhere.else".into()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, "test");
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    let cert = params.self_signed(&key).unwrap().der().clone();
    Identity { cert, key }
}

/// Shows one certificate with any key, which the usual ways refuse to be configured for.
#[derive(Debug)]
struct Show(Arc<CertifiedKey>);

impl ResolvesServerCert for Show {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

/// A TLS server for one connection: its address, and whether its side of the handshake succeeded, with the protocol
/// that was agreed on.
async fn serve(cert: &CertificateDer<'static>, key: &KeyPair) -> (String, JoinHandle<Option<Vec<u8>>>) {
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let key = PROVIDER.key_provider.load_private_key(key).unwrap();
    let show = Show(Arc::new(CertifiedKey::new(vec![cert.clone()], key)));
    let mut config = ServerConfig::builder_with_provider(Arc::clone(&PROVIDER))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(show));
    config.alpn_protocols = vec![b"h2".to_vec()];
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let serving = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let stream = TlsAcceptor::from(Arc::new(config)).accept(stream).await.ok()?;
        stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec)
    });
    (address, serving)
}

async fn call(address: &str, cert: &PinnedCert) -> LndErrorKind {
    let client = LndClient::new(address, cert).unwrap();
    client.wallet_state().await.unwrap_err().kind
}

#[tokio::test]
async fn the_pinned_certificate_is_accepted_whatever_it_says() {
    let expired = |params: &mut CertificateParams| {
        params.not_before = rcgen::date_time_ymd(2001, 1, 1);
        params.not_after = rcgen::date_time_ymd(2002, 1, 1);
    };
    let authority = |params: &mut CertificateParams| {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    };
    let plain = |params: &mut CertificateParams| params.is_ca = IsCa::ExplicitNoCa;
    for server in [identity(expired), identity(authority), identity(plain)] {
        let (address, serving) = serve(&server.cert, &server.key).await;
        let kind = call(&address, &PinnedCert::from_der(server.cert.to_vec())).await;
        assert_eq!(serving.await.unwrap().as_deref(), Some(b"h2".as_slice()));
        // The server hangs up after the handshake: what was sent may have arrived.
        assert_eq!(kind, LndErrorKind::Unknown);
    }
}

#[tokio::test]
async fn another_certificate_is_refused_before_anything_is_sent() {
    let server = identity(|_| {});
    let pinned = identity(|_| {});
    let (address, serving) = serve(&server.cert, &server.key).await;
    let kind = call(&address, &PinnedCert::from_der(pinned.cert.to_vec())).await;
    assert_eq!(kind, LndErrorKind::WrongCertificate);
    assert_eq!(serving.await.unwrap(), None);
}

#[tokio::test]
async fn the_pinned_certificate_without_its_key_is_refused() {
    let pinned = identity(|_| {});
    let other = identity(|_| {});
    let (address, serving) = serve(&pinned.cert, &other.key).await;
    let kind = call(&address, &PinnedCert::from_der(pinned.cert.to_vec())).await;
    assert_eq!(kind, LndErrorKind::Unreachable);
    assert_eq!(serving.await.unwrap(), None);
}

#[tokio::test]
async fn nobody_there_means_nothing_was_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let cert = PinnedCert::from_der(identity(|_| {}).cert.to_vec());
    assert_eq!(call(&address, &cert).await, LndErrorKind::Unreachable);
}

#[tokio::test]
async fn a_deadline_leaves_open_what_happened() {
    // Listens, so that the connection stands, and never speaks.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let cert = PinnedCert::from_der(identity(|_| {}).cert.to_vec());
    let client = LndClient::new(&address, &cert).unwrap();
    let error = client.within(Duration::from_millis(50)).wallet_state().await.unwrap_err();
    assert_eq!(error.kind, LndErrorKind::Unknown);
}

#[tokio::test]
async fn only_host_and_port_make_an_address() {
    let cert = PinnedCert::from_der(identity(|_| {}).cert.to_vec());
    for good in ["127.0.0.1:10009", "[::1]:10009", "lnd.example:443", "under_score:1"] {
        assert!(channel(good, &cert).is_ok(), "{good}");
    }
    for bad in ["", "127.0.0.1", "host:", ":1", "host:1/path", "http://host:1", "a b:1", "user@host:1", "host:1?x"] {
        assert!(channel(bad, &cert).is_err(), "{bad}");
    }
}

#[test]
fn a_certificate_is_read_from_pem_and_known_by_its_hash() {
    let server = identity(|_| {});
    let pem = format!(
        "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
        base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &server.cert)
    );
    let pinned = PinnedCert::from_pem(pem.as_bytes()).unwrap();
    assert_eq!(pinned, PinnedCert::from_der(server.cert.to_vec()));
    assert!(format!("{pinned:?}").starts_with("PinnedCert(sha256:"));
    assert!(PinnedCert::from_pem(b"nothing").is_err());
}
