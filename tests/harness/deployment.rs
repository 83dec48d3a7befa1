//! A deployment of a test's own: store, sealing key, masters, one host agent; the chain and the treasury are the world's.

use super::command::{self, Done};
use super::world::{World, program, tail, world};
use super::{Api, RUNTIME, emulator, eventually, ports};
use scale_lnd::dev::btcd::ChainAccess;
use scale_lnd::dev::reaper::{Signal, Spawn, Spawned};
use scale_lnd::dev::treasury::TreasuryAccess;
use serde_json::Value;
use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

/// How many masters may live at a time: the agent is told where each of them is.
const MASTERS: u16 = 3;

/// How a deployment differs from the usual.
#[derive(Debug, Clone)]
pub struct Setup {
    pub lease_ttl_ms: u64,
    pub initial_funding_sat: u64,
    /// Slots of the host that it begins with; 0: it begins without a host.
    pub slots: u16,
    /// What all masters and verbs have in their environment.
    pub env: Vec<(&'static str, String)>,
    /// A chain of the test's own, where the treasury has no money and so is left out; `None`: the world's.
    pub chain: Option<ChainAccess>,
    /// Whether its lnds are peers of btcd, with neutrino, rather than users of its RPC.
    pub neutrino: bool,
    /// Where a Firestore emulator is that keeps the store; `None`: SQLite.
    pub firestore: Option<String>,
    /// The lines of `[seal]`; `None`: a key file.
    pub seal: Option<String>,
    /// More lines for the masters' configuration file.
    pub more: String,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            lease_ttl_ms: 1000,
            initial_funding_sat: 1_000_000,
            slots: 20,
            env: Vec::new(),
            chain: None,
            neutrino: false,
            firestore: None,
            seal: None,
            more: String::new(),
        }
    }
}

/// A master process.
#[derive(Debug)]
pub struct Master {
    pub process: Spawned,
    pub url: String,
    pub log: PathBuf,
    agents_port: u16,
}

