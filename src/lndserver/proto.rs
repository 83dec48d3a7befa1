//! The wire types and services of `proto/scalelnd/lndserver/v1`, compiled by `proto/build.rs`.
//!
//! Those that carry a secret (a join token, a chain backend's password) show nothing in Debug.

pub use v1::*;

#[allow(clippy::pedantic, missing_debug_implementations, reason = "generated; what applies changes with it")]
mod v1 {
    tonic::include_proto!("scalelnd.lndserver.v1");
    include!(concat!(env!("OUT_DIR"), "/scalelnd.lndserver.v1.redact.rs"));
}
