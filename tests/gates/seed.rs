//! The seed that is sealed is the node's: whoever has lost everything but the Store and the sealing key has the node.

use super::store;
use crate::harness::{Deployment, eventually, ports};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use scale_lnd::dev::reaper::{Signal, Spawn};
use scale_lnd::lnd::macaroon::{Grant, RootKey, bake};
use scale_lnd::lnd::proto::lnrpc::WalletState;
use scale_lnd::lnd::{LndClient, NewWallet, PinnedCert};
use scale_lnd::model::node::Backup;
use scale_lnd::store::repo;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

/// Another lnd, without a chain, so that there are never two of one seed on one.
pub async fn is_what_the_node_is_made_of(d: &Deployment, uuid: &str) {
    let opened = store::open(d).await;
    let node = store::node(&opened, uuid).await;
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("secrets");
    let verb = ["node", "secrets", "--app", "app", "--uuid", uuid, "--out", out.to_str().unwrap()];
    let said = d.config_cli(&verb).await;
    let seed = &std::fs::read_to_string(out.join("seed.txt")).unwrap();
    assert_eq!(seed.split(' ').count(), 24);
    assert_eq!(said.lines().count(), 3, "three files, and nothing of what is in them: {said}");
    for file in said.lines() {
        assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600, "{file}");
    }
    let (head, _) = store::backup(&opened, &node).await.expect("there is one");
    let good = repo::get::<Backup>(&opened, &Backup::id_of(&node.id, head.good.expect("a good one"))).await.unwrap();
    let good = STANDARD.decode(good.expect("it is kept").value.bytes).unwrap();
    assert_eq!(std::fs::read(out.join("channel.backup")).unwrap(), good);

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
