//! What an agent is told at its start. `config.rs` of the crate reads it from a file and the environment.

use secrecy::SecretString;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

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
    /// SHA-256 of the deployment's CA certificate (DER), hexadecimal: how the first master is recognised.
    pub ca_fingerprint: String,
    /// The lnd to run.
    pub lnd: PathBuf,
    /// The first port of the lnds. Slot `n` uses `port_base + 3n` (gRPC), `+ 1` (peers) and `+ 2` (REST).
    pub port_base: u16,
    /// Whether lnds serve their own REST, whatever masters say; without it masters decide.
    pub lnd_rest: Option<bool>,
    /// The pause after the first unexpected exit of an lnd; it doubles with each further one.
    pub restart_backoff: Backoff,
}

/// Pauses that grow: the first, and the longest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The first pause.
    pub first: Duration,
    /// The longest pause.
    pub longest: Duration,
}

impl Backoff {
    /// For restarts of an lnd.
    pub const RESTART: Self = Self { first: Duration::from_millis(500), longest: Duration::from_secs(60) };
    /// For connections to masters: a backup has 2 s from its writing to the Store.
    pub const CONNECT: Self = Self { first: Duration::from_millis(100), longest: Duration::from_secs(2) };

    /// The pause before attempt `failures` (the first one is 0), between half and all of the exponential one; `jitter` is
    /// from 0 to 1.
    #[must_use]
    pub fn pause(&self, failures: u32, jitter: f64) -> Duration {
        let full = self.first.saturating_mul(1u32.checked_shl(failures.min(31)).unwrap_or(u32::MAX)).min(self.longest);
        full.mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_are_jittered_downwards() {
        let backoff = Backoff { first: Duration::from_millis(100), longest: Duration::from_secs(1) };
        let full: Vec<_> = (0..6).map(|n| backoff.pause(n, 1.0).as_millis()).collect();
        assert_eq!(full, [100, 200, 400, 800, 1000, 1000]);
        assert_eq!(backoff.pause(0, 0.0), Duration::from_millis(50));
        assert_eq!(backoff.pause(u32::MAX, 1.0), Duration::from_secs(1));
    }
}
