//! Join tokens: who becomes a host.

use super::world::{World, timed};
use scale_lnd::app::fleet::JoinToken;
use scale_lnd::lndserver::proto::fleet_client::FleetClient;
use scale_lnd::lndserver::proto::{EnrolRequest, EnrolResponse};
use scale_lnd::model::host::{Enrolment, Host};
use scale_lnd::pki::{self, ClientTls};
use tonic::{Code, Status};

async fn enrol(world: &World, token: &str, csr_pem: &str) -> Result<EnrolResponse, Status> {
    let tls = pki::for_enrolment(world.fleet.ca().fingerprint()).unwrap();
    let channel = tls.channel(&ClientTls::endpoint(&world.master.to_string()).unwrap());
    let request = EnrolRequest {
        join_token: token.to_owned(),
        csr_pem: csr_pem.to_owned(),
        address: "127.0.0.9".to_owned(),
        agent_port: 8082,
    };
    FleetClient::new(channel).enrol(request).await.map(tonic::Response::into_inner)
}

fn denied(answer: Result<EnrolResponse, Status>, why: &str) {
    let status = answer.expect_err("must be refused");
    assert_eq!((status.code(), status.message()), (Code::PermissionDenied, why));
}

async fn invite(world: &World) -> (scale_lnd::model::HostId, JoinToken) {
    world.fleet.invite_host(1).await.unwrap()
}

#[tokio::test]
async fn a_token_is_good_for_one_key() {
    timed(async {
        let world = World::new().await;
        let (host, token) = invite(&world).await;
        let ((_, csr), (_, other)) = (pki::make_csr().unwrap(), pki::make_csr().unwrap());
        let first = enrol(&world, token.expose(), &csr).await.unwrap();
        assert_eq!(first.host_id, host.as_str());
        let again = enrol(&world, token.expose(), &csr).await.expect("a lost answer is given again");
        assert_eq!(again.certificate_pem, first.certificate_pem);
        denied(enrol(&world, token.expose(), &other).await, "the join token was used with another key");

        let (_, strangers) = invite(&world).await;
        let secret = strangers.expose().split_once('.').unwrap().1;
        denied(enrol(&world, &format!("{host}.{secret}"), &csr).await, "the join token is not known");
        denied(enrol(&world, "nonsense", &csr).await, "the join token is not known");
        let (_, another_deployments) = invite(&World::new().await).await;
        denied(enrol(&world, another_deployments.expose(), &csr).await, "the join token is not known");
        let status = enrol(&world, strangers.expose(), "no request").await.expect_err("no key, no certificate");
        assert_eq!(status.code(), Code::InvalidArgument);
    })
    .await;
}

#[tokio::test]
async fn a_token_expires_and_a_revoked_host_cannot_use_it() {
    timed(async {
        let world = World::new().await;
        let (_, csr) = pki::make_csr().unwrap();
        let (host, token) = invite(&world).await;
        world.clock.advance(3601);
        denied(enrol(&world, token.expose(), &csr).await, "the join token has expired");
        let fresh = world.fleet.reinvite_host(&host).await.unwrap().expect("the host is there");
        denied(enrol(&world, token.expose(), &csr).await, "the join token is not known");
        assert!(world.fleet.revoke_host(&host).await.unwrap());
        denied(enrol(&world, fresh.expose(), &csr).await, "the host is revoked");
        assert!(world.fleet.reinvite_host(&host).await.unwrap().is_none());
    })
    .await;
}

/// The secret of a token is in the Store only as its digest.
#[tokio::test]
async fn a_token_is_kept_hashed() {
    timed(async {
        let world = World::new().await;
        let (host, token) = invite(&world).await;
        let kept: Host = world.host(&host).await;
        let Enrolment::Invited(invitation) = &kept.enrolment else { panic!("{kept:?}") };
        let secret = token.expose().split_once('.').unwrap().1;
        assert_eq!(secret.len(), 64, "256 random bits");
        assert_ne!(invitation.token_sha256, secret);
        assert!(!serde_json::to_string(&kept).unwrap().contains(secret));
    })
    .await;
}

/// A host whose certificate has expired comes back with its old key and the operator's word, and its lnds never noticed.
#[tokio::test]
async fn a_host_whose_certificate_expired_stays_the_same_host() {
    timed(async {
        let world = World::new().await;
        let mut machine = world.machine().await;
        let (node, _) = world.node(&machine, 0).await;
        let pid = world.pid(&machine, &node).await;
        world.kill(&mut machine).await;
        // As if it had been issued long ago: the file is gone, and the old token is of no use any more.
        std::fs::remove_file(machine.data.join("agent/cert.pem")).unwrap();
        world.clock.advance(31 * 24 * 3600);
        let token = world.fleet.reinvite_host(&machine.host).await.unwrap().expect("the host is there");
        world.clock.advance(-31 * 24 * 3600);
        world.restart(&mut machine, &[("SCALE_LND_AGENT_JOIN_TOKEN", token.expose())]).await;
        assert_eq!(world.pid(&machine, &node).await, pid);
        assert_eq!(world.status(&machine).await.host_id, machine.host.as_str());
    })
    .await;
}
