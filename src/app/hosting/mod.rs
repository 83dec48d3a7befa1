//! Hosts that the deployment makes for itself: how many are missing, and what became of their machines. One master at a
//! time does both, under the claim `compute`; it knows by heart what it decides on, and follows the feed.

mod observe;
mod view;

use super::Parts;
use super::claim::{self, ClaimGuard};
use super::fleet::Fleet;
use crate::compute::Compute;
use crate::error::Result;
use crate::fault;
use crate::model::host::{Enrolment, Host, Hosting, Invitation, Joined};
use crate::model::hosting::{Rules, missing};
use crate::model::machine::{Place, Template};
use crate::model::operation::{Operation, State};
use crate::model::provision::Provision;
use crate::model::work::Work;
use crate::model::work::launch::{Launch, LaunchStep};
use crate::model::{HostId, NodeId, OperationId};
use crate::store::Change;
use crate::store::repo::{self, Versioned};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;
use view::View;

/// The subject of the claim.
const SUBJECT: &str = "compute";
/// How long what went wrong is left alone.
const SETBACK: Duration = Duration::from_secs(1);

/// What new hosts are made of.
#[derive(Debug)]
pub struct Supply {
    /// Starts machines.
    pub compute: Arc<dyn Compute>,
    /// How many hosts there are to be.
    pub rules: Rules,
    /// The launch template.
    pub template: Template,
    /// Where to start them; the first that has room.
    pub places: Vec<Place>,
    /// How long after it was decided to ask for a machine its agent must have joined.
    pub join_within: time::Duration,
    /// How often the machines are looked at.
    pub observe_every: Duration,
    /// The deployment's name.
    pub deployment: String,
    /// The fingerprint of its first authority, which marks its machines.
    pub authority: String,
    /// Where agents find masters.
    pub masters: Vec<String>,
    /// What makes a bare machine a host. None: its image has all that.
    pub provision: Option<Provision>,
    /// The keys whose releases its hosts are to believe, as minisign writes them.
    pub release_keys: Vec<String>,
    /// Makes join tokens, and knows what masters are recognised by.
    pub fleet: Arc<Fleet>,
}

/// The part of a master that sees to its hosts.
#[derive(Debug)]
pub struct HostKeeper {
    parts: Arc<Parts>,
}

impl HostKeeper {
    /// One that does nothing until it is run.
    #[must_use]
    pub fn new(parts: Arc<Parts>) -> Self {
        Self { parts }
    }

    /// Sees to the hosts whenever no other master does, until `stop`. Without `[compute]` there is nothing to do.
    pub async fn run(self, stop: CancellationToken) {
        let Some(supply) = &self.parts.supply else { return stop.cancelled().await };
        let Parts { store, lease, observer, .. } = &*self.parts;
        while !stop.is_cancelled() {
            // Subscribed before the look, so that nothing falls between.
            let mut feed = self.parts.feed.subscribe();
            match claim::claim(&**store, lease, observer, SUBJECT).await {
                Ok(Some(guard)) => {
                    let ended = stop.run_until_cancelled(self.keep(supply, &guard, &mut feed)).await;
                    if let Some(Err(error)) = ended {
                        tracing::info!(%error, "another look at the hosts begins");
                    }
                    if let Err(error) = guard.release(&**store).await {
                        tracing::debug!(%error, "the claim on compute could not be released");
                    }
                    let _stopped = stop.run_until_cancelled(tokio::time::sleep(SETBACK)).await;
                }
                Ok(None) => {
                    let _stopped = stop.run_until_cancelled(claim::released(&mut feed, SUBJECT, lease.ttl())).await;
                }
                Err(error) => {
                    tracing::debug!(%error, "compute cannot be claimed now");
                    let _stopped = stop.run_until_cancelled(tokio::time::sleep(SETBACK)).await;
                }
            }
        }
    }

