//! The treasury: the lnd of the local deployment that funds new wallets, paid by the miner.

mod secrets;

use std::{
    fmt::Write,
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use rand::{TryRng, rngs::SysRng};
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use tokio::time::{sleep, timeout};

use self::secrets::TreasurySecrets;
use super::{
    btcd::ChainAccess,
    error::DevError,
    files::{free_port, log_end, private_dir, write_private},
    reaper::{ADOPTED_ORDER, Reaper, Spawn, Spawned},
};
use crate::{
    clock::{Clock, SystemClock},
    lnd::{
        LndClient, LndError, LndErrorKind, NewWallet, PinnedCert,
        grant::Grant,
        macaroon::{Macaroon, bake},
        proto::lnrpc::{AddressType, WalletState},
    },
    pki::lnd_cert::make_lnd_cert,
    seal::Sealer,
};

const START_LIMIT: Duration = Duration::from_secs(120);
/// lnd does not tell of a new balance by itself in a way that is simpler than asking.
const ASK_EVERY: Duration = Duration::from_millis(50);

/// The treasury's secrets and folder, before its lnd runs.
pub struct TreasuryPlan {
    dir: PathBuf,
    secrets: TreasurySecrets,
}

impl std::fmt::Debug for TreasuryPlan {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("TreasuryPlan").field("dir", &self.dir).finish_non_exhaustive()
    }
}

/// The running treasury.
#[derive(Debug)]
pub struct Treasury {
    /// Its gRPC.
    pub address: SocketAddr,
    /// Its REST, where that was asked for.
    pub rest: Option<SocketAddr>,
    pub certificate: PathBuf,
    /// What the master needs to fund wallets, and no more.
    pub funding_macaroon: PathBuf,
    /// Everything, for the developer.
    pub admin_macaroon: PathBuf,
    pub identity_pubkey: String,
    client: LndClient,
    admin: Macaroon,
    process: Spawned,
}

#[derive(Default, Clone, Copy, Serialize, Deserialize)]
struct Ports {
    rpc: Option<u16>,
    p2p: Option<u16>,
    rest: Option<u16>,
}

impl TreasuryPlan {
    /// Makes the folder and the secrets, sealed under the deployment's key, unless an earlier run did.
    pub fn open(dir: &Path, sealer: &Sealer, deployment: &str) -> Result<Self, DevError> {
        private_dir(dir)?;
        let secrets = TreasurySecrets::load_or_make(&dir.join("secrets.sealed"), sealer, deployment)?;
        Ok(Self { dir: dir.to_owned(), secrets })
    }

    /// The address for mined coins.
    pub fn mining_address(&self) -> Result<String, DevError> {
        self.secrets.first_address()
    }

    /// Starts the lnd and waits until its wallet is open: made at the first start, unlocked at later ones. btcd runs, and
    /// no more than a first block may be mined before the wallet is there, or it would not see its coins.
    pub async fn start(
        &self,
        reaper: &Reaper,
        program: &Path,
        chain: &ChainAccess,
        with_rest: bool,
    ) -> Result<Treasury, DevError> {
        let ports = self.choose_ports()?;
        let certificate = self.prepare(chain, ports, with_rest)?;
        let at = |port: Option<u16>| SocketAddr::from((Ipv4Addr::LOCALHOST, port.unwrap_or_default()));
        let pinned = fs::read(&certificate).map_err(DevError::file("read", &certificate))?;
        let pinned = PinnedCert::from_pem(&pinned).map_err(unusable)?;
        let client = LndClient::new(&at(ports.rpc).to_string(), &pinned).map_err(unusable)?;
        let log = self.dir.join("lnd.out");
        let spawn = Spawn::new("treasury", program).arg(format!("--lnddir={}", self.lnd_dir().display())).log(&log);
        let mut process =
            reaper.spawn(spawn.stop_order(ADOPTED_ORDER)).await.map_err(DevError::io("start the treasury's lnd"))?;
        let opened = timeout(START_LIMIT, self.open_wallet(&client));
        let (admin, identity_pubkey) = tokio::select! {
            opened = opened => opened.map_err(|_| too_long("the start of the treasury"))??,
            exit = process.exited() => {
                return Err(DevError::Ended { name: "treasury".into(), exit, log: log_end(&log) });
            }
        };
        let (funding_macaroon, admin_macaroon) = self.write_macaroons(&admin)?;
        let (address, rest) = (at(ports.rpc), with_rest.then(|| at(ports.rest)));
        Ok(Treasury {
            address,
            rest,
            certificate,
            funding_macaroon,
            admin_macaroon,
            identity_pubkey,
            client,
            admin,
            process,
        })
    }

