//! Who is compared: lnd's own REST gateway, this system by HTTPS, and this system by plain HTTP, for the same calls to
//! the same node.

use super::harness::world::tail;
use super::harness::{Deployment, eventually};
use super::load::Target;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use scale_lnd::dev::reaper::Signal;
use scale_lnd::pki::lnd_cert::make_lnd_cert;
use serde_json::Value;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// The same call three ways. lnd's REST speaks HTTPS only, so HTTPS is what it is held against.
pub struct Call {
    pub rest: Target,
    pub https: Target,
    pub http: Target,
}

/// The calls, and the node behind them.
pub struct Sides {
    pub getinfo: Call,
    pub listchannels: Call,
    pub rpc: SocketAddr,
    /// The master that serves HTTPS, of the same deployment.
    second: usize,
}

impl Sides {
    pub async fn of(d: &mut Deployment, uuid: &str) -> Self {
        let folder = d.path("credentials");
        let rpc = credentials(d, uuid, &folder).await;
        // The agent gives each lnd three ports in a row: gRPC, peers, REST.
        let rest = SocketAddr::new(rpc.ip(), rpc.port() + 2);
        let trust_lnd = trusting(&folder.join("tls.cert"));
        let (second, address) = https_master(d).await;
        let trust_us = trusting(&d.path("api.cert"));
        let http = authority(&d.masters[0].url);
        let key = format!("Bearer {}", d.key);
        let call = |grant: &str, theirs: &str, ours: &str| {
            let macaroon = hex::encode(std::fs::read(folder.join(format!("{grant}.macaroon"))).unwrap());
            let ours = |name, address, tls| Target {
                name,
                address,
                tls,
                path: format!("/lnd/v1/{ours}?uuid={uuid}"),
                credential: ("authorization", key.clone()),
            };
            Call {
                rest: Target {
                    name: "lnd's REST",
                    address: rest,
                    tls: Some(Arc::clone(&trust_lnd)),
                    path: theirs.to_owned(),
                    credential: ("grpc-metadata-macaroon", macaroon),
                },
                https: ours("ours, HTTPS", address, Some(Arc::clone(&trust_us))),
                http: ours("ours, HTTP", http, None),
            }
        };
        let getinfo = call("getinfo", "/v1/getinfo", "getinfo");
        let listchannels = call("channels", "/v1/channels", "listchannels");
        Self { getinfo, listchannels, rpc, second }
    }

    /// Fails unless all three give the same answer. Returns the lnd's version.
    pub async fn same_answer(&self) -> String {
        let Call { rest, https, http } = &self.getinfo;
        eventually("the same answer from all", Duration::from_secs(10), || async {
            let (a, b, c) = (parsed(rest).await, parsed(https).await, parsed(http).await);
            (a == b && b == c).then(|| a["version"].as_str().unwrap().to_owned())
        })
        .await
    }

    /// Ends the master that serves HTTPS.
    pub async fn end_second(&self, d: &mut Deployment) {
        let mut process = d.masters[self.second].process.clone();
        d.signal(&process, Signal::TERM).await;
        process.exited().await;
    }
}

async fn parsed(target: &Target) -> Value {
    serde_json::from_slice(&target.connect().await.ask().await).unwrap()
}

/// Has the operator's command write lnd's certificate and a macaroon for each call, as narrow as those that the master
/// itself uses. Returns where lnd's gRPC is.
async fn credentials(d: &Deployment, uuid: &str, folder: &Path) -> SocketAddr {
    let out = folder.to_str().unwrap();
    let mut printed = String::new();
    for grant in ["getinfo", "channels"] {
        let args = ["node", "credentials", "--app", "app", "--uuid", uuid, "--out", out, "--grant", grant];
        printed = d.config_cli(&args).await;
    }
    let server = printed.split_whitespace().find_map(|word| word.strip_prefix("--rpcserver=")).unwrap();
    server.parse().unwrap()
}

/// A second master of the deployment, with a certificate.
async fn https_master(d: &mut Deployment) -> (usize, SocketAddr) {
    let made = make_lnd_cert(&[], &[], time::OffsetDateTime::now_utc()).unwrap();
    let (cert, key) = (d.path("api.cert"), d.path("api.key"));
    std::fs::write(&cert, &made.cert_pem).unwrap();
    std::fs::write(&key, made.key_pem.as_bytes()).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    let (cert, key) = (cert.to_str().unwrap(), key.to_str().unwrap());
    let index = d.spawn_master(&[("SCALE_LND_HTTP_TLS_CERT", cert), ("SCALE_LND_HTTP_TLS_KEY", key)]).await;
    let address = authority(&d.masters[index].url);
    let (tls, path, none) = (Some(trusting(&d.path("api.cert"))), "/readyz".to_owned(), ("x-nobody", String::new()));
    let ready = Target { name: "the second master", address, tls, path, credential: none };
    let (process, log) = (d.masters[index].process.clone(), d.masters[index].log.clone());
    eventually("the second master is ready", Duration::from_secs(30), || async {
        if let Some(exit) = process.exit() {
            panic!("the second master ended ({exit:?}):\n{}", tail(&log));
        }
        tokio::net::TcpStream::connect(address).await.ok().map(drop)
    })
    .await;
    tokio::time::timeout(Duration::from_secs(30), async { ready.connect().await.ask().await }).await.unwrap();
    (index, address)
}

fn authority(url: &str) -> SocketAddr {
    url.split("//").nth(1).unwrap().parse().unwrap()
}

/// A client that trusts this certificate and asks for HTTP/1.1, which is all that lnd's REST speaks.
fn trusting(certificate: &Path) -> Arc<rustls::ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificate).unwrap()).unwrap();
    let mut config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}
