//! Real processes: one that is killed while it commits, and two that write the same database. The other process is this
//! test binary, started again to run one of the tests that are ignored otherwise.

use super::File;
use crate::store_contract::racing::add;
use crate::store_contract::tools::*;
use futures::future::join_all;
use scale_lnd::store::Store;
use scale_lnd::store::sqlite::{SqliteOptions, SqliteStore};
use serde_json::json;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};

const DATABASE: &str = "STORE_CONTRACT_DATABASE";

/// Starts one of the parts below in a process of its own, which is killed when the handle is dropped.
fn start(part: &str, database: &Path) -> Child {
    let this = module_path!().split_once("::").expect("a path below the binary").1;
    Command::new(std::env::current_exe().expect("this binary"))
        .args(["--exact", &format!("{this}::{part}"), "--ignored", "--nocapture", "--test-threads=1"])
        .env(DATABASE, database)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("this binary starts")
}

async fn database_of_parent() -> SqliteStore {
    let path = std::env::var(DATABASE).expect("started by another test");
    SqliteStore::open(Path::new(&path), SqliteOptions::default()).await.unwrap()
}

/// The numbers a part has printed, as `=N` lines.
async fn number(lines: &mut tokio::io::Lines<BufReader<tokio::process::ChildStdout>>) -> Option<u64> {
    while let Some(line) = lines.next_line().await.unwrap() {
        // The test runner prints the name of the test in front of the first.
        if let Some((_, number)) = line.rsplit_once('=') {
            return number.parse().ok();
        }
    }
    None
}

#[tokio::test]
#[ignore = "a part of what_was_committed_survives_a_kill"]
async fn part_commit_pairs_for_ever() {
    let store = database_of_parent().await;
    for n in 0_u64.. {
        let writes =
            vec![create(&format!("left-{n:06}"), json!({"n": n})), create(&format!("right-{n:06}"), json!({"n": n}))];
        store.commit(writes).await.unwrap();
        // Ends this process too, once nobody reads any more.
        println!("={n}");
    }
}

#[tokio::test]
async fn what_was_committed_survives_a_kill() {
    timed(async {
        for acknowledged in [0, 3, 50] {
            let file = File::new();
            let mut child = start("part_commit_pairs_for_ever", &file.path());
            let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
            let mut last = number(&mut lines).await.expect("a commit");
            while last < acknowledged {
                last = number(&mut lines).await.expect("a commit");
            }
            child.kill().await.unwrap();
            while let Some(more) = number(&mut lines).await {
                last = more;
            }
            let store = file.open(SqliteOptions::default()).await;
            for n in 0..=last {
                assert!(exists(&store, &format!("left-{n:06}")).await, "{n} of {last} was acknowledged and is lost");
            }
            for n in 0..last + 5 {
                let (left, right) = (format!("left-{n:06}"), format!("right-{n:06}"));
                assert_eq!(exists(&store, &left).await, exists(&store, &right).await, "half of {n}");
            }
            commit(&store, create("alive", json!({}))).await.unwrap();
        }
    })
    .await;
}

const ADDING: u64 = 150;

#[tokio::test]
#[ignore = "a part of two_processes_share_a_database"]
async fn part_add() {
    let store = database_of_parent().await;
    println!("={}", add_many(&store).await.as_millis());
}

/// Adds to the common counter from ten tasks; how long the slowest addition took.
async fn add_many(store: &SqliteStore) -> Duration {
    let task = async |_| {
        let mut slowest = Duration::ZERO;
        for _ in 0..ADDING / 10 {
            let started = Instant::now();
            add(store, "counter", 1).await;
            slowest = slowest.max(started.elapsed());
        }
        slowest
    };
    join_all((0..10).map(task)).await.into_iter().max().unwrap_or_default()
}

#[tokio::test]
async fn two_processes_share_a_database() {
    timed(async {
        let file = File::new();
        let store = file.open(SqliteOptions::default()).await;
        commit(&store, create("counter", json!({"n": 0}))).await.unwrap();
        let mut child = start("part_add", &file.path());
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (here, there) = tokio::join!(add_many(&store), number(&mut lines));
        assert!(child.wait().await.unwrap().success());
        println!("slowest addition: {here:?} here, {there:?} ms there");
        assert_eq!(read(&store, "counter").await.body, json!({"n": 2 * ADDING}));
    })
    .await;
}

/// Commits of several tasks, each to its own document.
struct Load {
    per_second: f64,
    slowest: Duration,
}

/// Lets `tasks` tasks commit 1 KiB documents with two index entries as fast as they can.
async fn load(store: &SqliteStore, name: &str, tasks: u32) -> Load {
    let started = Instant::now();
    let task = async |task| {
        let id = format!("{name}-{task}");
        let entries = [("app", "an-app"), ("host", "a-host")];
        let mut version = commit(store, indexed(create(&id, json!({"n": 0})), &entries)).await.unwrap();
        let (mut count, mut slowest) = (0, Duration::ZERO);
        while started.elapsed() < Duration::from_secs(3) {
            let body = json!({"n": count, "text": "x".repeat(1000)});
            let begun = Instant::now();
            version = commit(store, indexed(update(&id, version, body), &entries)).await.unwrap();
            slowest = slowest.max(begun.elapsed());
            count += 1;
        }
        (count, slowest)
    };
    let done = join_all((0..tasks).map(task)).await;
    let count: u32 = done.iter().map(|(count, _)| count).sum();
    let slowest = done.iter().map(|(_, slowest)| *slowest).max().unwrap_or_default();
    Load { per_second: f64::from(count) / started.elapsed().as_secs_f64(), slowest }
}

impl std::fmt::Display for Load {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.0} commits/s, the slowest {:.1?}", self.per_second, self.slowest)
    }
}

/// `cargo test --test main -- --ignored --nocapture commits_per_second`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn commits_per_second() {
    for tasks in [1, 8, 64] {
        let file = File::new();
        let store = file.open(SqliteOptions::default()).await;
        println!("{tasks} tasks: {}", load(&store, "doc", tasks).await);
    }
    for tasks in [1, 64] {
        let file = File::new();
        let store = file.open(SqliteOptions::default()).await;
        let mut child = start(if tasks == 1 { "part_load_1" } else { "part_load_64" }, &file.path());
        println!("{tasks} tasks beside another process: {}", load(&store, "here", tasks).await);
        let mut out = String::new();
        child.stdout.take().unwrap().read_to_string(&mut out).await.unwrap();
        println!("  and that one: {}", out.lines().find(|l| l.contains("commits/s")).unwrap_or(&out));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a part of commits_per_second"]
async fn part_load_1() {
    println!("{}", load(&database_of_parent().await, "there", 1).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a part of commits_per_second"]
async fn part_load_64() {
    println!("{}", load(&database_of_parent().await, "there", 64).await);
}
