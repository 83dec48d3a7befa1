//! The fleet as a rollout is planned on it, kept in memory: nodes with what they run, their hosts, the channels among them,
//! and the upgrades under way.

use super::super::Parts;
use crate::error::{Error, Result};
use crate::model::host::Host;
use crate::model::node::{Backup, BackupHead, Node, Phase, Runtime, WalletState};
use crate::model::operation::{Operation, State};
use crate::model::release::{ProgramRelease, Release, Sha256, Version as Lnd};
use crate::model::rollout::Rollout;
use crate::model::rollout::plan::{Has, Seen};
use crate::model::updates::ReleaseRecord;
use crate::model::work::Work;
use crate::model::{HostId, NodeId, OperationId};
use crate::release::manifest;
use crate::store::repo::{self, Entity, Versioned};
use crate::store::{Change, Document, IndexEntry, Version, Write};
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use time::OffsetDateTime;

/// How many documents are asked for at once.
const PAGE: usize = 500;

/// How an upgrade has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    /// The node has the release.
    Passed,
    /// It could not be called, or is not in use any more.
    Skipped,
    /// It did not pass.
    Failed(String),
}

/// Whose upgrades have ended, and how.
pub(super) type Ended = Vec<(NodeId, OperationId, End)>;

#[derive(Debug, Default)]
struct Known {
    version: Option<Version>,
    host: Option<HostId>,
    lnd: Option<Sha256>,
    is_ready: bool,
    is_active: bool,
    /// The number of the backup that `points` are of.
    good: Option<u64>,
    /// Its channels, by hash: two that are taken for one by mistake are only never updated together.
    points: Vec<u64>,
}

#[derive(Debug, Default)]
pub(super) struct View {
    rollouts: BTreeMap<u64, Versioned<Rollout>>,
    releases: HashMap<u64, Release>,
    /// Which lnd an artifact is.
    lnds: HashMap<Sha256, Lnd>,
    nodes: HashMap<NodeId, Known>,
    hosts: HashMap<HostId, Versioned<Host>>,
    by_point: HashMap<u64, Vec<NodeId>>,
    upgrades: HashMap<NodeId, OperationId>,
    ended: HashMap<OperationId, End>,
    hasher: RandomState,
}

impl View {
    /// Reads all of it. What cannot be read is left alone, and told. Without rollouts there is nothing more to know.
    pub(super) async fn read(parts: &Parts) -> Result<Self> {
        let store = &*parts.store;
        let skipped = |error| tracing::error!(%error, "is not counted in rollouts");
        let mut view = Self::default();
        for rollout in repo::list_all_readable::<Rollout>(store, None, skipped).await? {
            view.put_rollout(rollout);
        }
        if view.rollouts.is_empty() {
            return Ok(view);
        }
        for release in repo::list_all_readable::<ReleaseRecord>(store, None, skipped).await? {
            view.put_release(&release.value);
        }
        for host in repo::list_all_readable::<Host>(store, None, skipped).await? {
            view.put_host(host);
        }
        // Page by page: all nodes of a fleet, with their secrets, are more than is to be in memory.
        repo::each_readable::<Node>(store, None, skipped, |node| view.put_node(&node)).await?;
        repo::each_readable::<Runtime>(store, None, skipped, |runtime| view.put_runtime(&runtime.value)).await?;
        let heads = repo::list_all_readable::<BackupHead>(store, None, skipped).await?;
        let good: Vec<(NodeId, u64)> = heads.into_iter().filter_map(|h| Some((h.value.node, h.value.good?))).collect();
        for page in good.chunks(PAGE) {
            let ids: Vec<String> = page.iter().map(|(node, number)| Backup::id_of(node, *number)).collect();
            for backup in repo::get_all::<Backup>(store, &ids).await?.into_iter().flatten() {
                view.put_backup(&backup.value);
            }
        }
        let running = IndexEntry { name: "state", value: State::Running.name().to_owned() };
        for operation in repo::list_all_readable::<Operation>(store, Some(running), skipped).await? {
            view.put_operation(&operation.value);
        }
        // Of those that have ended meanwhile somebody may not have taken note.
        for id in view.under_way() {
            if let Some(operation) = repo::get::<Operation>(store, id.as_str()).await? {
                view.put_operation(&operation.value);
            }
        }
        Ok(view)
    }

    fn under_way(&self) -> Vec<OperationId> {
        self.rollouts.values().flat_map(|rollout| rollout.value.under_way.values()).cloned().collect()
    }

