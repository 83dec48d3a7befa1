//! What a rollout does next: canaries, then waves; never more nodes without their lnd than it may, on one host or in all; never
//! two that share a channel. Pure: the same look at the fleet gives the same plan.

use super::super::ids::{HostId, NodeId};
use super::super::release::RolloutSettings;
use super::{Progress, Rollout, State};
use std::collections::{BTreeMap, HashMap, HashSet};
use time::OffsetDateTime;

/// Which lnd a node has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Has {
    /// That of the release.
    TheRelease,
    /// One from which the release may be begun.
    AFormer,
    /// One from which it may not, or nobody knows.
    Another,
}

/// A node, as it is seen now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Which.
    pub id: NodeId,
    /// Where.
    pub host: HostId,
    /// Its lnd.
    pub has: Has,
    /// Whether it is being updated now.
    pub in_flight: bool,
    /// Whether it is in use and can be called, and its host's agent answers.
    pub is_usable: bool,
    /// Whether an operator has marked it as one that goes first.
    pub is_marked: bool,
    /// How many channels it has.
    pub channels: u32,
    /// The fleet's nodes with which it has some.
    pub neighbours: Vec<NodeId>,
    /// Whether it is the treasury's, which goes last, alone.
    pub is_treasury: bool,
}

/// Why a node is not updated now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// It has the release.
    AlreadyThere,
    /// It is at it.
    InFlight,
    /// It cannot be called, or its host cannot.
    NotUsable,
    /// The release does not say that it may follow its lnd.
    OtherVersion,
    /// It was tried, and did not pass.
    Failed,
    /// The rollout does not run.
    NotRunning(&'static str),
    /// Others are tried again first.
    AfterRetries,
    /// Others go first.
    AfterCanaries,
    /// Those are to be well until then.
    Baking {
        /// When.
        until: OffsetDateTime,
    },
    /// As many nodes as may be are without their lnd.
    FleetLimit,
    /// And on its host.
    HostLimit,
    /// It shares a channel with one that is updated.
    SharesChannel {
        /// With which.
        with: NodeId,
    },
    /// It is the treasury's.
    Last,
}

impl Reason {
    /// In the API.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::AlreadyThere => "already_there",
            Self::InFlight => "in_flight",
            Self::NotUsable => "not_usable",
            Self::OtherVersion => "other_version",
            Self::Failed => "failed",
            Self::NotRunning(_) => "not_running",
            Self::AfterRetries => "after_retries",
            Self::AfterCanaries => "after_canaries",
            Self::Baking { .. } => "baking",
            Self::FleetLimit => "fleet_limit",
            Self::HostLimit => "host_limit",
            Self::SharesChannel { .. } => "shares_channel",
            Self::Last => "last",
        }
    }

    /// For a person.
    #[must_use]
    pub fn words(&self) -> String {
        match self {
            Self::AlreadyThere => "it has the release".to_owned(),
            Self::InFlight => "it is being updated".to_owned(),
            Self::NotUsable => "it, or its host, cannot be called; it comes along when it can".to_owned(),
            Self::OtherVersion => "its lnd is not in update_from".to_owned(),
            Self::Failed => "it did not pass".to_owned(),
            Self::NotRunning(state) => format!("the rollout is {state}"),
            Self::AfterRetries => "nodes that are tried again go first".to_owned(),
            Self::AfterCanaries => "the canaries go first".to_owned(),
            Self::Baking { until } => format!("the canaries have to be well until {until}"),
            Self::FleetLimit => "max_unavailable nodes are being updated".to_owned(),
            Self::HostLimit => "max_unavailable_per_host nodes of its host are being updated".to_owned(),
            Self::SharesChannel { with } => format!("it has a channel with {with}, which is being updated"),
            Self::Last => "the treasury goes last".to_owned(),
        }
    }
}

/// What is next.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The nodes to begin with now.
    pub begin: Vec<NodeId>,
    /// All others, and why.
    pub waiting: BTreeMap<NodeId, Reason>,
    /// The rollout as it is from now on. Nothing of `begin` counts before that is stored.
    pub rollout: Rollout,
}

impl Plan {
    /// How far that is.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let nodes = (self.begin.len() + self.waiting.len()) as u64;
        let mut progress = Progress { nodes, ..Progress::default() };
        for reason in self.waiting.values() {
            match reason {
                Reason::AlreadyThere => progress.updated += 1,
                Reason::InFlight => {}
                other => *progress.waiting.entry(other.name().to_owned()).or_default() += 1,
            }
        }
        progress
    }
}

