//! `scale-lnd master` as a process: when it refuses to start, when it is ready, how it ends.

use super::{PROGRAM, Site};
use crate::harness::within;
use scale_lnd::dev::reaper::{Exit, Options, Reaper, Signal, Spawn, Spawned};
use serde_json::Value;
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

pub(super) const LIMIT: Duration = Duration::from_secs(30);
/// A whole test has this long.
pub(super) const DEADLINE: Duration = Duration::from_secs(120);

pub(super) async fn reaper() -> Reaper {
    let options = Options { grace: Duration::ZERO, ..Options::new(Path::new(PROGRAM)) };
    timeout(LIMIT, Reaper::start(&options, |_| {})).await.unwrap().unwrap()
}

pub(super) fn master(site: &Site) -> Spawn {
    Spawn::new("master", PROGRAM)
        .arg("master")
        .arg("--config")
        .arg(site.path("scale-lnd.toml").display().to_string())
        .arg("--ready-file")
        .arg(site.path("ready.json").display().to_string())
        .log(site.path("master.log"))
}

pub(super) async fn ready(site: &Site) -> Value {
    let path = site.path("ready.json");
    let read = async {
        loop {
            if let Ok(text) = std::fs::read_to_string(&path) {
                return serde_json::from_str(&text).unwrap();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(LIMIT, read).await.unwrap()
}

/// The status of a GET.
async fn get(url: &str, path: &str) -> u16 {
    let address = url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_master_says_when_it_is_ready_and_ends_when_told() {
    within(DEADLINE, async {
        let (site, reaper) = (Site::new(), reaper().await);
        let mut process = reaper.spawn(master(&site)).await.unwrap();
        let ready = ready(&site).await;
        let url = ready["url"].as_str().unwrap();
        assert_eq!(get(url, "/healthz").await, 200);
        let becomes_ready = async {
            while get(url, "/readyz").await != 200 {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(LIMIT, becomes_ready).await.unwrap();
        assert_eq!(get(url, "/lnd/v1/getinfo?uuid=alice").await, 401);

        reaper.signal(process.pid, Signal::TERM).await.unwrap();
        assert_eq!(timeout(LIMIT, process.exited()).await.unwrap(), Exit::Code(0));
        let log = std::fs::read_to_string(site.path("master.log")).unwrap();
        assert!(log.contains("the master has ended"), "{log}");
        assert!(!log.contains("chain-password"), "{log}");
        timeout(LIMIT, reaper.stop(None)).await.unwrap().unwrap();
    })
    .await;
}

#[tokio::test]
async fn two_masters_share_a_store_and_a_port_has_one() {
    within(DEADLINE, async {
        let (site, reaper) = (Site::new(), reaper().await);
        let mut first = reaper.spawn(master(&site)).await.unwrap();
        let taken = ready(&site).await["agents"].as_str().unwrap().to_owned();
        std::fs::remove_file(site.path("ready.json")).unwrap();
        let mut second = reaper.spawn(master(&site)).await.unwrap();
        ready(&site).await;
        let third = master(&site).arg("--set").arg(format!("agents.listen={taken}"));
        let mut third = reaper.spawn(third.log(site.path("third.log"))).await.unwrap();
        assert_eq!(timeout(LIMIT, third.exited()).await.unwrap(), Exit::Code(1));
        let said = std::fs::read_to_string(site.path("third.log")).unwrap();
        assert!(said.contains("agents.listen: cannot listen on"), "{said}");
        for process in [&mut first, &mut second] {
            reaper.signal(process.pid, Signal::INT).await.unwrap();
            assert_eq!(timeout(LIMIT, process.exited()).await.unwrap(), Exit::Code(0));
        }
        timeout(LIMIT, reaper.stop(None)).await.unwrap().unwrap();
    })
    .await;
}

/// What the master prints to its ready file, once it listens with these settings.
pub(super) async fn with_settings(site: &Site, reaper: &Reaper, settings: &[String]) -> (Spawned, String) {
    std::fs::remove_file(site.path("ready.json")).ok();
    let spawn = settings.iter().fold(master(site), |spawn, setting| spawn.arg("--set").arg(setting));
    let process = reaper.spawn(spawn).await.unwrap();
    let url = ready(site).await["url"].as_str().unwrap().to_owned();
    (process, url)
}

#[tokio::test]
async fn a_certificate_makes_it_https_and_without_one_it_stays_on_loopback() {
    within(DEADLINE, async {
        let (site, reaper) = (Site::new(), reaper().await);
        site.ok(&["app", "create", "wallet"]);
        let key = site.ok(&["key", "create", "--app", "wallet", "--scopes", "read"]);
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        site.write("tls.cert", &made.cert.pem());
        site.write_secret("tls.key", &made.signing_key.serialize_pem());
        let file = |name: &str| site.path(name).display().to_string();
        let tls = [format!("http.tls_cert={}", file("tls.cert")), format!("http.tls_key={}", file("tls.key"))];

        let (mut process, url) = with_settings(&site, &reaper, &tls).await;
        let address = url.strip_prefix("https://").unwrap_or_else(|| panic!("{url}")).to_owned();
        let trusting = |pem: &str| {
            let trusted = reqwest::Certificate::from_pem(pem.as_bytes()).unwrap();
            reqwest::Client::builder().timeout(LIMIT).tls_certs_only([trusted]).build().unwrap()
        };
        let nodes = format!("{url}/lnd/v1/nodes");
        let answer = trusting(&made.cert.pem()).get(&nodes).bearer_auth(key.trim()).send().await.unwrap();
        assert_eq!((answer.status().as_u16(), answer.text().await.unwrap().contains("nodes")), (200, true));
        let other = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        assert!(
            trusting(&other.cert.pem()).get(&nodes).send().await.is_err(),
            "the certificate is the one that was given"
        );
        let plain = reqwest::Client::new().get(format!("http://{address}/healthz")).send().await;
        assert!(plain.is_err(), "{plain:?}");
        end(&reaper, &mut process).await;

        // Off loopback: not in the clear, unless told.
        let refused = site.run(&["master", "--set", "http.listen=0.0.0.0:0"]);
        assert_eq!(refused.code, Some(2), "{refused:?}");
        assert!(refused.err.contains("http.listen: is not loopback: give tls_cert and tls_key"), "{}", refused.err);
        let everywhere = "http.listen=0.0.0.0:0".to_owned();
        let told = [everywhere.clone(), "http.allow_plain_http=true".to_owned()];
        for (settings, scheme) in [(&told[..], "http://"), (&[&tls[..], &[everywhere]].concat(), "https://")] {
            let (mut process, url) = with_settings(&site, &reaper, settings).await;
            assert!(url.starts_with(scheme), "{url}");
            end(&reaper, &mut process).await;
        }
        timeout(LIMIT, reaper.stop(None)).await.unwrap().unwrap();
    })
    .await;
}

pub(super) async fn end(reaper: &Reaper, process: &mut Spawned) {
    reaper.signal(process.pid, Signal::TERM).await.unwrap();
    assert_eq!(timeout(LIMIT, process.exited()).await.unwrap(), Exit::Code(0));
}
