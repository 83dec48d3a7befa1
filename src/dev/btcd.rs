//! btcd on simnet: its files, its start and its end.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use rand::{TryRng, rngs::SysRng};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use tokio::time::{sleep, timeout};

use super::{
    blocks::KeptBlocks,
    chain_rpc::ChainRpc,
    error::DevError,
    files::{log_end, private_dir, write_private},
    ports::{PortClaim, claim_port},
    reaper::{Exit, Reaper, Spawn, Spawned},
};
use crate::{
    clock::{Clock, SystemClock},
    pki::lnd_cert::make_lnd_cert,
};

/// After everything else: every lnd needs it until its own end.
pub const STOP_ORDER: u32 = 90;
const START_LIMIT: Duration = Duration::from_secs(60);
/// SIGTERM to exit; it flushes its chain in this time.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// How to reach a btcd. Kept in its folder, so that it stays the same between runs.
#[derive(Debug, Clone)]
pub struct ChainAccess {
    pub rpc: SocketAddr,
    /// Where its peers reach it; it serves compact block filters.
    pub p2p: SocketAddr,
    pub user: String,
    pub password: SecretString,
    /// A file with the password and nothing else.
    pub password_file: PathBuf,
    /// The file with its certificate.
    pub certificate: PathBuf,
}

/// A running btcd.
#[derive(Debug)]
pub struct Btcd {
    pub access: ChainAccess,
    pub rpc: ChainRpc,
    process: Spawned,
    _ports: [PortClaim; 2],
}

/// What is kept in `access.json`.
#[derive(Serialize, Deserialize)]
struct Saved {
    port: u16,
    #[serde(default)]
    p2p_port: Option<u16>,
    user: String,
    password: String,
}

impl Btcd {
    /// Starts btcd in `dir`, made if need be, and waits until its RPC answers. Blocks that it lost are not restored
    /// here: see [`start_chain`].
    ///
    /// `mining_address` is paid by `generate`.
    pub async fn start(
        reaper: &Reaper,
        program: &Path,
        dir: &Path,
        mining_address: Option<&str>,
    ) -> Result<Self, DevError> {
        private_dir(dir)?;
        let (access, ports) = prepare(dir, mining_address)?;
        let certificate = fs::read(&access.certificate).map_err(DevError::file("read", &access.certificate))?;
        let rpc = ChainRpc::new(access.rpc, &access.user, access.password.clone(), &certificate)?;
        let log = dir.join("btcd.log");
        // User and password are in the file, not here: every user of the machine sees a command line.
        let spawn = Spawn::new("btcd", program)
            .arg(format!("--configfile={}", dir.join("btcd.conf").display()))
            .log(&log)
            .stop_order(STOP_ORDER);
        let mut process = reaper.spawn(spawn).await.map_err(DevError::io("start btcd"))?;
        let answers = timeout(START_LIMIT, async {
            while rpc.block_count().await.is_err() {
                sleep(Duration::from_millis(20)).await;
            }
        });
        tokio::select! {
            answered = answers => {
                answered.map_err(|_| DevError::TimedOut { what: "the start of btcd".into(), limit: START_LIMIT })?;
            }
            exit = process.exited() => {
                return Err(DevError::Ended { name: "btcd".into(), exit, log: log_end(&log) });
            }
        }
        Ok(Self { access, rpc, process, _ports: ports })
    }

    pub fn pid(&self) -> i32 {
        self.process.pid
    }

    /// Ends btcd and waits until it has written its chain.
    pub async fn stop(mut self, reaper: &Reaper) -> Result<(), DevError> {
        let ended = reaper.end(&mut self.process, STOP_LIMIT).await;
        ended.map(drop).map_err(DevError::io("stop btcd"))
    }

    /// Waits until btcd ends by itself, which it should not.
    pub async fn exited(&mut self) -> Exit {
        self.process.exited().await
    }
}

