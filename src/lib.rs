//! scale-lnd: a Lightning node for every user of an app.
//!
//! The map of the modules; each one's first lines say what it is for.

#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        reason = "a test that meets the unexpected should panic"
    )
)]

pub mod apikey;
pub mod dev;
pub mod lnd;
pub mod pki;
pub mod seal;
