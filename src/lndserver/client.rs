//! The master's side: orders to the agents of hosts, over one connection for each.

use super::proto::agent_client::AgentClient;
use super::proto::{
    EnsureNodeRequest, Fence, GetStatusRequest, GetStatusResponse, InstallReleaseRequest, NodeEndpoint, NodeSpec,
    RemoveNodeRequest, RestartNodeRequest, SetAuthoritiesRequest, SetAuthoritiesResponse, StopNodeRequest,
};
use crate::error::AgentError;
use crate::model::host::{Enrolment, Host};
use crate::model::node::Endpoint;
use crate::model::release::Sha256;
use crate::model::{HostId, NodeId};
use crate::pki::{ClientTls, Credentials, PkiError, Serial, Standing, Trust};
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tonic::transport::Channel;
use tonic::{Code, ConnectError, Response, Status};

/// lnd answers 0.1 s after its start; a busy machine takes longer.
const START_WITHIN: Duration = Duration::from_secs(60);
/// lnd may take its time to exit; whoever waits asks again.
const STOP_WITHIN: Duration = Duration::from_secs(60);
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// The agent asks a master meanwhile.
const RENEW_WITHIN: Duration = Duration::from_secs(20);
/// The rest is waited for by asking again.
const INSTALL_WITHIN: Duration = Duration::from_secs(60);
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
const PING_EVERY: Duration = Duration::from_secs(10);
/// An agent that is asked whether it is there does nothing else for it.
const THERE_WITHIN: Duration = Duration::from_secs(3);
/// For how long one that answered is taken to be there.
const THERE: Duration = Duration::from_secs(5);
/// For how long one that did not answer is taken to be away.
const AWAY: Duration = Duration::from_secs(60);

type Client = AgentClient<Channel>;

/// An order's address and authority.
#[derive(Debug, Clone, Copy)]
pub struct Order<'a> {
    /// The host it goes to.
    pub host: &'a Host,
    /// The epoch of the claim under which it is given.
    pub epoch: u64,
}

impl Order<'_> {
    fn fence(&self) -> Option<Fence> {
        Some(Fence { generation: self.host.generation, epoch: self.epoch })
    }
}

/// A connection to an agent: where it goes, and which certificates the agent may show there.
#[derive(Debug)]
struct Line {
    at: SocketAddr,
    serials: Vec<Serial>,
    standing: Standing,
    channel: Channel,
}

impl Line {
    fn is_for(&self, at: SocketAddr, serials: &[Serial]) -> bool {
        self.at == at && self.serials == serials && !self.standing.is_over()
    }
}

/// Connections to agents. Clones share them.
///
/// A host gets orders while it belongs to the fleet, and its agent is who shows a certificate that the host's document
/// lists: one that was revoked or superseded counts for nothing, stolen or not. So a host is to be read just before it is
/// given an order.
///
/// Every order may be repeated: an agent that has carried it out says so again. [`AgentError::Unknown`] asks for that.
#[derive(Debug, Clone)]
pub struct Agents {
    trust: Trust,
    own: Credentials,
    channels: Arc<Mutex<HashMap<HostId, Line>>>,
    /// Which agents that were asked whether they are there have answered, and when that was.
    heard: Arc<Mutex<HashMap<HostId, (bool, Instant)>>>,
}

impl Agents {
    /// With what this master shows, and whom it believes.
    #[must_use]
    pub fn new(trust: Trust, own: Credentials) -> Self {
        Self { trust, own, channels: Arc::default(), heard: Arc::default() }
    }

    /// Makes a node's lnd run. Answers when lnd's RPC is up.
    pub async fn ensure_node(&self, order: Order<'_>, spec: NodeSpec) -> Result<Endpoint, AgentError> {
        let request = EnsureNodeRequest { fence: order.fence(), spec: Some(spec) };
        let call = |mut client: Client| {
            let request = request.clone();
            async move { client.ensure_node(request).await }
        };
        endpoint(self.ask(order.host, START_WITHIN, call).await?.endpoint)
    }

