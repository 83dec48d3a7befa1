//! Between masters and agents that are enrolled.

use std::time::Duration as StdDuration;

use time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::*;

/// Long enough for a certificate of [`DEFAULT_LIFETIME`] to have expired.
const LONG_AGO: Duration = Duration::days(31);

/// What the server's alert says, by reason.
const NOT_ALLOWED: &[&str] = &["AccessDenied"];
const REVOKED: &[&str] = &["CertificateRevoked"];
const EXPIRED: &[&str] = &["CertificateExpired"];
/// The second where the stranger's CA has our CA's name.
const STRANGER: &[&str] = &["UnknownCA", "DecryptError"];

#[tokio::test]
async fn a_master_commands_the_agent_it_means() {
    let d = Deployment::new("d");
    let (master, host) = (d.issue(&master()), d.issue(&agent("h1")));
    let addr = d.agent_server(&host).await;
    let seen = ask(&d.trust.dial_agent(&master, "h1").unwrap(), addr).await.unwrap();
    assert_eq!(seen, format!("scale-lnd://d/master/m1 {}", master.own().serial));
}

#[tokio::test]
async fn a_master_knows_which_agent_reports() {
    let d = Deployment::new("d");
    let (own, host) = (d.issue(&master()), d.issue(&agent("h1")));
    let addr = d.master_server(&own).await;
    let seen = ask(&d.trust.dial_master(&host).unwrap(), addr).await.unwrap();
    assert_eq!(seen, format!("scale-lnd://d/agent/h1 {}", host.own().serial));
}

#[tokio::test]
async fn an_agents_certificate_commands_nobody() {
    let d = Deployment::new("d");
    let (h1, h2) = (d.issue(&agent("h1")), d.issue(&agent("h2")));
    let addr = d.agent_server(&h2).await;
    assert_alert(&refusal(&d.trust.dial_agent(&h1, "h2").unwrap(), addr).await, NOT_ALLOWED);
    // Not even its own agent.
    assert_alert(&refusal(&d.trust.dial_agent(&h2, "h2").unwrap(), addr).await, NOT_ALLOWED);
}

#[tokio::test]
async fn an_agent_does_not_pass_for_a_master() {
    let d = Deployment::new("d");
    let (h1, h2) = (d.issue(&agent("h1")), d.issue(&agent("h2")));
    // It listens where a master should.
    let addr = d.master_server(&h1).await;
    let refused = refusal(&d.trust.dial_master(&h2).unwrap(), addr).await;
    assert!(refused.contains("certificate not valid for name"), "{refused}");
}

#[tokio::test]
async fn a_host_does_not_pass_for_another() {
    let d = Deployment::new("d");
    let (master, h2) = (d.issue(&master()), d.issue(&agent("h2")));
    let addr = d.agent_server(&h2).await;
    let refused = refusal(&d.trust.dial_agent(&master, "h1").unwrap(), addr).await;
    assert!(refused.contains("certificate not valid for name"), "{refused}");
}

#[tokio::test]
async fn a_master_does_not_pass_for_a_host() {
    let d = Deployment::new("d");
    let own = d.issue(&master());
    let addr = d.agent_server(&own).await;
    let refused = refusal(&d.trust.dial_agent(&own, "h1").unwrap(), addr).await;
    assert!(refused.contains("certificate not valid for name"), "{refused}");
}

/// A host that has enrolled anew: the certificate from before has the same key and name, and time left.
#[tokio::test]
async fn of_several_certificates_only_those_that_are_listed_count() {
    let d = Deployment::new("d");
    let (master, listed, old) = (d.issue(&master()), d.issue(&agent("h1")), d.issue(&agent("h1")));
    let dial = d.trust.clone().only(&[listed.own().serial]).dial_agent(&master, "h1").unwrap();
    ask(&dial, d.agent_server(&listed).await).await.unwrap();
    let refused = refusal(&dial, d.agent_server(&old).await).await;
    assert!(refused.contains("revoked") || refused.contains("Revoked"), "{refused}");
}