    /// Decides and looks, under the claim, until something goes wrong: then everything is read anew.
    async fn keep(&self, supply: &Supply, guard: &ClaimGuard, feed: &mut Receiver<Arc<Change>>) -> Result<()> {
        let mut view = View::read(&self.parts).await?;
        let mut observer = observe::Observer::new(supply);
        let mut told = Vec::new();
        loop {
            guard.check()?;
            while !self.make_what_is_missing(supply, guard, &mut view, &mut told).await? {
                guard.check()?;
            }
            tokio::select! {
                change = feed.recv() => match change {
                    Ok(change) => self.apply(&mut view, &change).await?,
                    Err(RecvError::Lagged(_)) => view = View::read(&self.parts).await?,
                    Err(RecvError::Closed) => return Ok(()),
                },
                seen = observer.next() => {
                    for machine in observer.changed(&view, &seen, self.parts.clock.now()) {
                        guard.check()?;
                        observe::write_down(&self.parts, guard, &mut view, machine).await?;
                    }
                    for orphan in observe::without_wallets(&view, &seen, &supply.deployment) {
                        guard.check()?;
                        observe::remove(supply, orphan).await;
                    }
                    observer.report_orphans(&view, &seen, &supply.deployment);
                }
            }
            // What came meanwhile belongs to the same look.
            while let Ok(change) = feed.try_recv() {
                self.apply(&mut view, &change).await?;
            }
        }
    }

    async fn apply(&self, view: &mut View, change: &Change) -> Result<()> {
        if !view.apply(change)? {
            *view = View::read(&self.parts).await?;
        }
        Ok(())
    }

    /// Writes down each host that is missing, together with the operation that starts its machine. The claim is part of the
    /// commit, so there is one who counts; and so is the create that waits, so that nobody gets one who has a place already.
    /// False: something has changed meanwhile, and it is to be decided again.
    async fn make_what_is_missing(
        &self,
        supply: &Supply,
        guard: &ClaimGuard,
        view: &mut View,
        told: &mut Vec<NodeId>,
    ) -> Result<bool> {
        let plan = missing(supply.rules, &view.waiting(), view.hosts());
        if plan.without != *told {
            if !plan.without.is_empty() {
                let (waiting, most) = (plan.without.len(), supply.rules.max_hosts);
                tracing::warn!(waiting, most, "no more hosts may be made: compute.max_hosts");
            }
            told.clone_from(&plan.without);
        }
        for wanted_for in plan.hosts {
            fault::point("hosting.make.before").await;
            guard.check()?;
            let host = self.new_host(supply, wanted_for);
            let operation = self.new_launch(&host);
            let mut writes = vec![repo::create(&host)?, repo::create(&operation)?, guard.condition()];
            if let Some(node) = host.wanted_for() {
                writes.extend(view.still_waits(node));
            }
            let store = &*self.parts.store;
            let versions = match store.commit(writes).await {
                Ok(versions) => versions,
                // Who waited does not any more, or does something else.
                Err(error) if error.is_conflict() && guard.is_stored(store).await? => {
                    *view = View::read(&self.parts).await?;
                    return Ok(false);
                }
                Err(error) => return Err(error.into()),
            };
            fault::point("hosting.make.after").await;
            tracing::info!(host.id = %host.id, wanted_for = ?host.wanted_for(), "a host is wanted");
            if let Some(version) = versions.first() {
                view.put_host(Versioned { value: host, version: *version });
            }
        }
        Ok(true)
    }

    fn new_host(&self, supply: &Supply, wanted_for: Option<NodeId>) -> Host {
        let now = self.parts.clock.now();
        // No token makes this digest: one that does comes with the first generation.
        let nobody = Invitation { token_sha256: String::new(), expires_at: now, authorities: Vec::new() };
        Host {
            id: HostId::random(&mut rand::rng()),
            generation: 0,
            enrolment: Enrolment::Invited(nobody),
            joined: Joined::NotYet,
            address: None,
            agent_port: None,
            capacity: supply.rules.nodes_per_host,
            slots: BTreeMap::new(),
            compute: Some(Hosting { wanted_for, gone: false, recovery: None }),
            report: None,
            refused_at: None,
            created_at: now,
        }
    }

    fn new_launch(&self, host: &Host) -> Operation {
        let now = self.parts.clock.now();
        Operation {
            id: OperationId::random(now, &mut rand::rng()),
            owner: None,
            node: None,
            host: Some(host.id.clone()),
            work: Work::Launch(Launch { step: LaunchStep::first() }),
            state: State::Running,
            progress: "accepted".to_owned(),
            reservation: None,
            created_at: now,
            updated_at: now,
        }
    }
}
