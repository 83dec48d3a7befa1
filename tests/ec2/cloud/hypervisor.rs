//! Plays the machines: each instance that comes up in the account is booted, by doing what its user data says, with the real
//! lndserver bound to the instance's address. Whoever is terminated is killed, lnds and all.
//!
//! It does what cloud-init does with the files, and what systemd does with the agent's unit: its credentials, its environment,
//! its command. It does not do what needs a machine (`runcmd`: mounts, users, packages, firewall); `tests/host_boot` has that.

use super::moto::{Account, data_volume, is_terminated};
use crate::harness::eventually;
use crate::harness::world::{World, program};
use aws_sdk_ec2::types::Instance;
use scale_lnd::compute::user_data::{UNIT, unpacked};
use scale_lnd::dev::reaper::{Signal, Spawn, Spawned};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use tokio::task::JoinHandle;

const AGENT_PORT: u16 = 8082;

#[derive(Debug)]
struct Machines {
    world: &'static World,
    account: Account,
    dir: TempDir,
    /// So many of the next instances stay dark.
    dead: Mutex<usize>,
    /// Nothing boots yet.
    waits: AtomicBool,
    booted: tokio::sync::Mutex<HashMap<String, Option<Spawned>>>,
}

/// The hypervisor of one account.
#[derive(Debug)]
pub struct Hypervisor {
    machines: Arc<Machines>,
    watching: JoinHandle<()>,
}

impl Hypervisor {
    pub fn start(world: &'static World, account: &Account) -> Self {
        let dir = tempfile::Builder::new().prefix("instances-").tempdir_in(world.dir.path()).unwrap();
        let machines = Machines {
            world,
            account: account.clone(),
            dir,
            dead: Mutex::default(),
            waits: AtomicBool::default(),
            booted: tokio::sync::Mutex::default(),
        };
        let machines = Arc::new(machines);
        let watched = Arc::clone(&machines);
        let watching = tokio::spawn(async move {
            loop {
                watched.look().await;
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        });
        Self { machines, watching }
    }

    /// The next instance never comes up.
    pub fn next_stays_dark(&self) {
        *self.machines.dead.lock().unwrap() += 1;
    }

    /// Whether new instances wait before they boot.
    pub fn wait(&self, waits: bool) {
        self.machines.waits.store(waits, Ordering::SeqCst);
    }

    /// A path on an instance's disks.
    pub fn path(&self, id: &str, path: &str) -> PathBuf {
        self.machines.inside(id, path)
    }

    /// Waits until this instance was looked at: it is booted, or stays dark.
    pub async fn have_seen(&self, id: &str) {
        eventually("the hypervisor sees the instance", Duration::from_secs(60), || async {
            self.machines.booted.lock().await.contains_key(id).then_some(())
        })
        .await;
    }

    /// Stops an instance and starts it again at another address.
    pub async fn restart_at(&self, id: &str, address: &str) {
        self.machines.power_off(id).await;
        let agent = self.machines.spawn_agent(id, address).await;
        self.machines.booted.lock().await.insert(id.to_owned(), Some(agent));
    }

    /// Ends all machines.
    pub async fn stop(self) {
        self.watching.abort();
        let _aborted = self.watching.await;
        let ids: Vec<String> = self.machines.booted.lock().await.keys().cloned().collect();
        for id in ids {
            self.machines.power_off(&id).await;
        }
    }
}

impl Machines {
    async fn look(&self) {
        for instance in self.account.instances().await {
            let id = instance.instance_id().unwrap().to_owned();
            let known = self.booted.lock().await.contains_key(&id);
            match (is_terminated(&instance), known) {
                (true, true) => {
                    self.power_off(&id).await;
                    self.booted.lock().await.remove(&id);
                }
                // Like boot.sh, which waits for the disk.
                (false, false) if data_volume(&instance).is_some() && !self.waits.load(Ordering::SeqCst) => {
                    let agent = self.boot(&id, &instance).await;
                    self.booted.lock().await.insert(id, agent);
                }
                _ => {}
            }
        }
    }

    /// What cloud-init does of it: writes the files, and asks systemd for the agent.
    async fn boot(&self, id: &str, instance: &Instance) -> Option<Spawned> {
        {
            let mut dead = self.dead.lock().unwrap();
            if *dead > 0 {
                *dead -= 1;
                return None;
            }
        }
        let user_data = self.account.user_data(id).await;
        let cloud_config: Value = serde_json::from_str(user_data.strip_prefix("#cloud-config\n").unwrap()).unwrap();
        for file in cloud_config["write_files"].as_array().unwrap() {
            let path = self.inside(id, file["path"].as_str().unwrap());
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, unpacked(file).unwrap()).unwrap();
            let mode = u32::from_str_radix(file["permissions"].as_str().unwrap(), 8).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        }
        if self.inside(id, UNIT).exists() {
            let asks = cloud_config["runcmd"].as_array().unwrap().last().unwrap();
            assert_eq!(*asks, json!(["systemctl", "enable", "--now", "--no-block", "scale-lnd.service"]));
        }
        self.mount(id, &data_volume(instance).unwrap());
        Some(self.spawn_agent(id, instance.private_ip_address().unwrap()).await)
    }