    /// Takes note of a change. False: everything is to be read anew.
    pub(super) async fn apply(&mut self, parts: &Parts, change: &Change) -> Result<bool> {
        let Change::Put(document) = change else { return Ok(!matches!(change, Change::Resync)) };
        if document.key.collection == Rollout::COLLECTION {
            let is_first = self.rollouts.is_empty();
            self.put_rollout(decoded(document)?);
            return Ok(!is_first);
        }
        if self.rollouts.is_empty() {
            return Ok(true);
        }
        match document.key.collection {
            ReleaseRecord::COLLECTION => self.put_release(&decoded(document)?.value),
            Host::COLLECTION => self.put_host(decoded(document)?),
            Node::COLLECTION => self.put_node(&decoded(document)?),
            Runtime::COLLECTION => self.put_runtime(&decoded::<Runtime>(document)?.value),
            BackupHead::COLLECTION => self.read_backup(parts, &decoded::<BackupHead>(document)?.value).await?,
            Operation::COLLECTION => self.put_operation(&decoded::<Operation>(document)?.value),
            _ => {}
        }
        Ok(true)
    }

    async fn read_backup(&mut self, parts: &Parts, head: &BackupHead) -> Result<()> {
        let Some(good) = head.good else { return Ok(()) };
        if self.nodes.get(&head.node).is_some_and(|known| known.good == Some(good)) {
            return Ok(());
        }
        let backup = repo::get::<Backup>(&*parts.store, &Backup::id_of(&head.node, good)).await?;
        backup.iter().for_each(|backup| self.put_backup(&backup.value));
        Ok(())
    }

    /// Reads again what a commit expected in vain.
    pub(super) async fn refresh(&mut self, parts: &Parts, serial: u64, nodes: &[NodeId]) -> Result<()> {
        let store = &*parts.store;
        for id in nodes {
            if let Some(node) = repo::get::<Node>(store, id.as_str()).await? {
                self.put_node(&node);
            }
        }
        if let Some(rollout) = repo::get::<Rollout>(store, &Rollout::id_of(serial)).await? {
            self.put_rollout(rollout);
        }
        Ok(())
    }

    /// Older news, of what was written here already, do not count.
    pub(super) fn put_rollout(&mut self, rollout: Versioned<Rollout>) {
        let serial = rollout.value.serial;
        if self.rollouts.get(&serial).is_none_or(|known| known.version <= rollout.version) {
            self.rollouts.insert(serial, rollout);
        }
    }

    fn put_release(&mut self, record: &ReleaseRecord) {
        match manifest::parse(record.manifest.as_bytes()) {
            Ok((_, release)) => {
                if let Some(program) = &release.lnd {
                    let artifacts = program.artifacts.values().map(|artifact| artifact.sha256.clone());
                    self.lnds.extend(artifacts.map(|digest| (digest, program.version.clone())));
                }
                self.releases.insert(record.serial, release);
            }
            Err(error) => tracing::error!(%error, serial = record.serial, "a release cannot be read"),
        }
    }

    fn put_host(&mut self, host: Versioned<Host>) {
        if self.hosts.get(&host.value.id).is_none_or(|known| known.version <= host.version) {
            self.hosts.insert(host.value.id.clone(), host);
        }
    }

    pub(super) fn put_node(&mut self, node: &Versioned<Node>) {
        let known = self.nodes.entry(node.value.id.clone()).or_default();
        if known.version <= Some(node.version) {
            known.version = Some(node.version);
            known.host = node.value.placement.as_ref().map(|placement| placement.host.clone());
            known.lnd.clone_from(&node.value.lnd);
            known.is_ready = node.value.phase == Phase::Ready && node.value.endpoint.is_some();
        }
    }

    fn put_runtime(&mut self, runtime: &Runtime) {
        if let Some(known) = self.nodes.get_mut(&runtime.node) {
            known.is_active = runtime.wallet == WalletState::ServerActive;
        }
    }

    fn put_backup(&mut self, backup: &Backup) {
        let Some(known) = self.nodes.get_mut(&backup.node) else { return };
        let points = backup.channel_points.iter().flatten().map(|point| self.hasher.hash_one(point)).collect();
        known.good = Some(backup.number);
        for gone in std::mem::replace(&mut known.points, points) {
            if let Entry::Occupied(mut entry) = self.by_point.entry(gone) {
                entry.get_mut().retain(|node| *node != backup.node);
                if entry.get().is_empty() {
                    entry.remove();
                }
            }
        }
        for point in &known.points {
            self.by_point.entry(*point).or_default().push(backup.node.clone());
        }
    }

