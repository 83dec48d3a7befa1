//! Channels: lists, events, opening and closing.

use bitcoin::hashes::Hash;
use bitcoin::{OutPoint, Txid};

use super::{LndClient, READ, SLOW, Updates, request};
use crate::lnd::LndError;
use crate::lnd::macaroon::Macaroon;
use crate::lnd::proto::lnrpc::pending_channels_response::PendingChannel;
use crate::lnd::proto::lnrpc::{self, close_status_update, open_status_update};

impl LndClient {
    pub async fn channel_balance(&self, macaroon: &Macaroon) -> Result<lnrpc::ChannelBalanceResponse, LndError> {
        let request = request(macaroon, lnrpc::ChannelBalanceRequest {})?;
        self.unary(READ, self.lightning().channel_balance(request)).await
    }

    pub async fn list_channels(
        &self,
        macaroon: &Macaroon,
        ask: lnrpc::ListChannelsRequest,
    ) -> Result<lnrpc::ListChannelsResponse, LndError> {
        let request = request(macaroon, ask)?;
        self.unary(READ, self.lightning().list_channels(request)).await
    }

    pub async fn pending_channels(&self, macaroon: &Macaroon) -> Result<lnrpc::PendingChannelsResponse, LndError> {
        let request = request(macaroon, lnrpc::PendingChannelsRequest::default())?;
        self.unary(READ, self.lightning().pending_channels(request)).await
    }

    /// The channels that are being closed, however: negotiated, waiting for a closing transaction to be confirmed, or for
    /// the delay of a forced one.
    pub async fn pending_closes(&self, macaroon: &Macaroon) -> Result<Vec<PendingClose>, LndError> {
        let request = request(macaroon, lnrpc::PendingChannelsRequest { include_raw_tx: true })?;
        let pending = self.unary(READ, self.lightning().pending_channels(request)).await?;
        let waiting = pending.waiting_close_channels.into_iter();
        let waiting = waiting.map(|c| PendingClose::new(c.channel, c.closing_txid, c.closing_tx_hex));
        let forced = pending.pending_force_closing_channels.into_iter();
        let forced = forced.map(|c| PendingClose::new(c.channel, c.closing_txid, String::new()));
        Ok(waiting.chain(forced).flatten().collect())
    }

    pub async fn closed_channels(
        &self,
        macaroon: &Macaroon,
        ask: lnrpc::ClosedChannelsRequest,
    ) -> Result<lnrpc::ClosedChannelsResponse, LndError> {
        let request = request(macaroon, ask)?;
        self.unary(READ, self.lightning().closed_channels(request)).await
    }

    /// What happens to channels from now on.
    pub fn channel_events(&self, macaroon: &Macaroon) -> Result<Updates<lnrpc::ChannelEventUpdate>, LndError> {
        let request = request(macaroon, lnrpc::ChannelEventSubscription {})?;
        let mut client = self.lightning();
        Ok(Updates::new(async move { client.subscribe_channel_events(request).await }))
    }

    /// Opens a channel and returns its point once the funding transaction is published.
    ///
    /// **Neither an error nor the deadline proves that no channel is opened:** lnd goes on without its client, for up
    /// to 11 minutes while the peer is silent. Look for the memo before a retry (design/money.md, fencing).
    pub async fn open_channel(
        &self,
        macaroon: &Macaroon,
        ask: lnrpc::OpenChannelRequest,
    ) -> Result<OutPoint, LndError> {
        let mut updates = self.opening(macaroon, ask)?;
        self.timed(SLOW, async {
            while let Some(update) = updates.next().await? {
                if let Some(open_status_update::Update::ChanPending(pending)) = update.update {
                    return Ok(OutPoint { txid: txid(&pending.txid)?, vout: pending.output_index });
                }
            }
            Err(LndError::unexpected("the opening ended without a word"))
        })
        .await
    }

    /// Opens a channel and follows it: pending on chain, then open.
    pub fn opening(
        &self,
        macaroon: &Macaroon,
        ask: lnrpc::OpenChannelRequest,
    ) -> Result<Updates<lnrpc::OpenStatusUpdate>, LndError> {
        let request = request(macaroon, ask)?;
        let mut client = self.lightning();
        Ok(Updates::new(async move { client.open_channel(request).await }))
    }

    /// Closes a channel and returns the closing transaction once it is published. With `no_wait` payments under way
    /// are waited for, without it they are an error.
    ///
    /// An error of kind `Unknown` leaves open whether the close goes on: look into PendingChannels.
    pub async fn close_channel(&self, macaroon: &Macaroon, ask: lnrpc::CloseChannelRequest) -> Result<Txid, LndError> {
        let request = request(macaroon, ask)?;
        let mut client = self.lightning();
        let mut updates = Updates::new(async move { client.close_channel(request).await });
        self.timed(SLOW, async {
            while let Some(update) = updates.next().await? {
                match update.update {
                    Some(close_status_update::Update::ClosePending(pending)) => {
                        return txid(&pending.txid);
                    }
                    Some(close_status_update::Update::ChanClose(closed)) => {
                        return txid(&closed.closing_txid);
                    }
                    Some(close_status_update::Update::CloseInstant(_)) | None => {}
                }
            }
            Err(LndError::unexpected("the close ended without a word"))
        })
        .await
    }
}

/// A channel that is being closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingClose {
    /// `txid:index`.
    pub channel_point: String,
    /// The peer (hex).
    pub remote_pubkey: String,
    /// What the opener noted.
    pub memo: String,
    /// The closing transaction; empty while there is none, or none that lnd knows of.
    pub closing_txid: String,
    /// That transaction (hex), until it is confirmed; else empty.
    pub closing_tx: String,
}

impl PendingClose {
    fn new(channel: Option<PendingChannel>, closing_txid: String, closing_tx: String) -> Option<Self> {
        let PendingChannel { channel_point, remote_node_pub: remote_pubkey, memo, .. } = channel?;
        Some(Self { channel_point, remote_pubkey, memo, closing_txid, closing_tx })
    }
}

impl From<OutPoint> for lnrpc::ChannelPoint {
    fn from(point: OutPoint) -> Self {
        let txid = point.txid.to_byte_array().to_vec();
        Self { funding_txid: Some(lnrpc::channel_point::FundingTxid::FundingTxidBytes(txid)), output_index: point.vout }
    }
}

impl From<OutPoint> for lnrpc::OutPoint {
    fn from(point: OutPoint) -> Self {
        let txid_bytes = point.txid.to_byte_array().to_vec();
        Self { txid_bytes, txid_str: point.txid.to_string(), output_index: point.vout }
    }
}

/// From the bytes of the wire, which are in internal order; shown, a `Txid` is in the usual one.
fn txid(bytes: &[u8]) -> Result<Txid, LndError> {
    Txid::from_slice(bytes).map_err(|_| LndError::unexpected("the node named no transaction"))
}
