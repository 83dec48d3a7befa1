//! Durable operations: work that is accepted once, survives every crash, and ends in exactly one way.

use super::ids::{AppId, HostId, NodeId, OperationId, Uuid};
use super::limits::Reservation;
use super::problem::Refusal;
use super::work::Work;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::{Duration, OffsetDateTime};

/// Where an operation is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum State {
    /// Somebody works on it, or will.
    Running,
    /// Done, with what is shown.
    Succeeded {
        /// The result, as the API shows it.
        result: Value,
    },
    /// It definitely did not happen.
    Failed {
        /// Why.
        error: Refusal,
    },
    /// It can neither go on nor be undone without a person.
    Parked {
        /// Why.
        error: Refusal,
    },
}

impl State {
    /// The name in the API.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Succeeded { .. } => "succeeded",
            Self::Failed { .. } => "failed",
            Self::Parked { .. } => "parked",
        }
    }
}

/// An operation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Operation {
    /// Its name.
    pub id: OperationId,
    /// The app and user it is for; none for the deployment's own.
    pub owner: Option<Owner>,
    /// The node it works on; none for the deployment's own.
    pub node: Option<NodeId>,
    /// The host it works on, where that is what it does; none for nodes' and the treasury's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<HostId>,
    /// What is to be done and how far it is.
    pub work: Work,
    /// Where it is.
    pub state: State,
    /// What is going on, for a person.
    pub progress: String,
    /// What was set aside for it, while it was not released.
    pub reservation: Option<Reservation>,
    /// When it was accepted.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When it last changed.
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
}

/// Whose operation it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The app.
    pub app: AppId,
    /// The user.
    pub uuid: Uuid,
}

/// The claim under which the treasury's operations run.
pub const TREASURY: &str = "treasury";
/// And those that look for releases.
pub const UPDATES: &str = "updates";

impl Operation {
    /// Whether somebody has to work on it.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.state == State::Running
    }

    /// Lets it run again, from the step where it was parked. False, and nothing changed, where it is not parked.
    #[must_use]
    pub fn free(&mut self, now: OffsetDateTime) -> bool {
        if !matches!(self.state, State::Parked { .. }) {
            return false;
        }
        self.state = State::Running;
        self.progress = "freed by the operator".to_owned();
        self.updated_at = now;
        true
    }

    /// The subject of the claim under which it runs.
    #[must_use]
    pub fn subject(&self) -> &str {
        let node = self.node.as_ref().map(NodeId::as_str);
        let own = if matches!(self.work, Work::Update(_)) { UPDATES } else { TREASURY };
        node.or(self.host.as_ref().map(HostId::as_str)).unwrap_or(own)
    }
}

/// What an Idempotency-Key stands for: (API key, Idempotency-Key) → the request and its answer. Its id is a digest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IdempotencyRecord {
    /// The digest that is its id.
    pub id: String,
    /// SHA-256 of the canonical request (route and parameters), hexadecimal.
    pub request_sha256: String,
    /// What came of it.
    pub outcome: IdempotentOutcome,
    /// When the key was first seen.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

impl IdempotencyRecord {
    /// How long an answer is kept. An operation has its key for as long as there is the operation.
    pub const KEPT_FOR: Duration = Duration::hours(24);
    /// The index of those that are forgotten by and by, by [`Self::hour_of`] their making.
    pub const HOUR: &'static str = "hour";

    /// Which hour since 1970 this is.
    #[must_use]
    pub fn hour_of(at: OffsetDateTime) -> i64 {
        at.unix_timestamp().div_euclid(3600)
    }

    /// The hour after which it is kept for [`Self::KEPT_FOR`]; `None`: it stays.
    #[must_use]
    pub fn hour(&self) -> Option<i64> {
        match self.outcome {
            IdempotentOutcome::InFlight | IdempotentOutcome::Answered { .. } => Some(Self::hour_of(self.created_at)),
            IdempotentOutcome::Operation { .. } => None,
        }
    }
}

/// What came of a request with an Idempotency-Key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum IdempotentOutcome {
    /// It is being worked on (calls that are no operations).
    InFlight,
    /// It became this operation.
    Operation {
        /// The operation.
        operation: OperationId,
    },
    /// It was answered.
    Answered {
        /// The status.
        status: u16,
        /// The body.
        body: Value,
    },
}
