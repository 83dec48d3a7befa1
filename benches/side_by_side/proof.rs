//! That a warm read opens no connection to lnd and reads nothing from the Store, counted from outside.
//!
//! Connections: the sockets to lnd's gRPC port that the kernel lists, those that have just been closed included. Store:
//! SQLite runs in threads of its own in the master, and each statement has to wake one of them, so their voluntary context
//! switches are counted; that the count can tell is shown by a call that does read the Store.

use super::harness::Deployment;
use super::load::Target;
use super::report;
use super::sides::Sides;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const READS: usize = 1_000;
/// How sqlx names the threads of its connections, as far as the kernel keeps names.
const SQLITE_THREADS: &str = "sqlx-sqlite-wor";

/// Counts and prints; fails if a warm read does either.
pub async fn warm_reads_touch_nothing(d: &Deployment, sides: &Sides) {
    report::progress("counting connections and Store reads");
    let pid = d.masters[0].process.pid;
    let operations = Target { path: "/lnd/v1/operations?limit=1".to_owned(), ..sides.getinfo.http.clone() };
    let warm = &sides.getinfo.http;
    ask(warm, 100).await;

    let before = connections_to(sides.rpc);
    let (busy, took) = wakes_while(pid, ask(warm, READS)).await;
    let new = connections_to(sides.rpc).difference(&before).count();
    let (idle, idle_took) = wakes_while(pid, tokio::time::sleep(took)).await;
    let (reading, reading_took) = wakes_while(pid, ask(&operations, READS)).await;

    println!("\nwarm proxied reads ({READS}, one after the other), counted from outside the master");
    println!("new connections to lnd: {new}");
    println!("wakes of the master's SQLite threads (the feed and the heartbeat wake them all the time):");
    for (what, wakes, took) in [
        ("getinfo, warm", busy, took),
        ("nothing, as long", idle, idle_took),
        ("operations, which reads the Store", reading, reading_took),
    ] {
        println!("- {what:<34} {wakes:>6} in {:.2} s", took.as_secs_f64());
    }
    assert_eq!(new, 0, "a warm read opened a connection");
    let own = busy.saturating_sub(idle);
    assert!(own < READS as u64 / 10, "warm reads woke SQLite {own} times");
    assert!(reading >= READS as u64, "the count tells nothing");
}

async fn ask(target: &Target, times: usize) {
    let mut connection = target.connect().await;
    for _ in 0..times {
        connection.ask().await;
    }
}

async fn wakes_while(pid: i32, work: impl Future<Output = ()>) -> (u64, Duration) {
    let (before, started) = (wakes(pid), Instant::now());
    work.await;
    (wakes(pid) - before, started.elapsed())
}

/// How often the process's SQLite threads have gone to sleep, which is as often as they were woken.
fn wakes(pid: i32) -> u64 {
    let mut threads = 0;
    let mut sum = 0;
    for thread in std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().map(|thread| thread.unwrap().path()) {
        let status = std::fs::read_to_string(thread.join("status")).unwrap_or_default();
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        if field("Name:") == Some(SQLITE_THREADS) {
            threads += 1;
            sum += field("voluntary_ctxt_switches:").unwrap().parse::<u64>().unwrap();
        }
    }
    assert!(threads > 0, "the master's SQLite threads are not called {SQLITE_THREADS}");
    sum
}

/// The sockets of this machine whose far end is `server`.
fn connections_to(server: SocketAddr) -> BTreeSet<String> {
    let SocketAddr::V4(v4) = server else { panic!("a loopback address") };
    let octets = v4.ip().octets();
    let far = format!("{:08X}:{:04X}", u32::from_le_bytes(octets), v4.port());
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let rows = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row.get(2) == Some(&far.as_str())).map(|row| row[1].to_owned()).collect()
}
