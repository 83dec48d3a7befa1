//! `scale-lnd dev` and `scale-lnd demo` as they are typed.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use scale_lnd::dev::reaper::{Exit, Reaper, Signal, Spawn, Spawned};
use serde_json::Value;
use tokio::time::{sleep, timeout};

use super::btcd::reaper;

const LIMIT: Duration = Duration::from_secs(180);

pub struct Dev {
    pub process: Spawned,
    pub ready: Value,
}

pub fn dev(dir: &Path, args: &[&str]) -> Spawn {
    let dev = Spawn::new("dev", env!("CARGO_BIN_EXE_scale-lnd")).arg("dev");
    args.iter()
        .fold(dev, |dev, arg| dev.arg(*arg))
        .arg(format!("--data-dir={}", dir.join("data").display()))
        .arg(format!("--ready-file={}", ready_file(dir).display()))
        .log(dir.join("dev.out"))
}

pub fn ready_file(dir: &Path) -> PathBuf {
    dir.join("ready.json")
}

impl Dev {
    async fn start(reaper: &Reaper, dir: &Path) -> Self {
        Self::start_with(reaper, dir, &["--port=0"]).await
    }

    /// Returns at the moment when the ready file is there.
    pub async fn start_with(reaper: &Reaper, dir: &Path, args: &[&str]) -> Self {
        // That of a killed run would otherwise be found before this run removes it.
        std::fs::remove_file(ready_file(dir)).ok();
        let mut process = reaper.spawn(dev(dir, args)).await.unwrap();
        let is_ready = async {
            while !ready_file(dir).exists() {
                sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            () = is_ready => {}
            exit = process.exited() => panic!("{exit}: {}", std::fs::read_to_string(dir.join("dev.out")).unwrap()),
        }
        let ready = serde_json::from_slice(&std::fs::read(ready_file(dir)).unwrap()).unwrap();
        Self { process, ready }
    }

    pub async fn get(&self, call: &str) -> (u16, Value) {
        self.get_as(call, self.ready["api_key"].as_str().unwrap()).await
    }

    pub async fn get_as(&self, call: &str, key: &str) -> (u16, Value) {
        let url = format!("{}/lnd/v1/{call}", self.ready["url"].as_str().unwrap());
        let request = reqwest::Client::new().get(url).bearer_auth(key);
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    /// Ctrl-C.
    pub async fn stop(mut self, reaper: &Reaper) {
        reaper.signal(self.process.pid, Signal::INT).await.unwrap();
        assert_eq!(self.process.exited().await, Exit::Code(0));
    }
}

async fn until_nothing_runs(reaper: &Reaper) {
    while !reaper.descendants().await.unwrap().is_empty() {
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn dev_is_as_it_was_after_a_kill_and_leaves_nothing_after_ctrl_c() {
    let work = async {
        let dir = tempfile::tempdir().unwrap();
        let reaper = reaper().await;
        let first = Dev::start(&reaper, dir.path()).await;
        let (status, alice) = first.get("create?uuid=alice&wait=50").await;
        assert_eq!(status, 200, "{alice}");

        let mut second = reaper.spawn(dev(dir.path(), &["--port=0"]).log(dir.path().join("second.out"))).await.unwrap();
        assert_eq!(second.exited().await, Exit::Code(1), "a data folder has one owner");

        reaper.signal(first.process.pid, Signal::KILL).await.unwrap();
        until_nothing_runs(&reaper).await;

        let mut again = Dev::start(&reaper, dir.path()).await;
        assert_eq!(again.ready["url"], first.ready["url"]);
        let info = loop {
            match again.get("getinfo?uuid=alice").await {
                (200, info) => break info,
                (503, _) => sleep(Duration::from_millis(100)).await,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(info["identity_pubkey"], alice["identity_pubkey"]);

        reaper.signal(again.process.pid, Signal::INT).await.unwrap();
        assert_eq!(again.process.exited().await, Exit::Code(0));
        assert!(reaper.descendants().await.unwrap().is_empty());
        assert!(!ready_file(dir.path()).exists());
        reaper.stop(None).await.unwrap();
    };
    timeout(LIMIT, work).await.unwrap();
}

#[tokio::test]
async fn nothing_of_a_run_outlives_the_next_however_it_was_killed() {
    let work = async {
        let dir = tempfile::tempdir().unwrap();
        let reaper = reaper().await;
        let mut first = Dev::start(&reaper, dir.path()).await;
        let (status, alice) = first.get("create?uuid=alice&wait=50").await;
        assert_eq!(status, 200, "{alice}");
        // dev, its reaper and the agent: nobody is left who could end the lnds.
        for part in [" dev ", " __reaper ", " lndserver "] {
            let all = reaper.descendants().await.unwrap();
            for process in all.iter().filter(|process| process.command.contains(part)) {
                reaper.signal(process.pid, Signal::KILL).await.unwrap();
            }
        }
        // A killed process holds its locks until it is gone.
        first.process.exited().await;
        let left = reaper.descendants().await.unwrap();
        assert!(left.iter().any(|process| process.command.contains("/agent/nodes/")), "{left:?}");

        let mut again = Dev::start(&reaper, dir.path()).await;
        for old in &left {
            let all = reaper.descendants().await.unwrap();
            assert!(all.iter().all(|process| process.pid != old.pid), "{old:?}");
        }
        reaper.signal(again.process.pid, Signal::INT).await.unwrap();
        assert_eq!(again.process.exited().await, Exit::Code(0));
        assert!(reaper.descendants().await.unwrap().is_empty());
        reaper.stop(None).await.unwrap();
    };
    timeout(LIMIT, work).await.unwrap();
}

#[tokio::test]
async fn the_demo_is_true() {
    let work = async {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("demo.out");
        let reaper = reaper().await;
        let demo = Spawn::new("demo", env!("CARGO_BIN_EXE_scale-lnd")).arg("demo").log(&out);
        let mut demo = reaper.spawn(demo.env("TMPDIR", dir.path().to_str().unwrap())).await.unwrap();
        let exit = demo.exited().await;
        let told = std::fs::read_to_string(&out).unwrap();
        assert_eq!(exit, Exit::Code(0), "{told}");
        assert!(told.contains("all of it is true"), "{told}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "its data is gone");
        reaper.stop(None).await.unwrap();
    };
    timeout(LIMIT, work).await.unwrap();
}
