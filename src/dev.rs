//! The local simnet: `scale-lnd dev` and `scale-lnd demo`.
//!
//! btcd, a treasury lnd, a master and an agent, all beneath one reaper, so that nothing outlives the command.

pub mod reaper;