/// A deployment.
#[derive(Debug)]
pub struct Deployment {
    pub world: &'static World,
    pub dir: TempDir,
    pub config: PathBuf,
    pub masters: Vec<Master>,
    pub agent: Option<Spawned>,
    /// Of the hosts that joined later.
    more_agents: Vec<Spawned>,
    pub key: String,
    env: Vec<(&'static str, String)>,
    agents_port: u16,
    started: usize,
    stopped: bool,
}

impl Deployment {
    /// A deployment with one master, one agent, the app `app` and a key with all its scopes.
    pub async fn start(setup: Setup) -> Self {
        let world = world().await;
        let dir = tempfile::Builder::new().prefix("deployment-").tempdir_in(world.dir.path()).unwrap();
        let agents_port = ports::free(MASTERS);
        let config = dir.path().join("master.toml");
        let mut this = Self {
            world,
            config,
            masters: Vec::new(),
            agent: None,
            more_agents: Vec::new(),
            key: String::new(),
            env: setup.env.clone(),
            agents_port,
            started: 0,
            stopped: false,
            dir,
        };
        this.write_config(&setup);
        this.cli(&["keys", "generate", this.path("seal.key").to_str().unwrap()]).await;
        this.config_cli(&["app", "create", "app"]).await;
        this.key = this.create_key("app", "read,invoice,pay,manage").await;
        this.start_master(&[]).await;
        if setup.slots > 0 {
            this.join_host("", setup.slots).await;
            this.start_agent(&[]).await;
        }
        this
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write_config(&self, setup: &Setup) {
        let Setup { lease_ttl_ms, initial_funding_sat, more, .. } = setup;
        let chain = setup.chain.as_ref().unwrap_or(&self.world.chain);
        let treasury = if setup.chain.is_none() { self.treasury_section() } else { String::new() };
        let backend = backend(chain, setup.neutrino);
        let store = match &setup.firestore {
            None => format!("path = \"{}\"", self.path("store.db").display()),
            Some(url) => format!("kind = \"firestore\"\nproject = \"{}\"\napi_url = \"{url}\"", emulator::project()),
        };
        let text = format!(
            r#"
[deployment]
name = "test"
network = "simnet"
[store]
{store}
[seal]
{seal}
[agents]
listen = "127.0.0.1:{agents}"
advertise = [{advertised}]
[chain]
{backend}
[lnd]
rest = true
default_chan_confs = 1
{treasury}
[funding]
initial_funding_sat = {initial_funding_sat}
[master]
lease_ttl_ms = {lease_ttl_ms}
{more}
"#,
            seal = setup.seal.clone().unwrap_or(format!("key_file = \"{}\"", self.path("seal.key").display())),
            agents = self.agents_port,
            advertised = self.agents_ports(),
        );
        std::fs::write(&self.config, text).unwrap();
    }

    fn treasury_section(&self) -> String {
        let TreasuryAccess { rpc, certificate, funding_macaroon, .. } = &self.world.treasury;
        let (cert, macaroon) = (certificate.display(), funding_macaroon.display());
        format!("[treasury]\naddress = \"{rpc}\"\ncert_file = \"{cert}\"\nmacaroon_file = \"{macaroon}\"")
    }

    /// Runs a verb of the command line that needs no configuration; returns what it printed.
    pub async fn cli(&self, args: &[&str]) -> String {
        let done = self.try_cli(args).await;
        assert_eq!(done.code, Some(0), "{args:?}: {}", done.err);
        done.out
    }

    async fn try_cli(&self, args: &[&str]) -> Done {
        let program = program();
        let env: Vec<_> = self.env.iter().map(|(name, value)| (*name, Some(value.as_str()))).collect();
        command::run(&[&[program.to_str().unwrap()], args].concat(), &env).await
    }

    /// Runs a verb of the command line on this deployment.
    pub async fn config_cli(&self, args: &[&str]) -> String {
        let config = self.config.to_str().unwrap();
        self.cli(&[args, &["--config", config]].concat()).await
    }

    /// The same, for one that may be refused.
    pub async fn try_config_cli(&self, args: &[&str]) -> Done {
        let config = self.config.to_str().unwrap();
        self.try_cli(&[args, &["--config", config]].concat()).await
    }

    /// The same, which dies at a fault point.
    pub async fn faulty_config_cli(&self, args: &[&str], fault: &str) -> Done {
        let (program, config) = (program(), self.config.to_str().unwrap());
        let all = [&[program.to_str().unwrap()], args, &["--config", config]].concat();
        let env = self.env.iter().map(|(name, value)| (*name, Some(value.as_str())));
        command::run(&all, &env.chain([("SCALE_LND_FAULT", Some(fault))]).collect::<Vec<_>>()).await
    }

    /// A new key of an app.
    pub async fn create_key(&self, app: &str, scopes: &str) -> String {
        let printed = self.config_cli(&["key", "create", "--app", app, "--scopes", scopes]).await;
        printed.trim().to_owned()
    }

    /// A new key of the operator.
    pub async fn operator_key(&self) -> String {
        self.config_cli(&["key", "create", "--operator"]).await.trim().to_owned()
    }

    /// Starts one more master, with these variables in its environment, and waits until it is ready.
    pub async fn start_master(&mut self, env: &[(&str, &str)]) -> usize {
        let index = self.spawn_master(env).await;
        let url = self.masters[index].url.clone();
        let api = Api::new(&url, "");
        let (process, log) = (self.masters[index].process.clone(), self.masters[index].log.clone());
        eventually("the master is ready", Duration::from_secs(30), || async {
            if let Some(exit) = process.exit() {
                panic!("the master ended ({exit:?}):\n{}", tail(&log));
            }
            let answer = api.request(reqwest::Method::GET, "/readyz", &[], None, &[]).await.ok()?;
            (answer.status == 200).then_some(())
        })
        .await;
        index
    }

    /// Starts one more master without waiting for it.
    pub async fn spawn_master(&mut self, env: &[(&str, &str)]) -> usize {
        self.started += 1;
        let port = ports::free(1);
        let log = self.path(&format!("master-{}.log", self.started));
        let mut spawn = Spawn::new("master", program())
            .arg("master")
            .arg("--config")
            .arg(self.config.to_str().unwrap())
            .arg("--set")
            .arg(format!("http.listen=127.0.0.1:{port}"))
            .log(&log);
        let agents_port = self.port_for_agents();
        spawn = spawn.arg("--set").arg(format!("agents.listen=127.0.0.1:{agents_port}"));
        for (name, value) in &self.env {
            spawn = spawn.env(*name, value);
        }
        for (name, value) in env {
            spawn = spawn.env(*name, *value);
        }
        let process = self.world.reaper.spawn(spawn).await.unwrap();
        self.masters.push(Master { process, url: format!("http://127.0.0.1:{port}"), log, agents_port });
        self.masters.len() - 1
    }

    /// Where agents find masters, as a list of TOML.
    fn agents_ports(&self) -> String {
        let all = (0..MASTERS).map(|n| format!("\"127.0.0.1:{}\"", self.agents_port + n));
        all.collect::<Vec<_>>().join(", ")
    }

    /// One of the ports that the agent dials: the first that no living master has.
    fn port_for_agents(&self) -> u16 {
        let living = || self.masters.iter().filter(|m| m.process.exit().is_none());
        let mut ports = self.agents_port..self.agents_port + MASTERS;
        ports.find(|port| living().all(|m| m.agents_port != *port)).expect("no more masters than the agent knows")
    }

    /// One more host, whose folder is `host<suffix>`. Returns its id.
    pub async fn another_host(&mut self, suffix: &str, slots: u16) -> String {
        self.another_host_with(suffix, slots, &[]).await
    }

    /// The same, with these variables in its agent's environment.
    pub async fn another_host_with(&mut self, suffix: &str, slots: u16, env: &[(&str, &str)]) -> String {
        let id = self.join_host(suffix, slots).await;
        let agent = self.spawn_agent(suffix, env).await;
        self.more_agents.push(agent);
        id
    }

    /// `kill -9` of the agent of the host that joined as number `n` of the others.
    pub async fn kill_another_agent(&mut self, n: usize) {
        let mut agent = self.more_agents.remove(n);
        self.signal(&agent, Signal::KILL).await;
        agent.exited().await;
    }

    /// Kills the agent of that host, and starts another with these variables in its environment.
    pub async fn replace_another_agent(&mut self, n: usize, suffix: &str, env: &[(&str, &str)]) {
        self.kill_another_agent(n).await;
        let agent = self.spawn_agent(suffix, env).await;
        self.more_agents.insert(n, agent);
    }

    /// Waits until the agent of that host has died by itself.
    pub async fn another_agent_died(&mut self, n: usize) {
        tokio::time::timeout(Duration::from_secs(60), self.more_agents[n].exited()).await.expect("the agent dies");
    }

    /// Invites a host and configures its agent, which listens on a port of its own.
    async fn join_host(&self, suffix: &str, slots: u16) -> String {
        let printed = self.config_cli(&["host", "invite", "--slots", &slots.to_string(), "--json"]).await;
        let invitation: Value = serde_json::from_str(&printed).unwrap();
        let token = invitation["join_token"].as_str().unwrap();
        let token_file = self.path(&format!("join{suffix}.token"));
        std::fs::write(&token_file, token).unwrap();
        private(&token_file);
        let lnd = &self.world.binaries.lnd;
        let text = format!(
            r#"
[agent]
data_dir = "{data}"
listen = "127.0.0.1:{port}"
address = "127.0.0.1"
masters = [{masters}]
join_token_file = "{token}"
ca_fingerprint = "{fingerprint}"
lnd = "{lnd}"
port_base = {base}
"#,
            data = self.path(&format!("host{suffix}")).display(),
            port = ports::free(1),
            masters = self.agents_ports(),
            token = token_file.display(),
            fingerprint = invitation["ca_fingerprint"].as_str().unwrap(),
            lnd = lnd.display(),
            base = ports::free(3 * slots),
        );
        std::fs::write(self.path(&format!("agent{suffix}.toml")), text).unwrap();
        invitation["host_id"].as_str().unwrap().to_owned()
    }

    /// Starts the agent.
    pub async fn start_agent(&mut self, env: &[(&str, &str)]) {
        self.agent = Some(self.spawn_agent("", env).await);
    }

    async fn spawn_agent(&self, suffix: &str, env: &[(&str, &str)]) -> Spawned {
        let mut spawn = Spawn::new("lndserver", program())
            .arg("lndserver")
            .arg("--config")
            .arg(self.path(&format!("agent{suffix}.toml")).to_str().unwrap())
            .log(self.path(&format!("agent{suffix}.log")));
        for (name, value) in env {
            spawn = spawn.env(*name, *value);
        }
        self.world.reaper.spawn(spawn).await.unwrap()
    }

    /// `kill -9` of the agent; its lnds go on.
    pub async fn kill_agent(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            self.signal(&agent, Signal::KILL).await;
            agent.exited().await;
        }
    }

