//! The one integration binary: real lnd, real btcd, the real program.

#![expect(clippy::unwrap_used, reason = "a test that panics has failed, which is what is wanted")]

mod cli;
mod dev_parts;
mod docs;
mod ec2;
mod gates;
mod harness;
mod host_boot;
mod keys;
mod lnd_rest;
mod lndserver;
mod matrix;
mod store_contract;
mod story;
mod updates;