    /// Makes a node's lnd exit and stay so. `Ok` means that it has exited.
    pub async fn stop_node(&self, order: Order<'_>, node: &NodeId) -> Result<(), AgentError> {
        let request = StopNodeRequest { fence: order.fence(), node_id: node.to_string() };
        let call = |mut client: Client| {
            let request = request.clone();
            async move { client.stop_node(request).await }
        };
        self.ask(order.host, STOP_WITHIN, call).await.map(drop)
    }

    /// Makes a node's lnd exit and start again, with the newest specification.
    pub async fn restart_node(&self, order: Order<'_>, node: &NodeId) -> Result<Endpoint, AgentError> {
        let request = RestartNodeRequest { fence: order.fence(), node_id: node.to_string() };
        let call = |mut client: Client| {
            let request = request.clone();
            async move { client.restart_node(request).await }
        };
        endpoint(self.ask(order.host, STOP_WITHIN + START_WITHIN, call).await?.endpoint)
    }

    /// Sets the folder of a stopped node aside and frees its slot.
    pub async fn remove_node(&self, order: Order<'_>, node: &NodeId) -> Result<(), AgentError> {
        let request = RemoveNodeRequest { fence: order.fence(), node_id: node.to_string() };
        let call = |mut client: Client| {
            let request = request.clone();
            async move { client.remove_node(request).await }
        };
        self.ask(order.host, ANSWER_WITHIN, call).await.map(drop)
    }

    /// What is on the host.
    pub async fn status(&self, host: &Host) -> Result<GetStatusResponse, AgentError> {
        let call = |mut client: Client| async move { client.get_status(GetStatusRequest {}).await };
        self.ask(host, ANSWER_WITHIN, call).await
    }

    /// Whether the host's agent is there and would take orders.
    pub async fn answers(&self, host: &Host) -> bool {
        let known = self.heard.lock().unwrap_or_else(PoisonError::into_inner).get(&host.id).copied();
        if known.is_some_and(|(there, at)| there && at.elapsed() < THERE) {
            return true;
        }
        let answer = tokio::time::timeout(THERE_WITHIN, self.status(host)).await;
        let there = matches!(answer, Ok(Ok(status)) if status.generation == host.generation);
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.insert(host.id.clone(), (there, Instant::now()));
        there
    }

    /// The hosts whose agents did not answer lately.
    #[must_use]
    pub fn silent(&self) -> HashSet<HostId> {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.retain(|_, (there, at)| at.elapsed() < if *there { THERE } else { AWAY });
        heard.iter().filter(|(_, (there, _))| !there).map(|(host, _)| host.clone()).collect()
    }

    /// Tells a host whom to believe.
    pub async fn set_authorities(
        &self,
        host: &Host,
        request: SetAuthoritiesRequest,
    ) -> Result<SetAuthoritiesResponse, AgentError> {
        let call = |mut client: Client| {
            let request = request.clone();
            async move { client.set_authorities(request).await }
        };
        self.ask(host, RENEW_WITHIN, call).await
    }

    /// Installs the programs of a release on a host, and says by what its lnd is named in a node's specification. It may take as
    /// long as a download: [`AgentError::Unknown`] asks for the same again, which waits for the same work.
    pub async fn install_release(
        &self,
        host: &Host,
        manifest: &str,
        signature: &str,
    ) -> Result<Option<Sha256>, AgentError> {
        let request = InstallReleaseRequest {
            generation: host.generation,
            manifest: manifest.as_bytes().to_vec(),
            signature: signature.to_owned(),
        };
        let call = |mut client: Client| {
            let request = request.clone();
            async move { client.install_release(request).await }
        };
        let installed = self.ask(host, INSTALL_WITHIN, call).await?;
        if installed.lnd_sha256.is_empty() {
            return Ok(None);
        }
        Sha256::try_from(installed.lnd_sha256).map(Some).map_err(|what| AgentError::Unknown(what.into()))
    }

