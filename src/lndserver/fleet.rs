//! The gRPC service of every master for agents: enrolment, renewal, reports. Parses, asks `app::fleet`, renders.

use super::board::NodeStatus;
use super::proto as v1;
use super::proto::fleet_server::{Fleet as FleetApi, FleetServer};
use super::proto::report_request::Report as WireReport;
use super::throttle::{Enrolments, Hosts, Turn};
use super::wire::{self, Malformed};
use crate::app::fleet::{Body, EnrolError, Fleet, Report, ReportError};
use crate::model::HostId;
use crate::pki::{
    CaCert, Credentials, Identity, Peer, PkiError, Standing, connected_peer, only_good_peers, source, standing,
};
use futures::StreamExt;
use futures::stream::BoxStream;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

/// An agent that vanished is noticed after two of these.
const PING_EVERY: Duration = Duration::from_secs(10);
/// An agent needs two.
const CALLS_AT_ONCE: usize = 8;

/// Serves agents on `listener` until `stop`; then ends their streams and returns.
pub async fn serve(
    listener: TcpListener,
    fleet: Arc<Fleet>,
    own: &Credentials,
    stop: CancellationToken,
) -> Result<(), ServeError> {
    let trust = fleet.trust();
    let (tls, gate) = (trust.master_server(own)?, only_good_peers(fleet.clock()));
    let service = FleetService { fleet, enrolments: Enrolments::new(), hosts: Hosts::new(), stop: stop.clone() };
    Server::builder()
        .http2_keepalive_interval(Some(PING_EVERY))
        .http2_keepalive_timeout(Some(PING_EVERY))
        .concurrency_limit_per_connection(CALLS_AT_ONCE)
        .add_service(FleetServer::with_interceptor(service, gate))
        .serve_with_incoming_shutdown(tls.incoming(listener), stop.cancelled_owned())
        .await?;
    Ok(())
}

/// Why agents are not served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The certificates.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The server.
    #[error("the server for agents")]
    Server(#[from] tonic::transport::Error),
}

#[derive(Debug)]
struct FleetService {
    fleet: Arc<Fleet>,
    enrolments: Enrolments,
    hosts: Arc<Hosts>,
    stop: CancellationToken,
}

#[tonic::async_trait]
impl FleetApi for FleetService {
    type ReportStream = BoxStream<'static, Result<v1::ReportAck, Status>>;

    async fn enrol(&self, request: Request<v1::EnrolRequest>) -> Result<Response<v1::EnrolResponse>, Status> {
        let source = source(&request).ok_or_else(|| Status::internal("a request from nowhere"))?;
        self.enrolments.check(source)?;
        let v1::EnrolRequest { join_token, csr_pem, address, agent_port } = request.into_inner();
        let address = wire::address(&address, agent_port)?;
        let enrolled = self.fleet.enrol(&join_token, &csr_pem, address).await?;
        let authorities = authorities(&self.fleet);
        Ok(Response::new(v1::EnrolResponse {
            certificate_pem: enrolled.certificate_pem,
            ca_pem: authorities.certificates_pem.first().cloned().unwrap_or_default(),
            authorities: Some(authorities),
            host_id: enrolled.host.to_string(),
            generation: enrolled.generation,
        }))
    }

    async fn renew(&self, request: Request<v1::RenewRequest>) -> Result<Response<v1::RenewResponse>, Status> {
        let peer = peer(&request)?;
        self.hosts.check_renewal(peer.serial)?;
        let certificate_pem = self.fleet.renew(&peer, &request.into_inner().csr_pem).await?;
        Ok(Response::new(v1::RenewResponse { certificate_pem, authorities: Some(authorities(&self.fleet)) }))
    }

