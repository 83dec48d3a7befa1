//! The certificate of an lnd, as rustls sees it.

use std::{net::IpAddr, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    pki_types::{PrivateKeyDer, ServerName, pem::PemObject},
};
use time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{super::lnd_cert::*, *};

/// Whether a client that trusts `pinned` alone accepts a server with `cert` under this name.
async fn accepts(pinned: &LndCert, cert: &LndCert, name: &str) -> bool {
    let leaf = |cert: &LndCert| ca::first_certificate(&cert.cert_pem).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = PrivateKeyDer::from_pem_slice(cert.key_pem.as_bytes()).unwrap();
    let server = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf(cert)], key)
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(leaf(pinned)).unwrap();
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let served = tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        TlsAcceptor::from(Arc::new(server)).accept(tcp).await.is_ok()
    });
    let tcp = TcpStream::connect(addr).await.unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let connected = TlsConnector::from(Arc::new(client)).connect(name, tcp).await.is_ok();
    connected && served.await.unwrap()
}

fn make() -> LndCert {
    let private: IpAddr = "10.1.2.3".parse().unwrap();
    make_lnd_cert(&[private, "127.0.0.1".parse().unwrap()], &["lnd.example".into()], now()).unwrap()
}

#[tokio::test]
async fn a_pinned_lnd_is_accepted_under_each_of_its_names() {
    let cert = make();
    for name in ["localhost", "127.0.0.1", "::1", "10.1.2.3", "lnd.example"] {
        assert!(accepts(&cert, &cert, name).await, "{name}");
    }
    assert!(!accepts(&cert, &cert, "10.9.9.9").await);
}

#[test]
fn a_certificate_is_known_by_its_names_and_no_others() {
    let cert = make().cert_pem;
    assert!(names(&cert, "lnd.example").unwrap());
    for other in ["lnd", "example", "10.1.2.3", "LND.example", ""] {
        assert!(!names(&cert, other).unwrap(), "{other}");
    }
    assert!(names("no certificate", "lnd.example").is_err());
}

#[tokio::test]
async fn another_lnd_at_the_same_address_is_refused() {
    assert!(!accepts(&make(), &make(), "127.0.0.1").await);
}

#[test]
fn it_lives_twenty_years_and_is_no_ca() {
    let cert = make();
    let years = (not_after(&cert.cert_pem).unwrap() - now()).whole_days() / 365;
    assert!((19..=20).contains(&years), "{years}");
    assert!(Validity::of_pem(&cert.cert_pem).unwrap().contains(now() - Duration::minutes(30)));
    let der = ca::first_certificate(&cert.cert_pem).unwrap();
    let parsed = parse(&der).unwrap();
    assert!(!parsed.is_ca());
    assert!(not_after("rubbish").is_err());
}

#[test]
fn its_key_is_not_in_debug() {
    assert!(!format!("{:?}", make()).contains("PRIVATE"));
}
