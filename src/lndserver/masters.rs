//! The masters an agent can talk to, one after the other.

use crate::pki::{ClientTls, Credentials, PkiError, Standing, Trust};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};

const CONNECT_WITHIN: Duration = Duration::from_secs(5);
const PING_EVERY: Duration = Duration::from_secs(5);

/// Why no master can even be dialled.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The list is empty.
    #[error("no master is known")]
    None,
    /// An address is none.
    #[error("{address:?} is not an address of the form host:port")]
    Address {
        /// The address.
        address: String,
        /// Why.
        source: tonic::transport::Error,
    },
    /// Our own certificate.
    #[error(transparent)]
    Pki(#[from] PkiError),
}

/// The masters.
#[derive(Debug)]
pub struct Masters {
    addresses: Vec<String>,
    tls: ClientTls,
    trust: Option<Trust>,
    turn: AtomicUsize,
}

impl Masters {
    /// Reached with the host's own certificate.
    pub fn new(addresses: Vec<String>, trust: &Trust, own: &Credentials) -> Result<Self, PkiError> {
        Ok(Self { trust: Some(trust.clone()), ..Self::with_tls(addresses, trust.dial_master(own)?) })
    }

    /// Reached in another way: by a host that has no certificate yet.
    #[must_use]
    pub fn with_tls(addresses: Vec<String>, tls: ClientTls) -> Self {
        Self { addresses, tls, trust: None, turn: AtomicUsize::new(0) }
    }

    /// To be taken before a channel: how long that may be used.
    pub fn standing(&self) -> Option<Standing> {
        self.trust.as_ref().map(Trust::standing)
    }

    /// The next one in turn: its address, and a channel that connects at the first call.
    pub fn next(&self) -> Result<(&str, Channel), DialError> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let address = self.addresses.get(turn % self.addresses.len().max(1)).ok_or(DialError::None)?;
        let endpoint =
            ClientTls::endpoint(address).map_err(|source| DialError::Address { address: address.clone(), source })?;
        Ok((address, self.tls.channel(&patient(endpoint))))
    }
}

fn patient(endpoint: Endpoint) -> Endpoint {
    endpoint.connect_timeout(CONNECT_WITHIN).http2_keep_alive_interval(PING_EVERY).keep_alive_timeout(PING_EVERY)
}
