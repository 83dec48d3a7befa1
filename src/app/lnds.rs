//! Warm connections to lnds, one each, dropped when idle. A connection belongs to an endpoint: a node that moved gets a
//! new one, and the pinned certificate keeps a reused address from ever reaching another user's node. One that could not
//! be made, or whose task has died, is not kept: the next call begins with another.

use crate::error::{Error, Result};
use crate::lnd::PinnedCert;
use crate::lnd::client::LndClient;
use crate::model::NodeId;
use crate::model::node::{Endpoint, Node};
use moka::sync::Cache;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// An lnd that nobody has asked anything for this long loses its connection.
const IDLE: Duration = Duration::from_secs(300);
const MOST: u64 = 20_000;

/// The connections of one master.
#[derive(Debug, Clone)]
pub struct Lnds {
    cache: Cache<NodeId, Arc<(Endpoint, LndClient)>>,
}

impl Default for Lnds {
    fn default() -> Self {
        Self { cache: Cache::builder().time_to_idle(IDLE).max_capacity(MOST).build() }
    }
}

impl Lnds {
    /// The connection to `node`'s lnd; it is made by the first call on it.
    ///
    /// # Errors
    /// An invariant is broken where the node has no endpoint yet or its certificate cannot be read.
    pub fn client(&self, node: &Node) -> Result<LndClient> {
        let endpoint = endpoint(node)?;
        if let Some(warm) = self.warm(&node.id, endpoint) {
            return Ok(warm);
        }
        let client = connect(endpoint)?;
        self.cache.insert(node.id.clone(), Arc::new((endpoint.clone(), client.clone())));
        Ok(client)
    }

    /// The same for one look at many lnds: a connection that is not there yet is not kept.
    ///
    /// # Errors
    /// As [`Self::client`].
    pub fn passing(&self, node: &Node) -> Result<LndClient> {
        let endpoint = endpoint(node)?;
        self.warm(&node.id, endpoint).map_or_else(|| connect(endpoint), Ok)
    }

    fn warm(&self, node: &NodeId, endpoint: &Endpoint) -> Option<LndClient> {
        let warm = self.cache.get(node)?;
        (warm.0 == *endpoint && !warm.1.is_lost()).then(|| warm.1.clone())
    }
}

fn endpoint(node: &Node) -> Result<&Endpoint> {
    node.endpoint.as_ref().ok_or_else(|| Error::Invariant("the node was never started".into()))
}

fn connect(endpoint: &Endpoint) -> Result<LndClient> {
    let broken = |what: &str| Error::Invariant(format!("the stored {what} of the node cannot be used"));
    let pinned = PinnedCert::from_pem(endpoint.certificate_pem.as_bytes()).map_err(|_| broken("certificate"))?;
    let address = SocketAddr::new(endpoint.address, endpoint.rpc_port).to_string();
    LndClient::new(&address, &pinned).map_err(|_| broken("endpoint"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::testing;
    use crate::lnd::LndErrorKind;
    use std::net::Ipv4Addr;
    use tokio::runtime::Runtime;

    #[test]
    fn a_connection_whose_task_has_died_is_made_anew() {
        let (lnds, mut node) = (Lnds::default(), testing::node());
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let made = crate::pki::lnd_cert::make_lnd_cert(&[], &[], time::OffsetDateTime::now_utc()).unwrap();
        let rpc_port = listener.local_addr().unwrap().port();
        let address = Ipv4Addr::LOCALHOST.into();
        node.endpoint =
            Some(Endpoint { address, rpc_port, p2p_port: 1, rest_port: None, certificate_pem: made.cert_pem });
        // The task of the first one ends with its runtime.
        let first = Runtime::new().unwrap().block_on(async { lnds.client(&node).unwrap() });
        let now = Runtime::new().unwrap();
        let dead = now.block_on(first.wallet_state()).expect_err("dead");
        assert_eq!(dead.kind, LndErrorKind::Unreachable);
        let second = now.block_on(async { lnds.client(&node).unwrap().within(Duration::from_millis(500)) });
        let (answer, _) = (now.block_on(second.wallet_state()), listener.set_nonblocking(true).unwrap());
        assert!(answer.is_err() && listener.accept().is_ok(), "the second one has dialled");
    }
}
