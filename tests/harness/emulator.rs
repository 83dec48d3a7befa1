//! Google's Firestore emulator, beneath a reaper of its own. It keeps everything in memory; every project is apart.

use super::world::{program, tail};
use super::{RUNTIME, eventually, ports};
use futures::StreamExt;
use scale_lnd::dev::reaper::{Options, Reaper, Signal, Spawn, Spawned};
use scale_lnd::store::firestore::{FirestoreOptions, FirestoreStore};
use scale_lnd::store::{Expect, Key, Query, Store, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use tokio::process::Command;
use tokio::sync::{Mutex, OnceCell};

const MAIN: &str = "com.google.cloud.datastore.emulator.firestore.CloudFirestore";

/// An emulator.
#[derive(Debug)]
pub struct Emulator {
    /// Where it is, for `store.api_url`.
    pub url: String,
    reaper: Reaper,
    process: Mutex<Spawned>,
    port: u16,
    rules: Option<PathBuf>,
    dir: TempDir,
}

impl Emulator {
    /// The one that tests share, started by whoever asks first.
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<Emulator> = OnceCell::const_new();
        SHARED.get_or_init(|| Self::start(None)).await
    }

    /// One of a test's own, which it may stop and kill. `rules`: the security rules it keeps.
    pub async fn start(rules: Option<&Path>) -> Self {
        let rules = rules.map(Path::to_path_buf);
        // The reaper's connection must outlive the runtime of the test that asked first.
        RUNTIME.spawn(Self::start_here(rules)).await.unwrap()
    }

    async fn start_here(rules: Option<PathBuf>) -> Self {
        let dir = tempfile::Builder::new().prefix("scale-lnd-firestore-").tempdir().unwrap();
        let options = Options { grace: Duration::ZERO, ..Options::new(&program()) };
        let reaper = Reaper::start(&options, |_| {}).await.unwrap();
        let port = ports::free(1);
        let process = Mutex::new(spawn(&reaper, dir.path(), port, rules.as_deref()).await);
        let this = Self { url: format!("http://127.0.0.1:{port}"), reaper, process, port, rules, dir };
        this.wait().await;
        this
    }

    /// Answers nothing until [`Emulator::resume`], but keeps its connections.
    pub async fn freeze(&self) {
        self.signal(Signal::STOP).await;
    }

    pub async fn resume(&self) {
        self.signal(Signal::CONT).await;
    }

    /// `kill -9`: everything it kept is gone.
    pub async fn kill(&self) {
        self.signal(Signal::KILL).await;
        self.process.lock().await.exited().await;
    }

    /// Starts it again at the same address, empty.
    pub async fn restart(&self) {
        *self.process.lock().await = spawn(&self.reaper, self.dir.path(), self.port, self.rules.as_deref()).await;
        self.wait().await;
    }

    async fn signal(&self, signal: Signal) {
        self.reaper.signal(self.process.lock().await.pid, signal).await.unwrap();
    }

    async fn wait(&self) {
        let process = self.process.lock().await.clone();
        eventually("the Firestore emulator answers", Duration::from_secs(60), || async {
            if let Some(exit) = process.exit() {
                panic!("the Firestore emulator ended ({exit:?}):\n{}", tail(&log(self.dir.path())));
            }
            let answer = reqwest::get(&self.url).await.ok()?;
            answer.status().is_success().then_some(())
        })
        .await;
        if self.rules.is_none() {
            self.warm_up().await;
        }
    }
}

impl Emulator {
    /// What Java does for the first time takes it seconds, more than calls of ours may last.
    async fn warm_up(&self) {
        let key = || Key { collection: "apps", id: "warm".to_owned() };
        let options = FirestoreOptions {
            api_url: Some(self.url.clone()),
            timeout: Duration::from_secs(60),
            ..FirestoreOptions::new("warm-up")
        };
        let store = FirestoreStore::open(options).await.unwrap();
        let put = Write::Put { key: key(), expect: Expect::Absent, body: serde_json::json!({}), index: Vec::new() };
        let expect = store.commit(vec![put]).await.unwrap()[0];
        let mut changes = store.changes(None).await.unwrap();
        store.commit(vec![Write::Delete { key: key(), expect }]).await.unwrap();
        for _resync_and_deletion in 0..2 {
            changes.next().await;
        }
        let query = Query { collection: "apps", index: None, after: None, limit: 1, descending: false };
        assert!(store.list(&query).await.unwrap().documents.is_empty());
    }
}

fn log(dir: &Path) -> PathBuf {
    dir.join("emulator.log")
}

async fn spawn(reaper: &Reaper, dir: &Path, port: u16, rules: Option<&Path>) -> Spawned {
    let mut spawn = Spawn::new("firestore-emulator", "java")
        .arg("-Xmx256m")
        .arg("-XX:+UseSerialGC")
        .arg("-cp")
        .arg(jar().await.to_str().unwrap())
        .arg(MAIN)
        .arg("start")
        .arg("--host=127.0.0.1")
        .arg(format!("--port={port}"))
        .log(log(dir));
    if let Some(rules) = rules {
        spawn = spawn.arg(format!("--rules={}", rules.display()));
    }
    reaper.spawn(spawn).await.unwrap()
}

/// A project that no other test uses.
pub fn project() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("test-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The emulator's jar, as `make test` has found it, else as its script finds it.
async fn jar() -> PathBuf {
    static JAR: OnceCell<PathBuf> = OnceCell::const_new();
    let find = || async {
        if let Some(jar) = std::env::var_os("SCALE_LND_FIRESTORE_EMULATOR") {
            return PathBuf::from(jar);
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/emulator/ensure.sh");
        let found = Command::new(script).stdin(Stdio::null()).kill_on_drop(true).output().await.unwrap();
        assert!(found.status.success(), "{}", String::from_utf8_lossy(&found.stderr));
        PathBuf::from(String::from_utf8(found.stdout).unwrap().trim())
    };
    JAR.get_or_init(find).await.clone()
}
