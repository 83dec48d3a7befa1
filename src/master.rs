//! A master: builds the adapters, runs them, and ends them in order. Nothing else names them all.

mod authorities;
mod build;
mod keyring;
mod spec;

pub use build::{treasury_certificate, treasury_macaroon};
pub use spec::node_spec;

use crate::app::directory::Directory;
use crate::app::executor::Executor;
use crate::app::expiry;
use crate::app::fleet::Fleet;
use crate::app::hosting::HostKeeper;
use crate::app::rollouts::RolloutKeeper;
use crate::app::updates;
use crate::app::upkeep::Upkeep;
use crate::app::{Parts, Service};
use crate::config::Config;
use crate::deployment::{self, KeySource};
use crate::error::{Error, StoreError};
use crate::http::{AppState, BoundServer, ServeError};
use crate::lndserver::fleet as agents;
use crate::model::MasterId;
use crate::pki::Credentials;
use crate::seal::KeyError;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;

/// Why a master does not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum MasterError {
    /// The database.
    #[error(transparent)]
    OpenStore(#[from] deployment::OpenStoreError),
    /// The sealing keys.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The Store belongs to others, or the keys do not open it.
    #[error(transparent)]
    Deployment(#[from] deployment::OpenError),
    /// The Store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The deployment's certificates.
    #[error(transparent)]
    Fleet(#[from] Error),
    /// A file that the configuration names.
    #[error("{key}: {reason}")]
    File {
        /// The setting.
        key: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A port cannot be listened on.
    #[error("agents.listen: cannot listen on {0}")]
    Listen(SocketAddr, #[source] std::io::Error),
    /// The REST API.
    #[error(transparent)]
    Http(#[from] ServeError),
    /// The listener for agents.
    #[error(transparent)]
    Agents(#[from] agents::ServeError),
    /// A part that runs as long as the master does has ended, which is a defect.
    #[error("a part of the master ended by itself: {0}")]
    Ended(&'static str),
}

/// A master that listens and is about to run.
#[derive(Debug)]
pub struct Master {
    config: Config,
    id: MasterId,
    parts: Arc<Parts>,
    fleet: Arc<Fleet>,
    credentials: Credentials,
    key_source: KeySource,
    http: BoundServer,
    agents: TcpListener,
    agents_address: SocketAddr,
}

impl Master {
    /// Opens the Store, proves that the keys open it, and listens. Nothing acts and nothing is answered before
    /// [`Master::run`].
    ///
    /// # Errors
    /// See [`MasterError`].
    pub async fn open(config: Config) -> Result<Self, MasterError> {
        let built = build::build(&config).await?;
        let failed = |error| MasterError::Listen(config.agents.listen, error);
        let agents = TcpListener::bind(config.agents.listen).await.map_err(failed)?;
        let agents_address = agents.local_addr().map_err(failed)?;
        let http = BoundServer::bind(config.http.clone())?;
        let build::Built { id, parts, fleet, credentials, key_source } = built;
        Ok(Self { config, id, parts, fleet, credentials, key_source, http, agents, agents_address })
    }

    /// Where the API is, without a slash at the end.
    #[must_use]
    pub fn url(&self) -> String {
        self.http.url()
    }

    /// Where agents report.
    #[must_use]
    pub fn agents_address(&self) -> SocketAddr {
        self.agents_address
    }

    /// Runs until `stop`, then ends in order: `/readyz` fails, waiting calls answer, streams end; running steps get their
    /// grace, and claims are released; last of all nobody listens any more and the heartbeat is taken away.
    ///
    /// # Errors
    /// When a part of the master ended by itself.
    pub async fn run(self, stop: CancellationToken) -> Result<(), MasterError> {
        tracing::info!(master.id = %self.id, url = self.url(), agents = %self.agents_address, "the master starts");
        let stop = stop.child_token();
        // What the rest stands on ends after it.
        let base_stop = CancellationToken::new();
        let mut work = JoinSet::new();
        let mut base = JoinSet::new();

        let per_node = self.config.http.max_per_node;
        let directory = Directory::start(Arc::clone(&self.parts), per_node, base_stop.clone()).await?;
        let state = AppState {
            service: Service::new(Arc::clone(&self.parts), Arc::clone(&directory)),
            directory,
            store: Arc::clone(&self.parts.store),
            clock: Arc::clone(&self.parts.clock),
            network: self.config.deployment.network,
            webhook: build::webhook(&self.config)?.map(Arc::new),
        };
        // Who asks is answered until the last step has ended: that this master is not ready, or how an operation is.
        spawn(&mut base, "http", self.http.run(state, stop.clone(), base_stop.clone()));
        let (fleet, credentials, listener) = (Arc::clone(&self.fleet), self.credentials.clone(), self.agents);
        let agents_stop = stop.clone();
        spawn(&mut work, "agents", async move { agents::serve(listener, fleet, &credentials, agents_stop).await });
        spawn(&mut work, "executor", done(Executor::new(Arc::clone(&self.parts)).run(stop.clone())));
        spawn(&mut work, "hosts", done(HostKeeper::new(Arc::clone(&self.parts)).run(stop.clone())));
        spawn(&mut work, "rollouts", done(RolloutKeeper::new(Arc::clone(&self.parts)).run(stop.clone())));
        spawn(&mut work, "upkeep", done(Upkeep::new(Arc::clone(&self.parts)).run(stop.clone())));

        // Subscribed before the feed runs, so that no change is missed.
        let keys = keyring::follow(Arc::clone(&self.parts), self.key_source, self.parts.feed.subscribe());
        let keys_stop = base_stop.clone();
        spawn(&mut base, "keys", async move { keys_stop.run_until_cancelled(keys).await.unwrap_or(Ok(())) });

        let (parts, fleet, own) = (Arc::clone(&self.parts), Arc::clone(&self.fleet), self.credentials.clone());
        let authorities = authorities::follow(parts, fleet, own, self.parts.feed.subscribe());
        spawn(&mut base, "authorities", done(stopped_by(base_stop.clone(), authorities)));

        spawn(&mut work, "releases", done(updates::run(Arc::clone(&self.parts), stop.clone())));
        let store = || Arc::clone(&self.parts.store);
        spawn(&mut work, "expiry", done(expiry::run(store(), Arc::clone(&self.parts.clock), stop.clone())));
        spawn(&mut base, "feed", done(Arc::clone(&self.parts.feed).run(store(), base_stop.clone())));
        let lease = spawn(&mut base, "lease", done(Arc::clone(&self.parts.lease).run(store(), base_stop.clone())));
        let (fleet, id, credentials, fresh_stop) = (self.fleet, self.id, self.credentials, base_stop.clone());
        spawn(&mut base, "certificates", async move {
            tokio::select! {
                () = fresh_stop.cancelled() => {}
                () = fleet.keep_fresh(&id, &credentials) => {}
            }
            Ok::<_, MasterError>(())
        });

        let ended = tokio::select! {
            // First: once it is told to stop, parts end one after the other, as they should.
            biased;
            () = stop.cancelled() => Ok(()),
            Some(ended) = work.join_next() => Err(unexpected(ended)),
            Some(ended) = base.join_next() => Err(unexpected(ended)),
        };
        stop.cancel();
        end(work, base, lease, base_stop, self.config.master.shutdown_grace).await;
        ended
    }
}

/// How a part has ended, and which.
type Ended = (&'static str, Result<(), MasterError>);

fn spawn<E>(
    parts: &mut JoinSet<Ended>,
    name: &'static str,
    part: impl Future<Output = Result<(), E>> + Send + 'static,
) -> AbortHandle
where
    MasterError: From<E>,
{
    parts.spawn(async move { (name, part.await.map_err(MasterError::from)) })
}

async fn stopped_by(stop: CancellationToken, part: impl Future<Output = ()>) {
    stop.run_until_cancelled(part).await;
}

async fn done(part: impl Future<Output = ()>) -> Result<(), MasterError> {
    part.await;
    Ok(())
}

fn unexpected(ended: Result<Ended, tokio::task::JoinError>) -> MasterError {
    match ended {
        Ok((_, Err(error))) => error,
        Ok((name, Ok(()))) => MasterError::Ended(name),
        Err(_panicked) => MasterError::Ended("see the panic in the log"),
    }
}

/// Lets the work end within `grace`, then what it stands on. Work that did not end keeps its claims until they are dead:
/// taking the heartbeat away would let another master act beside a step whose effect is still on its way.
async fn end(
    mut work: JoinSet<Ended>,
    mut base: JoinSet<Ended>,
    lease: AbortHandle,
    base_stop: CancellationToken,
    grace: Duration,
) {
    let in_time = tokio::time::timeout(grace, async {
        let mut sound = true;
        while let Some(ended) = work.join_next().await {
            sound &= matches!(ended, Ok((_, Ok(()))));
        }
        sound
    });
    let sound = in_time.await.unwrap_or(false);
    if !sound {
        tracing::warn!("a step did not end in time: its claim stays until it is dead");
        lease.abort();
    }
    work.shutdown().await;
    base_stop.cancel();
    while base.join_next().await.is_some() {}
    tracing::info!("the master has ended");
}
