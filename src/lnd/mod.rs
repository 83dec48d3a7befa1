//! Everything that speaks to an lnd: the wire types, the client, macaroons, TLS pinning and JSON.

pub mod grant;
mod json;
pub mod macaroon;
pub mod proto;
