//! What all tests share: the reaper, and a simnet with a treasury, made of the parts that `scale-lnd dev` is made of.

use scale_lnd::dev::binaries::NodeBinaries;
use scale_lnd::dev::btcd::{ChainAccess, mature_chain, start_chain};
use scale_lnd::dev::miner::{Miner, Policy};
use scale_lnd::dev::reaper::{Options, Reaper};
use scale_lnd::dev::treasury::{Treasury, TreasuryAccess, TreasuryPlan};
use scale_lnd::seal::{SealKey, Sealer};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::{OnceCell, mpsc};

/// Enough for all the wallets that a run funds.
const TREASURY_SAT: i64 = 1_000 * 100_000_000;

/// The program under test.
pub fn program() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_scale-lnd"))
}

/// The simnet of this run.
#[derive(Debug)]
pub struct World {
    pub reaper: Reaper,
    pub chain: ChainAccess,
    pub treasury: TreasuryAccess,
    /// Its lnd runs as long as this is here.
    _treasury: Treasury,
    pub binaries: NodeBinaries,
    /// Mines as long as this is here.
    miner: Miner,
    pub dir: TempDir,
}

impl World {
    /// No block is mined until this is dropped. Only for a moment: everybody here waits for blocks.
    pub async fn hold_blocks(&'static self) -> HeldBlocks {
        self.miner.pause(true);
        let held = HeldBlocks(&self.miner);
        // The miner looks four times a second, and may be in the middle of one that ends in a block.
        tokio::time::sleep(Duration::from_millis(500)).await;
        held
    }
}

/// The miner waits as long as this is here.
#[derive(Debug)]
pub struct HeldBlocks(&'static Miner);

impl Drop for HeldBlocks {
    fn drop(&mut self) {
        self.0.pause(false);
    }
}

static WORLD: OnceCell<World> = OnceCell::const_new();

/// The simnet, started by whoever asks first.
pub async fn world() -> &'static World {
    WORLD.get_or_init(start).await
}

async fn start() -> World {
    let dir = tempfile::Builder::new().prefix("scale-lnd-test-").tempdir().unwrap();
    let options = Options { grace: Duration::ZERO, ..Options::new(&program()) };
    let reaper = Reaper::start(&options, |_| {}).await.unwrap();
    let binaries = NodeBinaries::find().unwrap();
    let sealer = Sealer::single(SealKey::from_bytes([7; 32]));
    let plan = TreasuryPlan::open(&dir.path().join("treasury"), &sealer, "world", false).unwrap();
    let address = plan.mining_address().unwrap();
    let (btcd, mut kept, _) = start_chain(&reaper, &binaries.btcd, &dir.path().join("btcd"), &address).await.unwrap();
    let treasury = plan.start(&reaper, &binaries.lnd, &btcd.access).await.unwrap();
    mature_chain(&btcd, &mut kept).await.unwrap();
    treasury.wait_funded(TREASURY_SAT).await.unwrap();
    let (mined, mut blocks) = mpsc::unbounded_channel();
    tokio::spawn(async move { while blocks.recv().await.is_some() {} });
    let (chain, rpc) = (btcd.access.clone(), btcd.rpc.clone());
    let miner = Miner::start(rpc, kept, Policy::default(), mined);
    World { reaper, chain, treasury: plan.access.clone(), _treasury: treasury, binaries, miner, dir }
}

/// The last lines of a log, for a failure's message.
pub fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}
