//! `upgrade`: a node's lnd is replaced by that of a release, and proven to be the same node afterwards, or put back where the
//! release allows that. An operation of the node's: what else is under way there waits meanwhile.

use super::super::node_look::Look;
use super::super::release::Sha256;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

/// An upgrade under way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Upgrade {
    /// The release.
    pub serial: u64,
    /// The step.
    pub step: UpgradeStep,
}

/// What is known from the moment on when the lnd is about to be stopped.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Replaced {
    /// The lnd of the release, by which the host knows it.
    pub lnd: Sha256,
    /// The one before. None: the host's own.
    pub former: Option<Sha256>,
    /// How the node was before.
    pub before: Look,
}

/// The steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum UpgradeStep {
    /// Have the host install the release. The node goes on.
    Install,
    /// Let what is under way come to its end, for a while; nothing new begins.
    Drain {
        /// The lnd of the release.
        lnd: Sha256,
        /// So long.
        #[serde(with = "time::serde::rfc3339")]
        until: OffsetDateTime,
    },
    /// Stop the lnd; its exit is confirmed. The next commit says which one is to run.
    Stop(Replaced),
    /// Start the other.
    Start {
        /// What is replaced.
        replaced: Replaced,
        /// By when it must have passed the gate.
        #[serde(with = "time::serde::rfc3339")]
        until: OffsetDateTime,
    },
    /// Wait until it is proven to be the same node.
    Gate {
        /// What is replaced.
        replaced: Replaced,
        /// When it was started.
        #[serde(with = "time::serde::rfc3339")]
        since: OffsetDateTime,
        /// By when it must be.
        #[serde(with = "time::serde::rfc3339")]
        until: OffsetDateTime,
    },
    /// It is not: stop it, to go back. Only where the release says that the former can read what it has written.
    BackStop {
        /// What was replaced.
        replaced: Replaced,
        /// Why.
        why: String,
    },
    /// Start the former.
    BackStart {
        /// What was replaced.
        replaced: Replaced,
        /// Why.
        why: String,
    },
}

impl UpgradeStep {
    /// All names, in order.
    pub const NAMES: [&'static str; 7] = ["install", "drain", "stop", "start", "gate", "back_stop", "back_start"];

    /// The name in the API.
    #[must_use]
    pub fn name(&self) -> &'static str {
        let number = usize::from(self.number());
        Self::NAMES.get(number).copied().unwrap_or_default()
    }

    fn number(&self) -> u8 {
        match self {
            Self::Install => 0,
            Self::Drain { .. } => 1,
            Self::Stop(_) => 2,
            Self::Start { .. } => 3,
            Self::Gate { .. } => 4,
            Self::BackStop { .. } => 5,
            Self::BackStart { .. } => 6,
        }
    }

    /// What was frozen, once something was.
    #[must_use]
    pub fn replaced(&self) -> Option<&Replaced> {
        match self {
            Self::Install | Self::Drain { .. } => None,
            Self::Stop(replaced)
            | Self::Start { replaced, .. }
            | Self::Gate { replaced, .. }
            | Self::BackStop { replaced, .. }
            | Self::BackStart { replaced, .. } => Some(replaced),
        }
    }
}

impl Upgrade {
    /// Whether a step may turn this into `next`: only on, for the same release, and what was frozen before the lnd was stopped
    /// is what it is measured by to the end.
    #[must_use]
    pub fn may_become(&self, next: &Self) -> bool {
        let frozen = self.step.replaced().is_none_or(|replaced| next.step.replaced() == Some(replaced));
        self.serial == next.serial && self.step.number() < next.step.number() && frozen
    }
}
