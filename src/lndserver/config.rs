//! What an agent is told at its start. `config.rs` of the crate reads it from a file and the environment.

use super::releases::Believed;
use super::start::LndStart;
use crate::backoff::Backoff;
use secrecy::SecretString;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// The first port of a host's lnds, unless the agent is told another.
pub const PORT_BASE: u16 = 10_100;

/// Slot n's user and group have this number and n, where each lnd has its own (`deploy/host`). On all hosts: the numbers are on
/// the data volume.
pub const SLOT_IDS: u32 = 8100;

/// The configuration of one host agent.
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// Its folder: its own identity and every lnd's.
    pub data_dir: PathBuf,
    /// Where it listens for orders of masters. Port 0: any free port.
    pub listen: SocketAddr,
    /// The address at which masters and peers reach this host; its lnds listen on it.
    pub address: IpAddr,
    /// Where masters listen for agents (`host:port`), tried in turn.
    pub masters: Vec<String>,
    /// The join token of the invitation; needed until the host is enrolled, and again after its certificate expired.
    pub join_token: Option<SecretString>,
    /// SHA-256 of the deployment's CA certificate (DER), hexadecimal: how the first master is recognised. Several with commas
    /// between, while one takes over from another.
    pub ca_fingerprint: String,
    /// The lnd to run. A unit of systemd names its own, which must be the same.
    pub lnd: PathBuf,
    /// Whose releases are believed. None: no other lnd is ever run.
    pub releases: Option<Believed>,
    /// How it is started.
    pub lnd_start: LndStart,
    /// The first port of the lnds. Slot `n` uses `port_base + 3n` (gRPC), `+ 1` (peers) and `+ 2` (REST).
    pub port_base: u16,
    /// Whether lnds serve their own REST, whatever masters say; without it masters decide.
    pub lnd_rest: Option<bool>,
    /// How often the agent looks at its disk, and for backups that it missed.
    pub look_every: Duration,
    /// The pause after the first unexpected exit of an lnd; it doubles with each further one.
    pub restart_backoff: Backoff,
}

impl Backoff {
    /// For restarts of an lnd.
    pub const RESTART: Self = Self { first: Duration::from_millis(500), longest: Duration::from_secs(60) };
    /// For connections to masters: a backup has 2 s from its writing to the Store.
    pub const CONNECT: Self = Self { first: Duration::from_millis(100), longest: Duration::from_secs(2) };
}