    fn lnd_dir(&self) -> PathBuf {
        self.dir.join("lnd")
    }

    /// The same as last time where they are free: peers find the treasury again.
    fn choose_ports(&self) -> Result<Ports, DevError> {
        let path = self.dir.join("ports.json");
        let last: Ports = fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        let ports = Ports {
            rpc: Some(free_port(last.rpc)?),
            p2p: Some(free_port(last.p2p)?),
            rest: Some(free_port(last.rest)?),
        };
        write_private(&path, &serde_json::to_vec(&ports).map_err(unusable)?)?;
        Ok(ports)
    }

    /// Writes certificate and lnd.conf; returns the certificate's path. The chain's password is only in that file.
    fn prepare(&self, chain: &ChainAccess, ports: Ports, with_rest: bool) -> Result<PathBuf, DevError> {
        let dir = self.lnd_dir();
        private_dir(&dir)?;
        let certificate = dir.join("tls.cert");
        if !certificate.exists() || !dir.join("tls.key").exists() {
            let made = make_lnd_cert(&[], &[], SystemClock.now()).map_err(unusable)?;
            write_private(&dir.join("tls.key"), made.key_pem.as_bytes())?;
            write_private(&certificate, made.cert_pem.as_bytes())?;
        }
        let at = |port: Option<u16>| format!("127.0.0.1:{}", port.unwrap_or_default());
        let mut conf = String::from("[Application Options]\nalias=treasury\nnobootstrap=true\n");
        let rest = if with_rest { format!("restlisten={}", at(ports.rest)) } else { "norest=true".to_owned() };
        // Writing to a String cannot fail.
        let _ = write!(
            conf,
            "rpclisten={}\nlisten={}\n{rest}\nlogging.console.disable=true\nmaxpendingchannels=50\n\
             grpc.client-allow-ping-without-stream=true\nprotocol.wumbo-channels=true\n\
             bitcoin.simnet=true\nbitcoin.node=btcd\nbitcoin.defaultchanconfs=1\n\
             btcd.rpchost={}\nbtcd.rpcuser={}\nbtcd.rpcpass={}\nbtcd.rpccert={}\n",
            at(ports.rpc),
            at(ports.p2p),
            chain.rpc,
            chain.user,
            chain.password.expose_secret(),
            chain.certificate.display()
        );
        write_private(&dir.join("lnd.conf"), conf.as_bytes())?;
        Ok(certificate)
    }

    /// Makes or unlocks the wallet, proves the macaroon by a call, and sees to it that the wallet knows the address that
    /// the miner pays.
    async fn open_wallet(&self, client: &LndClient) -> Result<(Macaroon, String), DevError> {
        let state = wait_for(client, |state| state != WalletState::WaitingToStart).await?;
        let password = self.secrets.password.as_bytes();
        match state {
            WalletState::NonExisting => {
                let mnemonic = client.gen_seed(&self.secrets.entropy).await.map_err(refused)?;
                let root_key = self.secrets.root_key();
                let wallet = NewWallet { password, mnemonic: &mnemonic, macaroon_root_key: root_key.as_bytes() };
                client.init_wallet(&wallet).await.map_err(refused)?;
            }
            WalletState::Locked => client.unlock_wallet(password).await.map_err(refused)?,
            _ => {}
        }
        wait_for(client, |state| matches!(state, WalletState::RpcActive | WalletState::ServerActive)).await?;
        let admin = self.bake(&[Grant::Admin])?;
        let info = client.get_info(&admin).await.map_err(refused)?;
        self.claim_mining_address(client, &admin).await?;
        Ok((admin, info.identity_pubkey))
    }

