//! The gRPC service on the host. Who calls has been checked by TLS: a certificate of role master of this deployment.

use super::authorities::NotTaken;
use super::host::Host;
use super::masters::Masters;
use super::member::{Member, MemberError};
use super::node::{Done, Order, OrderError};
use super::proto as v1;
use super::proto::agent_server::Agent;
use super::spec::{NodeSpec, SpecError};
use super::wire::{self, Malformed};
use std::sync::Arc;
use tonic::{Request, Response, Status};

/// The service.
#[derive(Debug, Clone)]
pub struct AgentService {
    host: Arc<Host>,
    member: Member,
    masters: Arc<Masters>,
}

impl AgentService {
    /// For the nodes of `host`, which is this `member` of the deployment.
    #[must_use]
    pub fn new(host: Arc<Host>, member: Member, masters: Arc<Masters>) -> Self {
        Self { host, member, masters }
    }

    async fn order(&self, fence: Option<v1::Fence>, node: &str, order: Order) -> Result<Done, Status> {
        let fence = fence.ok_or(Malformed("fence"))?;
        let node = wire::node_id(node)?;
        let kind = match &order {
            Order::Ensure(_) => "ensure",
            Order::Stop => "stop",
            Order::Restart => "restart",
            Order::Remove => "remove",
        };
        tracing::info!(node.id = %node, order = kind, fence.epoch, "order");
        let done = self.host.order(fence.generation, fence.epoch, node.clone(), order).await;
        done.map_err(|e| {
            tracing::warn!(node.id = %node, order = kind, fence.epoch, error = %e, "order not carried out");
            e.into()
        })
    }
}

impl From<Malformed> for Status {
    fn from(e: Malformed) -> Self {
        Self::invalid_argument(e.to_string())
    }
}

impl From<SpecError> for Status {
    fn from(e: SpecError) -> Self {
        Self::invalid_argument(e.to_string())
    }
}

impl From<OrderError> for Status {
    fn from(e: OrderError) -> Self {
        match e {
            OrderError::Fenced { .. } => Self::aborted(e.to_string()),
            OrderError::Refused(reason) => Self::failed_precondition(reason),
            OrderError::Failed(reason) => Self::unavailable(reason),
        }
    }
}

impl From<MemberError> for Status {
    fn from(e: MemberError) -> Self {
        match e {
            MemberError::NotTaken(NotTaken::Overtaken) => Self::aborted(e.to_string()),
            MemberError::NotTaken(NotTaken::OwnCertificate) => Self::failed_precondition(e.to_string()),
            MemberError::NotTaken(NotTaken::Pki(e)) => Self::invalid_argument(e.to_string()),
            e => Self::unavailable(e.to_string()),
        }
    }
}

#[tonic::async_trait]
impl Agent for AgentService {
    async fn ensure_node(
        &self,
        request: Request<v1::EnsureNodeRequest>,
    ) -> Result<Response<v1::EnsureNodeResponse>, Status> {
        let v1::EnsureNodeRequest { fence, spec } = request.into_inner();
        let spec = NodeSpec::try_from(spec.ok_or(Malformed("spec"))?)?;
        let node = spec.node.to_string();
        let done = self.order(fence, &node, Order::Ensure(Box::new(spec))).await?;
        let status = Some((&done.status).into());
        Ok(Response::new(v1::EnsureNodeResponse { endpoint: done.endpoint.map(Into::into), status }))
    }

    async fn stop_node(&self, request: Request<v1::StopNodeRequest>) -> Result<Response<v1::StopNodeResponse>, Status> {
        let v1::StopNodeRequest { fence, node_id } = request.into_inner();
        let done = self.order(fence, &node_id, Order::Stop).await?;
        Ok(Response::new(v1::StopNodeResponse { status: Some((&done.status).into()) }))
    }

    async fn restart_node(
        &self,
        request: Request<v1::RestartNodeRequest>,
    ) -> Result<Response<v1::RestartNodeResponse>, Status> {
        let v1::RestartNodeRequest { fence, node_id } = request.into_inner();
        let done = self.order(fence, &node_id, Order::Restart).await?;
        let status = Some((&done.status).into());
        Ok(Response::new(v1::RestartNodeResponse { endpoint: done.endpoint.map(Into::into), status }))
    }

    async fn remove_node(
        &self,
        request: Request<v1::RemoveNodeRequest>,
    ) -> Result<Response<v1::RemoveNodeResponse>, Status> {
        let v1::RemoveNodeRequest { fence, node_id } = request.into_inner();
        self.order(fence, &node_id, Order::Remove).await?;
        Ok(Response::new(v1::RemoveNodeResponse {}))
    }

    async fn set_authorities(
        &self,
        request: Request<v1::SetAuthoritiesRequest>,
    ) -> Result<Response<v1::SetAuthoritiesResponse>, Status> {
        let v1::SetAuthoritiesRequest { authorities, renew } = request.into_inner();
        let told = authorities.ok_or(Malformed("authorities"))?;
        let (member, data) = (&self.member, &self.host.shared().data);
        member.believe(data, &told).await?;
        if renew && let Err(error) = member.renew_by(data, &self.masters, &told).await {
            tracing::warn!(%error, "no certificate of the new authority yet");
        }
        let believed = member.trust.cas().iter().map(|ca| ca.fingerprint().to_string()).collect();
        let shown = member.own.issuer().to_string();
        Ok(Response::new(v1::SetAuthoritiesResponse { believed, shown }))
    }

    async fn install_release(
        &self,
        request: Request<v1::InstallReleaseRequest>,
    ) -> Result<Response<v1::InstallReleaseResponse>, Status> {
        let v1::InstallReleaseRequest { generation, manifest, signature } = request.into_inner();
        let own = self.host.identity().generation;
        if generation != own {
            return Err(Status::failed_precondition(format!(
                "the order is for generation {generation}, this is {own}"
            )));
        }
        let installed = self.host.shared().releases.install(manifest, signature).await.map_err(|error| {
            tracing::warn!(%error, "a release is not installed");
            let said = error.to_string();
            if error.may_pass() { Status::unavailable(said) } else { Status::failed_precondition(said) }
        })?;
        let lnd_sha256 = installed.lnd.map(String::from).unwrap_or_default();
        Ok(Response::new(v1::InstallReleaseResponse { serial: installed.serial, lnd_sha256 }))
    }

    async fn get_status(
        &self,
        _request: Request<v1::GetStatusRequest>,
    ) -> Result<Response<v1::GetStatusResponse>, Status> {
        let status = self.host.status().map_err(|e| Status::internal(format!("cannot look at the disk: {e}")))?;
        let identity = self.host.identity();
        Ok(Response::new(v1::GetStatusResponse {
            host_id: identity.host.to_string(),
            generation: identity.generation,
            host: Some(status),
            nodes: self.host.shared().board.all().iter().map(Into::into).collect(),
        }))
    }
}
