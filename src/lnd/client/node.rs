//! The node itself: what it is, its peers, its backups.

use super::{LndClient, READ, SLOW, WRITE, request};
use crate::lnd::LndError;
use crate::lnd::macaroon::Macaroon;
use crate::lnd::proto::lnrpc;

impl LndClient {
    pub async fn get_info(&self, macaroon: &Macaroon) -> Result<lnrpc::GetInfoResponse, LndError> {
        let request = request(macaroon, lnrpc::GetInfoRequest {})?;
        self.unary(READ, self.lightning().get_info(request)).await
    }

    /// Asks lnd to stop. The answer comes before it has: wait for the process to exit. Refused during recovery.
    pub async fn stop_daemon(&self, macaroon: &Macaroon) -> Result<(), LndError> {
        let request = request(macaroon, lnrpc::StopRequest {})?;
        self.unary(WRITE, self.lightning().stop_daemon(request)).await.map(drop)
    }

    pub async fn list_peers(
        &self,
        macaroon: &Macaroon,
        ask: lnrpc::ListPeersRequest,
    ) -> Result<lnrpc::ListPeersResponse, LndError> {
        let request = request(macaroon, ask)?;
        self.unary(READ, self.lightning().list_peers(request)).await
    }

    /// Connects to `pubkey` (hex) at `host` (a literal address and port). With `perm`, lnd keeps trying.
    /// [`AlreadyConnected`](crate::lnd::LndErrorKind::AlreadyConnected) is as good as success.
    pub async fn connect_peer(
        &self,
        macaroon: &Macaroon,
        pubkey: &str,
        host: &str,
        perm: bool,
    ) -> Result<lnrpc::ConnectPeerResponse, LndError> {
        /// A little less than the deadline, so that lnd tells the reason.
        const TIMEOUT_SECONDS: u64 = 25;
        let addr = lnrpc::LightningAddress { pubkey: pubkey.to_owned(), host: host.to_owned() };
        let ask = lnrpc::ConnectPeerRequest { addr: Some(addr), perm, timeout: TIMEOUT_SECONDS };
        let request = request(macaroon, ask)?;
        self.unary(WRITE, self.lightning().connect_peer(request)).await
    }

    /// Disconnects from `pubkey` (hex), which cancels channel reservations with it as well.
    /// [`PeerOffline`](crate::lnd::LndErrorKind::PeerOffline) where it was not connected.
    pub async fn disconnect_peer(
        &self,
        macaroon: &Macaroon,
        pubkey: &str,
    ) -> Result<lnrpc::DisconnectPeerResponse, LndError> {
        let request = request(macaroon, lnrpc::DisconnectPeerRequest { pub_key: pubkey.to_owned() })?;
        self.unary(WRITE, self.lightning().disconnect_peer(request)).await
    }

    /// What the graph knows of `pubkey` (hex); `None` where it knows nothing.
    pub async fn node_info(&self, macaroon: &Macaroon, pubkey: &str) -> Result<Option<lnrpc::NodeInfo>, LndError> {
        let ask = lnrpc::NodeInfoRequest { pub_key: pubkey.to_owned(), ..Default::default() };
        let request = request(macaroon, ask)?;
        found(self.unary(READ, self.lightning().get_node_info(request)).await)
    }

    /// Which channels a `channel.backup` of this node covers; refused where it is not one.
    pub async fn verify_backup(
        &self,
        macaroon: &Macaroon,
        channel_backup: Vec<u8>,
    ) -> Result<lnrpc::VerifyChanBackupResponse, LndError> {
        let multi = lnrpc::MultiChanBackup { multi_chan_backup: channel_backup, ..Default::default() };
        let ask = lnrpc::ChanBackupSnapshot { multi_chan_backup: Some(multi), single_chan_backups: None };
        let request = request(macaroon, ask)?;
        self.unary(SLOW, self.lightning().verify_chan_backup(request)).await
    }
}

/// A look-up: not found is no error.
pub(super) fn found<T>(answer: Result<T, LndError>) -> Result<Option<T>, LndError> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind == crate::lnd::LndErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