/// Writes what btcd needs to start, keeping what an earlier run chose.
fn prepare(dir: &Path, mining_address: Option<&str>) -> Result<(ChainAccess, [PortClaim; 2]), DevError> {
    let (saved, ports) = saved_access(&dir.join("access.json"))?;
    let certificate = dir.join("rpc.cert");
    if !certificate.exists() || !dir.join("rpc.key").exists() {
        make_certificate(dir)?;
    }
    let password_file = dir.join("rpc.password");
    write_private(&password_file, saved.password.as_bytes())?;
    let [rpc, p2p] = ports.each_ref().map(|claim| SocketAddr::from((Ipv4Addr::LOCALHOST, claim.port)));
    let password = SecretString::from(saved.password);
    let dir = dir.display();
    let (user, secret) = (&saved.user, password.expose_secret());
    // lnd keeps about three websockets to it, or with neutrino is a peer, and every user has an lnd. All of them come from
    // one address, so that to ban one would be to ban all.
    let mut lines = format!(
        "[Application Options]\nsimnet=1\nlisten={p2p}\nmaxpeers=1000\nnobanning=1\nnodnsseed=1\ntxindex=1\ndatadir={dir}/data\nlogdir={dir}/logs\n\
         rpclisten={rpc}\nrpcuser={user}\nrpcpass={secret}\nrpccert={dir}/rpc.cert\nrpckey={dir}/rpc.key\n\
         rpcmaxclients=1000\nrpcmaxwebsockets=5000\nrpcmaxconcurrentreqs=1000\n"
    );
    if let Some(address) = mining_address {
        lines.push_str(&format!("miningaddr={address}\n"));
    }
    write_private(Path::new(&format!("{dir}/btcd.conf")), lines.as_bytes())?;
    Ok((ChainAccess { rpc, p2p, user: saved.user, password, password_file, certificate }, ports))
}

fn saved_access(path: &Path) -> Result<(Saved, [PortClaim; 2]), DevError> {
    let saved = match fs::read(path) {
        Ok(text) => serde_json::from_slice::<Saved>(&text).ok(),
        Err(_) => None,
    };
    let rpc = claim_port(saved.as_ref().map(|saved| saved.port))?;
    let p2p = claim_port(saved.as_ref().and_then(|saved| saved.p2p_port))?;
    let (port, p2p_port) = (rpc.port, Some(p2p.port));
    let access = match saved {
        Some(saved) => Saved { port, p2p_port, ..saved },
        None => Saved { port, p2p_port, user: "scale-lnd".to_owned(), password: random_password()? },
    };
    let text = serde_json::to_vec(&access).map_err(|error| DevError::file("write", path)(error.into()))?;
    write_private(path, &text)?;
    Ok((access, [rpc, p2p]))
}

fn random_password() -> Result<String, DevError> {
    let mut bytes = [0; 24];
    SysRng.try_fill_bytes(&mut bytes).map_err(|error| DevError::Unusable(format!("no randomness: {error}")))?;
    Ok(hex::encode(bytes))
}

/// A certificate that is no CA: the one that btcd would make for itself is, and rustls refuses it as a server's. One
/// that expired is not replaced, which nobody will see: it lives 20 years.
fn make_certificate(dir: &Path) -> Result<(), DevError> {
    let made = make_lnd_cert(&[], &[], SystemClock.now())
        .map_err(|error| DevError::Unusable(format!("cannot make btcd's certificate: {error}")))?;
    write_private(&dir.join("rpc.key"), made.key_pem.as_bytes())?;
    write_private(&dir.join("rpc.cert"), made.cert_pem.as_bytes())
}

/// Starts btcd and brings its chain to where it was: gives it the blocks that it lost, mines one, and keeps what it has
/// that was not kept. After this lnds may start. Returns how many blocks it had lost, too.
pub async fn start_chain(
    reaper: &Reaper,
    program: &Path,
    dir: &Path,
    mining_address: &str,
) -> Result<(Btcd, KeptBlocks, usize), DevError> {
    let btcd = Btcd::start(reaper, program, dir, Some(mining_address)).await?;
    let mut kept = KeptBlocks::open(&dir.join("kept-blocks"))?;
    let restored = kept.restore(&btcd.rpc).await?;
    // lnd never becomes active on a tip older than two hours.
    btcd.rpc.generate(1).await?;
    kept.keep_new(&btcd.rpc).await?;
    Ok((btcd, kept, restored))
}

/// Mines a young chain up to where it can be used: segwit and taproot are active from height 300 on, and coins older
/// than 100 blocks can be spent. Returns how many blocks it mined.
pub async fn mature_chain(btcd: &Btcd, kept: &mut KeptBlocks) -> Result<u32, DevError> {
    let missing = USABLE_HEIGHT.saturating_sub(btcd.rpc.block_count().await?);
    if missing > 0 {
        btcd.rpc.generate(missing).await?;
        kept.keep_new(&btcd.rpc).await?;
    }
    Ok(missing)
}

const USABLE_HEIGHT: u32 = 400;
