//! scale-lnd: a Lightning node for every user of an app.
//!
//! The map of the modules; each one's first lines say what it is for.

pub mod lnd;
pub mod pki;
pub mod seal;
