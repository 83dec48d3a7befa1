//! Compute: where machines for hosts come from. One adapter, [`ec2`]; without `[compute]` an operator brings the machines
//! (`scale-lnd host invite`), and nothing here is used.
//!
//! How a host comes to be by itself:
//!
//! - **Who decides.** One master at a time, under the claim `compute` (`app/hosting`), looks at the creates that wait for a
//!   slot and at the hosts there are. How many are missing is a pure function (`model/hosting.rs`), within `max_hosts`. For
//!   each, a host and an operation `launch` are written in one commit.
//! - **Who acts.** The executor, as with every operation, under a claim of the host's own (`app/workflows/launch.rs`):
//!   `freeze` writes down all that EC2 will be asked with, down to the bytes of the user data; `run` asks, with one
//!   ClientToken, until the answer is definite; `await_join` waits for the agent; `retire` terminates what did not join in
//!   time, and the next `freeze` is the host's next generation. A master may be killed at each await: the step is done again,
//!   with the same parameters, so EC2 answers with the same instance.
//! - **Why no wallet is lost.** A host has no slot for anybody before its agent has joined, and an instance is terminated only
//!   after a commit that found it not joined and made its join token void, or by an operator's word. An instance that turns
//!   up later, of a generation that never joined, is removed by the same reasoning (`app/hosting/observe.rs`).
//! - **What an operator does** about a host whose machine is gone: `recover` (`app/workflows/recover.rs`) starts another one
//!   for the same data volume, once EC2 has said that the old one is over.
//! - **Who looks.** The same master that decides describes the deployment's instances, page by page, and writes down what has
//!   changed: a new address, an end. No call of a user waits for EC2.
//!
//! What is here already, and what is not, is in docs/aws.md.

pub mod ec2;
pub mod firewall;
pub mod user_data;

use crate::model::HostId;
use crate::model::machine::{DataVolume, Frozen, Instance, InstanceId, Volume, VolumeId};
use async_trait::async_trait;
use secrecy::SecretString;
use std::time::Duration;

/// What a machine needs to join: it changes with nothing but the host and its generation, so that a repeated request is the
/// same to the byte.
pub type JoinToken = SecretString;

/// Starts, finds, and terminates machines of one deployment.
///
/// Every call may be repeated. The tags in [`Frozen`] are this deployment's; what carries others is never seen or touched.
#[async_trait]
pub trait Compute: std::fmt::Debug + Send + Sync {
    /// Starts a machine. However often it is called for one `frozen`, there is one machine at most. An error other than
    /// [`ComputeError::Unknown`], [`ComputeError::Throttled`] and [`ComputeError::Denied`] is definite: there is none, and
    /// will be none.
    async fn run(&self, frozen: &Frozen, join_token: &JoinToken) -> Result<Instance, ComputeError>;

    /// The machine that was started for this host and generation, if one can be seen. Right after it was started, none
    /// may be seen yet.
    async fn find(&self, host: &HostId, generation: u64) -> Result<Option<Instance>, ComputeError>;

    /// Terminates a machine of this deployment. `Ok`: it is on its way, and will never run again.
    async fn terminate(&self, instance: &InstanceId) -> Result<(), ComputeError>;

    /// The machine of this name, whatever its tags say by now. `None`: EC2 knows none, or has forgotten one that ended.
    async fn instance(&self, id: &InstanceId) -> Result<Option<Instance>, ComputeError>;

    /// The volume of this name. `None`: there is none, or none any more.
    async fn volume(&self, id: &VolumeId) -> Result<Option<Volume>, ComputeError>;

    /// Gives a volume of this deployment, which nobody has, to a machine of it. `Ok`: it is on its way. Where somebody has it,
    /// whoever it is, the answer is an error and nothing is done.
    async fn attach(&self, volume: &DataVolume, instance: &InstanceId) -> Result<(), ComputeError>;

    /// All machines of this deployment, in whatever state, as far as they can be seen.
    async fn all(&self) -> Result<Vec<Instance>, ComputeError>;
}

/// Why a machine is not there. The messages are for the operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ComputeError {
    /// There is no room for this type in this zone now. Another place may have some.
    #[error("no capacity: {0}")]
    NoCapacity(String),
    /// A quota of the account stands against it. It may be another one for another type.
    #[error("a quota of the AWS account is reached: {0}")]
    Quota(String),
    /// Too many requests. Nothing is known of those before.
    #[error("EC2 asks for fewer requests")]
    Throttled {
        /// When the next may be made.
        after: Duration,
    },
    /// We may not. Nothing is known of the requests before.
    #[error("AWS does not allow it: {0}")]
    Denied(String),
    /// The request is wrong: no such template, subnet or type.
    #[error("EC2 refuses it: {0}")]
    Refused(String),
    /// The machine that this was asked for is terminated already.
    #[error("the instance of this request is terminated already")]
    Spent,
    /// Something else was asked for with the same token: there may be a machine.
    #[error("EC2 knows another request by the same token")]
    Mismatch,
    /// Nobody knows what became of it.
    #[error("no answer from EC2: {0}")]
    Unknown(String),
}
