//! A compromised host's certificate can command no other host and speak for none.

use super::world::{World, spec, timed, until};
use futures::StreamExt;
use scale_lnd::error::AgentError;
use scale_lnd::lndserver::client::{Agents, Order};
use scale_lnd::lndserver::proto::agent_client::AgentClient;
use scale_lnd::lndserver::proto::fleet_client::FleetClient;
use scale_lnd::lndserver::proto::report_request::Report;
use scale_lnd::lndserver::proto::{
    ChannelBackup, GetStatusRequest, NodeStatus, Process, RenewRequest, ReportAck, ReportRequest, Stopped, process,
};
use scale_lnd::model::node::{BackupHead, Runtime};
use scale_lnd::model::{MasterId, NodeId};
use scale_lnd::pki::{self, ClientTls, Credentials};
use std::net::SocketAddr;
use std::path::Path;
use time::OffsetDateTime;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status};

/// What somebody has who took over a host.
fn stolen(world: &World, data: &Path) -> Credentials {
    let read = |name| std::fs::read_to_string(data.join("agent").join(name)).unwrap();
    Credentials::from_pem(&read("cert.pem"), &read("key.pem"), &world.fleet.ca()).unwrap()
}

fn fleet(world: &World, own: &Credentials) -> FleetClient<Channel> {
    let tls = world.fleet.trust().dial_master(own).unwrap();
    FleetClient::new(tls.channel(&ClientTls::endpoint(&world.master.to_string()).unwrap()))
}

async fn report(world: &World, own: &Credentials, report: Report) -> Result<ReportAck, Status> {
    let request = ReportRequest { generation: 1, sequence: u64::MAX, report: Some(report) };
    let reports = futures::stream::iter([request]).chain(futures::stream::pending());
    let mut acks = fleet(world, own).report(reports).await?.into_inner();
    acks.message().await.map(|ack| ack.expect("an answer"))
}

fn stopped(node: &NodeId) -> Report {
    let process = Some(Process { state: Some(process::State::Stopped(Stopped {})) });
    Report::Node(NodeStatus { node_id: node.to_string(), process, wallet: 0, starts: 1 })
}

#[tokio::test]
async fn a_hosts_certificate_commands_nobody() {
    timed(async {
        let world = World::new().await;
        let (bad, good) = (world.machine().await, world.machine().await);
        let (node, _) = world.node(&good, 0).await;
        let own = stolen(&world, &bad.data);
        let host = world.host(&good.host).await;

        let as_master = Agents::new(world.fleet.trust(), own.clone());
        let refused = as_master.stop_node(Order { host: &host, epoch: 99 }, &node).await;
        assert!(matches!(refused, Err(AgentError::Unreachable(_) | AgentError::Unknown(_))), "{refused:?}");
        // Nor even its own agent.
        let refused = as_master.status(&world.host(&bad.host).await).await;
        assert!(refused.is_err(), "{refused:?}");
        assert_eq!(good.lnds_of(&node).len(), 1);

        // Nor does anybody without a certificate, or a master of another deployment.
        let tls = pki::for_enrolment(world.fleet.ca().fingerprint()).unwrap();
        let endpoint = ClientTls::endpoint(&SocketAddr::new(good.address, 8082).to_string()).unwrap();
        assert!(AgentClient::new(tls.channel(&endpoint)).get_status(GetStatusRequest {}).await.is_err());
        let elsewhere = World::new().await;
        let foreign = Agents::new(world.fleet.trust(), elsewhere.own.clone());
        assert!(foreign.status(&host).await.is_err());
        world.agents.ensure_node(Order { host: &host, epoch: 1 }, spec(&node, 0)).await.expect("a master of ours does");
    })
    .await;
}