/// Plans. `seed` decides which of equal nodes are first, and nothing else.
#[must_use]
pub fn plan(rollout: &Rollout, fleet: &[Seen], now: OffsetDateTime, seed: u64) -> Plan {
    let mut planning = Planning::new(rollout.clone(), fleet, seed);
    planning.settle_canaries(now);
    planning.begin(now);
    planning.end();
    Plan { begin: planning.begin, waiting: planning.waiting, rollout: planning.rollout }
}

struct Planning<'a> {
    rollout: Rollout,
    /// In the order in which they would go.
    fleet: Vec<&'a Seen>,
    begin: Vec<NodeId>,
    waiting: BTreeMap<NodeId, Reason>,
    budget: Budget<'a>,
}

impl<'a> Planning<'a> {
    fn new(rollout: Rollout, fleet: &'a [Seen], seed: u64) -> Self {
        let mut ordered: Vec<&Seen> = fleet.iter().collect();
        ordered.sort_by_cached_key(|node| (node.is_treasury, rank(seed, &node.id), node.id.clone()));
        let mut budget = Budget::new(&rollout.settings);
        // What the rollout has taken away and not given back counts; what is down for reasons of its own would hold up all.
        let failed = &rollout.failed;
        ordered.iter().filter(|node| node.in_flight || !node.is_usable && failed.contains_key(&node.id)).for_each(
            |node| {
                budget.take(node);
            },
        );
        Self { rollout, fleet: ordered, begin: Vec::new(), waiting: BTreeMap::new(), budget }
    }

    /// Whether it could be updated now, but for the others.
    fn is_candidate(&self, node: &Seen) -> bool {
        node.has == Has::AFormer && !node.in_flight && node.is_usable && !self.rollout.failed.contains_key(&node.id)
    }

    fn is_active(&self) -> bool {
        matches!(self.rollout.state, State::Running | State::Done)
    }

    /// Who goes first is chosen once; one that cannot, and was not begun, is replaced.
    fn settle_canaries(&mut self, now: OffsetDateTime) {
        if !self.is_active() {
            return;
        }
        let (fleet, failed) = (self.fleet.clone(), self.rollout.failed.clone());
        let by_id: HashMap<&NodeId, &Seen> = fleet.iter().map(|node| (&node.id, *node)).collect();
        let stays = |id: &NodeId| {
            let node = by_id.get(id);
            failed.contains_key(id) || node.is_some_and(|node| node.in_flight || node.has == Has::TheRelease)
        };
        let fits: HashSet<NodeId> = fleet.iter().filter(|n| self.is_candidate(n)).map(|n| n.id.clone()).collect();
        if self.rollout.well_since.is_none() {
            self.rollout.canaries.retain(|id| stays(id) || fits.contains(id));
            self.choose_canaries();
        }
        // It has the release before its gate has passed.
        let is_well = |node: &&Seen| node.has == Has::TheRelease && node.is_usable && !node.in_flight;
        let is_well = |id: &NodeId| by_id.get(id).is_some_and(is_well);
        let are_well = self.rollout.canaries.iter().all(is_well) && !self.rollout.canaries.is_empty();
        if !are_well && !self.are_baked(now) {
            self.rollout.well_since = None;
        } else if are_well && self.rollout.well_since.is_none() {
            self.rollout.well_since = Some(now);
        }
    }

    fn choose_canaries(&mut self) {
        let wanted = usize::try_from(self.rollout.settings.canaries).unwrap_or(usize::MAX);
        let needs_mark = self.rollout.settings.canary_label.is_some();
        let mut fit: Vec<&Seen> = self.fleet.iter().copied().filter(|node| self.is_candidate(node)).collect();
        fit.retain(|node| !node.is_treasury && (!needs_mark || node.is_marked));
        // An lnd with channels proves more. Stable: among those the order is the seed's.
        fit.sort_by_key(|node| node.channels == 0);
        for node in fit {
            if self.rollout.canaries.len() >= wanted {
                break;
            }
            self.rollout.canaries.insert(node.id.clone());
        }
        let others = self.fleet.iter().any(|node| self.is_candidate(node) && !node.is_treasury);
        if needs_mark && self.rollout.canaries.is_empty() && others {
            let why = "no node that could be updated has the label of canaries".to_owned();
            self.rollout.state = State::Halted { why };
        }
    }

    fn are_baked(&self, now: OffsetDateTime) -> bool {
        let bake = self.rollout.settings.bake;
        self.rollout.well_since.is_some_and(|since| now >= since + bake)
    }

