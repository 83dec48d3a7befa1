//! Our TLS under tonic: a stream of accepted connections that know their peer, and a connector.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures::{Stream, StreamExt, stream};
use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, ServerConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    time::{Sleep, sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};
use tonic::{
    Request, Status,
    transport::{Channel, Endpoint, Error, server::Connected},
};

use super::{
    Identity, Peer, Source, Standing, Trust,
    quota::{Place, Quota},
};
use crate::{clock::SharedClock, tally::Tally};

/// A stranger may hold a connection this long without having shown what it is.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const HANDSHAKES_AT_ONCE: usize = 512;
const HANDSHAKES_OF_EACH: usize = 16;
/// After `accept` failed for want of file handles or memory, which only time mends.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What those may have that show no certificate: enough for hosts to enrol.
#[derive(Clone, Copy, Debug)]
pub(super) struct Strangers {
    /// Connections at a time.
    pub all: usize,
    /// Of each source.
    pub each: usize,
    /// How long a connection lives.
    pub life: Duration,
}

impl Strangers {
    const ALLOWED: Self = Self { all: 256, each: 16, life: Duration::from_secs(30) };
}

/// One side of a listener: how connections are accepted, and what their peers are.
#[derive(Clone, Debug)]
pub struct ServerTls {
    config: Arc<ServerConfig>,
    trust: Trust,
    pub(super) strangers: Strangers,
}

impl ServerTls {
    pub(super) fn new(config: ServerConfig, trust: Trust) -> Self {
        Self { config: Arc::new(config), trust, strangers: Strangers::ALLOWED }
    }

    /// Connections for tonic's `serve_with_incoming`. Handshakes run beside each other, and no source has more than its
    /// share of them, so a slow or silent client holds up nobody; one that fails is dropped.
    pub fn incoming(self, listener: TcpListener) -> impl Stream<Item = Result<PeerStream, Infallible>> + Send {
        let door = Arc::new(Door::new(self));
        let handshakes = Quota::new(HANDSHAKES_AT_ONCE, HANDSHAKES_OF_EACH);
        stream::unfold(listener, |listener| async move { Some((accept(&listener).await, listener)) })
            .filter_map({
                let door = Arc::clone(&door);
                move |(tcp, remote_addr)| {
                    let place = handshakes.take(remote_addr.ip().into());
                    if place.is_none() {
                        door.refuse(remote_addr, &"too many handshakes at once");
                    }
                    std::future::ready(place.map(|place| (tcp, remote_addr, place)))
                }
            })
            .map(move |(tcp, remote_addr, place)| {
                let door = Arc::clone(&door);
                async move {
                    let accepted = door.handshake(tcp, remote_addr).await;
                    drop(place);
                    accepted
                }
            })
            .buffer_unordered(HANDSHAKES_AT_ONCE)
            .filter_map(|accepted| std::future::ready(accepted.map(Ok)))
    }
}

/// Who is let in.
struct Door {
    acceptor: TlsAcceptor,
    trust: Trust,
    life: Duration,
    strangers: Arc<Quota>,
    refused: Tally,
}

impl Door {
    fn new(tls: ServerTls) -> Self {
        let Strangers { all, each, life } = tls.strangers;
        let (acceptor, strangers) = (TlsAcceptor::from(tls.config), Quota::new(all, each));
        Self { acceptor, trust: tls.trust, life, strangers, refused: Tally::default() }
    }

    /// Anybody can make this happen as often as they like: one of many is logged.
    fn refuse(&self, remote_addr: SocketAddr, reason: &dyn std::fmt::Display) {
        if let Some(refused) = self.refused.note(Instant::now()) {
            tracing::info!(peer.addr = %remote_addr, refused, reason = %reason, "connections refused, the last of them");
        }
    }

    async fn handshake(&self, tcp: TcpStream, remote_addr: SocketAddr) -> Option<PeerStream> {
        let standing = self.trust.standing();
        let tls = async {
            tcp.set_nodelay(true)?;
            timeout(HANDSHAKE_TIMEOUT, self.acceptor.accept(tcp)).await?
        };
        let tls = tls.await.inspect_err(|error| self.refuse(remote_addr, error)).ok()?;
        let certificate = tls.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let peer =
            match certificate.map(|certificate| Peer::from_cert(certificate, self.trust.deployment())).transpose() {
                Ok(peer) => peer,
                // The verifier has read the same certificate; a doubt is no reason to take the peer for a stranger.
                Err(error) => {
                    tracing::warn!(peer.addr = %remote_addr, %error, "the peer's certificate cannot be read");
                    return None;
                }
            };
        let stranger = match &peer {
            Some(_) => None,
            None => {
                let Some(place) = self.strangers.take(remote_addr.ip().into()) else {
                    self.refuse(remote_addr, &"too many connections without a certificate");
                    return None;
                };
                Some(Stranger { ends: Box::pin(sleep(self.life)), _place: place })
            }
        };
        Some(PeerStream { io: tls, peer: ConnectedPeer { remote_addr, peer, standing }, stranger })
    }
}

