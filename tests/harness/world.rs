//! What all tests share: the reaper, and the simnet with its treasury that `scale-lnd dev` runs.

use super::ports;
use scale_lnd::dev::reaper::{Options, Reaper, Spawn};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::OnceCell;

/// The program under test.
pub fn program() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_scale-lnd"))
}

/// What `scale-lnd dev --ready-file` writes.
#[derive(Debug, Clone, Deserialize)]
pub struct Ready {
    pub url: String,
    pub api_key: String,
    pub network: String,
    pub chain: Chain,
    pub treasury: Treasury,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Chain {
    pub rpc_address: String,
    pub user: String,
    pub password: String,
    /// Path of the certificate.
    pub certificate: PathBuf,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Treasury {
    pub address: String,
    pub certificate: PathBuf,
    pub macaroon: PathBuf,
}

/// The simnet of this run.
#[derive(Debug)]
pub struct World {
    pub reaper: Reaper,
    pub ready: Ready,
    pub dir: TempDir,
}

static WORLD: OnceCell<World> = OnceCell::const_new();

/// The simnet, started by whoever asks first.
pub async fn world() -> &'static World {
    WORLD.get_or_init(start).await
}

async fn start() -> World {
    let dir = tempfile::Builder::new().prefix("scale-lnd-test-").tempdir().unwrap();
    let options = Options { program: program(), grace: Duration::ZERO, record: None };
    let reaper = Reaper::start(&options, |_| {}).await.unwrap();
    let ready_file = dir.path().join("ready.json");
    let log = dir.path().join("dev.log");
    let spawn = Spawn::new("dev", program())
        .arg("dev")
        .arg("--data-dir")
        .arg(dir.path().join("dev").to_str().unwrap())
        .arg("--ready-file")
        .arg(ready_file.to_str().unwrap())
        .arg("--port")
        .arg(ports::free(1).to_string())
        .arg("--lnd-rest")
        .log(&log);
    let process = reaper.spawn(spawn).await.unwrap();
    let ready = super::eventually("scale-lnd dev is ready", Duration::from_secs(180), || async {
        if let Some(exit) = process.exit() {
            panic!("scale-lnd dev ended ({exit:?}):\n{}", tail(&log));
        }
        let text = std::fs::read_to_string(&ready_file).ok()?;
        serde_json::from_str::<Ready>(&text).ok()
    });
    let ready = ready.await;
    World { reaper, ready, dir }
}

/// The last lines of a log, for a failure's message.
pub fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}
