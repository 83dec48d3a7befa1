//! The seed that is sealed is the node's: whoever has lost everything but the Store and the sealing key has the node.

use super::store;
use crate::harness::{Deployment, eventually, ports};
use scale_lnd::app::keys::field;
use scale_lnd::dev::reaper::{Signal, Spawn};
use scale_lnd::lnd::macaroon::{Grant, RootKey, bake};
use scale_lnd::lnd::proto::lnrpc::WalletState;
use scale_lnd::lnd::{LndClient, NewWallet, PinnedCert};
use std::time::Duration;

/// Another lnd, without a chain, so that there are never two of one seed on one.
pub async fn is_what_the_node_is_made_of(d: &Deployment, uuid: &str) {
    let node = store::node(&store::open(d).await, uuid).await;
    let seed = store::keys(d).open_of(&node, field::SEED).unwrap();
    let seed = std::str::from_utf8(&seed).unwrap();

    let dir = tempfile::tempdir().unwrap();
    let address = format!("127.0.0.1:{}", ports::free(1));
    let lnd = Spawn::new("another lnd", &d.world.binaries.lnd)
        .arg(format!("--lnddir={}", dir.path().display()))
        .arg(format!("--rpclisten={address}"))
        .arg("--norest")
        .arg("--nolisten")
        .arg("--bitcoin.simnet")
        .arg("--bitcoin.node=nochainbackend")
        .log(d.path("another-lnd.log"));
    let process = d.world.reaper.spawn(lnd).await.unwrap();
    let client = eventually("another lnd listens", Duration::from_secs(30), || async {
        assert_eq!(process.exit(), None, "{:?}", std::fs::read_to_string(d.path("another-lnd.log")));
        let pinned = PinnedCert::from_pem(&std::fs::read(dir.path().join("tls.cert")).ok()?).ok()?;
        let client = LndClient::new(&address, &pinned).unwrap();
        matches!(client.wallet_state().await, Ok(WalletState::NonExisting)).then_some(client)
    })
    .await;
    let root_key = [9; 32];
    let wallet = NewWallet { password: b"another password", mnemonic: seed, macaroon_root_key: &root_key };
    client.init_wallet(&wallet).await.unwrap();
    let macaroon = bake(&RootKey::from_bytes(root_key), [1; 16], &Grant::GetInfo.ops(), &[]);
    let info = eventually("another lnd answers", Duration::from_secs(30), || async {
        client.get_info(&macaroon).await.inspect_err(|e| eprintln!("{e:?}")).ok()
    })
    .await;
    assert_eq!(Some(info.identity_pubkey), node.identity_pubkey);
    d.world.reaper.signal(process.pid, Signal::KILL).await.unwrap();
}
