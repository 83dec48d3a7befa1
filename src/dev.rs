//! The local simnet: `scale-lnd dev` and `scale-lnd demo`.
//!
//! btcd, a treasury lnd, a master and an agent, all beneath one reaper, so that nothing outlives the command.

pub mod binaries;
pub mod blocks;
pub mod btcd;
pub mod chain_rpc;
pub mod error;
mod files;
pub mod miner;
pub mod reaper;
pub mod treasury;
