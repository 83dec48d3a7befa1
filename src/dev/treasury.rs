//! The treasury: the lnd of the local deployment that funds new wallets, paid by the miner.

mod secrets;

use std::{
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
    files::{log_end, private_dir, write_private},
    ports::{PortClaim, claim_port},
    reaper::{ADOPTED_ORDER, Exit, Reaper, Spawn, Spawned},
};
use crate::{
    clock::{Clock, SystemClock},
    lnd::{
        LndClient, LndError, LndErrorKind, NewWallet, PinnedCert,
        grant::Grant,
        macaroon::{Macaroon, Op, bake},
        proto::lnrpc::{AddressType, GetTransactionsRequest, WalletState},
    },
    pki::lnd_cert::make_lnd_cert,
    seal::Sealer,
};

const START_LIMIT: Duration = Duration::from_secs(120);
/// lnd does not tell of a new balance by itself in a way that is simpler than asking.
const ASK_EVERY: Duration = Duration::from_millis(50);

/// How to reach the treasury. All of it is known, and all files are there, before its lnd runs.
#[derive(Debug, Clone)]
pub struct TreasuryAccess {
    /// Its gRPC.
    pub rpc: SocketAddr,
    /// Where its peers reach it.
    pub p2p: SocketAddr,
    /// Its REST, where that was asked for.
    pub rest: Option<SocketAddr>,
    pub certificate: PathBuf,
    /// What the master needs to fund wallets, and no more.
    pub funding_macaroon: PathBuf,
    /// Everything, for the developer.
    pub admin_macaroon: PathBuf,
}

/// The treasury before its lnd runs, and between two runs of it.
pub struct TreasuryPlan {
    dir: PathBuf,
    secrets: TreasurySecrets,
    pub access: TreasuryAccess,
    _ports: [PortClaim; 3],
}

impl std::fmt::Debug for TreasuryPlan {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("TreasuryPlan").field("access", &self.access).finish_non_exhaustive()
    }
}

/// What masters need to be allowed at the treasury.
const FUNDING: [(&str, &str); 3] = [("info", "read"), ("onchain", "read"), ("onchain", "write")];

/// The running treasury.
#[derive(Debug)]
pub struct Treasury {
    pub identity_pubkey: String,
    client: LndClient,
    admin: Macaroon,
    process: Spawned,
}

/// The ports of the last run.
#[derive(Default, Clone, Copy, Serialize, Deserialize)]
struct Ports {
    rpc: Option<u16>,
    p2p: Option<u16>,
    rest: Option<u16>,
}

impl TreasuryPlan {
    /// Makes the folder, the secrets (sealed under the deployment's key), the certificate and the macaroons, keeping what
    /// an earlier run made. Ports stay the same where they are free, so that peers find the treasury again.
    pub fn open(dir: &Path, sealer: &Sealer, deployment: &str, with_rest: bool) -> Result<Self, DevError> {
        private_dir(&dir.join("lnd"))?;
        let secrets = TreasurySecrets::load_or_make(&dir.join("secrets.sealed"), sealer, deployment)?;
        let ports = choose_ports(&dir.join("ports.json"))?;
        let [rpc, p2p, rest] = ports.each_ref().map(|claim| SocketAddr::from((Ipv4Addr::LOCALHOST, claim.port)));
        let access = TreasuryAccess {
            rpc,
            p2p,
            rest: with_rest.then_some(rest),
            certificate: dir.join("lnd/tls.cert"),
            funding_macaroon: dir.join("funding.macaroon"),
            admin_macaroon: dir.join("admin.macaroon"),
        };
        let plan = Self { dir: dir.to_owned(), secrets, access, _ports: ports };
        plan.make_certificate()?;
        // As docs/operations.md has an operator bake it for a treasury of theirs.
        let funding = plan.bake(&FUNDING.map(|(entity, action)| Op::new(entity, action)))?;
        write_private(&plan.access.funding_macaroon, funding.as_bytes())?;
        write_private(&plan.access.admin_macaroon, plan.bake(&Grant::Admin.ops())?.as_bytes())?;
        Ok(plan)
    }

    /// The address for mined coins.
    pub fn mining_address(&self) -> Result<String, DevError> {
        self.secrets.first_address()
    }

