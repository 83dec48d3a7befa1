//! What the CA certifies, and what it does not.

use proptest::prelude::*;
use rcgen::{CertificateParams, DnType, IsCa, KeyPair, SanType};
use time::Duration;

use super::*;

#[test]
fn the_issuer_says_who_it_is_whatever_the_request_asks_for() {
    let d = Deployment::new("d");
    let mut asked = CertificateParams::default();
    asked.distinguished_name.push(DnType::CommonName, "master");
    asked.subject_alt_names = vec![
        SanType::URI("scale-lnd://d/master/m1".try_into().unwrap()),
        SanType::DnsName("master.scale-lnd.internal".try_into().unwrap()),
    ];
    asked.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let csr = asked.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap();

    let issued = d.ca.issue_from_csr(&csr, &agent("h1"), DEFAULT_LIFETIME, now(), &mut rng()).unwrap();
    let leaf = ca::first_certificate(&issued.cert_pem).unwrap();
    let parsed = parse(&leaf).unwrap();
    let names = &parsed.subject_alternative_name().unwrap().unwrap().value.general_names;
    let wanted = [GeneralName::URI("scale-lnd://d/agent/h1"), GeneralName::DNSName("h1.agent.scale-lnd.internal")];
    assert_eq!(names.as_slice(), wanted);
    assert!(!parsed.is_ca());
    assert_eq!(parsed.subject().iter().count(), 0);
    assert_eq!(Peer::from_cert(&leaf, "d").unwrap().identity, agent("h1"));
    assert!(matches!(Peer::from_cert(&leaf, "e"), Err(PkiError::Deployment)));
}

#[test]
fn a_request_must_prove_its_key() {
    let d = Deployment::new("d");
    let (_, csr) = make_csr().unwrap();
    let (_, other) = make_csr().unwrap();
    let issue = |csr: &str| d.ca.issue_from_csr(csr, &agent("h1"), DEFAULT_LIFETIME, now(), &mut rng());
    assert!(issue(&csr).is_ok());
    // The signature of another request under this one's content.
    let der = |pem: &str| {
        use rustls::pki_types::{CertificateSigningRequestDer, pem::PemObject};
        CertificateSigningRequestDer::from_pem_slice(pem.as_bytes()).unwrap().to_vec()
    };
    let (mine, theirs) = (der(&csr), der(&other));
    let forged: Vec<u8> = mine[..mine.len() - 8].iter().chain(&theirs[theirs.len() - 8..]).copied().collect();
    let forged = format!(
        "-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n",
        base64::Engine::encode(&base64::prelude::BASE64_STANDARD, forged)
    );
    assert!(matches!(issue(&forged), Err(PkiError::Csr)));
    assert!(public_key_hash(&forged).is_err());
    for rubbish in ["", "rubbish", &"x".repeat(100_000), &d.ca.cert().pem()] {
        assert!(matches!(issue(rubbish), Err(PkiError::Csr)));
    }
}

#[test]
fn only_p256_keys_are_certified() {
    let d = Deployment::new("d");
    for algorithm in [&rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let csr = CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
        let refused = d.ca.issue_from_csr(&csr, &agent("h1"), DEFAULT_LIFETIME, now(), &mut rng());
        assert!(matches!(refused, Err(PkiError::CsrKey)), "{refused:?}");
    }
}

#[test]
fn a_key_is_known_by_its_hash() {
    let (key_pem, csr) = make_csr().unwrap();
    let again = CertificateParams::new(["x.example".to_owned()])
        .unwrap()
        .serialize_request(&KeyPair::from_pem(&key_pem).unwrap())
        .unwrap()
        .pem()
        .unwrap();
    assert_eq!(public_key_hash(&csr).unwrap(), public_key_hash(&again).unwrap());
    assert_ne!(public_key_hash(&csr).unwrap(), public_key_hash(&make_csr().unwrap().1).unwrap());
}

