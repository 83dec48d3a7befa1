//! The errors of the domain: what went wrong, whether trying again can help, and which parameter was at fault.
//!
//! Nothing here knows HTTP; `http/problem.rs` maps these onto problem+json in one place.

use crate::lnd::LndError;
use crate::seal::SealError;

/// Why the Store could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A precondition of a commit did not hold; nothing was written.
    #[error("document {collection}/{id} is not at the expected version")]
    Conflict {
        /// Collection of the document whose precondition failed.
        collection: &'static str,
        /// Its id.
        id: String,
    },
    /// The Store cannot be reached or is overloaded. Whether a commit happened is unknown.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// A stored document does not have the shape this version knows.
    #[error("document {collection}/{id} cannot be read: {reason}")]
    Corrupt {
        /// Collection of the document.
        collection: &'static str,
        /// Its id.
        id: String,
        /// What did not fit.
        reason: String,
    },
    /// The call itself breaks the Store's contract (an impossible id, a document twice in a commit): a bug of the caller.
    /// Nothing was done.
    #[error("impossible call for collection {collection}: {reason}")]
    Invalid {
        /// The collection that was meant.
        collection: &'static str,
        /// What is wrong with the call.
        reason: &'static str,
    },
}

impl StoreError {
    /// Whether a precondition failed, so that reading again and deciding anew is the right answer.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Conflict { .. })
    }
}

/// Why an order to a host's agent did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The order cannot have reached the agent.
    #[error("the host's agent cannot be reached")]
    Unreachable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The answer was lost; the order may have been carried out. Orders are idempotent, so it may be sent again.
    #[error("the host's agent did not answer")]
    Unknown(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The agent has seen a newer order for this node: whoever sent this one no longer holds it.
    #[error("a newer order for this node exists")]
    Fenced,
    /// The agent says no, for good.
    #[error("the host's agent refused: {0}")]
    Refused(String),
    /// The operator took the host out of the fleet: nothing was sent, and never will be.
    #[error("the host is revoked")]
    Revoked,
}

/// Anything a use case can fail with inside (not a user's fault: those are [`crate::model::problem::Refusal`]s).
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The Store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An lnd.
    #[error(transparent)]
    Lnd(#[from] LndError),
    /// A host's agent.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// A sealed secret does not open, or cannot be sealed.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// Another master holds this node now; this one must stop acting for it.
    #[error("this master no longer holds the node")]
    ClaimLost,
    /// Something that must be true is not; a person has to look.
    #[error("broken invariant: {0}")]
    Invariant(String),
}

impl Error {
    /// Whether the same thing may succeed later without anybody doing anything.
    #[must_use]
    pub fn retryable(&self) -> bool {
        match self {
            Self::Store(StoreError::Conflict { .. } | StoreError::Unavailable(_)) => true,
            Self::Store(StoreError::Corrupt { .. } | StoreError::Invalid { .. })
            | Self::Seal(_)
            | Self::Invariant(_)
            | Self::ClaimLost => false,
            Self::Lnd(e) => e.kind.is_transient() || e.kind.is_not_ready(),
            Self::Agent(AgentError::Unreachable(_) | AgentError::Unknown(_)) => true,
            Self::Agent(AgentError::Fenced | AgentError::Refused(_) | AgentError::Revoked) => false,
        }
    }
}

/// The result of a use case.
pub type Result<T, E = Error> = std::result::Result<T, E>;
