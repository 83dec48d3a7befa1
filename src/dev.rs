//! The local simnet: `scale-lnd dev` and `scale-lnd demo`.
//!
//! btcd, a treasury lnd, a master and an agent, all beneath one [`reaper`], so that nothing outlives the command. The
//! master and the agent are the same programs, with the same files, as anywhere else; only their configuration is
//! written here.

pub mod binaries;
pub mod blocks;
pub mod btcd;
pub mod chain_rpc;
mod demo;
mod deployment;
pub mod error;
mod files;
mod home;
mod logs;
pub mod miner;
mod ports;
mod progress;
mod ready;
pub mod reaper;
mod run;
mod service;
mod system;
mod tool;
pub mod treasury;

pub use demo::{DemoArgs, demo};
pub use error::DevError;
pub use run::{DevArgs, dev};