/// The names agree, so that only the look at the role is left to refuse.
#[test]
fn the_role_counts_apart_from_the_name() {
    let accepts = |accept: verify::Accept, identity: &Identity| {
        let d = Deployment::new("d");
        let (issued, _) = d.ca.issue(identity, DEFAULT_LIFETIME, now(), &mut rng()).unwrap();
        let policy = verify::Policy { deployment: "d".into(), accept, only: None };
        policy.check(&ca::first_certificate(&issued.cert_pem).unwrap()).is_ok()
    };
    use verify::Accept;
    assert!(accepts(Accept::Master, &master()));
    assert!(!accepts(Accept::Master, &agent("m1")));
    assert!(accepts(Accept::AnyAgent, &agent("h1")));
    assert!(!accepts(Accept::AnyAgent, &master()));
    assert!(accepts(Accept::Agent { host_id: "h1".into() }, &agent("h1")));
    assert!(!accepts(Accept::Agent { host_id: "h1".into() }, &agent("h2")));
    assert!(!accepts(Accept::Agent { host_id: "m1".into() }, &master()));
}

#[tokio::test]
async fn another_deployment_is_a_stranger_on_both_sides() {
    // The second has the same name and another key; the third neither.
    let d = Deployment::new("d");
    for other in [Deployment::new("d"), Deployment::new("e")] {
        let (ours, theirs) = (d.issue(&agent("h1")), other.issue(&agent("h1")));
        let (our_master, their_master) = (d.issue(&master()), other.issue(&master()));

        // Their master before our agent; it believes our CA, so that only our agent's refusal is seen.
        let addr = d.agent_server(&ours).await;
        assert_alert(&refusal(&d.trust.dial_agent(&their_master, "h1").unwrap(), addr).await, STRANGER);
        // Our master before their agent, which would let it in.
        let gullible = serve(d.trust.agent_server(&theirs).unwrap()).await;
        let refused = refusal(&d.trust.dial_agent(&our_master, "h1").unwrap(), gullible).await;
        assert!(is_unknown_issuer(&refused), "{refused}");

        let addr = d.master_server(&our_master).await;
        assert_alert(&refusal(&d.trust.dial_master(&theirs).unwrap(), addr).await, STRANGER);
        let gullible = serve(d.trust.master_server(&their_master).unwrap()).await;
        let refused = refusal(&d.trust.dial_master(&ours).unwrap(), gullible).await;
        assert!(is_unknown_issuer(&refused), "{refused}");
    }
}

#[tokio::test]
async fn without_a_certificate_an_agent_hears_nobody() {
    let d = Deployment::new("d");
    let addr = d.agent_server(&d.issue(&agent("h1"))).await;
    let mut config = rustls::ClientConfig::builder().with_root_certificates(roots(&d)).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let name = agent("h1").dns_name().try_into().unwrap();
    assert_alert(&refusal(&ClientTls::new(config, name), addr).await, &["CertificateRequired"]);
}

#[tokio::test]
async fn a_revoked_certificate_is_refused_on_both_sides() {
    let d = Deployment::new("d");
    let (own, host) = (d.issue(&master()), d.issue(&agent("h1")));
    let (old_own, old_host) = (d.issue(&master()), d.issue(&agent("h1")));
    let trust = d.trust.clone().only(&[own.own().serial, host.own().serial]);

    let addr = serve(trust.agent_server(&host).unwrap()).await;
    ask(&trust.dial_agent(&own, "h1").unwrap(), addr).await.unwrap();
    assert_alert(&refusal(&trust.dial_agent(&old_own, "h1").unwrap(), addr).await, REVOKED);
    let addr = serve(trust.master_server(&own).unwrap()).await;
    ask(&trust.dial_master(&host).unwrap(), addr).await.unwrap();
    assert_alert(&refusal(&trust.dial_master(&old_host).unwrap(), addr).await, REVOKED);

    let to_old_host = refusal(&trust.dial_agent(&own, "h1").unwrap(), d.agent_server(&old_host).await).await;
    let to_old_own = refusal(&trust.dial_master(&host).unwrap(), d.master_server(&old_own).await).await;
    for refused in [to_old_host, to_old_own] {
        assert!(refused.to_lowercase().contains("revoked"), "{refused}");
    }
}

#[tokio::test]
async fn an_expired_certificate_is_refused_on_both_sides() {
    let d = Deployment::new("d");
    let (own, host) = (d.issue(&master()), d.issue(&agent("h1")));
    let (old_own, old_host) = (d.issue_at(&master(), now() - LONG_AGO), d.issue_at(&agent("h1"), now() - LONG_AGO));
    let addr = d.agent_server(&host).await;
    assert_alert(&refusal(&d.trust.dial_agent(&old_own, "h1").unwrap(), addr).await, EXPIRED);
    let addr = d.agent_server(&old_host).await;
    let refused = refusal(&d.trust.dial_agent(&own, "h1").unwrap(), addr).await;
    assert!(refused.contains("expired"), "{refused}");
    let addr = d.master_server(&own).await;
    assert_alert(&refusal(&d.trust.dial_master(&old_host).unwrap(), addr).await, EXPIRED);
    assert!(!old_host.own().is_good(now()));
    assert!(host.own().is_good(now()));
}

