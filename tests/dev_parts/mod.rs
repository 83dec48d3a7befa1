//! The parts of `scale-lnd dev`: the reaper, btcd and its kept blocks, the treasury.

mod btcd;
mod command;
mod reaper;
mod treasury;
