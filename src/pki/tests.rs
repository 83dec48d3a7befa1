//! Over real sockets on loopback: who gets in, who does not.

use std::net::SocketAddr;

use axum::{Router, extract::Request as HttpRequest, routing::any};
use rand::rngs::StdRng;
use tokio::net::TcpListener;
use tonic::{
    metadata::MetadataMap,
    service::Routes,
    transport::{Channel, Server},
};
use tower::{Service, ServiceExt};

use super::*;
use crate::clock::SystemClock;

mod authority;
mod enrolment;
mod handshakes;
mod lnd;
mod trust;

fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

fn rng() -> StdRng {
    rand::make_rng()
}

fn agent(host_id: &str) -> Identity {
    Identity::Agent { host_id: host_id.into() }
}

fn master() -> Identity {
    Identity::Master { id: "m1".into() }
}

/// A deployment: its CA, and what its members hold.
struct Deployment {
    ca: Ca,
    trust: Trust,
}

impl Deployment {
    fn new(name: &str) -> Self {
        let ca = Ca::create(name, now(), &mut rng()).unwrap();
        let trust = Trust::new(ca.cert().clone()).unwrap();
        Self { ca, trust }
    }

    fn issue(&self, identity: &Identity) -> Credentials {
        self.issue_at(identity, now())
    }

    fn issue_at(&self, identity: &Identity, at: OffsetDateTime) -> Credentials {
        let (issued, key) = self.ca.issue(identity, DEFAULT_LIFETIME, at, &mut rng()).unwrap();
        Credentials::from_pem(&issued.cert_pem, &key, self.ca.cert()).unwrap()
    }

    /// The address of an agent of this deployment that listens with these credentials.
    async fn agent_server(&self, own: &Credentials) -> SocketAddr {
        serve(self.trust.agent_server(own).unwrap()).await
    }

    async fn master_server(&self, own: &Credentials) -> SocketAddr {
        serve(self.trust.master_server(own).unwrap()).await
    }
}

/// A server that answers every request with whom it takes the client for.
async fn serve(tls: ServerTls) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let routes = Routes::from(Router::new().route("/", any(who)));
    tokio::spawn(Server::builder().add_routes(routes).serve_with_incoming(tls.incoming(listener)));
    addr
}

async fn who(request: HttpRequest) -> String {
    let (parts, _) = request.into_parts();
    let request = tonic::Request::from_parts(MetadataMap::new(), parts.extensions, ());
    let Ok(request) = only_good_peers(std::sync::Arc::new(SystemClock))(request) else { return "refused".into() };
    match (peer_identity(&request), connected_peer(&request)) {
        (Some(identity), Some(peer)) => format!("{} {}", identity.uri("d"), peer.serial),
        _ => "nobody".into(),
    }
}

/// What the server takes us for; an error where either side refuses the other.
async fn ask(tls: &ClientTls, addr: SocketAddr) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
    ask_over(&mut tls.connect(&ClientTls::endpoint(&addr.to_string())?).await?).await
}

async fn ask_over(channel: &mut Channel) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
    let request = http::Request::get("/").body(tonic::body::Body::empty())?;
    let body = channel.ready().await?.call(request).await?.into_body();
    let text = axum::body::to_bytes(axum::body::Body::new(body), 1024).await?.to_vec();
    Ok(String::from_utf8(text)?)
}

/// The whole chain of an error, to tell one refusal from another.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let sources = std::iter::successors(Some(error), |error| error.source());
    sources.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Why one side refuses the other. In TLS 1.3 the client learns of the server's refusal by an alert that a reset of the
/// connection may overtake; it then asks again.
async fn refusal(tls: &ClientTls, addr: SocketAddr) -> String {
    let mut last = String::new();
    for _ in 0..20 {
        last = chain(&*ask(tls, addr).await.expect_err("must be refused"));
        if last.contains("alert") || last.contains("invalid peer certificate") {
            break;
        }
    }
    last
}