#[tokio::test]
async fn a_hosts_certificate_speaks_for_its_own_host_only() {
    timed(async {
        let world = World::new().await;
        let (mut bad, good) = (world.machine().await, world.machine().await);
        let (node, _) = world.node(&good, 0).await;
        let before = world.runtime(&node, |_| true).await;
        world.kill(&mut bad).await;
        let own = stolen(&world, &bad.data);

        let ack = report(&world, &own, stopped(&node)).await.unwrap();
        assert_eq!(ack.refused, "the node has no slot on this host");
        let backup = Report::Backup(ChannelBackup { node_id: node.to_string(), bytes: Vec::new() });
        let ack = report(&world, &own, backup).await.unwrap();
        assert_eq!(ack.refused, "the node has no slot on this host");
        assert_eq!(world.get::<Runtime>(node.as_str()).await.unwrap().process, before.process);
        assert!(world.get::<BackupHead>(node.as_str()).await.is_none());

        // A certificate for another key is not issued, and a master takes no host for a master.
        let (_, csr) = pki::make_csr().unwrap();
        let status = fleet(&world, &own).renew(RenewRequest { csr_pem: csr }).await.expect_err("another key");
        assert_eq!(status.code(), Code::PermissionDenied);
        assert!(report(&world, &world.own, stopped(&node)).await.is_err(), "masters do not report");
    })
    .await;
}

#[tokio::test]
async fn renewal_keeps_the_key_and_revocation_ends_everything() {
    timed(async {
        let world = World::new().await;
        let mut machine = world.machine().await;
        let (node, _) = world.node(&machine, 0).await;
        world.kill(&mut machine).await;
        let own = stolen(&world, &machine.data);
        let key = std::fs::read_to_string(machine.data.join("agent/key.pem")).unwrap();
        let csr_pem = pki::make_csr_for(&key).unwrap();
        let renewed = fleet(&world, &own).renew(RenewRequest { csr_pem: csr_pem.clone() }).await.unwrap().into_inner();
        let renewed = Credentials::from_pem(&renewed.certificate_pem, &key, &world.fleet.ca()).unwrap();
        assert_ne!(renewed.own().serial, own.own().serial);
        for certificate in [&renewed, &own] {
            let ack =
                report(&world, certificate, stopped(&node)).await.expect("both are good until the new one is used");
            assert_eq!(ack.refused, "");
        }

        assert!(world.fleet.revoke_host(&machine.host).await.unwrap());
        for certificate in [&renewed, &own] {
            let status = report(&world, certificate, stopped(&node)).await.expect_err("void");
            assert_eq!(status.code(), Code::PermissionDenied);
            let status =
                fleet(&world, certificate).renew(RenewRequest { csr_pem: csr_pem.clone() }).await.expect_err("void");
            assert_eq!(status.code(), Code::PermissionDenied);
        }
    })
    .await;
}

/// The order side: neither over a connection from before, nor over a new one.
#[tokio::test]
async fn a_host_that_was_revoked_or_shows_a_superseded_certificate_gets_no_orders() {
    timed(async {
        let world = World::new().await;
        let mut machine = world.machine().await;
        let (node, _) = world.node(&machine, 0).await;
        let own = machine.data.join("agent");
        let old = std::fs::read(own.join("cert.pem")).unwrap();
        let before = world.host(&machine.host).await;
        world.agents.status(&before).await.expect("it is good");

        // The same machine enrols anew; somebody else has kept the certificate from before, and its key.
        world.kill(&mut machine).await;
        let token = world.fleet.reinvite_host(&machine.host).await.unwrap().expect("the host is there");
        std::fs::remove_file(own.join("cert.pem")).unwrap();
        world.restart(&mut machine, &[("SCALE_LND_AGENT_JOIN_TOKEN", token.expose())]).await;
        world.status(&machine).await;
        world.kill(&mut machine).await;
        let new = std::fs::read(own.join("cert.pem")).unwrap();
        assert_ne!(new, old);
        std::fs::write(own.join("cert.pem"), old).unwrap();
        world.restart(&mut machine, &[]).await;
        until("the agent", async || world.agents.status(&before).await.ok()).await;
        let host = world.host(&machine.host).await;
        let order = Order { host: &host, epoch: 2 };
        let refused = world.agents.ensure_node(order, spec(&node, 0)).await;
        assert!(matches!(refused, Err(AgentError::Unreachable(_))), "{refused:?}");
        world.kill(&mut machine).await;
        std::fs::write(own.join("cert.pem"), new).unwrap();
        world.restart(&mut machine, &[]).await;
        world.status(&machine).await;

        assert!(world.fleet.revoke_host(&machine.host).await.unwrap());
        let host = world.host(&machine.host).await;
        let order = Order { host: &host, epoch: 2 };
        let refused = world.agents.ensure_node(order, spec(&node, 0)).await;
        assert!(matches!(refused, Err(AgentError::Revoked)), "{refused:?}");
        let refused = world.agents.stop_node(order, &node).await;
        assert!(matches!(refused, Err(AgentError::Revoked)), "{refused:?}");
        assert!(world.agents.status(&host).await.is_err());
        assert_eq!(machine.lnds_of(&node).len(), 1, "its lnd runs on");
    })
    .await;
}

