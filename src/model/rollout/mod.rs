//! A rollout: a release on its way to every node. The document says what was decided; [`plan`](plan::plan), which is pure, says
//! what is next and, of every node that is not, why not. One master at a time follows it (`app/rollouts`).

pub mod plan;

#[cfg(test)]
mod plan_tests;
#[cfg(test)]
mod simulation;

use super::ids::{NodeId, OperationId};
use super::release::RolloutSettings;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use time::OffsetDateTime;

/// Where a rollout is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum State {
    /// It goes on by itself.
    Running,
    /// An operator holds it.
    Paused,
    /// It stands until an operator has looked.
    Halted {
        /// Why.
        why: String,
    },
    /// An operator has ended it. What has the release keeps it.
    Aborted,
    /// A newer release has taken its place.
    Superseded {
        /// Its serial.
        by: u64,
    },
    /// Every node that could be updated is. One that could not comes along when it can.
    Done,
}

/// A rollout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rollout {
    /// The release's.
    pub serial: u64,
    /// Where it is.
    pub state: State,
    /// How it is rolled out, as the release says.
    pub settings: RolloutSettings,
    /// The nodes that go first, once they were chosen.
    pub canaries: BTreeSet<NodeId>,
    /// Since when all of them have it and are well.
    #[serde(with = "time::serde::rfc3339::option", default)]
    pub well_since: Option<OffsetDateTime>,
    /// The nodes that did not pass, and why.
    pub failed: BTreeMap<NodeId, String>,
    /// The nodes that are tried again, each alone, before any other.
    #[serde(default)]
    pub again: BTreeSet<NodeId>,
    /// The operations that were begun for it, and whose end is not noted yet. Written in the commit that begins them.
    #[serde(default)]
    pub under_way: BTreeMap<NodeId, OperationId>,
    /// How far it was when somebody last looked.
    #[serde(default)]
    pub progress: Progress,
    /// When it was proposed.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

/// How far a rollout is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The nodes in use.
    pub nodes: u64,
    /// Those that have the release.
    pub updated: u64,
    /// All others that are not being updated now, counted by [`plan::Reason::name`].
    pub waiting: BTreeMap<String, u64>,
}

/// Why an operator's word is not followed: where the rollout is instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the rollout is {0}")]
pub struct NotNow(pub &'static str);

impl State {
    /// The name in the API.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Halted { .. } => "halted",
            Self::Aborted => "aborted",
            Self::Superseded { .. } => "superseded",
            Self::Done => "done",
        }
    }
}

impl Rollout {
    /// Of a release, before anything was done.
    #[must_use]
    pub fn new(serial: u64, settings: RolloutSettings, created_at: OffsetDateTime) -> Self {
        Self {
            serial,
            state: State::Running,
            settings,
            canaries: BTreeSet::new(),
            well_since: None,
            failed: BTreeMap::new(),
            again: BTreeSet::new(),
            under_way: BTreeMap::new(),
            progress: Progress::default(),
            created_at,
        }
    }

    /// The id in the Store: that of its release.
    #[must_use]
    pub fn id_of(serial: u64) -> String {
        super::updates::ReleaseRecord::id_of(serial)
    }

    /// Whether nothing comes of it any more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Aborted | State::Superseded { .. })
    }

    fn now_in(self, state: State) -> Self {
        Self { state, ..self }
    }

    fn not_now(&self) -> NotNow {
        NotNow(self.state.name())
    }

    /// Nothing new is begun until it is resumed.
    ///
    /// # Errors
    /// It does not run.
    pub fn pause(self) -> Result<Self, NotNow> {
        match self.state {
            State::Running => Ok(self.now_in(State::Paused)),
            _ => Err(self.not_now()),
        }
    }

    /// It goes on.
    ///
    /// # Errors
    /// It is not paused.
    pub fn resume(self) -> Result<Self, NotNow> {
        match self.state {
            State::Paused => Ok(self.now_in(State::Running)),
            _ => Err(self.not_now()),
        }
    }

    /// Nothing new is ever begun.
    ///
    /// # Errors
    /// It is over.
    pub fn abort(self) -> Result<Self, NotNow> {
        match self.state {
            State::Running | State::Paused | State::Halted { .. } => Ok(self.now_in(State::Aborted)),
            _ => Err(self.not_now()),
        }
    }

    /// What has failed is tried again, one after the other, before anything else.
    ///
    /// # Errors
    /// It was not halted, and not done with some that have failed.
    pub fn retry(self) -> Result<Self, NotNow> {
        match self.state {
            State::Done if self.failed.is_empty() => Err(self.not_now()),
            State::Halted { .. } | State::Done => {
                let again = self.failed.keys().cloned().collect();
                Ok(Self { state: State::Running, failed: BTreeMap::new(), again, well_since: None, ..self })
            }
            _ => Err(self.not_now()),
        }
    }

    /// A release with a higher serial is wanted. What is in flight ends as it was begun.
    #[must_use]
    pub fn supersede(self, by: u64) -> Self {
        match self.state {
            State::Superseded { .. } => self,
            _ if by <= self.serial => self,
            _ => self.now_in(State::Superseded { by }),
        }
    }

    /// A node's update has ended without an effect: it could not be called, or is not in use any more. It may come along later.
    #[must_use]
    pub fn skip(mut self, node: &NodeId) -> Self {
        self.under_way.remove(node);
        self
    }

    /// A node's update has ended: it has the release, or it did not pass, and why.
    #[must_use]
    pub fn note(mut self, node: &NodeId, outcome: Result<(), String>) -> Self {
        self.under_way.remove(node);
        self.again.remove(node);
        match outcome {
            Ok(()) => drop(self.failed.remove(node)),
            Err(why) => drop(self.failed.insert(node.clone(), why)),
        }
        let may_fail = usize::try_from(self.settings.max_failures).unwrap_or(usize::MAX);
        // One canary is one too many, whatever may fail later.
        let too_many = self.failed.len() > may_fail || self.failed.keys().any(|failed| self.canaries.contains(failed));
        let halts = too_many && matches!(self.state, State::Running | State::Paused | State::Done);
        if halts && let Some((node, why)) = self.failed.iter().next_back() {
            let why = format!("{} nodes did not pass, {node} among them: {why}", self.failed.len());
            return self.now_in(State::Halted { why });
        }
        self
    }
}
