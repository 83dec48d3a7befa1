//! Rollouts: the release that the deployment wants on its way to every node. One master at a time follows the plan, under the
//! claim `rollouts`: what is next is written into the rollout's document together with the operations that do it, and so is
//! how each has ended. So whoever follows goes on where the one before was.

mod view;

use super::Parts;
use super::claim::{self, ClaimGuard};
use crate::error::Result;
use crate::fault;
use crate::model::operation::{Operation, State};
use crate::model::rollout::plan::{Plan, Reason, Seen, plan};
use crate::model::rollout::{self, NotNow, Progress, Rollout};
use crate::model::work::Work;
use crate::model::work::upgrade::{Upgrade, UpgradeStep};
use crate::model::{NodeId, OperationId};
use crate::store::repo::{self, Versioned};
use crate::store::{Change, Store, Version, Write};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use time::OffsetDateTime;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use view::{End, View};

/// The subject of the claim.
const SUBJECT: &str = "rollouts";
/// How long what went wrong is left alone.
const SETBACK: Duration = Duration::from_secs(1);
/// What comes within this belongs to the same plan.
const TOGETHER: Duration = Duration::from_millis(50);
/// How often a plan is made though nothing has changed: time passes, too.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How often it is written down how far it is, where nothing else is written.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// How long a node that could not be called is left alone.
const AWAY_FOR: Duration = Duration::from_secs(60);
/// How many operations are begun in one commit.
const AT_ONCE: usize = 100;

/// What an operator may say of a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// Begin nothing new for now.
    Pause,
    /// Go on.
    Resume,
    /// Never begin anything new.
    Abort,
    /// Try again what has failed.
    Retry,
}

impl Word {
    /// What it makes of a rollout.
    ///
    /// # Errors
    /// It cannot be followed now.
    pub fn said_to(self, rollout: Rollout) -> std::result::Result<Rollout, NotNow> {
        match self {
            Self::Pause => rollout.pause(),
            Self::Resume => rollout.resume(),
            Self::Abort => rollout.abort(),
            Self::Retry => rollout.retry(),
        }
    }
}

/// Every node that is in use, and why it is not updated now; none where it is about to be.
#[derive(Debug)]
pub struct Reasons {
    /// The rollout.
    pub rollout: Rollout,
    /// Of each node.
    pub nodes: Vec<(NodeId, Option<Reason>)>,
}

/// Plans afresh, and changes nothing: for whoever wants to know of each node.
///
/// # Errors
/// The Store does not answer.
pub async fn reasons(parts: &Parts, serial: u64) -> Result<Option<Reasons>> {
    let view = View::read(parts).await?;
    let (Some(rollout), Some(release)) = (view.rollout(serial), view.release(serial)) else { return Ok(None) };
    let now = parts.clock.now();
    let fleet = view.fleet(release.lnd.as_ref(), &HashSet::new(), now);
    let Plan { begin, waiting, .. } = plan(&rollout.value, &fleet, now, serial);
    let begin = begin.into_iter().map(|node| (node, None));
    let mut nodes: Vec<_> = begin.chain(waiting.into_iter().map(|(node, reason)| (node, Some(reason)))).collect();
    nodes.sort_by(|(one, _), (other, _)| one.cmp(other));
    Ok(Some(Reasons { rollout: rollout.value.clone(), nodes }))
}

/// The part of a master that rolls releases out.
#[derive(Debug)]
pub struct RolloutKeeper {
    parts: Arc<Parts>,
}

impl RolloutKeeper {
    /// One that does nothing until it is run.
    #[must_use]
    pub fn new(parts: Arc<Parts>) -> Self {
        Self { parts }
    }

