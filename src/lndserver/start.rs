//! How lnds are started on a host, and found again: as children of the agent (`process`), or as units of systemd
//! (`systemd`). Either way an lnd goes on when its agent ends, and holds the lock of its folder as long as it lives.

use super::files::NodeDir;
use crate::model::Network;
use async_trait::async_trait;
use std::fmt::Debug;
use std::fs::File;
use std::io;
use std::path::Path;

/// How an agent starts its lnds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LndStart {
    /// As children in sessions of their own, of the agent's user.
    #[default]
    Child,
    /// As units of systemd, each of a user of its own (`deploy/host`).
    Systemd,
}

/// A node's folder, and which slot is its.
#[derive(Debug, Clone, Copy)]
pub struct Seat<'a> {
    /// The folder.
    pub dir: &'a NodeDir,
    /// The slot; none if the node was never told to run.
    pub slot: Option<u16>,
}

/// How an lnd is started.
#[derive(Debug, Clone, Copy)]
pub struct How<'a> {
    /// The program.
    pub program: &'a Path,
    /// Whether that is the host's own, and not one of a release.
    pub is_own: bool,
    /// The network that it is on.
    pub network: Network,
}

/// What is on a node's folder.
#[derive(Debug)]
pub enum Found {
    /// Nobody; here is its lock.
    Free(File),
    /// An lnd that was started before.
    Running(Box<dyn Lnd>),
    /// Somebody who is not an lnd of this folder.
    Taken,
}

/// Starts lnds.
#[async_trait]
pub trait Starter: Debug + Send + Sync {
    /// The node's folder as its lnd sees it.
    fn seen_by_lnd(&self, dir: &NodeDir) -> NodeDir;

    /// Who is on the folder. May be asked again and again.
    async fn find(&self, seat: Seat<'_>) -> io::Result<Found>;

    /// Starts an lnd on a folder that was found free and has all that lnd needs; `lock` is what [`Self::find`] gave. An error
    /// does not prove that none was started: ask [`Self::find`] before the next try.
    async fn start(&self, seat: Seat<'_>, how: How<'_>, lock: File) -> io::Result<Box<dyn Lnd>>;
}

/// A running lnd. Dropping this does nothing to it.
#[async_trait]
pub trait Lnd: Debug + Send + Sync {
    /// The process id.
    fn pid(&self) -> u32;

    /// Asks it to exit. May be repeated.
    async fn terminate(&self) -> io::Result<()>;

    /// Waits until it has exited. Says how, where that can be known. May be given up, and called again.
    async fn exited(&self) -> io::Result<Option<String>>;
}
