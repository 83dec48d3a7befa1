//! docs/bitcoin.md: its configurations are read by the program, and the btcd.conf by a real btcd.

use crate::harness::{self, ports, world};
use scale_lnd::config::Config;
use scale_lnd::dev::binaries::NodeBinaries;
use scale_lnd::dev::reaper::{Options, Reaper, Spawn};
use std::time::Duration;

const PAGE: &str = include_str!("../../docs/bitcoin.md");

/// What is indented: configurations, one each.
fn blocks() -> Vec<String> {
    let is_code = |line: &&str| line.starts_with("    ");
    let mut lines = PAGE.lines().peekable();
    let mut blocks = Vec::new();
    while let Some(line) = lines.next() {
        if is_code(&line) {
            let mut block = vec![line.trim()];
            while let Some(line) = lines.next_if(is_code) {
                block.push(line.trim());
            }
            blocks.push(block.join("\n"));
        }
    }
    blocks
}

#[test]
fn every_configuration_of_the_page_is_read() {
    let whole: Vec<String> = blocks().into_iter().filter(|block| block.contains("[chain]")).collect();
    assert_eq!(whole.len(), 4, "{whole:#?}");
    for block in whole {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("master.toml");
        std::fs::write(&path, format!("{block}\n[store]\npath = \"x\"\n[seal]\nkey_file = \"y\"\n")).unwrap();
        if let Err(faults) = Config::load(Some(&path), [], &[]) {
            panic!("{block}\n{faults:#?}");
        }
    }
}

#[test]
fn the_btcd_conf_of_the_page_starts_a_btcd() {
    harness::run(Duration::from_secs(60), async {
        let conf = blocks().into_iter().find(|block| block.contains("rpcmaxwebsockets")).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let (folder, rpc, p2p) = (dir.path().display().to_string(), ports::free(1), ports::free(1));
        let here = [
            ("testnet4=1", format!("simnet=1\nnodnsseed=1\nlisten=127.0.0.1:{p2p}")),
            ("/var/lib/btcd", folder.clone()),
            ("/etc/btcd", folder.clone()),
            ("10.0.0.6:48334", format!("127.0.0.1:{rpc}")),
        ];
        let conf = here.iter().fold(conf, |conf, (theirs, ours)| {
            assert!(conf.contains(theirs), "{theirs}");
            conf.replace(theirs, ours)
        });
        let path = dir.path().join("btcd.conf");
        std::fs::write(&path, conf).unwrap();

        let options = Options { grace: Duration::ZERO, ..Options::new(&world::program()) };
        let reaper = Reaper::start(&options, |_| {}).await.unwrap();
        let log = dir.path().join("out");
        let spawn =
            Spawn::new("btcd", NodeBinaries::find().unwrap().btcd).arg(format!("--configfile={}", path.display()));
        let process = reaper.spawn(spawn.log(&log)).await.unwrap();
        harness::eventually("btcd listens", Duration::from_secs(30), || async {
            assert!(process.exit().is_none(), "{}", world::tail(&log));
            tokio::net::TcpStream::connect(("127.0.0.1", rpc)).await.ok()
        })
        .await;
        assert!(dir.path().join("rpc.cert").exists(), "it made its certificate");
        reaper.stop(None).await.unwrap();
    });
}
