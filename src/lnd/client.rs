//! The client of one lnd: a typed method for each call this system makes.
//!
//! Every call carries a macaroon and a deadline, and fails with an [`LndError`] that says whether the effect may have
//! happened. Nothing is ever sent twice from here: who calls decides what a repeat means. By area: `node`, `wallet`
//! (state, init, unlock), `onchain`, `channels`, `payments`.

mod channels;
mod node;
mod onchain;
mod payments;
mod wallet;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

pub use self::channels::PendingClose;
pub use self::wallet::NewWallet;
use super::error::{LndError, LndErrorKind};
use super::macaroon::Macaroon;
use super::proto::lnrpc::lightning_client::LightningClient;
use super::proto::lnrpc::state_client::StateClient;
use super::proto::lnrpc::wallet_unlocker_client::WalletUnlockerClient;
use super::proto::routerrpc::router_client::RouterClient;
use super::proto::walletrpc::wallet_kit_client::WalletKitClient;
use super::tls::{self, PinnedCert, TlsError};

/// The longest answer that is read, bytes, where it is a list of the wallet's or the node's: some ten thousand payments,
/// transactions or coins. lnd itself would send 200 MiB, and one whose host has gone bad would fill our memory with that.
const LONGEST_LIST: usize = 32 << 20;
/// Deadlines by what is asked, unless [`LndClient::within`] says otherwise. Reads of a busy node can take seconds.
const READ: Duration = Duration::from_secs(15);
const WRITE: Duration = Duration::from_secs(30);
/// What takes scrypt, or another node's answer.
const SLOW: Duration = Duration::from_secs(60);

/// One multiplexed connection to one lnd. Clones share it; it is made by the first call and again after it broke.
#[derive(Clone, Debug)]
pub struct LndClient {
    channel: Channel,
    deadline: Option<Duration>,
    lost: Arc<AtomicBool>,
}

impl LndClient {
    /// For the lnd at `address` (host:port) that shows `cert`. Connects when the first call is made. Must be called
    /// within a tokio runtime.
    pub fn new(address: &str, cert: &PinnedCert) -> Result<Self, TlsError> {
        Ok(Self { channel: tls::channel(address, cert)?, deadline: None, lost: Arc::default() })
    }

    /// The same connection with another deadline for every call, streams' first message included.
    #[must_use]
    pub fn within(&self, deadline: Duration) -> Self {
        Self { deadline: Some(deadline), ..self.clone() }
    }

    /// Whether a call did not even leave: there was no connection, or the task that has it has died. Another client for
    /// the same lnd may do; this one may for ever not.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    fn lightning(&self) -> LightningClient<Channel> {
        LightningClient::new(self.channel.clone()).max_decoding_message_size(LONGEST_LIST)
    }

    fn state_service(&self) -> StateClient<Channel> {
        StateClient::new(self.channel.clone())
    }

    fn unlocker(&self) -> WalletUnlockerClient<Channel> {
        WalletUnlockerClient::new(self.channel.clone())
    }

    fn router(&self) -> RouterClient<Channel> {
        RouterClient::new(self.channel.clone())
    }

    fn wallet_kit(&self) -> WalletKitClient<Channel> {
        WalletKitClient::new(self.channel.clone()).max_decoding_message_size(LONGEST_LIST)
    }

    /// Waits for a unary answer until the deadline. Dropping the future gives the call up at lnd, too, as far as lnd
    /// lets it.
    async fn unary<T>(
        &self,
        deadline: Duration,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, LndError> {
        let answer = self.timed(deadline, async { call.await.map_err(LndError::from) }).await;
        if matches!(&answer, Err(error) if error.kind == LndErrorKind::Unreachable) {
            self.lost.store(true, Ordering::Relaxed);
        }
        Ok(answer?.into_inner())
    }

    /// Any future under the deadline of this client, or else the one given.
    async fn timed<T>(
        &self,
        deadline: Duration,
        work: impl Future<Output = Result<T, LndError>>,
    ) -> Result<T, LndError> {
        tokio::time::timeout(self.deadline.unwrap_or(deadline), work)
            .await
            .unwrap_or_else(|_| Err(LndError::new(LndErrorKind::Unknown, "the node did not answer in time")))
    }
}

/// A request with its macaroon. `None` only for a macaroon that is no header value, which hexadecimal always is.
fn request<T>(macaroon: &Macaroon, message: T) -> Result<Request<T>, LndError> {
    let mut value: MetadataValue<Ascii> = macaroon
        .hex()
        .parse()
        .map_err(|_| LndError::new(LndErrorKind::MacaroonRejected, "the macaroon is not hexadecimal"))?;
    value.set_sensitive(true);
    let mut request = Request::new(message);
    request.metadata_mut().insert("macaroon", value);
    Ok(request)
}

/// What a streaming call sends, one message after the other.
///
/// The call is made at once, but lnd does not tell when a subscription stands: after subscribing look at the state as
/// it is, and from time to time again. Dropping this ends the stream, not what lnd does.
pub struct Updates<T> {
    messages: mpsc::Receiver<Result<T, LndError>>,
    _reader: AbortOnDropHandle<()>,
}

/// Messages that wait to be read; lnd waits beyond.
const READ_AHEAD: usize = 1;

impl<T: Send + 'static> Updates<T> {
    fn new(call: impl Future<Output = Result<Response<Streaming<T>>, Status>> + Send + 'static) -> Self {
        let (sender, messages) = mpsc::channel(READ_AHEAD);
        let reader = tokio::spawn(async move {
            let mut stream = match call.await {
                Ok(answer) => answer.into_inner(),
                Err(status) => return drop(sender.send(Err(status.into())).await),
            };
            while let Some(message) = stream.message().await.map_err(LndError::from).transpose() {
                let ended = message.is_err();
                if sender.send(message).await.is_err() || ended {
                    return;
                }
            }
        });
        Self { messages, _reader: AbortOnDropHandle::new(reader) }
    }

    /// The next message; `None` when lnd ended the stream. May be dropped and called again.
    pub async fn next(&mut self) -> Result<Option<T>, LndError> {
        self.messages.recv().await.transpose()
    }
}

impl<T> std::fmt::Debug for Updates<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Updates").finish_non_exhaustive()
    }
}
