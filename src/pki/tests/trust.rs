//! One authority takes over from another of the same name.

use super::*;

/// Two authorities of one deployment, and somebody who believes both.
fn two() -> (Deployment, Deployment, Trust) {
    let (former, next) = (Deployment::new("d"), Deployment::new("d"));
    let both = Trust::in_all(vec![former.ca.cert().clone(), next.ca.cert().clone()]).unwrap();
    (former, next, both)
}

#[tokio::test]
async fn two_authorities_are_believed_until_one_is_dropped() {
    let (former, next, both) = two();
    let (old_own, new_own) = (former.issue(&master()), next.issue(&master()));
    let (old_host, new_host) = (former.issue(&agent("h1")), next.issue(&agent("h1")));
    let agent_of_both = serve(both.agent_server(&old_host).unwrap()).await;
    let master_of_both = serve(both.master_server(&new_own).unwrap()).await;
    for own in [&old_own, &new_own] {
        ask(&both.dial_agent(own, "h1").unwrap(), agent_of_both).await.unwrap();
    }
    for own in [&old_host, &new_host] {
        ask(&both.dial_master(own).unwrap(), master_of_both).await.unwrap();
    }
    let (by_old, by_new) = (both.dial_agent(&old_own, "h1").unwrap(), both.dial_agent(&new_own, "h1").unwrap());
    let dials = both.dial_agent(&new_own, "h1").unwrap();

    both.believe(vec![next.ca.cert().clone()]).unwrap();
    // Who believed it only a moment ago knows nobody of its any more, on either side.
    let refused = refusal(&dials, agent_of_both).await;
    assert!(refused.contains("UnknownIssuer") || refused.contains("BadSignature"), "{refused}");
    let listening = serve(both.agent_server(&new_host).unwrap()).await;
    ask(&by_new, listening).await.unwrap();
    let refused = refusal(&by_old, listening).await;
    assert!(refused.contains("alert"), "{refused}");
    let refused = refusal(&both.dial_master(&old_host).unwrap(), master_of_both).await;
    assert!(refused.contains("alert"), "{refused}");
    ask(&both.dial_master(&new_host).unwrap(), master_of_both).await.unwrap();
}

#[tokio::test]
async fn a_connection_ends_with_an_authority_that_may_have_made_it() {
    let (former, next, both) = two();
    let own = former.issue(&master());
    let addr = serve(both.agent_server(&next.issue(&agent("h1"))).unwrap()).await;
    let tls = both.dial_agent(&own, "h1").unwrap();
    let mut open = tls.connect(&ClientTls::endpoint(&addr.to_string()).unwrap()).await.unwrap();
    let standing = both.standing();
    assert!(ask_over(&mut open).await.unwrap().starts_with("scale-lnd://d/master/m1"));
    // That one more is believed, or the same in another order, harms nobody.
    both.believe(vec![next.ca.cert().clone(), former.ca.cert().clone()]).unwrap();
    assert!(!standing.is_over());
    assert!(ask_over(&mut open).await.unwrap().starts_with("scale-lnd://d/master/m1"));

    both.believe(vec![next.ca.cert().clone()]).unwrap();
    assert!(standing.is_over() && !both.standing().is_over());
    standing.over().await;
    assert_eq!(ask_over(&mut open).await.unwrap(), "refused");
    // Another one, by a good certificate, does.
    let renewed = next.issue(&master());
    assert!(ask(&both.dial_agent(&renewed, "h1").unwrap(), addr).await.unwrap().starts_with("scale-lnd://d/master/m1"));
}

#[test]
fn nobody_else_is_ever_believed() {
    let (former, next, both) = two();
    assert!(matches!(both.believe(Vec::new()), Err(PkiError::Nobody)));
    let other = Deployment::new("other");
    assert!(matches!(both.believe(vec![other.ca.cert().clone()]), Err(PkiError::Deployment)));
    assert!(Trust::in_all(vec![former.ca.cert().clone(), other.ca.cert().clone()]).is_err());
    assert_eq!(both.cas(), [former.ca.cert().clone(), next.ca.cert().clone()]);
}

#[test]
fn who_has_issued_a_certificate_is_known_by_the_signature() {
    let (former, next, both) = two();
    let (issued, _) = next.ca.issue(&agent("h1"), DEFAULT_LIFETIME, now(), &mut rng()).unwrap();
    assert_eq!(CaCert::issuer_of(&both.cas(), &issued.cert_pem).unwrap(), Some(next.ca.cert()));
    assert_eq!(CaCert::issuer_of(&[former.ca.cert().clone()], &issued.cert_pem).unwrap(), None);
    assert_eq!(former.issue(&master()).issuer(), former.ca.cert().fingerprint());
}

#[tokio::test]
async fn a_new_agent_finds_its_master_by_either_of_two_fingerprints() {
    let (former, next, _) = two();
    let pins: Pins = format!("{},{}", former.ca.cert().fingerprint(), next.ca.cert().fingerprint()).parse().unwrap();
    for d in [&former, &next] {
        let addr = d.master_server(&d.issue(&master())).await;
        assert_eq!(ask(&for_enrolment(pins.clone()).unwrap(), addr).await.unwrap(), "nobody");
    }
    let other = Deployment::new("d");
    let addr = other.master_server(&other.issue(&master())).await;
    assert!(refusal(&for_enrolment(pins.clone()).unwrap(), addr).await.contains("Fingerprint"));
    assert_eq!(pins.to_string().parse::<Pins>().unwrap(), pins);
    assert!("".parse::<Pins>().is_err() && format!("{pins},").parse::<Pins>().is_err());
}