    /// Follows the plan whenever no other master does, until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let Parts { store, lease, observer, .. } = &*self.parts;
        while !stop.is_cancelled() {
            // Subscribed before the look, so that nothing falls between.
            let mut feed = self.parts.feed.subscribe();
            match claim::claim(&**store, lease, observer, SUBJECT).await {
                Ok(Some(guard)) => {
                    let ended = stop.run_until_cancelled(self.keep(&guard, &mut feed)).await;
                    if let Some(Err(error)) = ended {
                        tracing::info!(%error, "another look at the rollouts begins");
                    }
                    if let Err(error) = guard.release(&**store).await {
                        tracing::debug!(%error, "the claim on rollouts could not be released");
                    }
                    let _stopped = stop.run_until_cancelled(tokio::time::sleep(SETBACK)).await;
                }
                Ok(None) => {
                    let _stopped = stop.run_until_cancelled(claim::released(&mut feed, SUBJECT, lease.ttl())).await;
                }
                Err(error) => {
                    tracing::debug!(%error, "rollouts cannot be claimed now");
                    let _stopped = stop.run_until_cancelled(tokio::time::sleep(SETBACK)).await;
                }
            }
        }
    }

    async fn keep(&self, guard: &ClaimGuard, feed: &mut Receiver<Arc<Change>>) -> Result<()> {
        let view = View::read(&self.parts).await?;
        let mut keeping = Keeping { parts: &self.parts, guard, view, away: HashMap::new(), told: Instant::now() };
        loop {
            guard.check()?;
            while keeping.note_one().await? {
                guard.check()?;
            }
            let next_look = keeping.go_on().await?;
            let changed = tokio::time::timeout(next_look, feed.recv()).await;
            if let Ok(change) = changed {
                keeping.apply(change).await?;
                tokio::time::sleep(TOGETHER).await;
            }
            while !feed.is_empty() {
                keeping.apply(feed.recv().await).await?;
            }
        }
    }
}

/// Whose upgrades are begun.
type Begun = Vec<(NodeId, OperationId)>;

struct Keeping<'a> {
    parts: &'a Parts,
    guard: &'a ClaimGuard,
    view: View,
    /// Who could not be called, and until when they are left alone. Not worth writing down.
    away: HashMap<NodeId, Instant>,
    /// When it was last written how far it is.
    told: Instant,
}

