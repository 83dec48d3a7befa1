//! `upgrade`: a node's lnd is replaced by that of a release. Stop, confirmed; then the commit that says which lnd is to run;
//! then start; then the gate: the same node, with every channel and every satoshi. Each step may be done again by whoever has
//! the claim, and none goes back but by the way that the release allows.

mod look;

use super::super::feed::wait_for_change;
use super::super::step::{Advance, Ctx, Settle};
use super::create::host_of;
use crate::error::{AgentError, Error, Result};
use crate::lnd::LndErrorKind;
use crate::lndserver::client::Order;
use crate::model::node::{BackupHead, Node, Phase, Runtime, WalletState};
use crate::model::node_look::{Gate, Look, Verdict};
use crate::model::operation::{Operation, State};
use crate::model::problem::{Code, Refusal};
use crate::model::release::{ProgramRelease, Release, Sha256, Version};
use crate::model::updates::ReleaseRecord;
use crate::model::work::Work;
use crate::model::work::upgrade::{Replaced, Upgrade, UpgradeStep};
use crate::model::{NodeId, OperationId};
use crate::release::manifest;
use crate::store::repo::{self, Entity, Versioned};
use crate::store::{Document, IndexEntry, Write};
use serde_json::json;
use std::collections::HashSet;
use std::time::Duration;
use time::OffsetDateTime;

/// How long an event is waited for before looking all the same.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How long an lnd has to answer before its node is left for later.
const ANSWERS_WITHIN: Duration = Duration::from_secs(30);
/// Among how many of a node's newest operations its last upgrade is looked for.
const RECALLED: usize = 500;
/// How long the last look before the stop may take.
const LONGEST_LOOK: Duration = Duration::from_secs(60);
/// How long peers that nobody can be asked about have to come back.
const PEERS_HAVE: Duration = Duration::from_secs(60);

pub(super) async fn advance(ctx: &Ctx, operation: &Operation, work: &Upgrade) -> Result<Advance> {
    let node = ctx.node(operation.node.as_ref()).await?;
    let release = release(ctx, work.serial).await?;
    let Some(lnd) = release.1.lnd.clone() else {
        return Ok(failed(format!("release {} says nothing of lnd", work.serial)));
    };
    let upgrading = Upgrading { ctx, operation, work, node, release: &release.1, lnd: &lnd };
    if !matches!(work.step, UpgradeStep::Install | UpgradeStep::Drain { .. }) {
        // Whoever took this over begins with nobody told to wait.
        ctx.locks.replace(&operation.id, HashSet::new());
    }
    match &work.step {
        UpgradeStep::Install => upgrading.install(&release.0).await,
        UpgradeStep::Drain { lnd, until } => upgrading.drain(lnd, *until).await,
        UpgradeStep::Stop(replaced) => upgrading.stop(replaced).await,
        UpgradeStep::Start { replaced, until } => upgrading.start(replaced, *until).await,
        UpgradeStep::Gate { replaced, since, until } => upgrading.gate(replaced, *since, *until).await,
        UpgradeStep::BackStop { replaced, why } => upgrading.back_stop(replaced, why).await,
        UpgradeStep::BackStart { replaced, why } => upgrading.back_start(replaced, why).await,
    }
}

async fn release(ctx: &Ctx, serial: u64) -> Result<(ReleaseRecord, Release)> {
    let record = repo::get::<ReleaseRecord>(&*ctx.parts.store, &ReleaseRecord::id_of(serial)).await?;
    let record = record.ok_or_else(|| Error::Invariant(format!("release {serial} is not in the store")))?.value;
    // It was verified when it became the wanted one; hosts verify it again.
    let (_, release) = manifest::parse(record.manifest.as_bytes())
        .map_err(|error| Error::Invariant(format!("release {serial} cannot be read: {error}")))?;
    Ok((record, release))
}

/// How a node is.
struct Looked {
    look: Look,
    /// Or rather was: its lnd does not answer since another upgrade.
    is_broken: bool,
}

struct Upgrading<'a> {
    ctx: &'a Ctx,
    operation: &'a Operation,
    work: &'a Upgrade,
    node: Versioned<Node>,
    release: &'a Release,
    lnd: &'a ProgramRelease,
}

