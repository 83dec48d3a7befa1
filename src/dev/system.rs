//! The whole local system: chain, treasury, master and agent, started in order, kept alive, beneath one reaper.

use std::{
    fmt,
    path::PathBuf,
    time::{Duration, Instant},
};

use secrecy::ExposeSecret;
use serde_json::Value;
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};

use super::{
    binaries::NodeBinaries,
    btcd::{Btcd, mature_chain, start_chain},
    deployment::{self, ApiKeys},
    error::DevError,
    files::{log_end, private_dir},
    home::{Home, Ports},
    logs::{LogTail, rotate},
    miner::{Mined, Miner, Policy},
    progress::Progress,
    reaper::{Reaper, Spawn},
    service::{Restarts, Service},
    tool::Tool,
    treasury::{Treasury, TreasuryAccess, TreasuryPlan},
};

const MASTER_STOP_ORDER: u32 = 10;
const AGENT_STOP_ORDER: u32 = 20;
const READY_LIMIT: Duration = Duration::from_secs(120);
const ASK_EVERY: Duration = Duration::from_millis(50);
/// What the treasury must be able to spend before the system is ready.
const TREASURY_SAT: i64 = 1_000_000_000;

/// What a system is made of.
#[derive(Debug, Clone)]
pub struct Options {
    /// `scale-lnd` itself.
    pub program: PathBuf,
    pub binaries: NodeBinaries,
    /// The API's port: that one or none; 0: any; `None`: the usual one or any.
    pub port: Option<u16>,
    /// Whether every lnd serves its own REST, too.
    pub lnd_rest: bool,
}

/// The running system. It has no end of its own: stop its reaper.
#[derive(Debug)]
pub struct System {
    pub home: Home,
    /// Of the API, without a slash at the end.
    pub url: String,
    pub keys: ApiKeys,
    options: Options,
    progress: Progress,
    chain: Chain,
    plan: TreasuryPlan,
    treasury: Treasury,
    master: Service,
    agent: Service,
    logs: LogTail,
    restarts: Restarts,
    _ports: Ports,
}

#[derive(Debug)]
struct Chain {
    btcd: Btcd,
    _miner: Miner,
    mined: mpsc::UnboundedReceiver<Mined>,
}

impl System {
    /// Starts everything and waits until it can be used. When this fails, or is dropped, stop the reaper.
    pub async fn start(reaper: &Reaper, home: Home, options: Options, progress: Progress) -> Result<Self, DevError> {
        private_dir(&home.dir("logs"))?;
        let ports = home.choose_ports(options.port)?;
        let sealer = deployment::sealer(&home)?;
        let plan = TreasuryPlan::open(&home.dir("treasury"), &sealer, deployment::NAME, options.lnd_rest)?;
        progress.say("btcd: starting, on simnet");
        let mining_address = plan.mining_address()?;
        let (btcd, mut kept, restored) =
            start_chain(reaper, &options.binaries.btcd, &home.dir("btcd"), &mining_address).await?;
        if restored > 0 {
            progress.say(format_args!("btcd: had lost {restored} blocks, which it was given again"));
        }
        progress.say(format_args!("btcd: runs at height {}", btcd.rpc.block_count().await?));

        let treasury = async {
            progress.say("treasury: its lnd is starting");
            let treasury = plan.start(reaper, &options.binaries.lnd, &btcd.access).await?;
            let blocks = mature_chain(&btcd, &mut kept).await?;
            if blocks > 0 {
                progress.say(format_args!("btcd: mined {blocks} blocks, so that there are coins to spend"));
            }
            treasury.wait_funded(TREASURY_SAT).await?;
            progress.say("treasury: has coins");
            Ok(treasury)
        };
        let servers = start_servers(reaper, &home, &options, &ports, &btcd, &plan.access, progress);
        let (treasury, (keys, url, master, agent)) = tokio::try_join!(treasury, servers)?;
        let logs = LogTail::start(vec![("master", log(&home, "master")), ("lndserver", log(&home, "lndserver"))]);
        let (sender, mined) = mpsc::unbounded_channel();
        let miner = Miner::start(btcd.rpc.clone(), kept, Policy::default(), sender);
        Ok(Self {
            home,
            url,
            keys,
            options,
            progress,
            chain: Chain { btcd, _miner: miner, mined },
            plan,
            treasury,
            master,
            agent,
            logs,
            restarts: Restarts::default(),
            _ports: ports,
        })
    }

    pub fn btcd(&self) -> &Btcd {
        &self.chain.btcd
    }

    pub fn treasury(&self) -> &Treasury {
        &self.treasury
    }

    pub fn treasury_access(&self) -> &TreasuryAccess {
        &self.plan.access
    }

    /// Tells what happens and starts again what dies, until that is hopeless. Never returns otherwise; may be dropped.
    pub async fn watch(&mut self, reaper: &Reaper) -> DevError {
        loop {
            let (part, exit) = tokio::select! {
                // First, because everything else looks dead when the reaper is.
                biased;
                () = reaper.gone() => return DevError::Unusable("the reaper was killed".to_owned()),
                exit = self.chain.btcd.exited() => (Part::Btcd, exit),
                exit = self.treasury.exited() => (Part::Treasury, exit),
                exit = self.master.exited() => (Part::Master, exit),
                exit = self.agent.exited() => (Part::Lndserver, exit),
                Some(block) = self.chain.mined.recv() => {
                    self.tell_block(block);
                    continue;
                }
                Some(line) = self.logs.next() => {
                    self.progress.say(line);
                    continue;
                }
            };
            if !self.restarts.may_go_on(Instant::now()) {
                return DevError::Ended { name: part.to_string(), exit, log: log_end(&self.log_of(part)) };
            }
            self.progress.say(format_args!("{part} died ({exit}) and is started again"));
            if let Err(error) = self.revive(part, reaper).await {
                return error;
            }
        }
    }

