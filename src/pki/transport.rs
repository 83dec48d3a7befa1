//! Our TLS under tonic: a stream of accepted connections that know their peer, and a connector.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::{Stream, StreamExt, stream};
use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, ServerConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};
use tonic::{
    Request, Status,
    transport::{Channel, Endpoint, Error, server::Connected},
};

use super::{Identity, Peer};
use crate::clock::SharedClock;

/// A stranger may hold a connection this long without having shown what it is.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const HANDSHAKES_AT_ONCE: usize = 512;
/// After `accept` failed for want of file handles or memory, which only time mends.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// One side of a listener: how connections are accepted, and what their peers are.
#[derive(Clone, Debug)]
pub struct ServerTls {
    config: Arc<ServerConfig>,
    deployment: Arc<str>,
}

impl ServerTls {
    pub(super) fn new(config: ServerConfig, deployment: &str) -> Self {
        Self { config: Arc::new(config), deployment: deployment.into() }
    }

    /// Connections for tonic's `serve_with_incoming`. Handshakes run beside each other, so a slow or silent client
    /// holds up nobody; one that fails is logged and dropped.
    pub fn incoming(self, listener: TcpListener) -> impl Stream<Item = Result<PeerStream, Infallible>> + Send {
        let acceptor = TlsAcceptor::from(self.config);
        stream::unfold(listener, |listener| async move { Some((accept(&listener).await, listener)) })
            .map(move |(tcp, remote_addr)| handshake(acceptor.clone(), tcp, remote_addr, self.deployment.clone()))
            .buffer_unordered(HANDSHAKES_AT_ONCE)
            .filter_map(|accepted| std::future::ready(accepted.map(Ok)))
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

async fn handshake(
    acceptor: TlsAcceptor,
    tcp: TcpStream,
    remote_addr: SocketAddr,
    deployment: Arc<str>,
) -> Option<PeerStream> {
    let tls = async {
        tcp.set_nodelay(true)?;
        timeout(HANDSHAKE_TIMEOUT, acceptor.accept(tcp)).await?
    };
    let tls = match tls.await {
        Ok(tls) => tls,
        Err(error) => {
            tracing::info!(peer.addr = %remote_addr, %error, "TLS handshake refused");
            return None;
        }
    };
    let certificate = tls.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let peer = match certificate.map(|certificate| Peer::from_cert(certificate, &deployment)).transpose() {
        Ok(peer) => peer,
        // The verifier has read the same certificate; a doubt is no reason to take the peer for a stranger.
        Err(error) => {
            tracing::warn!(peer.addr = %remote_addr, %error, "the peer's certificate cannot be read");
            return None;
        }
    };
    Some(PeerStream { io: tls, peer: ConnectedPeer { remote_addr, peer } })
}

/// Who is at the other end of a connection. tonic puts it into the extensions of each request.
#[derive(Clone, Debug)]
pub struct ConnectedPeer {
    pub remote_addr: SocketAddr,
    /// None for a client that presented no certificate.
    pub peer: Option<Peer>,
}

/// Who sent this request: None if it came without a certificate, or not over [`ServerTls`].
pub fn peer_identity<T>(request: &Request<T>) -> Option<&Identity> {
    connected_peer(request).map(|peer| &peer.identity)
}

/// Like [`peer_identity`], with the certificate's serial and validity, so that a long-lived connection can be asked
/// again ([`Peer::is_good`]).
pub fn connected_peer<T>(request: &Request<T>) -> Option<&Peer> {
    request.extensions().get::<ConnectedPeer>()?.peer.as_ref()
}

/// For a server, before each call: refuses what comes over a connection whose peer's certificate has ended
/// since its handshake. `Unauthenticated`, because another connection may do. A caller without a certificate
/// passes: who must have one, the handshake and the call itself know.
pub fn only_good_peers(
    clock: SharedClock,
) -> impl Fn(Request<()>) -> Result<Request<()>, Status> + Clone + Send + Sync + 'static {
    move |request| match connected_peer(&request) {
        Some(peer) if !peer.is_good(clock.now()) => {
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
}

impl Connected for PeerStream {
    type ConnectInfo = ConnectedPeer;

    fn connect_info(&self) -> ConnectedPeer {
        self.peer.clone()
    }
}

impl AsyncRead for PeerStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for PeerStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
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
