//! A small closed-loop load generator: so many keep-alive HTTP/1.1 connections, each a task of its own that sends its next
//! request once it has read the answer to the last. The same code for whoever is measured.

use axum::body::{Body, Bytes, to_bytes};
use http::{Request, StatusCode, header};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// More than any answer that is measured.
const LARGEST_ANSWER: usize = 16 << 20;

/// What is asked, and where.
#[derive(Clone)]
pub struct Target {
    pub name: &'static str,
    pub address: SocketAddr,
    pub tls: Option<Arc<rustls::ClientConfig>>,
    pub path: String,
    /// The header by which the caller is known.
    pub credential: (&'static str, String),
}

/// What came of one run, over all connections.
pub struct Sample {
    pub per_second: f64,
    pub p50: Duration,
    pub p99: Duration,
}

impl Target {
    /// One keep-alive connection.
    pub async fn connect(&self) -> Connection {
        let stream = TcpStream::connect(self.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let sender = match &self.tls {
            None => talk(stream).await,
            Some(tls) => {
                let name = ServerName::from(self.address.ip());
                talk(TlsConnector::from(Arc::clone(tls)).connect(name, stream).await.unwrap()).await
            }
        };
        Connection { sender, target: self.clone() }
    }

    /// Runs `connections` connections for `length`, after each has had one answer.
    pub async fn run(&self, connections: usize, length: Duration) -> Sample {
        let mut open = Vec::new();
        for _ in 0..connections {
            let mut connection = self.connect().await;
            connection.ask().await;
            open.push(connection);
        }
        let started = Instant::now();
        let until = started + length;
        let tasks = open.into_iter().map(|connection| tokio::spawn(connection.ask_until(until)));
        let mut latencies = Vec::new();
        for task in tasks.collect::<Vec<_>>() {
            latencies.extend(task.await.unwrap());
        }
        let per_second = latencies.len() as f64 / started.elapsed().as_secs_f64();
        latencies.sort_unstable();
        let at = |part: f64| latencies[((latencies.len() - 1) as f64 * part) as usize];
        Sample { per_second, p50: at(0.50), p99: at(0.99) }
    }
}

async fn talk(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> SendRequest<Body> {
    let (sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

/// A connection that is kept alive.
pub struct Connection {
    sender: SendRequest<Body>,
    target: Target,
}

impl Connection {
    /// One answer, which must be a 200: a refusal would be fast, and count for nothing.
    pub async fn ask(&mut self) -> Bytes {
        let (name, value) = &self.target.credential;
        let request = Request::get(&self.target.path).header(header::HOST, "localhost").header(*name, value);
        let answer = self.sender.send_request(request.body(Body::empty()).unwrap()).await.unwrap();
        let status = answer.status();
        let body = to_bytes(Body::new(answer.into_body()), LARGEST_ANSWER).await.unwrap();
        assert_eq!(status, StatusCode::OK, "{}: {body:?}", self.target.name);
        // The answer is read; the connection takes the next request once its own task has seen that too.
        self.sender.ready().await.unwrap();
        body
    }

    async fn ask_until(mut self, until: Instant) -> Vec<Duration> {
        let mut latencies = Vec::with_capacity(4096);
        let mut asked = Instant::now();
        while asked < until {
            self.ask().await;
            let answered = Instant::now();
            latencies.push(answered - asked);
            asked = answered;
        }
        latencies
    }
}
