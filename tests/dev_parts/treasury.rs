use std::path::Path;

use scale_lnd::{
    dev::{
        binaries::NodeBinaries,
        btcd::{mature_chain, start_chain},
        miner::{Mined, Miner, Policy},
        reaper::{Reaper, Signal},
        treasury::{Treasury, TreasuryPlan},
    },
    lnd::{
        macaroon::Macaroon,
        proto::{
            lnrpc,
            walletrpc::{FundPsbtRequest, TxTemplate, fund_psbt_request},
        },
    },
    seal::{SealKey, Sealer},
};
use tokio::{sync::mpsc, time::timeout};

use super::btcd::{LIMIT, reaper};

const BITCOIN_SAT: i64 = 100_000_000;

struct Running {
    treasury: Treasury,
    funding: Macaroon,
    miner: Miner,
    blocks: mpsc::UnboundedReceiver<Mined>,
}

/// The chain and the treasury as `dev` starts them.
async fn start(reaper: &Reaper, dir: &Path) -> Running {
    let binaries = NodeBinaries::find().unwrap();
    let sealer = Sealer::single(SealKey::from_bytes([7; 32]));
    let plan = TreasuryPlan::open(&dir.join("treasury"), &sealer, "dev", false).unwrap();
    let address = plan.mining_address().unwrap();
    let (btcd, mut kept, _) = start_chain(reaper, &binaries.btcd, &dir.join("btcd"), &address).await.unwrap();
    let treasury = plan.start(reaper, &binaries.lnd, &btcd.access).await.unwrap();
    mature_chain(&btcd, &mut kept).await.unwrap();
    treasury.wait_funded(100 * BITCOIN_SAT).await.unwrap();
    let (mined, blocks) = mpsc::unbounded_channel();
    let funding = Macaroon::parse(&std::fs::read(&plan.access.funding_macaroon).unwrap()).unwrap();
    let miner = Miner::start(btcd.rpc, kept, Policy::default(), mined);
    Running { treasury, funding, miner, blocks }
}

#[tokio::test]
async fn the_treasury_has_coins_and_pays_and_is_there_again_after_everything_was_killed() {
    let work = async {
        let dir = tempfile::tempdir().unwrap();
        let reaper = reaper().await;
        let Running { treasury, funding, miner, mut blocks } = start(&reaper, dir.path()).await;
        let (client, admin) = treasury.client();

        // The narrow macaroon sends and looks, and nothing else.
        let address = client.new_address(admin, lnrpc::AddressType::TaprootPubkey).await.unwrap().address;
        assert!(client.new_address(&funding, lnrpc::AddressType::TaprootPubkey).await.is_err());
        assert!(client.stop_daemon(&funding).await.is_err());
        let template = TxTemplate { inputs: Vec::new(), outputs: [(address, 50_000)].into() };
        let ask = FundPsbtRequest {
            template: Some(fund_psbt_request::Template::Raw(template)),
            fees: Some(fund_psbt_request::Fees::SatPerVbyte(2)),
            min_confs: 1,
            ..Default::default()
        };
        let funded = client.fund_psbt(&funding, ask).await.unwrap().funded_psbt;
        let signed = client.finalize_psbt(&funding, funded).await.unwrap().raw_final_tx;
        client.publish_transaction(&funding, signed, "test").await.unwrap();
        let block = blocks.recv().await.unwrap();
        assert_eq!(block.transactions, 1, "mined because something waited");
        for confirmation in 1..6 {
            assert_eq!(blocks.recv().await.unwrap().height, block.height + confirmation);
        }
        let before = client.get_info(admin).await.unwrap();
        for process in reaper.descendants().await.unwrap() {
            reaper.signal(process.pid, Signal::KILL).await.unwrap();
        }
        drop(miner);
        reaper.stop(None).await.unwrap();

        let reaper = self::reaper().await;
        let running = start(&reaper, dir.path()).await;
        let (client, admin) = running.treasury.client();
        let after = client.get_info(admin).await.unwrap();
        assert_eq!(after.identity_pubkey, before.identity_pubkey);
        let (now, then) = (after.block_height, before.block_height);
        assert!(now > then, "{now} blocks after {then}");
        reaper.stop(None).await.unwrap();
    };
    timeout(2 * LIMIT, work).await.unwrap();
}
