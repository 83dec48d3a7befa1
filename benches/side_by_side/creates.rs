//! How long `create` takes, over the floor: the same lnd started by hand, with GenSeed and InitWallet, until it is
//! SERVER_ACTIVE. Turn by turn.

use super::harness::world::World;
use super::harness::{Deployment, ports};
use super::report::{self, median};
use scale_lnd::dev::reaper::{Signal, Spawn, Spawned};
use scale_lnd::lnd::proto::lnrpc::WalletState;
use scale_lnd::lnd::{LndClient, LndErrorKind, NewWallet, PinnedCert};
use scale_lnd::pki::lnd_cert::make_lnd_cert;
use secrecy::ExposeSecret;
use serde_json::json;
use std::path::Path;
use std::time::{Duration, Instant};

/// How often a starting lnd is looked for.
const ASK_EVERY: Duration = Duration::from_millis(10);

/// Measures and prints; returns how many nodes the first deployment has got by it.
pub async fn compare(unfunded: &Deployment, funded: &Deployment, times: usize) -> usize {
    let mut took: [Vec<f64>; 3] = Default::default();
    for round in 0..times {
        report::progress(&format!("create, turn {} of {times}", round + 1));
        for turn in 0..took.len() {
            let who = (turn + round) % took.len();
            took[who].push(match who {
                0 => floor(unfunded.world, &format!("turn-{round}")).await.whole,
                1 => create(unfunded, round).await,
                _ => create(funded, round).await,
            });
        }
    }
    println!("\ncreate, {times} times each, seconds");
    println!("| what                             | median |    min |    max | vs floor |");
    println!("|----------------------------------|-------:|-------:|-------:|---------:|");
    let names = ["floor: lnd by hand, to its end", "create, without initial funding", "create, funded by the treasury"];
    for (name, own) in names.iter().zip(&took) {
        let ratio = median(own.iter().zip(&took[0]).map(|(own, floor)| own / floor));
        let (min, max) = (own.iter().copied().fold(f64::MAX, f64::min), own.iter().copied().fold(0.0, f64::max));
        let middle = median(own.iter().copied());
        println!("| {name:<32} | {middle:>6.2} | {min:>6.2} | {max:>6.2} | {ratio:>7.2}x |");
    }
    times
}

async fn create(d: &Deployment, round: usize) -> f64 {
    let api = d.api_of(0);
    let started = Instant::now();
    api.post("create", json!({ "uuid": format!("created{round}"), "wait": 50 })).await.ok();
    started.elapsed().as_secs_f64()
}

/// How long an lnd by hand took, seconds.
pub struct Floor {
    /// From nothing to SERVER_ACTIVE.
    pub whole: f64,
    /// From InitWallet on.
    pub wallet: f64,
}

/// An lnd as the agent would start one, by hand.
pub async fn floor(world: &World, name: &str) -> Floor {
    let dir = world.dir.path().join(format!("floor-{name}"));
    let port = ports::free(3);
    let started = Instant::now();
    let client = prepare(world, &dir, port);
    let spawn = Spawn::new("floor", &world.binaries.lnd).arg(format!("--lnddir={}", dir.display()));
    let mut process: Spawned = world.reaper.spawn(spawn.log(dir.join("output"))).await.unwrap();
    reached(&client, WalletState::NonExisting).await;
    let mnemonic = client.gen_seed(&rand::random()).await.unwrap();
    let wallet = NewWallet { password: b"a password", mnemonic: &mnemonic, macaroon_root_key: &rand::random() };
    let asked = Instant::now();
    client.init_wallet(&wallet).await.unwrap();
    reached(&client, WalletState::ServerActive).await;
    let took = Floor { whole: started.elapsed().as_secs_f64(), wallet: asked.elapsed().as_secs_f64() };
    world.reaper.signal(process.pid, Signal::KILL).await.unwrap();
    process.exited().await;
    took
}

async fn reached(client: &LndClient, wanted: WalletState) {
    loop {
        match client.wait_state(|state| state == wanted).await {
            Ok(_) => return,
            Err(error) if error.kind == LndErrorKind::Unreachable || error.kind.is_transient() => {
                tokio::time::sleep(ASK_EVERY).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// Its folder: the same settings as the agent's.
fn prepare(world: &World, dir: &Path, port: u16) -> LndClient {
    std::fs::create_dir(dir).unwrap();
    let made = make_lnd_cert(&[], &[], time::OffsetDateTime::now_utc()).unwrap();
    std::fs::write(dir.join("tls.cert"), &made.cert_pem).unwrap();
    std::fs::write(dir.join("tls.key"), made.key_pem.as_bytes()).unwrap();
    let chain = &world.chain;
    let conf = format!(
        "[Application Options]\nrpclisten=127.0.0.1:{port}\nlisten=127.0.0.1:{}\nrestlisten=127.0.0.1:{}\n\
         nobootstrap=true\nlogging.console.disable=true\ngrpc.client-allow-ping-without-stream=true\n\
         bitcoin.simnet=true\nbitcoin.node=btcd\nbtcd.rpchost={}\nbtcd.rpcuser={}\nbtcd.rpcpass={}\nbtcd.rpccert={}\n\
         protocol.wumbo-channels=true\nbitcoin.defaultchanconfs=1\n",
        port + 1,
        port + 2,
        chain.rpc,
        chain.user,
        chain.password.expose_secret(),
        chain.certificate.display(),
    );
    std::fs::write(dir.join("lnd.conf"), conf).unwrap();
    let certificate = PinnedCert::from_pem(made.cert_pem.as_bytes()).unwrap();
    LndClient::new(&format!("127.0.0.1:{port}"), &certificate).unwrap()
}
