//! Loads what a release names, and believes nothing of it before its digest. Whoever serves it may be down, slow, endless, or
//! somebody else's.

use crate::model::release::{Artifact, Sha256};
use futures::StreamExt;
use sha2::{Digest, Sha256 as Hasher};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncWrite, AsyncWriteExt};

/// What a download may take.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Bytes at most.
    pub bytes: u64,
    /// From the request to the last byte.
    pub whole: Duration,
    /// Between two pieces; and to the first.
    pub stall: Duration,
}

impl Bounds {
    /// For programs: lnd has about 100 MB.
    pub const PROGRAM: Self = Self { bytes: 1 << 30, whole: Duration::from_secs(1800), stall: Duration::from_secs(30) };
}

/// Why something could not be had. It never was used, then.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// Its server cannot be reached, or breaks off.
    #[error("it cannot be loaded")]
    Http(#[source] reqwest::Error),
    /// Its server says no.
    #[error("its server answers {0}")]
    Status(u16),
    /// It comes too slowly.
    #[error("it comes too slowly")]
    Slow,
    /// It has no end, or none that matters.
    #[error("it has more than {0} bytes")]
    TooLarge(u64),
    /// It is something else.
    #[error("its SHA-256 is {found}, and not what the release says")]
    Digest {
        /// What it is.
        found: Sha256,
    },
    /// It cannot be kept.
    #[error("it cannot be written")]
    Io(#[from] io::Error),
}

/// Loads an artifact into `to`, which means something only where this succeeds. Says how many bytes there are.
///
/// # Errors
/// It could not be had whole, or is not what the release says.
pub async fn download(
    client: &reqwest::Client,
    artifact: &Artifact,
    bounds: Bounds,
    to: &mut (impl AsyncWrite + Unpin),
) -> Result<u64, DownloadError> {
    let all = load(client, artifact, bounds, to);
    tokio::time::timeout(bounds.whole, all).await.unwrap_or(Err(DownloadError::Slow))
}

async fn load(
    client: &reqwest::Client,
    artifact: &Artifact,
    bounds: Bounds,
    to: &mut (impl AsyncWrite + Unpin),
) -> Result<u64, DownloadError> {
    let slow = |_| DownloadError::Slow;
    let http = |error: reqwest::Error| DownloadError::Http(error.without_url());
    let request = client.get(artifact.url.as_str()).send();
    let response = tokio::time::timeout(bounds.stall, request).await.map_err(slow)?.map_err(http)?;
    if !response.status().is_success() {
        return Err(DownloadError::Status(response.status().as_u16()));
    }
    let mut digest = Hasher::new();
    let mut bytes: u64 = 0;
    let mut pieces = response.bytes_stream();
    while let Some(piece) = tokio::time::timeout(bounds.stall, pieces.next()).await.map_err(slow)? {
        let piece = piece.map_err(http)?;
        bytes += piece.len() as u64;
        if bytes > bounds.bytes {
            return Err(DownloadError::TooLarge(bounds.bytes));
        }
        digest.update(&piece);
        to.write_all(&piece).await?;
    }
    to.flush().await?;
    let found = Sha256::of_digest(&digest.finalize());
    if found == artifact.sha256 { Ok(bytes) } else { Err(DownloadError::Digest { found }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::body::Body;
    use axum::routing::get;
    use futures::stream;

    const BOUNDS: Bounds = Bounds { bytes: 1 << 20, whole: Duration::from_secs(60), stall: Duration::from_millis(300) };

    /// A server on loopback with a good file and some bad ones.
    async fn serve() -> std::net::SocketAddr {
        let piece = || Ok::<_, io::Error>(vec![b'x'; 64 * 1024]);
        let endless = move || async move { Body::from_stream(stream::repeat_with(piece)) };
        let stalls =
            || async { Body::from_stream(stream::iter([Ok::<_, io::Error>("half")]).chain(stream::pending())) };
        let breaks = || async { Body::from_stream(stream::iter([Ok("half"), Err(io::Error::other("gone"))])) };
        let routes = Router::new()
            .route("/good", get(|| async { "program" }))
            .route("/endless", get(endless))
            .route("/stalls", get(stalls))
            .route("/breaks", get(breaks));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, routes).await });
        address
    }

    async fn load(url: &str, of: &[u8]) -> Result<Vec<u8>, DownloadError> {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let sha256 = Sha256::of_digest(&Hasher::digest(of));
        let artifact = Artifact { url: url.to_owned().try_into().unwrap(), sha256 };
        let mut loaded = Vec::new();
        let bytes = download(&reqwest::Client::new(), &artifact, BOUNDS, &mut loaded).await?;
        assert_eq!(bytes, loaded.len() as u64);
        Ok(loaded)
    }

    #[tokio::test]
    async fn only_what_the_release_says_is_loaded() {
        let at = format!("http://{}", serve().await);
        assert_eq!(load(&format!("{at}/good"), b"program").await.unwrap(), b"program");
        let other = load(&format!("{at}/good"), b"programme").await.unwrap_err();
        assert!(matches!(other, DownloadError::Digest { .. }), "{other}");
    }

    #[tokio::test]
    async fn servers_that_are_down_slow_or_endless_are_given_up() {
        let at = format!("http://{}", serve().await);
        let error = |path: &'static str| {
            let url = format!("{at}{path}");
            async move { load(&url, b"").await.unwrap_err() }
        };
        assert!(matches!(error("/none").await, DownloadError::Status(404)));
        assert!(matches!(error("/stalls").await, DownloadError::Slow));
        assert!(matches!(error("/endless").await, DownloadError::TooLarge(_)));
        assert!(matches!(error("/breaks").await, DownloadError::Http(_)));
        let down = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        assert!(matches!(load(&format!("http://{down}/x"), b"").await, Err(DownloadError::Http(_))));
    }
}