    fn log_of(&self, part: Part) -> PathBuf {
        match part {
            Part::Btcd => self.home.dir("btcd/btcd.log"),
            Part::Treasury => self.home.dir("treasury/lnd.out"),
            Part::Master | Part::Lndserver => log(&self.home, &part.to_string()),
        }
    }

    fn tell_block(&self, block: Mined) {
        // The blocks on top are no news.
        if block.transactions > 0 {
            let Mined { height, transactions } = block;
            let plural = if transactions == 1 { "" } else { "s" };
            self.progress.say(format_args!("btcd: block {height} with {transactions} transaction{plural}"));
        }
    }

    async fn revive(&mut self, part: Part, reaper: &Reaper) -> Result<(), DevError> {
        match part {
            Part::Master => self.master.start_again(reaper).await,
            Part::Lndserver => self.agent.start_again(reaper).await,
            Part::Treasury => {
                let access = &self.chain.btcd.access;
                self.treasury = self.plan.start(reaper, &self.options.binaries.lnd, access).await?;
                Ok(())
            }
            Part::Btcd => self.revive_chain(reaper).await,
        }
    }

    async fn revive_chain(&mut self, reaper: &Reaper) -> Result<(), DevError> {
        let address = self.plan.mining_address()?;
        let (btcd, kept, _) =
            start_chain(reaper, &self.options.binaries.btcd, &self.home.dir("btcd"), &address).await?;
        if btcd.access.rpc != self.chain.btcd.access.rpc {
            return Err(DevError::Unusable("btcd's port was taken by another program".to_owned()));
        }
        let (sender, mined) = mpsc::unbounded_channel();
        let miner = Miner::start(btcd.rpc.clone(), kept, Policy::default(), sender);
        self.chain = Chain { btcd, _miner: miner, mined };
        Ok(())
    }
}

#[derive(Debug, Clone, Copy)]
enum Part {
    Btcd,
    Treasury,
    Master,
    Lndserver,
}

impl fmt::Display for Part {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Btcd => "btcd",
            Self::Treasury => "treasury",
            Self::Master => "master",
            Self::Lndserver => "lndserver",
        })
    }
}

fn log(home: &Home, name: &str) -> PathBuf {
    home.dir("logs").join(format!("{name}.log"))
}

/// Starts master and agent, and waits until the agent's host can be given lnds.
async fn start_servers(
    reaper: &Reaper,
    home: &Home,
    options: &Options,
    ports: &Ports,
    btcd: &Btcd,
    treasury: &TreasuryAccess,
    progress: Progress,
) -> Result<(ApiKeys, String, Service, Service), DevError> {
    deployment::write_master(home, ports, &btcd.access, treasury, options.lnd_rest)?;
    let tool = Tool { program: options.program.clone(), config: home.dir("master.toml") };
    let service = |name: &str, order| {
        let log = log(home, name);
        rotate(&log);
        let config = home.dir(&format!("{name}.toml"));
        let spawn = Spawn::new(name, &options.program).arg(name).arg("--config").arg(config.to_string_lossy());
        Service::start(reaper, spawn.log(log).stop_order(order))
    };
    let keys = deployment::api_keys(home, &tool).await?;
    progress.say("master: starting");
    let mut master = service("master", MASTER_STOP_ORDER).await?;
    deployment::write_agent(home, ports, &options.binaries, options.lnd_rest, &tool).await?;
    progress.say("lndserver: starting");
    let mut agent = service("lndserver", AGENT_STOP_ORDER).await?;
    let url = format!("http://127.0.0.1:{}", ports.http.port);
    tokio::select! {
        usable = timeout(READY_LIMIT, until_usable(&url, &keys)) => usable.map_err(|_| DevError::TimedOut {
            what: "the start of master and lndserver".to_owned(),
            limit: READY_LIMIT,
        })??,
        exit = master.exited() => return Err(master.ended(exit)),
        exit = agent.exited() => return Err(agent.ended(exit)),
    }
    progress.say("master and lndserver: run");
    Ok((keys, url, master, agent))
}

/// Asks the API until the master is ready and a host has reported.
async fn until_usable(url: &str, keys: &ApiKeys) -> Result<(), DevError> {
    let http = reqwest::Client::builder().no_proxy().timeout(READY_LIMIT).build();
    let http = http.map_err(|source| DevError::Transport { method: "the API", source })?;
    let has_host = async || -> reqwest::Result<bool> {
        let ready = http.get(format!("{url}/readyz")).send().await?;
        if !ready.status().is_success() {
            return Ok(false);
        }
        let hosts = http.get(format!("{url}/lnd/v1/hosts")).bearer_auth(keys.operator.expose_secret());
        let hosts: Value = hosts.send().await?.error_for_status()?.json().await?;
        Ok(hosts["hosts"].as_array().is_some_and(|hosts| hosts.iter().any(|host| host["report"].is_object())))
    };
    // Not an error but another answer of a master that is not there yet.
    while !has_host().await.unwrap_or(false) {
        sleep(ASK_EVERY).await;
    }
    Ok(())
}