#[tokio::test]
async fn a_renewed_certificate_is_presented_without_a_new_configuration() {
    let d = Deployment::new("d");
    let (own, host) = (d.issue(&master()), d.issue(&agent("h1")));
    let addr = d.master_server(&own).await;
    let tls = d.trust.dial_master(&host).unwrap();
    let before = ask(&tls, addr).await.unwrap();
    let (renewed, key) = d.ca.issue(&agent("h1"), DEFAULT_LIFETIME, now(), &mut rng()).unwrap();
    host.replace(&renewed.cert_pem, &key, d.ca.cert()).unwrap();
    let after = ask(&tls, addr).await.unwrap();
    assert_ne!(before, after);
    assert_eq!(after, format!("scale-lnd://d/agent/h1 {}", renewed.serial));
    assert!(host.replace(&renewed.cert_pem, &make_csr().unwrap().0, d.ca.cert()).is_err(), "another's key");
}

#[tokio::test]
async fn silent_clients_hold_up_nobody() {
    let d = Deployment::new("d");
    let (own, host) = (d.issue(&master()), d.issue(&agent("h1")));
    let addr = d.agent_server(&host).await;
    let mut silent = Vec::new();
    // More than there are handshakes at once: all but a source's share of them are refused.
    for _ in 0..600 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        silent.push(socket.connect(addr).await.unwrap());
    }
    let tls = d.trust.dial_agent(&own, "h1").unwrap();
    tokio::time::timeout(StdDuration::from_secs(5), ask(&tls, addr)).await.unwrap().unwrap();
}

/// Connects without a certificate, until the server closes the connection: after how long?
async fn stay_as_a_stranger(d: &Deployment, addr: SocketAddr) -> StdDuration {
    let mut config = rustls::ClientConfig::builder().with_root_certificates(roots(d)).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let name = master().dns_name().try_into().unwrap();
    let tcp = TcpStream::connect(addr).await.unwrap();
    let mut tls = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config)).connect(name, tcp).await.unwrap();
    let began = std::time::Instant::now();
    // The preface of HTTP/2 and its settings, so that it is the server that has no more patience.
    let hello = *b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let _ = tls.write_all(&hello).await;
    let _ = tls.read_to_end(&mut Vec::new()).await;
    began.elapsed()
}

#[tokio::test]
async fn who_shows_no_certificate_stays_for_a_while_and_not_in_numbers() {
    const SOON: StdDuration = StdDuration::from_secs(60);
    let d = Deployment::new("d");
    let (own, host) = (d.issue(&master()), d.issue(&agent("h1")));
    let listening = |life, all| {
        let mut tls = d.trust.master_server(&own).unwrap();
        tls.strangers = transport::Strangers { all, each: 1, life };
        serve(tls)
    };
    // After its time, which the next one has again.
    let life = StdDuration::from_millis(200);
    let addr = listening(life, 2).await;
    for _ in 0..2 {
        let stayed = tokio::time::timeout(SOON, stay_as_a_stranger(&d, addr)).await.expect("it is closed");
        assert!(stayed >= life, "{stayed:?}");
    }
    // At once, since somebody of the same source is there already.
    let addr = listening(StdDuration::from_secs(3600), 2).await;
    let (first, second) = (Box::pin(stay_as_a_stranger(&d, addr)), Box::pin(stay_as_a_stranger(&d, addr)));
    let ended = tokio::time::timeout(SOON, futures::future::select(first, second)).await;
    let (futures::future::Either::Left((_, kept)) | futures::future::Either::Right((_, kept))) = ended.expect("one is");
    // Whoever shows a certificate is let in all the same.
    ask(&d.trust.dial_master(&host).unwrap(), addr).await.unwrap();
    drop(kept);
}

fn roots(d: &Deployment) -> rustls::RootCertStore {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(d.ca.cert().der().clone()).unwrap();
    roots
}

fn assert_alert(refusal: &str, alerts: &[&str]) {
    let told = |alert| refusal.contains(&format!("received fatal alert: {alert}"));
    assert!(alerts.iter().any(told), "{refusal}");
}

fn is_unknown_issuer(refusal: &str) -> bool {
    refusal.contains("UnknownIssuer") || refusal.contains("BadSignature")
}