    fn put_operation(&mut self, operation: &Operation) {
        let (Work::Upgrade(_), Some(node)) = (&operation.work, &operation.node) else { return };
        if operation.is_running() {
            self.upgrades.insert(node.clone(), operation.id.clone());
            return;
        }
        if self.upgrades.get(node) == Some(&operation.id) {
            self.upgrades.remove(node);
        }
        let is_ours = self.rollouts.values().any(|r| r.value.under_way.get(node) == Some(&operation.id));
        if is_ours {
            self.ended.insert(operation.id.clone(), end_of(operation));
        }
    }

    /// That these were begun, as this master has just written.
    pub(super) fn begun(&mut self, operations: Vec<(NodeId, OperationId)>) {
        self.upgrades.extend(operations);
    }

    /// A rollout some of whose upgrades have ended, and how.
    pub(super) fn to_note(&self) -> Option<(Versioned<Rollout>, Ended)> {
        self.rollouts.values().find_map(|rollout| {
            let under_way = rollout.value.under_way.iter();
            let ended = under_way.filter_map(|(n, op)| Some((n.clone(), op.clone(), self.ended.get(op)?.clone())));
            let ended: Vec<_> = ended.collect();
            (!ended.is_empty()).then(|| (rollout.clone(), ended))
        })
    }

    /// It is noted.
    pub(super) fn forget(&mut self, operation: &OperationId) {
        self.ended.remove(operation);
    }

    /// The rollout of the newest release, with that.
    pub(super) fn newest(&self) -> Option<(&Versioned<Rollout>, &Release)> {
        let (serial, rollout) = self.rollouts.last_key_value()?;
        Some((rollout, self.releases.get(serial)?))
    }

    pub(super) fn rollout(&self, serial: u64) -> Option<&Versioned<Rollout>> {
        self.rollouts.get(&serial)
    }

    pub(super) fn release(&self, serial: u64) -> Option<&Release> {
        self.releases.get(&serial)
    }

    /// The condition that a node is as it is known here.
    pub(super) fn is_unchanged(&self, node: &NodeId) -> Option<Write> {
        Some(repo::check::<Node>(node.as_str(), self.nodes.get(node)?.version?))
    }

    /// The fleet, as a rollout of `lnd` is planned on it. Those that are `away` are not to be called now.
    pub(super) fn fleet(&self, lnd: Option<&ProgramRelease>, away: &HashSet<NodeId>, now: OffsetDateTime) -> Vec<Seen> {
        let in_use = self.nodes.iter().filter(|(_, known)| known.is_ready);
        let seen = in_use.filter_map(|(id, known)| {
            let host = known.host.as_ref()?;
            let is_there = self.hosts.get(host).is_some_and(|h| h.value.is_usable() && h.value.is_certified(now));
            // One that a release has broken is there to be mended by another.
            let can_be_called = known.is_active || self.was_broken(id);
            Some(Seen {
                id: id.clone(),
                host: host.clone(),
                has: self.has(known, host, lnd),
                in_flight: self.upgrades.contains_key(id),
                is_usable: is_there && can_be_called && !away.contains(id),
                is_marked: false,
                channels: u32::try_from(known.points.len()).unwrap_or(u32::MAX),
                neighbours: self.neighbours(id, known),
                is_treasury: false,
            })
        });
        seen.collect()
    }

    fn was_broken(&self, node: &NodeId) -> bool {
        self.rollouts.values().any(|rollout| rollout.value.failed.contains_key(node))
    }

    fn neighbours(&self, id: &NodeId, known: &Known) -> Vec<NodeId> {
        let sharing = known.points.iter().filter_map(|point| self.by_point.get(point)).flatten();
        sharing.filter(|other| *other != id).cloned().collect()
    }

    fn has(&self, known: &Known, host: &HostId, lnd: Option<&ProgramRelease>) -> Has {
        let Some(wanted) = lnd else { return Has::TheRelease };
        let of_host = || {
            let report = self.hosts.get(host)?.value.report.as_ref()?;
            Lnd::of_lnd(&report.lnd_version).map(|(version, _)| version)
        };
        let present = match &known.lnd {
            Some(digest) => self.lnds.get(digest).cloned(),
            None => of_host(),
        };
        match present {
            Some(present) if present == wanted.version => Has::TheRelease,
            Some(present) if wanted.may_follow(&present) => Has::AFormer,
            _ => Has::Another,
        }
    }
}

fn end_of(operation: &Operation) -> End {
    match &operation.state {
        State::Succeeded { result } if result.get("skipped").is_some() => End::Skipped,
        State::Running | State::Succeeded { .. } => End::Passed,
        State::Failed { error } => End::Failed(error.message.clone()),
        State::Parked { error } => End::Failed(format!("operation {} is parked: {}", operation.id, error.message)),
    }
}

fn decoded<T: Entity>(document: &Document) -> Result<Versioned<T>> {
    repo::decode(document.clone()).map_err(Error::from)
}