    /// `kill -9` of a master.
    pub async fn kill_master(&mut self, index: usize) {
        let mut process = self.masters[index].process.clone();
        self.signal(&process, Signal::KILL).await;
        process.exited().await;
    }

    /// Ends all masters in good order, so that none of them holds or takes anything.
    pub async fn end_masters(&mut self) {
        for master in &mut self.masters {
            let _exit = self.world.reaper.end(&mut master.process, Duration::from_secs(15)).await.unwrap();
        }
    }

    /// Waits until a master has ended by itself (a fault point killed it).
    pub async fn master_died(&self, index: usize) {
        let mut process = self.masters[index].process.clone();
        tokio::time::timeout(Duration::from_secs(60), process.exited())
            .await
            .expect("the master dies at its fault point");
    }

    /// Sends SIGSTOP to a master, and never in the middle of a commit: it would hold the database's lock for as long as it sleeps.
    pub async fn freeze_master(&self, process: &Spawned) {
        loop {
            self.signal(process, Signal::STOP).await;
            if self.try_config_cli(&["key", "create", "--operator"]).await.code == Some(0) {
                return;
            }
            self.signal(process, Signal::CONT).await;
        }
    }

    pub async fn signal(&self, process: &Spawned, signal: Signal) {
        // One that has just ended cannot be signalled, which is as good.
        let _ended = self.world.reaper.signal(process.pid, signal).await;
    }

