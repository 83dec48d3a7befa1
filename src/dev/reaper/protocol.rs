//! What the two ends of the reaper's socket say to each other: one JSON object a line.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

/// A process to be started beneath the reaper.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Spawn {
    /// For messages and the record of what runs; no blanks.
    pub name: String,
    pub program: PathBuf,
    /// Visible to every user of the machine: never a secret.
    pub args: Vec<String>,
    /// On top of the reaper's own environment, which is that of the process that started it.
    pub env: Vec<(String, String)>,
    /// The working directory; the reaper's own if `None`.
    pub dir: Option<PathBuf>,
    /// Where standard output and error are appended (made 0600); thrown away if `None`.
    pub log: Option<PathBuf>,
    /// At the end lower orders are stopped first, and are gone before the next are told. Descendants that were not
    /// started through the reaper itself, such as an agent's lnds, have [`ADOPTED_ORDER`].
    pub stop_order: u32,
}

/// The stop order of descendants that the reaper did not start itself.
pub const ADOPTED_ORDER: u32 = 50;

impl Spawn {
    /// A process without arguments, its output thrown away, stopped together with adopted ones.
    pub fn new(name: impl Into<String>, program: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            dir: None,
            log: None,
            stop_order: ADOPTED_ORDER,
        }
    }

    #[must_use]
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    #[must_use]
    pub fn log(mut self, path: impl Into<PathBuf>) -> Self {
        self.log = Some(path.into());
        self
    }

    #[must_use]
    pub fn stop_order(mut self, order: u32) -> Self {
        self.stop_order = order;
        self
    }
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    Code(i32),
    /// Ended by this signal.
    Signal(i32),
    /// The reaper itself is gone, so nobody knows.
    Unknown,
}

impl std::fmt::Display for Exit {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(out, "exit code {code}"),
            Self::Signal(signal) => write!(out, "signal {signal}"),
            Self::Unknown => out.write_str("unknown exit"),
        }
    }
}

/// A living process beneath the reaper.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Descendant {
    pub pid: i32,
    pub parent: i32,
    pub command: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Request {
    Spawn { id: u64, spawn: Spawn },
    Signal { id: u64, pid: i32, signal: i32 },
    List { id: u64 },
    Stop { grace: Option<Duration> },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Message {
    /// The previous run on the same record still ends.
    Waiting,
    Ready,
    Spawned {
        id: u64,
        pid: i32,
    },
    Done {
        id: u64,
    },
    Listed {
        id: u64,
        descendants: Vec<Descendant>,
    },
    Failed {
        id: u64,
        error: String,
    },
    Exited {
        pid: i32,
        exit: Exit,
    },
    Stopping {
        names: Vec<String>,
    },
}