    async fn report(
        &self,
        request: Request<Streaming<v1::ReportRequest>>,
    ) -> Result<Response<Self::ReportStream>, Status> {
        let peer = peer(&request)?;
        let standing = standing(&request);
        let fleet = Arc::clone(&self.fleet);
        let stop = self.stop.clone();
        let (hosts, host) = (Arc::clone(&self.hosts), host(&peer)?);
        // One after the other: their order is the agent's. Whoever is at fault for a failure, the stream ends with it, and
        // the agent begins again with all there is to say.
        let acks = futures::stream::unfold(Some((request.into_inner(), None::<Turn>)), move |reports| {
            let (peer, fleet, stop) = (peer.clone(), Arc::clone(&fleet), stop.clone());
            let (hosts, host, standing) = (Arc::clone(&hosts), host.clone(), standing.clone());
            async move {
                let (mut reports, turn) = reports?;
                let next = async {
                    hosts.slow_down(peer.serial).await;
                    reports.next().await
                };
                let next = tokio::select! {
                    next = next => next?,
                    () = superseded(turn.as_ref()) => Err(Status::aborted("this host has begun to report anew")),
                    () = over(standing.as_ref()) => Err(Status::unauthenticated("this connection's authority is void")),
                    () = stop.cancelled() => Err(Status::unavailable("this master is shutting down")),
                };
                match ack(&fleet, &peer, next).await {
                    // Only now it is known to be the host's: a certificate that is void ends no stream of the good one.
                    Ok(ack) => Some((Ok(ack), Some((reports, Some(turn.unwrap_or_else(|| hosts.begin(host))))))),
                    Err(status) => Some((Err(status), None)),
                }
            }
        });
        Ok(Response::new(acks.boxed()))
    }
}

/// Whom hosts are to believe.
fn authorities(fleet: &Fleet) -> v1::Authorities {
    let (believed, step) = fleet.believed();
    v1::Authorities { step, certificates_pem: believed.iter().map(CaCert::pem).collect() }
}

async fn over(standing: Option<&Standing>) {
    match standing {
        Some(standing) => standing.over().await,
        None => std::future::pending().await,
    }
}

async fn superseded(turn: Option<&Turn>) {
    match turn {
        Some(turn) => turn.superseded().await,
        None => std::future::pending().await,
    }
}

async fn ack(fleet: &Fleet, peer: &Peer, report: Result<v1::ReportRequest, Status>) -> Result<v1::ReportAck, Status> {
    let report = report?;
    let sequence = report.sequence;
    let refused = match fleet.accept(peer, &parse(report)?).await {
        Ok(()) => String::new(),
        Err(ReportError::Refused(reason)) => {
            tracing::warn!(peer = ?peer.identity, report.sequence = sequence, reason, "report refused");
            reason.to_owned()
        }
        Err(e @ ReportError::NotAHost) => return Err(Status::permission_denied(e.to_string())),
        Err(ReportError::Store(e)) => {
            tracing::warn!(peer = ?peer.identity, error = %e, "a report cannot be kept");
            return Err(Status::unavailable("the report cannot be kept now"));
        }
    };
    Ok(v1::ReportAck { sequence, refused })
}

fn parse(report: v1::ReportRequest) -> Result<Report, Malformed> {
    let body = match report.report.ok_or(Malformed("report"))? {
        WireReport::Host(status) => {
            let address = wire::address(&status.address, status.agent_port)?;
            Body::Host { report: (&status).into(), address }
        }
        WireReport::Node(status) => {
            let NodeStatus { node, process, pid: _, wallet, starts } = status.try_into()?;
            Body::Node { node, process, wallet, starts }
        }
        WireReport::Backup(backup) => Body::Backup { node: wire::node_id(&backup.node_id)?, bytes: backup.bytes },
    };
    Ok(Report { generation: report.generation, sequence: report.sequence, body })
}

/// The host of the agent that calls.
fn host(peer: &Peer) -> Result<HostId, Status> {
    let host = match &peer.identity {
        Identity::Agent { host_id } => HostId::parse(host_id),
        Identity::Master { .. } => None,
    };
    host.ok_or_else(|| Status::permission_denied("this call is for hosts"))
}

/// The agent that calls; TLS lets nobody else show a certificate.
fn peer<T>(request: &Request<T>) -> Result<Peer, Status> {
    connected_peer(request).cloned().ok_or_else(|| Status::unauthenticated("this call needs a host's certificate"))
}

impl From<EnrolError> for Status {
    fn from(error: EnrolError) -> Self {
        match error {
            EnrolError::NotAdmitted(why) => Self::permission_denied(why.to_string()),
            EnrolError::Request(why) => Self::invalid_argument(why.to_string()),
            EnrolError::Failed(error) => {
                tracing::warn!(%error, "a host cannot be enrolled now");
                Self::unavailable("the host cannot be enrolled now")
            }
        }
    }
}