    /// The instance's file system.
    fn inside(&self, id: &str, path: &str) -> PathBuf {
        self.dir.path().join(id).join(path.trim_start_matches('/'))
    }

    /// The data volume, where the agent expects it. It is a folder of its own: what becomes of the instance does not matter
    /// to it.
    fn mount(&self, id: &str, volume: &str) {
        let (disk, mounted) = (self.dir.path().join(volume), self.inside(id, "/var/lib/scale-lnd"));
        std::fs::create_dir_all(&disk).unwrap();
        std::fs::create_dir_all(mounted.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(&disk, &mounted).unwrap();
    }

    /// What systemd does for the agent's unit. What boot.sh finds out about the machine is known here.
    async fn spawn_agent(&self, id: &str, address: &str) -> Spawned {
        // Where the user data has none, the image has the same.
        let unit = std::fs::read_to_string(self.inside(id, UNIT))
            .unwrap_or_else(|_| include_str!("../../../deploy/host/scale-lnd.service").to_owned());
        let all = |key: &str| unit.lines().filter_map(|l| l.strip_prefix(key)?.strip_prefix('=')).collect::<Vec<_>>();
        let credentials = self.inside(id, "/run/credentials/scale-lnd.service");
        std::fs::create_dir_all(&credentials).unwrap();
        for credential in all("LoadCredential") {
            let (name, path) = credential.split_once(':').unwrap();
            std::fs::copy(self.inside(id, path), credentials.join(name)).unwrap();
        }
        let [command] = *all("ExecStart") else { panic!("one command: {unit}") };
        let command = command.replace("%d", credentials.to_str().unwrap());
        let arguments = command.strip_prefix("/usr/local/bin/scale-lnd ").unwrap().split(' ');
        let spawn = arguments.fold(Spawn::new("lndserver", program()), |spawn, argument| spawn.arg(argument));
        let spawn =
            all("Environment").into_iter().fold(spawn, |spawn, variable| match variable.split_once('=').unwrap() {
                // No systemd is asked here: its lnds are its children (`tests/host_boot` has a machine with one).
                (_, "systemd") => spawn,
                (name, path) => spawn.env(name, self.inside(id, path).to_str().unwrap()),
            });
        assert_eq!(all("EnvironmentFile"), ["/run/scale-lnd/agent.env"]);
        let spawn = spawn.env("SCALE_LND_AGENT_LISTEN", format!("{address}:{AGENT_PORT}"));
        // The program that boot.sh would have loaded.
        let lnd = self.inside(id, "/usr/local/bin/lnd");
        std::fs::create_dir_all(lnd.parent().unwrap()).unwrap();
        if !lnd.exists() {
            std::os::unix::fs::symlink(&self.world.binaries.lnd, &lnd).unwrap();
        }
        self.world.reaper.spawn(spawn.log(self.dir.path().join(id).join("agent.log"))).await.unwrap()
    }

    /// Like pulling the plug: agent and lnds at once.
    async fn power_off(&self, id: &str) {
        let agent = self.booted.lock().await.get_mut(id).and_then(Option::take);
        if let Some(mut agent) = agent {
            let _ended = self.world.reaper.signal(agent.pid, Signal::KILL).await;
            agent.exited().await;
        }
        eventually("the instance's lnds are dead", Duration::from_secs(20), || async {
            let lnds = self.lnds(id).await;
            for pid in &lnds {
                let _ended = self.world.reaper.signal(*pid, Signal::KILL).await;
            }
            lnds.is_empty().then_some(())
        })
        .await;
    }

    async fn lnds(&self, id: &str) -> Vec<i32> {
        let folder = self.dir.path().join(id).display().to_string();
        let all = self.world.reaper.descendants().await.unwrap().into_iter().map(|process| process.pid);
        all.filter(|pid| is_lnd_in(*pid, &folder)).collect()
    }
}

fn is_lnd_in(pid: i32, folder: &str) -> bool {
    let arguments = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("cmdline"));
    let arguments = arguments.unwrap_or_default();
    let mut arguments = arguments.split('\0');
    arguments.next().is_some_and(|program| program.ends_with("/lnd")) && arguments.any(|a| a.contains(folder))
}