/// Certificates of a few seconds: both sides renew in time, and nobody notices but by the serial number.
#[tokio::test]
async fn certificates_are_renewed_under_running_connections() {
    timed(async {
        let world = World::with_certificates_for(time::Duration::seconds(6)).await;
        let (fleet, own) = (world.fleet.clone(), world.own.clone());
        let master = MasterId::random(&mut rand::rng());
        let renewing = tokio::spawn(async move { fleet.keep_fresh(&master, &own).await });
        let machine = world.machine().await;
        let (node, _) = world.node(&machine, 0).await;
        let serials = || (world.own.own().serial, stolen(&world, &machine.data).own().serial);
        let before = serials();
        let ends = [world.own.own(), stolen(&world, &machine.data).own()].map(|peer| peer.validity.not_after);
        until("both renewals", async || {
            let now = serials();
            (now.0 != before.0 && now.1 != before.1).then_some(())
        })
        .await;
        // What the connections began with is over.
        let over = || ends.iter().all(|end| OffsetDateTime::now_utc() > *end);
        until("the end of the first certificates", async || over().then_some(())).await;
        // The host may renew again between the look at its serial number and the call, which then is refused, and made again.
        let status = async |agents: &Agents| agents.status(&world.host(&machine.host).await).await.ok();
        until("an answer over the old connection", async || status(&world.agents).await).await;
        let new = Agents::new(world.fleet.trust(), world.own.clone());
        until("an answer over a new one", async || status(&new).await).await;
        machine.write_backup(&node, b"after the renewal");
        assert_eq!(world.backups(&node, 1).await.len(), 1);
        renewing.abort();
    })
    .await;
}

/// A handshake is a look at one moment; a connection lasts.
#[tokio::test]
async fn a_certificate_that_ends_ends_what_was_begun_with_it() {
    timed(async {
        let world = World::new().await;
        let machine = world.machine().await;
        let host = world.host(&machine.host).await;
        let short = world.fleet_of(time::Duration::seconds(3)).await;
        let own = short.master_credentials(&MasterId::random(&mut rand::rng())).unwrap();
        let agents = Agents::new(world.fleet.trust(), own.clone());
        agents.status(&host).await.expect("it is good now");
        until("its end", async || (OffsetDateTime::now_utc() > own.own().validity.not_after).then_some(())).await;
        let refused = agents.status(&host).await;
        assert!(matches!(refused, Err(AgentError::Unreachable(_))), "{refused:?}");

        // An agent that was revoked while its reports were on their way.
        let own = stolen(&world, &machine.data);
        let (node, _) = world.node(&machine, 0).await;
        let (to_master, reports) = tokio::sync::mpsc::channel(4);
        let say = |sequence| ReportRequest { generation: 1, sequence, report: Some(stopped(&node)) };
        to_master.send(say(u64::MAX - 1)).await.unwrap();
        let mut acks = fleet(&world, &own).report(ReceiverStream::new(reports)).await.unwrap().into_inner();
        assert_eq!(acks.message().await.unwrap().expect("an answer").refused, "");
        assert!(world.fleet.revoke_host(&machine.host).await.unwrap());
        to_master.send(say(u64::MAX)).await.unwrap();
        assert_eq!(acks.message().await.expect_err("void").code(), Code::PermissionDenied);
    })
    .await;
}
