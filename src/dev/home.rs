//! The data folder of a local system: one owner at a time, and what is kept in it between runs.

use std::{
    env, fs,
    fs::File,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{
    error::DevError,
    files::{private_dir, write_private},
    ports::{PortClaim, SlotPorts, claim_port},
    reaper,
};
use crate::files::try_lock;

/// The lock, by which a folder is also known to be one of ours.
const LOCK: &str = "scale-lnd-dev.lock";
/// What the reaper keeps across `--fresh`: it ends what an earlier run left.
const PROCESSES: &str = "processes";
/// How long an lnd of an earlier run may take to end. Its btcd is gone, and without one an lnd needs half a minute for
/// nothing (seen); what it has written survives a kill.
const STRAY_GRACE: Duration = Duration::from_secs(3);
/// The API's port where that is free and nobody asked for another.
const USUAL_PORT: u16 = 8080;

/// A data folder, locked as long as this lives.
#[derive(Debug)]
pub struct Home {
    dir: PathBuf,
    _lock: File,
}

/// The ports that stay the same between runs as long as they are free.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SavedPorts {
    pub http: Option<u16>,
    pub agents: Option<u16>,
    pub agent: Option<u16>,
    pub slots: Option<u16>,
}

/// The ports of this run.
#[derive(Debug)]
pub struct Ports {
    /// The REST API.
    pub http: PortClaim,
    /// Where the master listens for agents.
    pub agents: PortClaim,
    /// Where the agent listens for orders.
    pub agent: PortClaim,
    /// The agent's lnds.
    pub slots: SlotPorts,
}

impl Home {
    /// `$XDG_DATA_HOME/scale-lnd/dev`, or else below `~/.local/share`.
    pub fn usual_dir() -> Result<PathBuf, DevError> {
        let data = env::var_os("XDG_DATA_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
        let data = data.or_else(|| Some(Path::new(&env::var_os("HOME")?).join(".local/share")));
        let data = data.ok_or_else(|| DevError::Unusable("HOME is not set: say --data-dir".to_owned()))?;
        Ok(data.join("scale-lnd/dev"))
    }

    /// Opens and locks the folder, made if need be. One that holds something else is refused, and so is one that another
    /// `dev` works in.
    pub fn open(dir: &Path) -> Result<Self, DevError> {
        let dir = std::path::absolute(dir).map_err(DevError::file("find", dir))?;
        if dir.to_str().is_none_or(|text| text.chars().any(char::is_control)) {
            return Err(DevError::Unusable("the data folder's path must be plain UTF-8".to_owned()));
        }
        private_dir(&dir)?;
        let path = dir.join(LOCK);
        let is_empty = fs::read_dir(&dir).map_err(DevError::file("read", &dir))?.next().is_none();
        if !is_empty && !path.exists() {
            let message = format!("{} holds something else: it is no data folder of `scale-lnd dev`", dir.display());
            return Err(DevError::Unusable(message));
        }
        match try_lock(&path).map_err(DevError::file("lock", &path))? {
            Some(lock) => Ok(Self { dir, _lock: lock }),
            None => Err(DevError::Unusable(format!("another `scale-lnd dev` runs in {}", dir.display()))),
        }
    }

    /// The file of the reaper's record. As long as a reaper holds it, processes of a run may be left.
    pub fn record(&self) -> PathBuf {
        self.dir.join(PROCESSES)
    }

    /// Ends lnds of an earlier run whose agent and reaper were both killed, so that nothing else could. The agent would
    /// adopt them, but they would outlive this run.
    pub async fn end_strays(&self) -> Result<(), DevError> {
        let ours = format!("{}/", self.dir("agent").display());
        let is_ours = |argument: &str| argument.split_once('=').is_some_and(|(_, value)| value.starts_with(&ours));
        let strays = reaper::processes_with_argument(is_ours);
        if reaper::end_processes(&strays, STRAY_GRACE).await {
            return Ok(());
        }
        Err(DevError::Unusable("an lnd of an earlier run does not end".to_owned()))
    }

    /// Throws everything away. Nothing of an earlier run may run any more.
    pub fn clear(&self) -> Result<(), DevError> {
        let remove = || -> io::Result<()> {
            for entry in fs::read_dir(&self.dir)? {
                let entry = entry?;
                if [LOCK, PROCESSES].iter().any(|kept| entry.file_name() == *kept) {
                    continue;
                }
                if entry.file_type()?.is_dir() {
                    fs::remove_dir_all(entry.path())?;
                } else {
                    fs::remove_file(entry.path())?;
                }
            }
            Ok(())
        };
        remove().map_err(DevError::file("empty", &self.dir))
    }

    /// A path in the folder.
    pub fn dir(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// Chooses the ports of this run. `http` is what was asked for: that one or none; 0: any.
    pub fn choose_ports(&self, http: Option<u16>) -> Result<Ports, DevError> {
        let path = self.dir("ports.json");
        let saved: SavedPorts =
            fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        let slots = SlotPorts::claim(saved.slots)?;
        let wanted = match http {
            Some(0) => saved.http.filter(|port| *port != USUAL_PORT),
            Some(port) => Some(port),
            None => saved.http.or(Some(USUAL_PORT)),
        };
        let http_claim = claim_port(wanted)?;
        if http.is_some_and(|asked| asked != 0 && asked != http_claim.port) {
            return Err(DevError::Unusable(format!("port {} is in use", http.unwrap_or_default())));
        }
        let ports =
            Ports { http: http_claim, agents: claim_port(saved.agents)?, agent: claim_port(saved.agent)?, slots };
        let now = SavedPorts {
            http: Some(ports.http.port),
            agents: Some(ports.agents.port),
            agent: Some(ports.agent.port),
            slots: Some(ports.slots.base),
        };
        let text = serde_json::to_vec(&now).map_err(|error| DevError::file("write", &path)(error.into()))?;
        write_private(&path, &text)?;
        Ok(ports)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_owner_and_nothing_strange_is_ever_emptied() {
        let dir = tempfile::tempdir().unwrap();
        let ours = dir.path().join("ours");
        let home = Home::open(&ours).unwrap();
        assert!(Home::open(&ours).is_err());
        fs::create_dir_all(ours.join("btcd/data")).unwrap();
        home.clear().unwrap();
        assert!(!ours.join("btcd").exists());
        drop(home);
        Home::open(&ours).unwrap();

        fs::write(dir.path().join("letter"), "dear").unwrap();
        assert!(Home::open(dir.path()).is_err());
    }

    #[test]
    fn ports_stay_the_same_and_an_asked_one_is_that_one_or_none() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::open(&dir.path().join("home")).unwrap();
        let first = home.choose_ports(Some(0)).unwrap();
        let ports = (first.http.port, first.agents.port, first.agent.port, first.slots.base);
        drop(first);
        let again = home.choose_ports(Some(0)).unwrap();
        assert_eq!((again.http.port, again.agents.port, again.agent.port, again.slots.base), ports);
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(home.choose_ports(Some(taken.local_addr().unwrap().port())).is_err());
    }
}