impl Upgrading<'_> {
    fn now(&self) -> OffsetDateTime {
        self.ctx.parts.clock.now()
    }

    fn next(&self, step: UpgradeStep, progress: impl Into<String>, writes: Vec<Write>) -> Advance {
        let work = Work::Upgrade(Upgrade { serial: self.work.serial, step });
        Advance::Next { work, progress: progress.into(), writes }
    }

    fn done(&self, from: &str, unproven: usize) -> Advance {
        let version = &self.lnd.version;
        tracing::info!(node = %self.node.value.id, serial = self.work.serial, %version, unproven, "the node's lnd is replaced");
        let result = json!({
            "uuid": self.node.value.uuid, "serial": self.work.serial, "from": from, "to": version,
            "unproven_channels": unproven,
        });
        Advance::Done { result, settle: Settle::Keep, writes: Vec::new() }
    }

    async fn look(&self) -> Result<Look> {
        let lnd = self.ctx.parts.lnds.client(&self.node.value)?;
        look::look(&lnd, &self.ctx.reading_macaroon(&self.node.value)?).await
    }

    /// Nothing was done, and it is nobody's fault: the node may come along later.
    fn skipped(&self, why: &str) -> Advance {
        tracing::info!(node = %self.node.value.id, serial = self.work.serial, why, "the node's lnd is not replaced now");
        let result = json!({ "uuid": self.node.value.uuid, "serial": self.work.serial, "skipped": why });
        Advance::Done { result, settle: Settle::Keep, writes: Vec::new() }
    }

    /// How the node is, or was before an upgrade of which its lnd has not recovered. None: its lnd does not answer, and nobody
    /// knows how it was.
    async fn look_or_recall(&self) -> Result<Option<Looked>> {
        match self.look().await {
            Ok(look) => Ok(Some(Looked { look, is_broken: false })),
            Err(Error::Lnd(error)) if error.kind != LndErrorKind::MacaroonRejected => {
                let look = self.recall().await?;
                Ok(look.map(|look| Looked { look, is_broken: true }))
            }
            Err(error) => Err(error),
        }
    }

    /// What the last upgrade was to prove, where that has failed and its lnd is still the one that is to run: the next must prove
    /// the same.
    async fn recall(&self) -> Result<Option<Look>> {
        let index = IndexEntry { name: "node", value: self.node.value.id.to_string() };
        // Since its lnd does not answer hardly anything was accepted for it.
        let (newest, _) = repo::list::<Operation>(&*self.ctx.parts.store, Some(index), None, RECALLED, true).await?;
        let mut newest = newest.into_iter().map(|operation| operation.value);
        // What has succeeded since was done with an lnd that ran: what was before is no measure any more.
        let is_news = |operation: &Operation| match (&operation.work, &operation.state) {
            (Work::Upgrade(upgrade), State::Failed { .. }) => upgrade.step.replaced().is_some(),
            (Work::Upgrade(_), _) => false,
            (_, state) => matches!(state, State::Succeeded { .. }),
        };
        let failed = newest.find(is_news).and_then(|operation| {
            let Work::Upgrade(upgrade) = operation.work else { return None };
            upgrade.step.replaced().map(|replaced| (upgrade.serial, replaced.clone()))
        });
        let left_behind = failed.filter(|(_, replaced)| self.node.value.lnd.as_ref() == Some(&replaced.lnd));
        let Some((serial, replaced)) = left_behind else { return Ok(None) };
        let version = release(self.ctx, serial).await?.1.lnd.map(|lnd| lnd.version.to_string());
        Ok(version.map(|version| Look { version, ..replaced.before }))
    }

    /// The node is as it was until this has succeeded, and afterwards, too.
    async fn install(&self, record: &ReleaseRecord) -> Result<Advance> {
        if self.node.value.phase != Phase::Ready {
            return Ok(self.skipped("it is not in use"));
        }
        let age = self.now() - self.operation.created_at;
        let Some(Looked { look, .. }) = self.look_or_recall().await? else {
            let is_late = age > ANSWERS_WITHIN;
            return Ok(if is_late {
                self.skipped("its lnd cannot be called")
            } else {
                Advance::again("its lnd does not answer", LOOK_EVERY)
            });
        };
        let told = look.version;
        let present = Version::of_lnd(&told).map(|(version, _)| version);
        let is_there = present.as_ref() == Some(&self.lnd.version);
        if !is_there && !present.is_some_and(|present| self.lnd.may_follow(&present)) {
            return Ok(failed(format!("its lnd is {told}, from which release {} may not begin", self.work.serial)));
        }
        if is_there {
            return Ok(self.done(&told, 0));
        }
        let host = host_of(self.ctx, &self.node.value).await?.value;
        let agents = &self.ctx.parts.agents;
        match agents.install_release(&host, &record.manifest, &record.signature).await {
            Ok(Some(lnd)) => {
                let until = self.now() + self.release.rollout.drain_deadline;
                let step = UpgradeStep::Drain { lnd, until };
                Ok(self.next(step, "what is under way comes to its end; nothing new begins", Vec::new()))
            }
            Ok(None) => Ok(failed("the host installed no lnd of this release")),
            Err(AgentError::Refused(why)) => Ok(failed(format!("the host does not install the release: {why}"))),
            Err(AgentError::Revoked) => Ok(failed("the host is revoked")),
            Err(error) if age > self.release.rollout.progress_deadline => {
                Ok(failed(format!("the host has not installed the release in time: {error}")))
            }
            Err(error) => {
                tracing::info!(%error, node = %self.node.value.id, "the release is not installed yet");
                Ok(Advance::again("the host loads the release", LOOK_EVERY))
            }
        }
    }

    /// Payments under way, opens and closes are lnd's to go on with after its start; what waits for them here waits on.
    async fn drain(&self, lnd: &Sha256, until: OffsetDateTime) -> Result<Advance> {
        let mut changes = self.ctx.parts.feed.subscribe();
        let running = self.others_that_run().await?;
        let Some(under_way) = self.ctx.locks.drain(&self.operation.id, running) else {
            return Ok(Advance::again("another upgrade of this node is under way", LOOK_EVERY));
        };
        if !under_way.is_empty() && self.now() < until {
            let left = Duration::try_from(until - self.now()).unwrap_or_default().min(LOOK_EVERY);
            let ends = |document: &Document| document.key.collection == Operation::COLLECTION;
            wait_for_change(&mut changes, left, ends).await;
            let progress = format!("{} operations come to their end; nothing new begins", under_way.len());
            return Ok(Advance::again(progress, Duration::ZERO));
        }
        self.ctx.locks.replace(&self.operation.id, HashSet::new());
        if self.node.value.phase != Phase::Ready {
            return Ok(self.skipped("it is not in use any more"));
        }
        // Its user waits.
        if self.now() > until + LONGEST_LOOK {
            return Ok(failed(
                "its lnd could not be looked at, or its channel.backup not be verified; nothing was touched",
            ));
        }
        let Some(Looked { look: before, is_broken }) = self.look_or_recall().await? else {
            return Ok(Advance::again("its lnd does not answer", LOOK_EVERY));
        };
        // One that does not run writes no backup that could be verified.
        if !before.channels.is_empty() && !is_broken && !self.is_backed_up().await? {
            return Ok(Advance::again("its newest channel.backup is not verified yet", LOOK_EVERY));
        }
        let former = self.node.value.lnd.clone();
        let replaced = Replaced { lnd: lnd.clone(), former, before };
        Ok(self.next(UpgradeStep::Stop(replaced), "stopping lnd", Vec::new()))
    }

    /// The node's other operations that run.
    async fn others_that_run(&self) -> Result<HashSet<OperationId>> {
        let index = IndexEntry { name: "running", value: self.node.value.id.to_string() };
        let running = repo::list_all::<Operation>(&*self.ctx.parts.store, Some(index)).await?;
        Ok(running.into_iter().map(|other| other.value.id).filter(|id| *id != self.operation.id).collect())
    }

    async fn is_backed_up(&self) -> Result<bool> {
        let head = repo::get::<BackupHead>(&*self.ctx.parts.store, self.node.value.id.as_str()).await?;
        Ok(head.is_some_and(|head| head.value.good == Some(head.value.newest)))
    }

    /// Which lnd is to run is written only once the one before has exited.
    async fn stop(&self, replaced: &Replaced) -> Result<Advance> {
        self.exited().await?;
        let until = self.now() + self.release.rollout.progress_deadline;
        let mut node = self.node.value.clone();
        node.lnd = Some(replaced.lnd.clone());
        let step = UpgradeStep::Start { replaced: replaced.clone(), until };
        let write = repo::update(&node, self.node.version)?;
        Ok(self.next(step, format!("starting lnd {}", self.lnd.version), vec![write]))
    }

    async fn exited(&self) -> Result<()> {
        let host = host_of(self.ctx, &self.node.value).await?.value;
        let order = Order { host: &host, epoch: self.ctx.claim.epoch() };
        Ok(self.ctx.parts.agents.stop_node(order, &self.node.value.id).await?)
    }

    async fn start(&self, replaced: &Replaced, until: OffsetDateTime) -> Result<Advance> {
        match self.ensure().await {
            Ok(()) => {
                let step = UpgradeStep::Gate { replaced: replaced.clone(), since: self.now(), until };
                Ok(self.next(step, "unlocking, and proving that it is the same node", Vec::new()))
            }
            Err(error) if self.now() >= until => {
                Ok(self.did_not_pass(replaced, &format!("it does not start: {error}")))
            }
            Err(Error::Agent(error @ (AgentError::Refused(_) | AgentError::Revoked))) => {
                Ok(self.did_not_pass(replaced, &error.to_string()))
            }
            Err(Error::Agent(error @ (AgentError::Unknown(_) | AgentError::Unreachable(_)))) => {
                tracing::warn!(%error, node = %self.node.value.id, "the new lnd does not run yet");
                Ok(Advance::again(format!("its lnd {} does not run yet", self.lnd.version), LOOK_EVERY))
            }
            Err(error) => Err(error),
        }
    }

    async fn ensure(&self) -> Result<()> {
        let host = host_of(self.ctx, &self.node.value).await?.value;
        let order = Order { host: &host, epoch: self.ctx.claim.epoch() };
        let spec = self.ctx.parts.settings.spec_for(&self.node.value);
        self.ctx.parts.agents.ensure_node(order, spec).await?;
        Ok(())
    }

    async fn gate(&self, replaced: &Replaced, since: OffsetDateTime, until: OffsetDateTime) -> Result<Advance> {
        let mut changes = self.ctx.parts.feed.subscribe();
        let verdict = match self.look().await {
            Ok(now) => {
                let present = self.present(&replaced.before).await?;
                let have_waited = self.now() > since + PEERS_HAVE;
                Gate { wanted: self.lnd, present: &present, have_waited }.judge(&replaced.before, &now)
            }
            Err(Error::Lnd(error)) if error.kind != LndErrorKind::MacaroonRejected => {
                Verdict::NotYet(format!("its lnd does not answer yet: {error}"))
            }
            Err(error) => return Err(error),
        };
        match verdict {
            Verdict::Passed { unproven } => Ok(self.done(&replaced.before.version, unproven)),
            Verdict::Failed(why) => Ok(self.did_not_pass(replaced, &why)),
            Verdict::NotYet(why) if self.now() >= until => Ok(self.did_not_pass(replaced, &why)),
            Verdict::NotYet(why) => {
                let id = self.node.value.id.as_str();
                let of_it =
                    |document: &Document| document.key.collection == Runtime::COLLECTION && document.key.id == id;
                wait_for_change(&mut changes, LOOK_EVERY, of_it).await;
                Ok(Advance::again(why, Duration::ZERO))
            }
        }
    }

    /// The fleet's own lnds among its peers that run, unlocked.
    async fn present(&self, before: &Look) -> Result<HashSet<String>> {
        let store = &*self.ctx.parts.store;
        let peers: HashSet<&String> = before.channels.iter().map(|channel| &channel.peer).collect();
        let mut present = HashSet::new();
        for peer in peers {
            let index = IndexEntry { name: "pubkey", value: peer.clone() };
            for node in repo::list_all::<Node>(store, Some(index)).await? {
                let id: &NodeId = &node.value.id;
                let runtime = repo::get::<Runtime>(store, id.as_str()).await?;
                let is_up = runtime.is_some_and(|runtime| runtime.value.wallet == WalletState::ServerActive);
                if is_up && node.value.phase == Phase::Ready {
                    present.insert(peer.clone());
                }
            }
        }
        Ok(present)
    }

    /// Back to the one before only where that can read what this one may have written; else a person, or a newer release.
    fn did_not_pass(&self, replaced: &Replaced, why: &str) -> Advance {
        let (node, version) = (&self.node.value.id, &self.lnd.version);
        tracing::error!(%node, serial = self.work.serial, %version, why, "ALARM: a node has not passed its upgrade");
        let former = Version::of_lnd(&replaced.before.version).map(|(version, _)| version);
        if former.is_some_and(|former| self.lnd.may_revert_to(&former)) {
            let step = UpgradeStep::BackStop { replaced: replaced.clone(), why: why.to_owned() };
            return self.next(step, format!("{why}; going back to {}", replaced.before.version), Vec::new());
        }
        let stays = format!("{why}. It stays on {version}: no version is named that could read what it has written");
        failed(stays)
    }

    async fn back_stop(&self, replaced: &Replaced, why: &str) -> Result<Advance> {
        self.exited().await?;
        let mut node = self.node.value.clone();
        node.lnd.clone_from(&replaced.former);
        let step = UpgradeStep::BackStart { replaced: replaced.clone(), why: why.to_owned() };
        let write = repo::update(&node, self.node.version)?;
        Ok(self.next(step, format!("starting {} again", replaced.before.version), vec![write]))
    }

    async fn back_start(&self, replaced: &Replaced, why: &str) -> Result<Advance> {
        self.ensure().await?;
        Ok(failed(format!("{why}. The node is back on {}", replaced.before.version)))
    }
}

fn failed(why: impl Into<String>) -> Advance {
    Advance::failed(Refusal::new(Code::UpgradeFailed, why))
}
