//! The host agent (`scale-lnd lndserver`), and the master's side of its wire: `client` gives orders to agents, `fleet`
//! answers their enrolments and reports.
//!
//! On the host: `service` takes orders, `node` carries them out (a task for each node), `start` starts, finds and
//! watches lnds, as children or as units of systemd, `backups` notices every channel.backup, `reporter` tells a master, `releases` installs other lnds. An lnd never depends on the agent's
//! life: stopping or killing the agent stops no lnd, and the next one adopts them.

mod authorities;
pub mod backend;
mod backups;
mod board;
pub mod client;
pub mod conf;
pub mod config;
mod files;
pub mod fleet;
mod host;
mod masters;
mod member;
mod node;
pub mod options;
mod outbox;
mod process;
pub mod proto;
mod record;
mod releases;
mod reporter;
mod run;
mod service;
mod shared_files;
pub mod spec;
mod start;
mod systemd;
mod throttle;
mod version;
mod wire;

pub use config::AgentConfig;
pub use releases::Believed;
pub use run::{RunError, run};
pub use start::LndStart;
