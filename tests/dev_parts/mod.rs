//! The parts of `scale-lnd dev`: the reaper, btcd and its kept blocks, the treasury.

mod btcd;
mod command;
mod promises;
mod reaper;
mod treasury;