    /// A wallet watches only addresses that it has given out. It gives out the first one until coins come to it, so
    /// doing this at every start is harmless.
    async fn claim_mining_address(&self, client: &LndClient, admin: &Macaroon) -> Result<(), DevError> {
        let kind = AddressType::UnusedWitnessPubkeyHash;
        let unused = client.new_address(admin, kind).await.map_err(refused)?.address;
        let balance = client.wallet_balance(admin).await.map_err(refused)?;
        if unused != self.mining_address()? && balance.total_balance == 0 {
            return Err(unusable("its wallet's first address is not the one that is mined to"));
        }
        Ok(())
    }

    fn write_macaroons(&self, admin: &Macaroon) -> Result<(PathBuf, PathBuf), DevError> {
        let (funding_path, admin_path) = (self.dir.join("funding.macaroon"), self.dir.join("admin.macaroon"));
        let funding = self.bake(&[Grant::Read, Grant::Address, Grant::Withdraw])?;
        write_private(&funding_path, funding.as_bytes())?;
        write_private(&admin_path, admin.as_bytes())?;
        Ok((funding_path, admin_path))
    }

    fn bake(&self, grants: &[Grant]) -> Result<Macaroon, DevError> {
        let mut nonce = [0; 16];
        SysRng.try_fill_bytes(&mut nonce).map_err(unusable)?;
        let ops: Vec<_> = grants.iter().flat_map(|grant| grant.ops()).collect();
        Ok(bake(&self.secrets.root_key(), nonce, &ops, &[]))
    }
}

impl Treasury {
    /// Waits until the lnd follows the chain and its wallet has this much that can be spent.
    pub async fn wait_funded(&self, at_least_sat: i64) -> Result<(), DevError> {
        let work = async {
            wait_for(&self.client, |state| state == WalletState::ServerActive).await?;
            while self.client.wallet_balance(&self.admin).await.map_err(refused)?.confirmed_balance < at_least_sat {
                sleep(ASK_EVERY).await;
            }
            Ok(())
        };
        timeout(START_LIMIT, work).await.map_err(|_| too_long("the funding of the treasury"))?
    }

    /// A client of its lnd, and the macaroon for everything.
    pub fn client(&self) -> (&LndClient, &Macaroon) {
        (&self.client, &self.admin)
    }

    pub fn pid(&self) -> i32 {
        self.process.pid
    }

    /// Waits until its lnd ends by itself, which it should not.
    pub async fn ended(&mut self) -> DevError {
        let exit = self.process.exited().await;
        DevError::Ended { name: "the treasury".into(), exit, log: String::new() }
    }
}

/// Waits for a state of an lnd that may not listen yet. The caller bounds the time.
async fn wait_for(client: &LndClient, reached: impl Fn(WalletState) -> bool + Copy) -> Result<WalletState, DevError> {
    loop {
        match client.wait_state(reached).await {
            Ok(state) => return Ok(state),
            Err(error) if error.kind == LndErrorKind::Unreachable || error.kind.is_transient() => {
                sleep(ASK_EVERY).await;
            }
            Err(error) => return Err(refused(error)),
        }
    }
}

fn refused(error: LndError) -> DevError {
    DevError::Unusable(format!("the treasury's lnd: {error}"))
}

fn unusable(error: impl std::fmt::Display) -> DevError {
    DevError::Unusable(format!("the treasury: {error}"))
}

fn too_long(what: &str) -> DevError {
    DevError::TimedOut { what: what.to_owned(), limit: START_LIMIT }
}