    /// What keeps a node from being begun, whatever the others are at.
    fn own_reason(&self, node: &Seen) -> Option<Reason> {
        let reason = match node {
            node if node.in_flight => Reason::InFlight,
            node if node.has == Has::TheRelease => Reason::AlreadyThere,
            node if self.rollout.failed.contains_key(&node.id) => Reason::Failed,
            _ if !self.is_active() => Reason::NotRunning(self.rollout.state.name()),
            node if node.has == Has::Another => Reason::OtherVersion,
            node if !node.is_usable => Reason::NotUsable,
            _ => return None,
        };
        Some(reason)
    }

    /// Whether it is its turn.
    fn turn(&self, node: &Seen, now: OffsetDateTime) -> Result<(), Reason> {
        if !self.rollout.again.is_empty() {
            let is_first = self.rollout.again.first() == Some(&node.id) && self.budget.is_untouched();
            return if is_first { Ok(()) } else { Err(Reason::AfterRetries) };
        }
        if self.rollout.canaries.contains(&node.id) || self.are_baked(now) {
            return Ok(());
        }
        match self.rollout.well_since {
            Some(since) => Err(Reason::Baking { until: since + self.rollout.settings.bake }),
            // With nobody to go first but the treasury there is nothing to wait for.
            None if self.rollout.canaries.is_empty() && node.is_treasury => Ok(()),
            None => Err(Reason::AfterCanaries),
        }
    }

    fn begin(&mut self, now: OffsetDateTime) {
        // One that is to be tried again but cannot be holds up nobody; the treasury goes last all the same.
        let able = self.fleet.iter().filter(|node| self.is_candidate(node) && !node.is_treasury);
        let able: HashSet<NodeId> = able.map(|node| node.id.clone()).collect();
        self.rollout.again.retain(|id| able.contains(id));
        for node in self.fleet.clone() {
            let reason = self.own_reason(node).map_or_else(|| self.turn(node, now), Err);
            match reason.and_then(|()| self.room(node)) {
                Ok(()) => {
                    self.budget.take(node);
                    self.begin.push(node.id.clone());
                }
                Err(reason) => drop(self.waiting.insert(node.id.clone(), reason)),
            }
        }
    }

    fn room(&self, node: &Seen) -> Result<(), Reason> {
        let comes_first = |other: &&&Seen| other.in_flight || self.is_candidate(other);
        if node.is_treasury && self.fleet.iter().filter(comes_first).any(|other| other.id != node.id) {
            return Err(Reason::Last);
        }
        self.budget.room(node)
    }

    /// It is done when there is nobody left who could be updated.
    fn end(&mut self) {
        let is_busy = self.fleet.iter().any(|node| node.in_flight || self.is_candidate(node));
        match self.rollout.state {
            State::Running if !is_busy => self.rollout.state = State::Done,
            State::Done if is_busy => self.rollout.state = State::Running,
            _ => {}
        }
    }
}

/// Who may be without their lnd at the same time.
struct Budget<'a> {
    left: u32,
    per_host: u32,
    on_host: HashMap<&'a HostId, u32>,
    /// Those that are, and their neighbours: nobody else of these may be.
    taken: HashMap<&'a NodeId, &'a NodeId>,
    count: usize,
}

impl<'a> Budget<'a> {
    fn new(settings: &RolloutSettings) -> Self {
        let (left, per_host) = (settings.max_unavailable, settings.max_unavailable_per_host);
        Self { left, per_host, on_host: HashMap::new(), taken: HashMap::new(), count: 0 }
    }

    fn is_untouched(&self) -> bool {
        self.count == 0
    }

    fn take(&mut self, node: &'a Seen) {
        self.count += 1;
        self.left = self.left.saturating_sub(1);
        *self.on_host.entry(&node.host).or_default() += 1;
        self.taken.insert(&node.id, &node.id);
        for neighbour in &node.neighbours {
            self.taken.entry(neighbour).or_insert(&node.id);
        }
    }

    fn room(&self, node: &Seen) -> Result<(), Reason> {
        if self.left == 0 {
            return Err(Reason::FleetLimit);
        }
        if self.on_host.get(&node.host).is_some_and(|count| *count >= self.per_host) {
            return Err(Reason::HostLimit);
        }
        let mut all = std::iter::once(&node.id).chain(&node.neighbours);
        // As one of them sees it or as the other does.
        let of_me = self.taken.get(&node.id).copied();
        let of_them = all.find(|id| self.taken.get(id).is_some_and(|by| by == id));
        match of_me.or(of_them) {
            Some(with) => Err(Reason::SharesChannel { with: with.clone() }),
            None => Ok(()),
        }
    }
}

/// A number for a node and a seed: FNV-1a.
fn rank(seed: u64, node: &NodeId) -> u64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    let bytes = seed.to_le_bytes();
    let bytes = bytes.iter().chain(node.as_str().as_bytes());
    bytes.fold(OFFSET, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(PRIME))
}