impl Keeping<'_> {
    fn store(&self) -> &dyn Store {
        &*self.parts.store
    }

    async fn apply(&mut self, change: std::result::Result<Arc<Change>, RecvError>) -> Result<()> {
        let is_known = match change {
            Ok(change) => self.view.apply(self.parts, &change).await?,
            Err(RecvError::Lagged(_)) => false,
            Err(RecvError::Closed) => return Err(crate::error::Error::Invariant("the feed has ended".to_owned())),
        };
        if !is_known {
            self.view = View::read(self.parts).await?;
        }
        Ok(())
    }

    /// Writes down how upgrades have ended. False: there are no more.
    async fn note_one(&mut self) -> Result<bool> {
        let Some((before, ended)) = self.view.to_note() else { return Ok(false) };
        let (serial, was) = (before.value.serial, before.value.state.clone());
        let mut next = before.value;
        for (node, _, end) in &ended {
            next = match end {
                End::Passed => next.note(node, Ok(())),
                End::Skipped => next.skip(node),
                End::Failed(why) => next.note(node, Err(why.clone())),
            };
        }
        fault::point("rollouts.note.before").await;
        if !self.commit(next, before.version, Vec::new(), &[]).await? {
            return Ok(true);
        }
        fault::point("rollouts.note.after").await;
        let now = Instant::now();
        for (node, operation, end) in ended {
            self.view.forget(&operation);
            if end == End::Skipped {
                self.away.insert(node.clone(), now + AWAY_FOR);
            }
            if let Some(known) = self.view.rollout(serial) {
                told_of(&known.value, &was, &node, &end);
            }
        }
        Ok(true)
    }

    /// Plans, and begins what is next. How long until there may be more to do though nothing changes.
    async fn go_on(&mut self) -> Result<Duration> {
        loop {
            let now = self.parts.clock.now();
            let instant = Instant::now();
            self.away.retain(|_, until| *until > instant);
            let away: HashSet<NodeId> = self.away.keys().cloned().collect();
            let Some((known, release)) = self.view.newest() else { return Ok(LOOK_EVERY) };
            let (before, serial) = (known.clone(), known.value.serial);
            if before.value.is_over() && before.value.under_way.is_empty() {
                return Ok(LOOK_EVERY);
            }
            let fleet: Vec<Seen> = self.view.fleet(release.lnd.as_ref(), &away, now);
            let planned = plan(&before.value, &fleet, now, serial);
            let progress = planned.progress();
            let wait = next_look(&planned, now);
            let Plan { mut begin, rollout: mut next, .. } = planned;
            let is_all = begin.len() <= AT_ONCE;
            begin.truncate(AT_ONCE);
            let (operations, writes) = self.operations(serial, &begin, now)?;
            next.under_way.extend(operations.iter().cloned());
            if next == before.value {
                let is_told = self.tell(&before, progress).await?;
                return Ok(if is_told { wait } else { wait.min(TELL_EVERY) });
            }
            if next.state != before.value.state {
                tracing::info!(serial, was = before.value.state.name(), state = next.state.name(), "a rollout changes");
            }
            next.progress = progress;
            fault::point("rollouts.begin.before").await;
            self.guard.check()?;
            let is_written = self.commit(next, before.version, writes, &begin).await?;
            fault::point("rollouts.begin.after").await;
            if is_written {
                for (node, operation) in &operations {
                    tracing::info!(%node, %operation, serial, "a node's update begins");
                }
                self.view.begun(operations);
                self.told = Instant::now();
                if is_all && begin.is_empty() {
                    return Ok(wait);
                }
            }
        }
    }

    /// The operations that update these, each only if its node is still as it is known here.
    fn operations(&self, serial: u64, nodes: &[NodeId], now: OffsetDateTime) -> Result<(Begun, Vec<Write>)> {
        let (mut begun, mut writes) = (Vec::new(), Vec::new());
        for node in nodes {
            let operation = upgrade(serial, node.clone(), now);
            writes.push(repo::create(&operation)?);
            writes.extend(self.view.is_unchanged(node));
            begun.push((node.clone(), operation.id));
        }
        Ok((begun, writes))
    }

    /// How far it is, if that is news and it was not told a moment ago. False: it is to be told yet.
    async fn tell(&mut self, before: &Versioned<Rollout>, progress: Progress) -> Result<bool> {
        if before.value.progress == progress {
            return Ok(true);
        }
        if self.told.elapsed() < TELL_EVERY {
            return Ok(false);
        }
        let next = Rollout { progress, ..before.value.clone() };
        self.told = Instant::now();
        self.commit(next, before.version, Vec::new(), &[]).await
    }

    /// Commits the rollout and what belongs to it, under the claim. False: somebody has changed one of them meanwhile, and it is
    /// to be decided again.
    async fn commit(&mut self, next: Rollout, before: Version, more: Vec<Write>, nodes: &[NodeId]) -> Result<bool> {
        let mut writes = vec![repo::update(&next, before)?, self.guard.condition()];
        writes.extend(more);
        match self.store().commit(writes).await {
            Ok(versions) => {
                let version = versions.first().copied().unwrap_or(before);
                self.view.put_rollout(Versioned { value: next, version });
                Ok(true)
            }
            Err(error) if error.is_conflict() && self.guard.is_stored(self.store()).await? => {
                self.view.refresh(self.parts, next.serial, nodes).await?;
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }
}

fn told_of(rollout: &Rollout, was: &rollout::State, node: &NodeId, end: &End) {
    let serial = rollout.serial;
    match end {
        End::Passed => tracing::info!(%node, serial, "a node has the release"),
        End::Skipped => tracing::info!(%node, serial, "a node is left out for now"),
        End::Failed(why) => tracing::warn!(%node, serial, why, "a node has not passed"),
    }
    if let (rollout::State::Halted { why }, false) = (&rollout.state, *was == rollout.state) {
        tracing::error!(serial, why, "ALARM: a rollout is halted");
    }
}

/// When there may be more to do though nothing changes.
fn next_look(planned: &Plan, now: OffsetDateTime) -> Duration {
    let until = planned.waiting.values().filter_map(|reason| match reason {
        Reason::Baking { until } => Duration::try_from(*until - now).ok(),
        _ => None,
    });
    until.min().unwrap_or(LOOK_EVERY).clamp(TOGETHER, LOOK_EVERY)
}

/// A node's update.
#[must_use]
pub fn upgrade(serial: u64, node: NodeId, now: OffsetDateTime) -> Operation {
    Operation {
        id: OperationId::random(now, &mut rand::rng()),
        owner: None,
        node: Some(node),
        host: None,
        work: Work::Upgrade(Upgrade { serial, step: UpgradeStep::Install }),
        state: State::Running,
        progress: "accepted".to_owned(),
        reservation: None,
        created_at: now,
        updated_at: now,
    }
}
