//! The agent as a whole.

use super::backups::Backups;
use super::board::Board;
use super::config::AgentConfig;
use super::files::{self, DataDir};
use super::host::{Host, Identity};
use super::masters::Masters;
use super::member::{self, Member, MemberError};
use super::node::{Shared, Slots};
use super::outbox::{Outbox, Sequence};
use super::process::Children;
use super::proto::agent_server::AgentServer;
use super::releases::Releases;
use super::reporter::Reporter;
use super::service::AgentService;
use super::start::LndStart;
use super::systemd::Units;
use crate::clock::SystemClock;
use crate::pki::{PkiError, only_good_peers};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

/// How long answers that are under way may take once the agent is to end.
const GRACE: Duration = Duration::from_secs(10);
const PING_EVERY: Duration = Duration::from_secs(10);

/// Why the agent does not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Another agent works in this folder.
    #[error("another agent uses the folder {0}")]
    Taken(String),
    /// The machine.
    #[error("{what}")]
    Io {
        /// What could not be done.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// It is not a member of its deployment.
    #[error(transparent)]
    Member(#[from] MemberError),
    /// The certificates.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The server.
    #[error("the server for orders")]
    Server(#[from] tonic::transport::Error),
}

fn io_error(what: &'static str) -> impl FnOnce(io::Error) -> RunError {
    move |source| RunError::Io { what, source }
}

/// Runs the agent until `stop`. Its lnds go on.
pub async fn run(config: AgentConfig, stop: CancellationToken) -> Result<(), RunError> {
    let data = DataDir::open(&config.data_dir).map_err(io_error("the data folder cannot be opened"))?;
    let lock = files::try_lock(&data.own("lock")).map_err(io_error("the data folder cannot be locked"))?;
    let _lock = lock.ok_or_else(|| RunError::Taken(data.path().display().to_string()))?;
    let listener = TcpListener::bind(config.listen).await.map_err(io_error("the agent's port cannot be used"))?;
    let port = listener.local_addr().map_err(io_error("the agent's port cannot be used"))?.port();
    let at = SocketAddr::new(config.address, port);
    let lnd = find_program(&config.lnd).map_err(io_error("lnd is not there"))?;
    let parts = Parts::open(&config, lnd, data).map_err(io_error("the agent's own files"))?;

    // A host that was enrolled looks after its lnds before anything else, however its certificate and the masters are.
    let known = match member::identity(&parts.shared.data)? {
        Some(_) if member::is_superseded(&config, &parts.shared.data)? => None,
        Some(identity) => Some(parts.host(identity, port).await?),
        None => None,
    };
    let joined = tokio::select! {
        joined = Member::join(&config, &parts.shared.data, at) => joined,
        () = stop.cancelled() => return Ok(()),
    };
    let member = match joined {
        Err(error @ (MemberError::NoToken | MemberError::Refused(_))) if known.is_some() => {
            tracing::error!(%error, "no master can give orders; this host's lnds are looked after all the same");
            stop.cancelled().await;
            return Err(error.into());
        }
        joined => joined?,
    };
    let host = match known {
        Some(host) => host,
        None => parts.host(member.identity.clone(), port).await?,
    };
    serve(&config, listener, member, host, parts, stop).await
}

/// Where the program is: an lnd has no PATH to be found in, since its environment is empty.
fn find_program(name: &Path) -> io::Result<PathBuf> {
    if name.components().count() > 1 {
        return std::path::absolute(name);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut candidates = std::env::split_paths(&path).map(|folder| folder.join(name));
    candidates.find(|candidate| candidate.is_file()).ok_or_else(|| io::ErrorKind::NotFound.into())
}

struct Parts {
    shared: Arc<Shared>,
    outbox: Arc<Outbox>,
    sequence: Arc<Sequence>,
}

impl Parts {
    fn open(config: &AgentConfig, lnd: PathBuf, data: DataDir) -> io::Result<Self> {
        let outbox = Arc::new(Outbox::open(data.own("outbox"))?);
        let sequence = Arc::new(Sequence::open(data.own("sequence"))?);
        let shared = Arc::new(Shared {
            starter: match config.lnd_start {
                LndStart::Child => Box::new(Children),
                LndStart::Systemd => Box::new(Units::new(data.clone())),
            },
            releases: Arc::new(Releases::new(data.clone(), config.releases.clone())),
            data,
            lnd,
            address: config.address,
            port_base: config.port_base,
            rest: config.lnd_rest,
            backoff: config.restart_backoff,
            board: Board::default(),
            backups: Backups::new(Arc::clone(&outbox), Arc::clone(&sequence))?,
            slots: Slots::default(),
        });
        Ok(Self { shared, outbox, sequence })
    }

    async fn host(&self, identity: Identity, port: u16) -> Result<Arc<Host>, RunError> {
        let host = Host::open(identity, port, Arc::clone(&self.shared)).await;
        host.map(Arc::new).map_err(io_error("the host's lnds cannot be looked after"))
    }
}

async fn serve(
    config: &AgentConfig,
    listener: TcpListener,
    member: Member,
    host: Arc<Host>,
    parts: Parts,
    stop: CancellationToken,
) -> Result<(), RunError> {
    let masters = Arc::new(Masters::new(config.masters.clone(), &member.trust, &member.own)?);
    let reporter = Reporter {
        host: Arc::clone(&host),
        masters: Arc::clone(&masters),
        outbox: parts.outbox,
        sequence: parts.sequence,
        look_every: config.look_every,
    };
    let service = AgentService::new(Arc::clone(&host), member.clone(), Arc::clone(&masters));
    let gate = only_good_peers(Arc::new(SystemClock));
    let incoming = member.trust.agent_server(&member.own)?.incoming(listener);
    let server = Server::builder()
        .http2_keepalive_interval(Some(PING_EVERY))
        .http2_keepalive_timeout(Some(PING_EVERY))
        .add_service(AgentServer::with_interceptor(service, gate))
        .serve_with_incoming_shutdown(incoming, stop.clone().cancelled_owned());
    tracing::info!(host.id = %member.identity.host, generation = member.identity.generation, "the agent runs");
    let overdue = async {
        stop.cancelled().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        ended = server => Ok(ended?),
        () = reporter.run() => Ok(()),
        () = member.keep_fresh(&parts.shared.data, &masters) => Ok(()),
        () = overdue => Ok(()),
    }
}
