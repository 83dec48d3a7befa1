//! Plays the machines: each instance that comes up in the account is booted, by doing what its user data says, with the real
//! lndserver bound to the instance's address. Whoever is terminated is killed, lnds and all.

use super::moto::{Account, is_terminated};
use crate::harness::eventually;
use crate::harness::world::{World, program};
use aws_sdk_ec2::types::Instance;
use scale_lnd::compute::user_data::CONFIG;
use scale_lnd::dev::reaper::{Signal, Spawn, Spawned};
use serde_json::Value;
use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
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
                (false, false) => {
                    let agent = self.boot(&id, &instance).await;
                    self.booted.lock().await.insert(id, agent);
                }
                _ => {}
            }
        }
    }

    /// What cloud-init does of it: writes the files. What the image does: starts the agent.
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
            std::fs::write(&path, file["content"].as_str().unwrap()).unwrap();
            let mode = u32::from_str_radix(file["permissions"].as_str().unwrap(), 8).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        }
        Some(self.spawn_agent(id, instance.private_ip_address().unwrap()).await)
    }

    /// The instance's file system.
    fn inside(&self, id: &str, path: &str) -> PathBuf {
        self.dir.path().join(id).join(path.trim_start_matches('/'))
    }

    async fn spawn_agent(&self, id: &str, address: &str) -> Spawned {
        let data = self.inside(id, "/var/lib/scale-lnd");
        std::fs::create_dir_all(data.parent().unwrap()).unwrap();
        let spawn = Spawn::new("lndserver", program())
            .arg("lndserver")
            .arg("--config")
            .arg(self.inside(id, CONFIG).to_str().unwrap())
            .env("SCALE_LND_AGENT_DATA_DIR", data.to_str().unwrap())
            .env("SCALE_LND_AGENT_LISTEN", format!("{address}:{AGENT_PORT}"))
            .env("SCALE_LND_AGENT_LND", self.world.binaries.lnd.to_str().unwrap())
            .log(self.dir.path().join(id).join("agent.log"));
        self.world.reaper.spawn(spawn).await.unwrap()
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
