use std::{path::Path, time::Duration};

use scale_lnd::dev::{
    binaries::NodeBinaries,
    btcd::{Btcd, mature_chain, start_chain},
    reaper::{Options, Reaper, Signal},
};
use tokio::time::timeout;

pub const LIMIT: Duration = Duration::from_secs(60);
/// Nobody's: these tests spend nothing.
const ADDRESS: &str = "sb1qw508d6qejxtdg4y5r3zarvary0c5xw7krxe8se";

pub async fn reaper() -> Reaper {
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let options = Options::new(Path::new(env!("CARGO_BIN_EXE_scale-lnd")));
    Reaper::start(&options, |_| {}).await.unwrap()
}

#[tokio::test]
async fn a_killed_btcd_has_all_its_blocks_again_at_the_next_start() {
    let work = async {
        let dir = tempfile::tempdir().unwrap();
        let program = NodeBinaries::find().unwrap().btcd;
        let reaper = reaper().await;
        let (btcd, mut kept, _) = start_chain(&reaper, &program, dir.path(), ADDRESS).await.unwrap();
        assert_eq!(mature_chain(&btcd, &mut kept).await.unwrap(), 399);
        assert_eq!(btcd.rpc.block_count().await.unwrap(), 400);
        btcd.rpc.generate(5).await.unwrap();
        assert_eq!(kept.keep_new(&btcd.rpc).await.unwrap(), 5);
        let tip = btcd.rpc.best_block().await.unwrap();
        let port = btcd.access.rpc;
        reaper.signal(btcd.pid(), Signal::KILL).await.unwrap();
        btcd.stop(&reaper).await.unwrap();

        let (btcd, _, restored) = start_chain(&reaper, &program, dir.path(), ADDRESS).await.unwrap();
        println!("btcd had lost {restored} blocks");
        assert!(btcd.rpc.has_block(tip).await.unwrap());
        assert_eq!(btcd.rpc.block_count().await.unwrap(), 406);
        assert_eq!(btcd.access.rpc, port);
        reaper.stop(None).await.unwrap();
    };
    timeout(LIMIT, work).await.unwrap();
}

#[tokio::test]
async fn a_btcd_without_any_data_gets_the_whole_chain_back() {
    let work = async {
        let dir = tempfile::tempdir().unwrap();
        let program = NodeBinaries::find().unwrap().btcd;
        let reaper = reaper().await;
        let (btcd, mut kept, _) = start_chain(&reaper, &program, dir.path(), ADDRESS).await.unwrap();
        mature_chain(&btcd, &mut kept).await.unwrap();
        let tip = btcd.rpc.best_block().await.unwrap();
        btcd.stop(&reaper).await.unwrap();
        std::fs::remove_dir_all(dir.path().join("data")).unwrap();
        let (btcd, _, restored) = start_chain(&reaper, &program, dir.path(), ADDRESS).await.unwrap();
        assert_eq!(restored, 400);
        assert!(btcd.rpc.has_block(tip).await.unwrap());
        assert_eq!(btcd.rpc.block_count().await.unwrap(), 401);
        reaper.stop(None).await.unwrap();
    };
    timeout(LIMIT, work).await.unwrap();
}

#[tokio::test]
async fn btcds_secrets_are_in_no_command_line() {
    let work = async {
        let dir = tempfile::tempdir().unwrap();
        let reaper = reaper().await;
        let btcd = Btcd::start(&reaper, &NodeBinaries::find().unwrap().btcd, dir.path(), None).await.unwrap();
        let access = std::fs::read_to_string(dir.path().join("access.json")).unwrap();
        let access: serde_json::Value = serde_json::from_str(&access).unwrap();
        let password = access["password"].as_str().unwrap();
        for process in reaper.descendants().await.unwrap() {
            assert!(!process.command.contains(password));
        }
        assert!(!format!("{btcd:?}").contains(password));
        reaper.stop(None).await.unwrap();
    };
    timeout(LIMIT, work).await.unwrap();
}
