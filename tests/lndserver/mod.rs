//! The host agent as a real process with real lnds, driven as a master drives it.

mod certificates;
mod chains;
mod joining;
mod orders;
pub mod releases;
mod reports;
mod survival;
pub mod world;
