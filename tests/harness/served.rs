//! A server of a test's own, on a real socket.

use axum::Router;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Serves `router` on loopback until this is dropped.
#[derive(Debug)]
pub struct Served {
    /// Without a slash at the end.
    pub url: String,
    _serving: DropGuard,
}

impl Served {
    pub async fn new(router: Router) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        tokio::spawn(async move { axum::serve(listener, router).with_graceful_shutdown(stopped).await });
        Self { url, _serving: stop.drop_guard() }
    }
}
