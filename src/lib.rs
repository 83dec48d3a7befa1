//! scale-lnd: a Lightning node for every user of an app.
//!
//! The map of the modules; each one's first lines say what it is for. The two walks, create and pay, are in
//! docs/ARCHITECTURE.md.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that meets the unexpected should panic"))]

pub mod apikey;
pub mod app;
mod aws_words;
pub mod backoff;
pub mod cli;
pub mod clock;
pub mod compute;
pub mod config;
pub mod deployment;
pub mod dev;
pub mod error;
pub mod fault;
mod files;
pub mod github;
pub mod http;
pub mod kms;
pub mod lnd;
pub mod lndserver;
pub mod master;
pub mod model;
pub mod pki;
pub mod release;
pub mod seal;
pub mod store;
mod tally;
