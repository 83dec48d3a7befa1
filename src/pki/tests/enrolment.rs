//! Of an agent that has no certificate, and only the CA's fingerprint.

use super::*;

#[tokio::test]
async fn a_new_agent_finds_its_master_by_the_cas_fingerprint() {
    let d = Deployment::new("d");
    let addr = d.master_server(&d.issue(&master())).await;
    let fingerprint: Fingerprint = d.ca.cert().fingerprint().to_string().parse().unwrap();
    assert_eq!(ask(&for_enrolment(fingerprint).unwrap(), addr).await.unwrap(), "nobody");
}

#[tokio::test]
async fn another_fingerprint_is_refused() {
    let (d, other) = (Deployment::new("d"), Deployment::new("d"));
    let addr = d.master_server(&d.issue(&master())).await;
    let refused = refusal(&for_enrolment(other.ca.cert().fingerprint()).unwrap(), addr).await;
    assert!(refused.contains("Fingerprint"), "{refused}");
}

#[tokio::test]
async fn an_agent_is_no_master_to_enrol_with() {
    let d = Deployment::new("d");
    let addr = d.master_server(&d.issue(&agent("h1"))).await;
    let refused = refusal(&for_enrolment(d.ca.cert().fingerprint()).unwrap(), addr).await;
    assert!(refused.contains("certificate not valid for name"), "{refused}");
}

/// The CA's certificate is public: anybody can show it beside a leaf of their own.
#[tokio::test]
async fn showing_the_right_ca_is_not_enough() {
    let (d, evil) = (Deployment::new("d"), Deployment::new("d"));
    let (issued, key) = evil.ca.issue(&master(), DEFAULT_LIFETIME, now(), &mut rng()).unwrap();
    let impostor = Credentials::from_pem(&issued.cert_pem, &key, d.ca.cert()).unwrap();
    let addr = serve(evil.trust.master_server(&impostor).unwrap()).await;
    let refused = refusal(&for_enrolment(d.ca.cert().fingerprint()).unwrap(), addr).await;
    assert!(refused.contains("UnknownIssuer") || refused.contains("BadSignature"), "{refused}");
}

#[tokio::test]
async fn a_leaf_with_the_right_fingerprint_is_no_ca() {
    let d = Deployment::new("d");
    let own = d.issue(&master());
    let (issued, key) = d.ca.issue(&master(), DEFAULT_LIFETIME, now(), &mut rng()).unwrap();
    own.replace(&issued.cert_pem, &key, d.ca.cert()).unwrap();
    let leaf = ca::first_certificate(&issued.cert_pem).unwrap();
    let addr = d.master_server(&own).await;
    assert!(ask(&for_enrolment(Fingerprint::of(&leaf)).unwrap(), addr).await.is_err());
}

#[test]
fn the_ca_in_an_answer_must_be_the_pinned_one() {
    let (d, other) = (Deployment::new("d"), Deployment::new("d"));
    let pem = d.ca.cert().pem();
    assert_eq!(&CaCert::from_pem_pinned(&pem, d.ca.cert().fingerprint()).unwrap(), d.ca.cert());
    let refused = CaCert::from_pem_pinned(&pem, other.ca.cert().fingerprint());
    assert!(matches!(refused, Err(PkiError::Fingerprint)));
}
