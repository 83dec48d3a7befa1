//! Everything that speaks to an lnd: the wire types, the client, macaroons, TLS pinning and JSON.

pub mod grant;
pub mod macaroon;
