//! The agent's files: where what lies, written so that a crash leaves the old or the new one, and the lock that makes
//! one folder one lnd.

use super::shared_files::LndFile;
pub use crate::files::{private_dir, private_file, sync_dir, try_lock, write_private};
use crate::model::{Network, NodeId};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// The agent's folder.
#[derive(Debug, Clone)]
pub struct DataDir(PathBuf);

impl DataDir {
    /// Makes the folder and what must be in it.
    pub fn open(path: &Path) -> io::Result<Self> {
        let path = std::path::absolute(path)?;
        for sub in ["agent", "agent/outbox", "nodes", "releases", "removed", "slots"] {
            private_dir(&path.join(sub))?;
        }
        Ok(Self(path))
    }

    /// The agent's own file `name`.
    #[must_use]
    pub fn own(&self, name: &str) -> PathBuf {
        self.0.join("agent").join(name)
    }

    /// The folder itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The folder of a node, whether or not it is there.
    #[must_use]
    pub fn node(&self, node: &NodeId) -> NodeDir {
        NodeDir { path: self.0.join("nodes").join(node.as_str()) }
    }

    /// Where folders of removed nodes are kept.
    #[must_use]
    pub fn removed(&self) -> PathBuf {
        self.0.join("removed")
    }

    /// Where programs of releases are.
    #[must_use]
    pub fn releases(&self) -> PathBuf {
        self.0.join("releases")
    }

    /// Which node's folder a slot's unit works in: a symbolic link.
    #[must_use]
    pub fn slot(&self, slot: u16) -> PathBuf {
        self.0.join("slots").join(slot.to_string())
    }

    /// Every node that has a folder.
    pub fn nodes(&self) -> io::Result<Vec<NodeId>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(self.0.join("nodes"))? {
            found.extend(entry?.file_name().to_str().and_then(NodeId::parse));
        }
        found.sort();
        Ok(found)
    }
}

/// A node's folder.
#[derive(Debug, Clone)]
pub struct NodeDir {
    path: PathBuf,
}

impl NodeDir {
    /// One that is somewhere else for whoever is told of it.
    #[must_use]
    pub fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// Makes it.
    pub fn create(&self) -> io::Result<()> {
        private_dir(&self.path)
    }

    /// The folder itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the agent keeps of the node across everything (`record.rs`).
    #[must_use]
    pub fn record(&self) -> PathBuf {
        self.path.join("record.json")
    }

    /// The file whose lock an lnd holds as long as it lives.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.path.join("lock")
    }

    /// The file `name` of the node's instance: all that moves away when the node is removed.
    #[must_use]
    pub fn instance(&self, name: &str) -> PathBuf {
        self.path.join("instance").join(name)
    }

    /// lnd's own folder.
    #[must_use]
    pub fn lnd(&self) -> PathBuf {
        self.instance("lnd")
    }

    /// What lnd writes: the file `below` the instance.
    #[must_use]
    pub fn written(&self, below: impl Into<PathBuf>) -> LndFile {
        LndFile::new(self.instance(""), below)
    }

    /// lnd's backup of its channels.
    #[must_use]
    pub fn backup(&self, network: Network) -> LndFile {
        self.written(Self::chain(network).join("channel.backup"))
    }

    /// lnd's log.
    #[must_use]
    pub fn log(&self, network: Network) -> LndFile {
        self.written(Self::logs(network).join("lnd.log"))
    }

    /// Where lnd keeps its wallet and its backup, in the instance.
    #[must_use]
    pub fn chain(network: Network) -> PathBuf {
        Path::new("lnd/data/chain/bitcoin").join(network.as_str())
    }

    /// Where lnd's log is, in the instance.
    #[must_use]
    pub fn logs(network: Network) -> PathBuf {
        Path::new("lnd/logs/bitcoin").join(network.as_str())
    }

    /// Takes the lock, unless somebody holds it. It is held as long as any copy of the file is open, in whatever process.
    pub fn try_lock(&self) -> io::Result<Option<File>> {
        self.create()?;
        try_lock(&self.lock())
    }
}

/// Reads a file that may not be there.
pub fn read_optional(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn files_are_private() {
        let dir = tempfile::tempdir().expect("a folder");
        let data = DataDir::open(dir.path()).expect("opens");
        write_private(&data.own("x"), b"1").expect("writes");
        write_private(&data.own("x"), b"2").expect("replaces");
        assert_eq!(read_optional(&data.own("x")).expect("io").as_deref(), Some(b"2".as_slice()));
        let mode = |path: &Path| fs::metadata(path).expect("is there").permissions().mode() & 0o777;
        assert_eq!(mode(&data.own("x")), 0o600);
        assert_eq!(mode(&data.own("")), 0o700);
    }
}