    /// The API of the newest master, with the app's key.
    pub fn api(&self) -> Api {
        self.api_of(self.masters.len() - 1)
    }

    /// The API of one master, with the app's key.
    pub fn api_of(&self, index: usize) -> Api {
        Api::new(&self.masters[index].url, &self.key)
    }

    /// Creates users side by side.
    pub async fn create_users(&self, uuids: &[&str]) {
        let api = self.api();
        let creates = uuids.iter().map(|uuid| api.create(uuid));
        futures::future::join_all(creates).await;
    }

    /// Ends all of it.
    pub async fn stop(mut self) {
        self.end_masters().await;
        self.kill_agent().await;
        for mut agent in std::mem::take(&mut self.more_agents) {
            self.signal(&agent, Signal::KILL).await;
            agent.exited().await;
        }
        for pid in self.lnd_pids().await {
            let _ended = self.world.reaper.signal(pid, Signal::KILL).await;
        }
        self.stopped = true;
    }

    /// What the programs have said last, for whoever looks into a failure on a machine that he cannot reach.
    fn last_words(&self) -> String {
        let mut logs: Vec<_> = self.logs().into_iter().collect();
        logs.sort();
        let words = |(log, text): (PathBuf, String)| {
            let lines: Vec<String> = text.lines().map(|line| line.chars().take(300).collect()).collect();
            let last = lines[lines.len().saturating_sub(12)..].join("\n    ");
            format!("  {}:\n    {last}\n", log.file_name().unwrap_or_default().display())
        };
        logs.into_iter().map(words).collect()
    }

