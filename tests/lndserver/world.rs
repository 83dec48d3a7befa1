//! A master's side without the rest of the master: a Store, the fleet, agents' orders; and hosts, each an address of its
//! own on loopback, all beneath a reaper.

use crate::harness::within;
use scale_lnd::app::fleet::{Fleet, JoinToken};
use scale_lnd::app::keys::Keys;
use scale_lnd::clock::Clock;
use scale_lnd::dev::reaper::{Options, Reaper, Signal, Spawn, Spawned};
use scale_lnd::lndserver::client::{Agents, Order};
use scale_lnd::lndserver::proto::{NoChain, NodeSpec, node_spec};
use scale_lnd::lndserver::{fleet, proto};
use scale_lnd::model::host::Host;
use scale_lnd::model::node::{Backup, BackupHead, Endpoint, Runtime};
use scale_lnd::model::{HostId, MasterId, Network, NodeId};
use scale_lnd::pki::Credentials;
use scale_lnd::release::signing::{self, NewKey, Protection};
use scale_lnd::seal::{SealKey, Sealer};
use scale_lnd::store::repo::{self, Entity};
use scale_lnd::store::sqlite::{SqliteOptions, SqliteStore};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use time::OffsetDateTime;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

/// How long anything may take that is waited for.
pub const LIMIT: Duration = Duration::from_secs(60);
const AGENT_PORT: u16 = 8082;

/// A test here has this long for all of it; what it has started ends when it is dropped.
pub async fn timed<T>(test: impl Future<Output = T>) -> T {
    within(Duration::from_secs(240), test).await
}

/// The system's clock, moved.
#[derive(Debug, Default)]
pub struct MovedClock(AtomicI64);

impl MovedClock {
    pub fn advance(&self, seconds: i64) {
        self.0.fetch_add(seconds, Ordering::Relaxed);
    }
}

impl Clock for MovedClock {
    fn now(&self) -> OffsetDateTime {
        OffsetDateTime::now_utc() + time::Duration::seconds(self.0.load(Ordering::Relaxed))
    }
}

pub struct World {
    pub store: Arc<SqliteStore>,
    pub clock: Arc<MovedClock>,
    pub fleet: Arc<Fleet>,
    pub own: Credentials,
    pub agents: Agents,
    pub master: SocketAddr,
    serving: Mutex<Option<DropGuard>>,
    pub reaper: Reaper,
    /// Signs what hosts believe.
    pub release_key: NewKey,
    pub dir: tempfile::TempDir,
}

async fn open_fleet(store: &Arc<SqliteStore>, clock: &Arc<MovedClock>, life: time::Duration) -> Fleet {
    let sealer = Arc::new(Sealer::single(SealKey::from_bytes([7; 32])));
    let keys = Keys::new(sealer, "test".to_owned(), Network::Simnet);
    Fleet::open(store.clone(), clock.clone(), &keys, life).await.unwrap()
}

/// An agent's process.
pub struct Machine {
    pub host: HostId,
    pub address: IpAddr,
    pub data: PathBuf,
    pub log: PathBuf,
    pub token: String,
    pub process: Spawned,
}

impl World {
    pub async fn new() -> Self {
        Self::with_certificates_for(time::Duration::days(30)).await
    }

