//! The programs of releases on this host. A master says which release; that it is one to be believed, and that what was loaded
//! is what it names, the host finds out by itself, with keys that it was given when it was set up. Nothing becomes executable
//! before.
//!
//! What is installed stays: an lnd that is to go back to it must find it. A release with a lower serial than one that was
//! installed is refused, whoever sends it.

mod installed;
mod unpack;

use super::files::{self, DataDir};
use super::version;
use crate::fault;
use crate::model::Network;
use crate::model::provision::Arch;
use crate::model::release::{Artifact, ProgramRelease, Release, Sha256, Version};
use crate::release::download::{Bounds, DownloadError, download};
use crate::release::{Manifest, ManifestError, TrustedKeys};
use installed::Installed;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Whose releases a host believes. From its own configuration, never from a master.
#[derive(Debug, Clone)]
pub struct Believed {
    /// Whose.
    pub trusted: TrustedKeys,
    /// The deployment that they must be for.
    pub deployment: String,
    /// The lowest serial that is taken.
    pub lowest: u64,
}

/// Why a release was not installed. Nothing of it can be run, then.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The host was not told whose releases to believe.
    #[error("this host believes no releases: agent.release_keys is not set")]
    NoKeys,
    /// It is not believed.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// It is for others.
    #[error("it is for the deployment {0:?}")]
    OtherDeployment(String),
    /// A newer one was installed, or this one is too old for this host.
    #[error("its serial is {serial}, and this host takes none below {lowest}")]
    Older {
        /// Its serial.
        serial: u64,
        /// The lowest that is taken.
        lowest: u64,
    },
    /// It has no lnd for this machine.
    #[error("it has no lnd for this machine, which is {0}")]
    NotForThisMachine(&'static str),
    /// It could not be loaded, or is something else.
    #[error("its lnd: {0}")]
    Download(#[from] DownloadError),
    /// What was loaded has no lnd in it.
    #[error("its lnd: {0}")]
    Archive(#[from] unpack::ArchiveError),
    /// What was loaded says of itself that it is something else.
    #[error("its lnd says that it is {found}, and the release says {named}")]
    OtherVersion {
        /// What it is.
        found: String,
        /// What it should be.
        named: String,
    },
    /// The disk, or a program that cannot be run.
    #[error("{what}: {source}")]
    Io {
        /// At what.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
}

impl InstallError {
    /// Whether it may go better the next time.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Download(error) => !matches!(error, DownloadError::Digest { .. } | DownloadError::TooLarge(_)),
            Self::Io { .. } => true,
            _ => false,
        }
    }
}

fn io_error(what: &'static str) -> impl Fn(io::Error) -> InstallError {
    move |source| InstallError::Io { what, source }
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// The release.
    pub serial: u64,
    /// By what its lnd is named in a node's specification: the digest of the artifact for this machine. None: the release
    /// says nothing of lnd.
    pub lnd: Option<Sha256>,
}

/// The releases of a host.
#[derive(Debug)]
pub struct Releases {
    data: DataDir,
    believed: Option<Believed>,
    /// One at a time.
    turn: tokio::sync::Mutex<()>,
}

impl Releases {
    /// Those in this folder.
    #[must_use]
    pub fn new(data: DataDir, believed: Option<Believed>) -> Self {
        Self { data, believed, turn: tokio::sync::Mutex::default() }
    }

    /// The program of an installed lnd that is for this network.
    ///
    /// # Errors
    /// Why there is none, for the master.
    pub fn lnd(&self, digest: &Sha256, network: Network) -> Result<PathBuf, String> {
        match Installed::load(&self.data.releases(), digest) {
            Ok(Some(installed)) if installed.network == network => {
                Ok(installed::program(&self.data.releases(), digest))
            }
            Ok(Some(installed)) => Err(format!("the lnd {digest} is of a release for {}", installed.network)),
            Ok(None) => Err(format!("no lnd {digest} is installed here")),
            Err(error) => Err(format!("what is known of the lnd {digest} cannot be read: {error}")),
        }
    }

    /// Installs what a release names for this machine. May be repeated, and may be cut off anywhere: what is named as installed
    /// is whole, and what is not is loaded again. Whoever stops waiting does not stop it.
    ///
    /// # Errors
    /// See [`InstallError`].
    pub async fn install(self: &Arc<Self>, manifest: Vec<u8>, signature: String) -> Result<Done, InstallError> {
        let own = Arc::clone(self);
        let working = tokio::spawn(async move { own.install_now(&manifest, &signature).await });
        working.await.map_err(|error| io_error("it was given up")(io::Error::other(error)))?
    }

    async fn install_now(&self, manifest: &[u8], signature: &str) -> Result<Done, InstallError> {
        let _turn = self.turn.lock().await;
        let believed = self.believed.as_ref().ok_or(InstallError::NoKeys)?;
        let manifest = Manifest::verify(manifest, signature, &believed.trusted)?;
        let (release, folder) = (&manifest.release, self.data.releases());
        if release.deployment != believed.deployment {
            return Err(InstallError::OtherDeployment(release.deployment.clone()));
        }
        let lowest = believed.lowest.max(installed::highest(&folder).map_err(io_error("the highest serial"))?);
        if release.serial < lowest {
            return Err(InstallError::Older { serial: release.serial, lowest });
        }
        let lnd = match &release.lnd {
            Some(lnd) => Some(self.install_lnd(release, lnd).await?),
            None => None,
        };
        installed::set_highest(&folder, release.serial).map_err(io_error("the highest serial"))?;
        Ok(Done { serial: release.serial, lnd })
    }

    async fn install_lnd(&self, release: &Release, lnd: &ProgramRelease) -> Result<Sha256, InstallError> {
        let (machine, folder) = (std::env::consts::ARCH, self.data.releases());
        let arch = Arch::ALL.into_iter().find(|arch| arch.machine() == machine);
        let artifact = arch.and_then(|arch| lnd.artifacts.get(&arch));
        let artifact = artifact.ok_or(InstallError::NotForThisMachine(machine))?;
        let known = Installed::load(&folder, &artifact.sha256).map_err(io_error("what is installed"))?;
        if known.is_some_and(|known| known.network == release.network && known.version == lnd.version) {
            return Ok(artifact.sha256.clone());
        }
        tracing::info!(serial = release.serial, version = %lnd.version, "an lnd is loaded");
        let program = load(&folder, artifact).await?;
        let found = version::of(&program).await.map_err(io_error("its lnd cannot be run"))?;
        if !is_as_named(&found, lnd) {
            fs::remove_file(&program).map_err(io_error("its lnd"))?;
            let named = lnd.commit.as_ref().map_or_else(String::new, |commit| format!(" commit={commit}"));
            return Err(InstallError::OtherVersion { found, named: format!("{}{named}", lnd.version) });
        }
        fault::point("lndserver.install.loaded").await;
        let installed = Installed { version: lnd.version.clone(), network: release.network };
        installed.keep(&folder, &artifact.sha256, &program).map_err(io_error("its lnd cannot be kept"))?;
        fault::point("lndserver.install.kept").await;
        tracing::info!(serial = release.serial, version = %lnd.version, "an lnd is installed");
        Ok(artifact.sha256.clone())
    }
}

/// The commit counts only where the release names one.
fn is_as_named(found: &str, named: &ProgramRelease) -> bool {
    Version::of_lnd(found).is_some_and(|(version, commit)| {
        version == named.version && named.commit.as_ref().is_none_or(|named| commit.as_ref() == Some(named))
    })
}

/// The program, loaded, verified and on the disk, but not yet where anybody would run it.
async fn load(folder: &Path, artifact: &Artifact) -> Result<PathBuf, InstallError> {
    let (loaded, program) = (folder.join("loaded"), folder.join("unpacked"));
    let file = files::private_file(&loaded).map_err(io_error("it cannot be written"))?;
    let mut file = tokio::fs::File::from_std(file);
    // Without certificates of authorities on the machine there is no client.
    let client = reqwest::Client::builder().build().map_err(DownloadError::Http)?;
    download(&client, artifact, Bounds::PROGRAM, &mut file).await?;
    drop(file);
    // From here on it is what the release names.
    let (is_archive, to) = (artifact.url.is_archive(), program.clone());
    let unpacking = tokio::task::spawn_blocking(move || make_program(&loaded, is_archive, &to));
    unpacking.await.map_err(|error| io_error("it cannot be unpacked")(io::Error::other(error)))??;
    Ok(program)
}

fn make_program(loaded: &Path, is_archive: bool, program: &Path) -> Result<(), InstallError> {
    let cannot = io_error("it cannot be unpacked");
    if is_archive {
        let to = files::private_file(program).map_err(&cannot)?;
        unpack::unpack(File::open(loaded).map_err(&cannot)?, "lnd", to)?;
        fs::remove_file(loaded).map_err(&cannot)?;
    } else {
        fs::rename(loaded, program).map_err(&cannot)?;
    }
    installed::make_executable(program).map_err(&cannot)
}
