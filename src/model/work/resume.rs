//! `resume`: a node whose host has another machine now is started there. An operation of the node's, so that it runs under
//! the node's claim, as every order to its lnd does; each recovery of a host has one for each node there.

use crate::model::HostId;
use serde::{Deserialize, Serialize};

/// A node that is to go on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Resume {
    /// Its host.
    pub host: HostId,
    /// The host's machine. When there is another one, this is nobody's work any more.
    pub generation: u64,
}

impl Resume {
    /// The name of its only step.
    pub const STEP: &'static str = "start_lnd";
}