async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Who is at the other end of a connection. tonic puts it into the extensions of each request.
#[derive(Clone, Debug)]
pub struct ConnectedPeer {
    pub remote_addr: SocketAddr,
    /// None for a client that presented no certificate.
    pub peer: Option<Peer>,
    standing: Standing,
}

/// Who sent this request: None if it came without a certificate, or not over [`ServerTls`].
pub fn peer_identity<T>(request: &Request<T>) -> Option<&Identity> {
    connected_peer(request).map(|peer| &peer.identity)
}

/// Where this request comes from: None if it did not come over [`ServerTls`].
pub fn source<T>(request: &Request<T>) -> Option<Source> {
    request.extensions().get::<ConnectedPeer>().map(|peer| peer.remote_addr.ip().into())
}

/// Like [`peer_identity`], with the certificate's serial and validity, so that a long-lived connection can be asked
/// again ([`Peer::is_good`]).
pub fn connected_peer<T>(request: &Request<T>) -> Option<&Peer> {
    request.extensions().get::<ConnectedPeer>()?.peer.as_ref()
}

/// How long the connection may be used that this request came over: None if it did not come over [`ServerTls`].
pub fn standing<T>(request: &Request<T>) -> Option<Standing> {
    Some(request.extensions().get::<ConnectedPeer>()?.standing.clone())
}

/// For a server, before each call: refuses what comes over a connection whose peer's certificate has ended
/// since its handshake, or may be by a CA that is not believed any more. `Unauthenticated`, because another connection may do. A caller without a certificate
/// passes: who must have one, the handshake and the call itself know.
pub fn only_good_peers(
    clock: SharedClock,
) -> impl Fn(Request<()>) -> Result<Request<()>, Status> + Clone + Send + Sync + 'static {
    move |request| match connected_peer(&request) {
        Some(peer) if !peer.is_good(clock.now()) || standing(&request).is_some_and(|standing| standing.is_over()) => {
            Err(Status::unauthenticated("the certificate of this connection is no longer good"))
        }
        _ => Ok(request),
    }
}

/// An accepted connection.
#[derive(Debug)]
pub struct PeerStream {
    io: server::TlsStream<TcpStream>,
    peer: ConnectedPeer,
    stranger: Option<Stranger>,
}

/// What a connection has whose client showed no certificate.
#[derive(Debug)]
struct Stranger {
    ends: Pin<Box<Sleep>>,
    _place: Place,
}

impl PeerStream {
    /// An error once the time of a stranger is over.
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let over = self.stranger.as_mut().is_some_and(|stranger| stranger.ends.as_mut().poll(cx).is_ready());
        if over { Err(io::Error::new(io::ErrorKind::TimedOut, "a connection without a certificate")) } else { Ok(()) }
    }
}

impl Connected for PeerStream {
    type ConnectInfo = ConnectedPeer;

    fn connect_info(&self) -> ConnectedPeer {
        self.peer.clone()
    }
}

impl AsyncRead for PeerStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for PeerStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

/// The dialling side: whom to expect, and what to present.
#[derive(Clone)]
pub struct ClientTls {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl std::fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientTls").field("name", &self.name).finish_non_exhaustive()
    }
}

impl ClientTls {
    pub(super) fn new(config: ClientConfig, name: ServerName<'static>) -> Self {
        Self { connector: Arc::new(config).into(), name }
    }

    /// The endpoint of `host:port`, for timeouts and keepalive to be set on. Its scheme is http because tonic wants
    /// https only where TLS is its own; a channel made by this type is TLS all the same.
    pub fn endpoint(authority: &str) -> Result<Endpoint, Error> {
        Endpoint::from_shared(format!("http://{authority}"))
    }

    /// A channel that connects at its first call, and again after each loss.
    pub fn channel(&self, endpoint: &Endpoint) -> Channel {
        let tls = self.clone();
        endpoint.connect_with_connector_lazy(tower::service_fn(move |uri| tls.clone().connect_uri(uri)))
    }

    /// A channel that is connected. A server that refuses our certificate shows it only at the first call (TLS 1.3).
    pub async fn connect(&self, endpoint: &Endpoint) -> Result<Channel, Error> {
        let tls = self.clone();
        endpoint.connect_with_connector(tower::service_fn(move |uri| tls.clone().connect_uri(uri))).await
    }

    async fn connect_uri(self, uri: Uri) -> io::Result<TokioIo<client::TlsStream<TcpStream>>> {
        let (host, port) = uri.host().zip(uri.port_u16()).ok_or(io::ErrorKind::InvalidInput)?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        timeout(HANDSHAKE_TIMEOUT, async {
            let tcp = TcpStream::connect((host, port)).await?;
            tcp.set_nodelay(true)?;
            self.connector.connect(self.name.clone(), tcp).await.map(TokioIo::new)
        })
        .await?
    }
}
