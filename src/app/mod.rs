//! The use cases and the reconcilers. They see the Store, lnds, hosts' agents and the clock; they know no HTTP.
//!
//! `service` accepts work and tells of it; `executor` runs it, one step of `workflows` at a time, under a claim.

pub mod claim;
pub mod directory;
pub mod executor;
pub mod expiry;
pub mod feed;
pub mod fleet;
pub mod hosting;
pub mod keys;
pub mod lease;
pub mod lnds;
pub mod parts;
pub mod refuse;
pub mod rollouts;
mod service;
mod settle;
pub mod step;
#[cfg(test)]
mod testing;
pub mod updates;
pub mod upkeep;
pub mod usage;
mod worker;
mod workflows;

pub use service::{CloseRequest, Idempotency, PayRequest, Service, WithdrawRequest};

use crate::clock::SharedClock;
use crate::lnd::client::LndClient;
use crate::lnd::macaroon::Macaroon;
use crate::lndserver::client::Agents;
use crate::lndserver::proto::NodeSpec;
use crate::model::Network;
use crate::model::amount::Sat;
use crate::model::app::Limits;
use crate::store::Store;
use std::sync::Arc;
use std::time::Duration;

/// The lnd that funds new wallets.
#[derive(Debug, Clone)]
pub struct Treasury {
    /// How it is reached.
    pub client: LndClient,
    /// What it allows; spending calls add the end of the lease to it.
    pub macaroon: Macaroon,
}

/// What the operator decided.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The network of the deployment.
    pub network: Network,
    /// What the treasury sends to a new wallet; zero: nothing.
    pub initial_funding_sat: Sat,
    /// Ceilings for the whole deployment.
    pub ceilings: Limits,
    /// A fixed fee rate for on-chain transactions, where the chain backend has no estimates (simnet, regtest).
    pub fixed_sat_per_vbyte: Option<u64>,
    /// How much time a payment request must still have for a channel to be opened for it.
    pub open_margin: Duration,
    /// How every lnd is to be run; the node's own parts are filled in.
    pub spec: NodeSpec,
}

/// Everything a master has, built once in `master.rs`.
#[derive(Debug)]
pub struct Parts {
    /// Where everything is kept.
    pub store: Arc<dyn Store>,
    /// The wall clock.
    pub clock: SharedClock,
    /// The changes of the Store.
    pub feed: Arc<feed::Feed>,
    /// This master's lease.
    pub lease: Arc<lease::Lease>,
    /// What is known of the other masters.
    pub observer: lease::Observer,
    /// Seals, opens, bakes.
    pub keys: keys::Keys,
    /// Connections to lnds.
    pub lnds: lnds::Lnds,
    /// The hosts' agents.
    pub agents: Agents,
    /// The treasury, where there is one.
    pub treasury: Option<Treasury>,
    /// What the operator decided.
    pub settings: Settings,
    /// What new hosts are made of, where the deployment makes its own.
    pub supply: Option<hosting::Supply>,
    /// Whose releases are believed, where any are.
    pub updates: Option<updates::Updates>,
    /// Turns for what takes much memory on a host.
    pub turns: parts::Turns,
    /// The turn to make one funding of all that wait: others would only try the same, and lose. It is held across calls of
    /// the Store, which are bounded in time.
    pub funding_turn: tokio::sync::Mutex<()>,
}

impl Settings {
    /// How this node's lnd is to be run.
    #[must_use]
    pub fn spec_for(&self, node: &crate::model::node::Node) -> NodeSpec {
        let slot = node.placement.as_ref().map_or(0, |placement| placement.slot);
        let lnd_sha256 = node.lnd.as_ref().map(ToString::to_string).unwrap_or_default();
        NodeSpec { node_id: node.id.to_string(), slot: u32::from(slot), lnd_sha256, ..self.spec.clone() }
    }
}