    /// One call. A connection that was made with a certificate that has ended since is made anew: nothing was done.
    async fn ask<T, F: Future<Output = Result<Response<T>, Status>>>(
        &self,
        host: &Host,
        deadline: Duration,
        call: impl Fn(Client) -> F,
    ) -> Result<T, AgentError> {
        let mut answer = tokio::time::timeout(deadline, call(self.client(host)?)).await;
        if matches!(&answer, Ok(Err(status)) if status.code() == Code::Unauthenticated) {
            self.channels.lock().unwrap_or_else(PoisonError::into_inner).remove(&host.id);
            answer = tokio::time::timeout(deadline, call(self.client(host)?)).await;
        }
        match answer {
            Ok(answer) => answer.map(Response::into_inner).map_err(not_done),
            Err(late) => Err(AgentError::Unknown(late.into())),
        }
    }

    fn client(&self, host: &Host) -> Result<Client, AgentError> {
        let unreachable = |e: Box<dyn std::error::Error + Send + Sync>| AgentError::Unreachable(e);
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        let serials = match serials(host) {
            Ok(serials) => serials,
            Err(e) => {
                channels.remove(&host.id);
                return Err(e);
            }
        };
        let (Some(address), Some(port)) = (host.address, host.agent_port) else {
            return Err(unreachable("the host has not joined".into()));
        };
        let at = SocketAddr::new(address, port);
        if let Some(line) = channels.get(&host.id).filter(|line| line.is_for(at, &serials)) {
            return Ok(AgentClient::new(line.channel.clone()));
        }
        let standing = self.trust.standing();
        let trust = self.trust.clone().only(&serials);
        let tls = trust.dial_agent(&self.own, host.id.as_str()).map_err(|e| unreachable(e.into()))?;
        let endpoint = ClientTls::endpoint(&at.to_string()).map_err(|e| unreachable(e.into()))?;
        let endpoint = endpoint
            .connect_timeout(CONNECT_WITHIN)
            .http2_keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_EVERY);
        let channel = tls.channel(&endpoint);
        channels.insert(host.id.clone(), Line { at, serials, standing, channel: channel.clone() });
        Ok(AgentClient::new(channel))
    }
}

/// The certificates that a host's agent may show.
fn serials(host: &Host) -> Result<Vec<Serial>, AgentError> {
    match &host.enrolment {
        Enrolment::Enrolled { serial, previous_serial, .. } => {
            let listed = [Some(serial), previous_serial.as_ref()].into_iter().flatten();
            listed.map(|serial| serial.parse().map_err(|e: PkiError| AgentError::Unreachable(e.into()))).collect()
        }
        Enrolment::Invited(_) => Err(AgentError::Unreachable("the host has not joined".into())),
        Enrolment::Revoked => Err(AgentError::Revoked),
    }
}

fn endpoint(answer: Option<NodeEndpoint>) -> Result<Endpoint, AgentError> {
    let answer = answer.ok_or_else(|| AgentError::Unknown("the agent told no endpoint".into()))?;
    answer.try_into().map_err(|e: super::wire::Malformed| AgentError::Unknown(e.into()))
}

/// What an agent's refusal, or a connection's failure, means for the order.
fn not_done(status: Status) -> AgentError {
    match status.code() {
        Code::Aborted => AgentError::Fenced,
        Code::FailedPrecondition | Code::InvalidArgument | Code::Unimplemented => {
            AgentError::Refused(status.message().to_owned())
        }
        Code::Unauthenticated => AgentError::Unreachable(status.into()),
        _ if never_sent(&status) => AgentError::Unreachable(status.into()),
        _ => AgentError::Unknown(status.into()),
    }
}

fn never_sent(status: &Status) -> bool {
    let first = std::error::Error::source(status);
    std::iter::successors(first, |error| error.source()).any(|error| error.is::<ConnectError>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_apart_from_doubt() {
        assert!(matches!(not_done(Status::aborted("")), AgentError::Fenced));
        assert!(matches!(not_done(Status::failed_precondition("no")), AgentError::Refused(why) if why == "no"));
        assert!(matches!(not_done(Status::unavailable("busy")), AgentError::Unknown(_)));
        assert!(matches!(not_done(Status::internal("broken")), AgentError::Unknown(_)));
    }
}
