//! Everything that speaks to an lnd: the wire types, the client, macaroons, TLS pinning and JSON.

pub mod client;
mod error;
pub mod grant;
mod json;
pub mod macaroon;
pub mod proto;
mod tls;

pub use client::{LndClient, NewWallet, Updates};
pub use error::{LndError, LndErrorKind};
pub use tls::{PinnedCert, TlsError, channel as pinned_channel};
