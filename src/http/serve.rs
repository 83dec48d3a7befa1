//! Listening: TLS or loopback, header timeouts, and an orderly end.

use super::dispatch::Dispatcher;
use super::gate::Gate;
use super::{AppState, router};
use crate::config::{HttpSection, must_not_be_everybodys};
use axum::Router;
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use axum_server::{Handle, Server};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How long calls that are under way get to end once the server closes. Waiting calls and streams have ended before.
const GRACE: Duration = Duration::from_secs(10);
/// HTTP/2 calls at a time on one connection.
const STREAMS_PER_CONNECTION: u32 = 64;
/// Whoever has taken nothing of what is sent to them for so long is gone. Who waits for an operation or an event has nothing
/// to take meanwhile.
const STALL: Duration = Duration::from_secs(30);
const PING_INTERVAL: Duration = Duration::from_secs(20);

/// Why the API cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Others could listen in.
    #[error("{0} is not loopback, so the API needs a certificate there (http.tls_cert, http.tls_key)")]
    Plain(SocketAddr),
    /// The address cannot be listened on.
    #[error("cannot listen on {0}")]
    Listen(SocketAddr, #[source] std::io::Error),
    /// The certificate or its key cannot be used.
    #[error("cannot use the certificate {}", .0.display())]
    Certificate(PathBuf, #[source] Box<dyn std::error::Error + Send + Sync>),
    /// It broke while serving.
    #[error("the HTTP server ended")]
    Io(#[from] std::io::Error),
}

/// A server that listens, and answers once it [runs](BoundServer::run).
#[derive(Debug)]
pub struct BoundServer {
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<RustlsConfig>,
    config: HttpSection,
}

impl BoundServer {
    /// Listens. Port 0 picks a free one.
    ///
    /// # Errors
    /// See [`ServeError`].
    pub fn bind(config: HttpSection) -> Result<Self, ServeError> {
        let tls = match (&config.tls_cert, &config.tls_key) {
            (Some(cert), Some(key)) => Some(tls(cert, key)?),
            _ if config.listen.ip().is_loopback() || config.allow_plain_http => None,
            _ => return Err(ServeError::Plain(config.listen)),
        };
        let failed = |error| ServeError::Listen(config.listen, error);
        let listener = TcpListener::bind(config.listen).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address, tls, config })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How to reach it, without a slash at the end.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// Serves. From `shutdown` on nobody is kept: `/readyz` fails, waiting calls answer 202, streams end; whoever has not
    /// heard of it yet is still answered. From `close` on nobody is: calls under way end, and the server with them.
    ///
    /// # Errors
    /// The listener broke.
    pub async fn run(
        self,
        state: AppState,
        shutdown: CancellationToken,
        close: CancellationToken,
    ) -> Result<(), ServeError> {
        let dispatcher = Arc::new(Dispatcher::new(state, self.config.clone(), shutdown));
        let app = router::router(dispatcher);
        let handle = Handle::new();
        let stopper = handle.clone();
        let stop = tokio::spawn(async move {
            close.cancelled().await;
            stopper.graceful_shutdown(Some(GRACE));
        });
        let server = axum_server::from_tcp(self.listener)?.handle(handle);
        let gate = Gate::new(self.config.max_connections, STALL);
        let served = match self.tls {
            Some(tls) => {
                let acceptor = RustlsAcceptor::new(tls).acceptor(gate);
                listen(server.acceptor(acceptor), &self.config, app).await
            }
            None => listen(server.acceptor(gate), &self.config, app).await,
        };
        stop.abort();
        Ok(served?)
    }
}

async fn listen<A>(mut server: Server<SocketAddr, A>, config: &HttpSection, app: Router) -> std::io::Result<()>
where
    A: axum_server::accept::Accept<tokio::net::TcpStream, Router> + Clone + Send + Sync + 'static,
    A::Stream: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send,
    A::Service: axum_server::service::SendService<http::Request<hyper::body::Incoming>> + Send,
    A::Future: Send,
{
    server.http_builder().http1().header_read_timeout(config.header_timeout);
    server
        .http_builder()
        .http2()
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_INTERVAL);
    server.first_request_timeout(config.header_timeout).serve(app.into_make_service()).await
}

/// Whether the API can be served with this certificate and key (PEM files).
///
/// # Errors
/// [`ServeError::Certificate`].
pub fn check_certificate(cert: &Path, key: &Path) -> Result<(), ServeError> {
    tls(cert, key).map(drop)
}

fn tls(cert: &Path, key: &Path) -> Result<RustlsConfig, ServeError> {
    let with = |path: &Path| {
        let path = path.to_owned();
        move |error: Box<dyn std::error::Error + Send + Sync>| ServeError::Certificate(path, error)
    };
    must_not_be_everybodys(key).map_err(|error| with(key)(error.into()))?;
    let certs = CertificateDer::pem_file_iter(cert).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certs = certs.map_err(|error| with(cert)(error.into()))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| with(key)(error.into()))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(certs, private));
    let mut config = config.map_err(|error| with(cert)(error.into()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(RustlsConfig::from_config(Arc::new(config)))
}