#[test]
fn a_ca_is_kept_as_pem() {
    let d = Deployment::new("d");
    let again = Ca::from_pem(&d.ca.cert().pem(), &d.ca.key_pem()).unwrap();
    assert_eq!(again.cert(), d.ca.cert());
    assert_eq!(again.cert().deployment(), "d");
    let other = Deployment::new("d");
    assert!(matches!(Ca::from_pem(&d.ca.cert().pem(), &other.ca.key_pem()), Err(PkiError::Key)));
    let leaf = d.ca.issue(&master(), DEFAULT_LIFETIME, now(), &mut rng()).unwrap().0.cert_pem;
    assert!(matches!(CaCert::from_pem(&leaf), Err(PkiError::Certificate)));
    // What the read-back CA issues, the first one's trust accepts.
    let (issued, key) = again.issue(&master(), DEFAULT_LIFETIME, now(), &mut rng()).unwrap();
    Credentials::from_pem(&issued.cert_pem, &key, d.ca.cert()).unwrap();
}

#[test]
fn no_key_is_in_debug() {
    let d = Deployment::new("d");
    let (issued, key_pem) = d.ca.issue(&master(), DEFAULT_LIFETIME, now(), &mut rng()).unwrap();
    let own = Credentials::from_pem(&issued.cert_pem, &key_pem, d.ca.cert()).unwrap();
    let server = d.trust.agent_server(&own).unwrap();
    let client = d.trust.dial_agent(&own, "h1").unwrap();
    let shown = format!("{:?} {own:?} {issued:?} {server:?} {client:?}", d.ca);
    for key in [&d.ca.key_pem(), &key_pem] {
        let inside = key.lines().nth(1).unwrap();
        assert!(!shown.contains(inside));
    }
    assert!(!shown.contains("PRIVATE"));
}

#[test]
fn it_renews_at_two_thirds_and_never_outlives_its_ca() {
    let d = Deployment::new("d");
    let at = now();
    let issue = |lifetime| d.ca.issue(&agent("h1"), lifetime, at, &mut rng()).unwrap().0;
    let validity = issue(Duration::days(30)).validity;
    assert!(validity.contains(at) && !validity.contains(at + Duration::days(31)));
    let renewal = validity.renew_at() - at;
    assert!(renewal > Duration::days(19) && renewal <= Duration::days(20), "{renewal}");
    let ca_end = Validity::of_pem(&d.ca.cert().pem()).unwrap().not_after;
    assert_eq!(issue(Duration::days(100 * 365)).validity.not_after, ca_end);
}

#[test]
fn serials_differ_and_are_read_back() {
    let d = Deployment::new("d");
    let issue = || d.ca.issue(&agent("h1"), DEFAULT_LIFETIME, now(), &mut rng()).unwrap().0;
    let (one, two) = (issue(), issue());
    assert_ne!(one.serial, two.serial);
    let leaf = ca::first_certificate(&one.cert_pem).unwrap();
    assert_eq!(Peer::from_cert(&leaf, "d").unwrap().serial, one.serial);
    assert_eq!(one.serial.to_string().parse::<Serial>().unwrap(), one.serial);
}

#[test]
fn an_id_that_is_no_dns_label_gets_no_certificate() {
    let d = Deployment::new("d");
    for id in ["", "a.b", "a/b", "A", "-a", "a-", "ü", &"a".repeat(64)] {
        let refused = d.ca.issue(&agent(id), DEFAULT_LIFETIME, now(), &mut rng());
        assert!(matches!(refused, Err(PkiError::Name { .. })), "{id}");
    }
    for name in ["", "a/b", "a b", &"a".repeat(64)] {
        assert!(Ca::create(name, now(), &mut rng()).is_err(), "{name}");
    }
}

proptest! {
    #[test]
    fn an_identity_is_read_back(deployment in "[A-Za-z0-9._-]{1,63}", id in "[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?") {
        for identity in [Identity::Master { id: id.clone() }, agent(&id)] {
            let uri = identity.uri(&deployment);
            prop_assert_eq!(Identity::parse_uri(&uri), Some((deployment.as_str(), identity)));
        }
    }

    #[test]
    fn an_identity_has_one_spelling(uri in "scale-lnd://[a-z/.]{0,3}/?(master|agent|ca)?/?[a-zA-Z/?#.]{0,3}") {
        if let Some((deployment, identity)) = Identity::parse_uri(&uri) {
            prop_assert_eq!(identity.uri(deployment), uri);
        }
    }
}