    /// The processes of this deployment's lnds.
    pub async fn lnd_pids(&self) -> Vec<i32> {
        lnds_below(self.world, &self.path("host")).await.unwrap()
    }

    async fn node_id_by(&self, field: &str, value: &str) -> String {
        let nodes: Value = serde_json::from_str(&self.config_cli(&["node", "list", "--json"]).await).unwrap();
        let node = nodes.as_array().unwrap().iter().find(|n| n[field] == value).unwrap();
        node["node"].as_str().unwrap().to_owned()
    }

    /// The inner id of a user's node.
    pub async fn node_id(&self, uuid: &str) -> String {
        self.node_id_by("uuid", uuid).await
    }

    /// The process of the lnd with this identity.
    pub async fn lnd_pid_of(&self, pubkey: &str) -> i32 {
        let id = self.node_id_by("pubkey", pubkey).await;
        let pids = self.lnd_pids().await.into_iter();
        let of_node = pids
            .filter(|pid| std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default().contains(&id));
        of_node.into_iter().next().expect("the node runs")
    }

    /// What the logs of all masters and the agent say.
    pub fn logs(&self) -> HashMap<PathBuf, String> {
        let all = std::fs::read_dir(self.dir.path()).unwrap().filter_map(Result::ok).map(|entry| entry.path());
        let logs = all.filter(|path| path.extension().is_some_and(|e| e == "log"));
        logs.map(|path| (path.clone(), std::fs::read_to_string(&path).unwrap_or_default())).collect()
    }
}

/// One that was stopped has nothing left. That of a test that panicked or was cut off at its deadline must not burden the
/// tests that go on, so that it is ended without a word.
impl Drop for Deployment {
    fn drop(&mut self) {
        let masters = self.masters.iter().map(|master| &master.process);
        let ours = masters.chain(&self.agent).chain(&self.more_agents).filter(|process| process.exit().is_none());
        let pids: Vec<i32> = ours.map(|process| process.pid).collect();
        let (world, host) = (self.world, self.path("host"));
        if !self.stopped {
            let _nobody_reads = write!(std::io::stderr(), "a test left its deployment:\n{}", self.last_words());
        }
        RUNTIME.spawn(async move {
            for pid in pids {
                let _ended = world.reaper.signal(pid, Signal::KILL).await;
            }
            // Nobody starts them again. Without a reaper the run is over, and it has ended all.
            for pid in lnds_below(world, &host).await.unwrap_or_default() {
                let _ended = world.reaper.signal(pid, Signal::KILL).await;
            }
        });
    }
}

/// The lnds whose folders are below `host`, or below one whose name begins so.
async fn lnds_below(world: &World, host: &Path) -> std::io::Result<Vec<i32>> {
    let host = host.display().to_string();
    let is_ours = |pid: i32| {
        let arguments = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        // Whatever its program is called: one of a release has another name.
        arguments.split('\0').skip(1).any(|argument| argument.starts_with("--lnddir=") && argument.contains(&host))
    };
    let all = world.reaper.descendants().await?;
    let mut pids: Vec<i32> = all.into_iter().map(|process| process.pid).filter(|pid| is_ours(*pid)).collect();
    pids.sort_unstable();
    Ok(pids)
}

/// How the lnds reach the chain, for the masters' configuration.
fn backend(chain: &ChainAccess, neutrino: bool) -> String {
    let ChainAccess { rpc, p2p, user, password_file, certificate, .. } = chain;
    if neutrino {
        return format!("backend = \"neutrino\"\npeers = [\"{p2p}\"]");
    }
    let (password, cert) = (password_file.display(), certificate.display());
    format!(
        "rpc_host = \"{rpc}\"\nrpc_user = \"{user}\"\nrpc_password_file = \"{password}\"\nrpc_cert_file = \"{cert}\""
    )
}

fn private(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}