    pub async fn with_certificates_for(life: time::Duration) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(SqliteStore::open(&dir.path().join("db"), SqliteOptions::default()).await.unwrap());
        let clock = Arc::new(MovedClock::default());
        let fleet = open_fleet(&store, &clock, life).await;
        let own = fleet.master_credentials(&MasterId::random(&mut rand::rng())).unwrap();
        let agents = Agents::new(fleet.trust(), own.clone());
        let options = Options { grace: Duration::ZERO, ..Options::new(Path::new(env!("CARGO_BIN_EXE_scale-lnd"))) };
        let reaper = Reaper::start(&options, |_| {}).await.unwrap();
        let master = own_address(8081);
        let (fleet, serving) = (Arc::new(fleet), Mutex::default());
        let release_key = signing::generate(&Protection::None).unwrap();
        let world = Self { store, clock, fleet, own, agents, master, serving, reaper, release_key, dir };
        world.serve().await;
        world
    }

    /// The same fleet, for certificates of another life.
    pub async fn fleet_of(&self, life: time::Duration) -> Fleet {
        open_fleet(&self.store, &self.clock, life).await
    }

    /// Answers agents, until [`Self::be_silent`].
    pub async fn serve(&self) {
        let stop = CancellationToken::new();
        let listener = TcpListener::bind(self.master).await.unwrap();
        let (fleet, own, stopping) = (self.fleet.clone(), self.own.clone(), stop.clone());
        tokio::spawn(async move { fleet::serve(listener, fleet, &own, stopping).await.unwrap() });
        *self.serving.lock().unwrap() = Some(stop.drop_guard());
    }

    /// As if no master ran.
    pub async fn be_silent(&self) {
        drop(self.serving.lock().unwrap().take());
        until("the port to be free", async || TcpListener::bind(self.master).await.ok()).await;
    }

    /// A machine whose agent has joined.
    pub async fn machine(&self) -> Machine {
        let (host, token) = self.fleet.invite_host(4).await.unwrap();
        let machine = self.boot(&host, &token).await;
        self.joined(&host).await;
        machine
    }

    /// A machine with an agent that may join.
    pub async fn boot(&self, host: &HostId, token: &JoinToken) -> Machine {
        let data = self.dir.path().join(host.as_str());
        let address = own_address(AGENT_PORT).ip();
        let log = self.dir.path().join(format!("{host}.log"));
        let spawn = self.agent(&data, address, &log, token.expose());
        let process = self.reaper.spawn(spawn).await.unwrap();
        Machine { host: host.clone(), address, data, log, token: token.expose().to_owned(), process }
    }

    /// The agent again, with something more in its environment, on a machine where it ended.
    pub async fn restart(&self, machine: &mut Machine, env: &[(&str, &str)]) {
        let mut spawn = self.agent(&machine.data, machine.address, &machine.log, &machine.token);
        for (name, value) in env {
            spawn = spawn.env(*name, *value);
        }
        machine.process = self.reaper.spawn(spawn).await.unwrap();
    }

    pub async fn kill(&self, machine: &mut Machine) {
        self.reaper.signal(machine.process.pid, Signal::KILL).await.unwrap();
        machine.process.exited().await;
    }

    fn agent(&self, data: &Path, address: IpAddr, log: &Path, token: &str) -> Spawn {
        let lnd =
            PathBuf::from(std::env::var("SCALE_LND_NODE_BIN").expect("SCALE_LND_NODE_BIN: see Makefile")).join("lnd");
        let mut spawn = Spawn::new("lndserver", env!("CARGO_BIN_EXE_scale-lnd")).arg("lndserver").log(log);
        let settings = [
            ("data_dir", data.display().to_string()),
            ("listen", SocketAddr::new(address, AGENT_PORT).to_string()),
            ("masters", self.master.to_string()),
            ("ca_fingerprint", self.fleet.ca().fingerprint().to_string()),
            ("lnd", lnd.display().to_string()),
            ("port_base", "10100".to_owned()),
            ("release_keys", self.release_key.public.lines().last().unwrap().to_owned()),
            ("release_deployment", "test".to_owned()),
        ];
        for (name, value) in settings {
            spawn = spawn.arg("--set").arg(format!("agent.{name}={value}"));
        }
        spawn.env("SCALE_LND_AGENT_JOIN_TOKEN", token)
    }

    pub async fn joined(&self, host: &HostId) -> Host {
        until("the host to join", async || self.get::<Host>(host.as_str()).await.filter(|host| host.report.is_some()))
            .await
    }

    pub async fn host(&self, id: &HostId) -> Host {
        self.get(id.as_str()).await.unwrap()
    }

    /// Gives a new node a slot.
    pub async fn place(&self, host: &HostId, slot: u16) -> NodeId {
        let node = NodeId::random(&mut rand::rng());
        repo::modify::<Host, scale_lnd::error::StoreError>(&*self.store, host.as_str(), |host| {
            host.slots.insert(slot, node.clone());
            Ok(true)
        })
        .await
        .unwrap();
        node
    }

    /// Places a node and starts its lnd.
    pub async fn node(&self, machine: &Machine, slot: u16) -> (NodeId, Endpoint) {
        let node = self.place(&machine.host, slot).await;
        let host = self.host(&machine.host).await;
        let endpoint = self.agents.ensure_node(Order { host: &host, epoch: 1 }, spec(&node, slot)).await.unwrap();
        (node, endpoint)
    }

    pub async fn get<T: Entity>(&self, id: &str) -> Option<T> {
        repo::get::<T>(&*self.store, id).await.unwrap().map(|found| found.value)
    }

    /// What the Store comes to know of a node.
    pub async fn runtime(&self, node: &NodeId, wanted: impl Fn(&Runtime) -> bool) -> Runtime {
        until("a report", async || self.get::<Runtime>(node.as_str()).await.filter(&wanted)).await
    }

    /// The node's backups in the Store, once the newest has this number.
    pub async fn backups(&self, node: &NodeId, newest: u64) -> Vec<Vec<u8>> {
        use base64::Engine;
        let head = async || self.get::<BackupHead>(node.as_str()).await.filter(|head| head.newest >= newest);
        let head = until("a backup", head).await;
        let mut all = Vec::new();
        for number in 1..=head.newest {
            let backup = self.get::<Backup>(&Backup::id_of(node, number)).await.unwrap();
            all.push(base64::prelude::BASE64_STANDARD.decode(backup.bytes).unwrap());
        }
        all
    }

    /// The agent's own answer, once it answers.
    pub async fn status(&self, machine: &Machine) -> proto::GetStatusResponse {
        // Read anew each time: it says which certificates the agent may show.
        until("the agent", async || self.agents.status(&self.host(&machine.host).await).await.ok()).await
    }

    /// The pid of a node's lnd, once it runs and its RPC answers.
    pub async fn pid(&self, machine: &Machine, node: &NodeId) -> u32 {
        until("the lnd", async || {
            let status = self.status(machine).await;
            let found = status.nodes.into_iter().find(|status| status.node_id == node.as_str())?;
            match found.process?.state? {
                proto::process::State::Running(running) if found.wallet != 0 => Some(running.pid),
                _ => None,
            }
        })
        .await
    }
}

