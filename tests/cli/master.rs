//! `scale-lnd master` as a process: when it refuses to start, when it is ready, how it ends.

use super::{PROGRAM, Site};
use scale_lnd::dev::reaper::{Exit, Options, Reaper, Signal, Spawn};
use serde_json::Value;
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(30);

async fn reaper() -> Reaper {
    let options = Options { grace: Duration::ZERO, ..Options::new(Path::new(PROGRAM)) };
    timeout(LIMIT, Reaper::start(&options, |_| {})).await.unwrap().unwrap()
}

fn master(site: &Site) -> Spawn {
    Spawn::new("master", PROGRAM)
        .arg("master")
        .arg("--config")
        .arg(site.path("scale-lnd.toml").display().to_string())
        .arg("--ready-file")
        .arg(site.path("ready.json").display().to_string())
        .log(site.path("master.log"))
}

async fn ready(site: &Site) -> Value {
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
}

#[tokio::test]
async fn two_masters_share_a_store_and_a_port_has_one() {
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
}
