//! What the agent keeps of a node across everything, its removal included: the highest epoch it has obeyed, what is
//! wanted, and how.

use super::files::{self, NodeDir};
use super::spec::NodeSpec;
use serde::{Deserialize, Serialize};
use std::io;

/// What the last order wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Desired {
    /// It runs.
    Running,
    /// It does not.
    #[default]
    Stopped,
    /// Its folder was set aside.
    Removed,
}

/// The record of a node.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The highest epoch of an order that was accepted.
    pub epoch: u64,
    /// What that order wanted.
    pub desired: Desired,
    /// How to run it: the newest specification.
    pub spec: Option<NodeSpec>,
    /// Counts starts of the process.
    pub starts: u64,
}

impl Record {
    /// That of a node, new if there is none.
    pub fn load(dir: &NodeDir) -> io::Result<Self> {
        match files::read_optional(&dir.record())? {
            Some(bytes) => serde_json::from_slice(&bytes).map_err(io::Error::from),
            None => Ok(Self::default()),
        }
    }

    /// Keeps it; it survives a crash of the machine.
    pub fn save(&self, dir: &NodeDir) -> io::Result<()> {
        dir.create()?;
        files::write_private(&dir.record(), &serde_json::to_vec(self)?)
    }
}