impl Machine {
    pub fn chain(&self, node: &NodeId) -> PathBuf {
        self.data.join("nodes").join(node.as_str()).join("instance/lnd/data/chain/bitcoin/simnet")
    }

    /// Writes a channel.backup as lnd does.
    pub fn write_backup(&self, node: &NodeId, bytes: &[u8]) {
        let chain = self.chain(node);
        std::fs::write(chain.join("temp-dont-use.backup"), bytes).unwrap();
        std::fs::rename(chain.join("temp-dont-use.backup"), chain.join("channel.backup")).unwrap();
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Processes that were started as an lnd on this node's folder.
    pub fn lnds_of(&self, node: &NodeId) -> Vec<u32> {
        let wanted = format!("--lnddir={}", self.data.join("nodes").join(node.as_str()).join("instance/lnd").display());
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").unwrap() {
            let Ok(pid) = entry.unwrap().file_name().to_string_lossy().parse::<u32>() else { continue };
            let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            if arguments.split(|byte| *byte == 0).any(|argument| argument == wanted.as_bytes()) {
                found.push(pid);
            }
        }
        found
    }
}

/// How a test's lnd is run: without a chain.
pub fn spec(node: &NodeId, slot: u16) -> NodeSpec {
    NodeSpec {
        node_id: node.to_string(),
        slot: slot.into(),
        network: "simnet".to_owned(),
        backend: Some(node_spec::Backend::None(NoChain {})),
        alias: "a test's".to_owned(),
        rest: false,
        extra_args: vec!["protocol.wumbo-channels".to_owned()],
        ..NodeSpec::default()
    }
}

/// An address of this test alone: loopback has 2^24 of them.
pub fn own_address(port: u16) -> SocketAddr {
    let [a, b, c]: [u8; 3] = rand::random();
    SocketAddr::from(([127, a, b, c.clamp(1, 254)], port))
}

/// Asks again and again until there is an answer.
pub async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let found = tokio::time::timeout(LIMIT, async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    found.await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}
