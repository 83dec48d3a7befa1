//! What is installed: a program named by its artifact's digest, and beside it what it is. The program comes last, so that one
//! that is there is known.

use super::super::files;
use crate::model::Network;
use crate::model::release::{Sha256, Version};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// What is known of an installed lnd.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Installed {
    /// What it says of itself.
    pub version: Version,
    /// The network that its release is for.
    pub network: Network,
}

/// Where an lnd is, or would be.
pub(super) fn program(folder: &Path, digest: &Sha256) -> PathBuf {
    folder.join(format!("lnd-{digest}"))
}

fn description(folder: &Path, digest: &Sha256) -> PathBuf {
    folder.join(format!("lnd-{digest}.json"))
}

impl Installed {
    /// What is known of an lnd that is installed; none is, where there is no program.
    pub fn load(folder: &Path, digest: &Sha256) -> io::Result<Option<Self>> {
        if !program(folder, digest).try_exists()? {
            return Ok(None);
        }
        let bytes = fs::read(description(folder, digest))?;
        serde_json::from_slice(&bytes).map(Some).map_err(io::Error::from)
    }

    /// Makes the file `new` the program of this digest.
    pub fn keep(&self, folder: &Path, digest: &Sha256, new: &Path) -> io::Result<()> {
        files::write_private(&description(folder, digest), &serde_json::to_vec(self)?)?;
        fs::rename(new, program(folder, digest))?;
        files::sync_dir(folder)
    }
}

/// Lets a file that is whole be run, and nobody write it any more. Only the agent gets into its folder; an lnd that has a user of
/// its own is shown the file by its unit.
pub(super) fn make_executable(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()?;
    fs::set_permissions(path, Permissions::from_mode(0o555))
}

fn serial_file(folder: &Path) -> PathBuf {
    folder.join("highest")
}

/// The highest serial that was installed; 0: none was.
pub(super) fn highest(folder: &Path) -> io::Result<u64> {
    match files::read_optional(&serial_file(folder))? {
        Some(bytes) => {
            let text = String::from_utf8_lossy(&bytes);
            text.trim().parse().map_err(|_| io::Error::other("it is no number"))
        }
        None => Ok(0),
    }
}

/// From now on nothing older is taken.
pub(super) fn set_highest(folder: &Path, serial: u64) -> io::Result<()> {
    if highest(folder)? == serial {
        return Ok(());
    }
    files::write_private(&serial_file(folder), serial.to_string().as_bytes())
}