    /// Starts the lnd and waits until its wallet is open: made at the first start, unlocked at later ones. btcd runs, and
    /// no more than a first block may be mined before the wallet is there, or it would not see its coins.
    pub async fn start(&self, reaper: &Reaper, program: &Path, chain: &ChainAccess) -> Result<Treasury, DevError> {
        self.write_conf(chain)?;
        let pinned = fs::read(&self.access.certificate).map_err(DevError::file("read", &self.access.certificate))?;
        let pinned = PinnedCert::from_pem(&pinned).map_err(unusable)?;
        let client = LndClient::new(&self.access.rpc.to_string(), &pinned).map_err(unusable)?;
        let log = self.dir.join("lnd.out");
        let spawn = Spawn::new("treasury", program)
            .arg(format!("--lnddir={}", self.dir.join("lnd").display()))
            .log(&log)
            .stop_order(ADOPTED_ORDER);
        let mut process = reaper.spawn(spawn).await.map_err(DevError::io("start the treasury's lnd"))?;
        let opened = timeout(START_LIMIT, self.open_wallet(&client));
        let (admin, identity_pubkey) = tokio::select! {
            opened = opened => opened.map_err(|_| too_long("the start of the treasury"))??,
            exit = process.exited() => {
                return Err(DevError::Ended { name: "treasury".into(), exit, log: log_end(&log) });
            }
        };
        Ok(Treasury { identity_pubkey, client, admin, process })
    }

    fn make_certificate(&self) -> Result<(), DevError> {
        let (certificate, key) = (&self.access.certificate, self.dir.join("lnd/tls.key"));
        if certificate.exists() && key.exists() {
            return Ok(());
        }
        let made = make_lnd_cert(&[], &[], SystemClock.now()).map_err(unusable)?;
        write_private(&key, made.key_pem.as_bytes())?;
        write_private(certificate, made.cert_pem.as_bytes())
    }

    /// The chain's password is in this file only.
    fn write_conf(&self, chain: &ChainAccess) -> Result<(), DevError> {
        let TreasuryAccess { rpc, p2p, rest, .. } = &self.access;
        let rest = rest.map_or_else(|| "norest=true".to_owned(), |rest| format!("restlisten={rest}"));
        let ChainAccess { rpc: chain_rpc, user, password, certificate, .. } = chain;
        let (password, certificate) = (password.expose_secret(), certificate.display());
        let conf = format!(
            "[Application Options]\nalias=treasury\nnobootstrap=true\nlogging.console.disable=true\n\
             rpclisten={rpc}\nlisten={p2p}\n{rest}\nmaxpendingchannels=50\n\
             grpc.client-allow-ping-without-stream=true\nprotocol.wumbo-channels=true\n\
             bitcoin.simnet=true\nbitcoin.node=btcd\nbitcoin.defaultchanconfs=1\n\
             btcd.rpchost={chain_rpc}\nbtcd.rpcuser={user}\nbtcd.rpcpass={password}\nbtcd.rpccert={certificate}\n"
        );
        write_private(&self.dir.join("lnd/lnd.conf"), conf.as_bytes())
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
        let admin = self.bake(&Grant::Admin.ops())?;
        let info = client.get_info(&admin).await.map_err(refused)?;
        self.claim_mining_address(client, &admin).await?;
        Ok((admin, info.identity_pubkey))
    }

    /// A wallet watches only addresses that it has given out. It gives out the first one until coins come to it, so
    /// doing this at every start is harmless. Coins that have come may be too young to be in the balance.
    async fn claim_mining_address(&self, client: &LndClient, admin: &Macaroon) -> Result<(), DevError> {
        let kind = AddressType::UnusedWitnessPubkeyHash;
        let unused = client.new_address(admin, kind).await.map_err(refused)?.address;
        let paid = client
            .transactions(admin, GetTransactionsRequest { max_transactions: 1, ..Default::default() })
            .await
            .map_err(refused)?
            .transactions;
        if unused != self.mining_address()? && paid.is_empty() {
            return Err(unusable("its wallet's first address is not the one that is mined to"));
        }
        Ok(())
    }

    fn bake(&self, ops: &[Op]) -> Result<Macaroon, DevError> {
        let mut nonce = [0; 16];
        SysRng.try_fill_bytes(&mut nonce).map_err(unusable)?;
        Ok(bake(&self.secrets.root_key(), nonce, ops, &[]))
    }
}

fn choose_ports(path: &Path) -> Result<[PortClaim; 3], DevError> {
    let last: Ports = fs::read(path).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
    let claims = [claim_port(last.rpc)?, claim_port(last.p2p)?, claim_port(last.rest)?];
    let [rpc, p2p, rest] = claims.each_ref().map(|claim| Some(claim.port));
    write_private(path, &serde_json::to_vec(&Ports { rpc, p2p, rest }).map_err(unusable)?)?;
    Ok(claims)
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
    pub async fn exited(&mut self) -> Exit {
        self.process.exited().await
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
