//! Files, folders and ports of the local system.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, Read, Seek, SeekFrom, Write},
    net::{Ipv4Addr, TcpListener},
    ops::Range,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
};

use rand::RngExt;

use super::error::DevError;

/// Makes a folder, and those above it, that only its owner may enter. One that exists stays as it is.
pub fn private_dir(path: &Path) -> Result<(), DevError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(DevError::file("make the folder", path))
}

/// Writes a file that only its owner may read, whole or not at all.
pub fn write_private(path: &Path, contents: &[u8]) -> Result<(), DevError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let beside = path.with_file_name(name);
    let write = || -> io::Result<()> {
        // A stray file of an earlier process with this pid must not lend its permissions.
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&beside)?;
        file.write_all(contents)?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
    };
    write().map_err(DevError::file("write", path))
}

/// The last lines of a log, for an error message; empty if there is none.
pub fn log_end(path: &Path) -> String {
    const BYTES: u64 = 2_000;
    let read = || -> io::Result<String> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(BYTES)))?;
        let mut bytes = Vec::new();
        file.take(BYTES).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    read().unwrap_or_default()
}

/// Ports for single listeners: below those that the system gives to outgoing connections, so that none of these takes
/// one before it is used, and apart from [`SLOT_PORTS`].
const SINGLE_PORTS: Range<u16> = 10_000..15_000;
/// Ports for the lnds of an agent, in blocks of [`SLOT_BLOCK`].
const SLOT_PORTS: Range<u16> = 15_000..32_000;
/// The ports of one agent's lnds, and one more that is held to claim them.
const SLOT_BLOCK: u16 = 640;

/// A port on loopback that nobody listens on: `wanted` if that is free, else any.
pub fn free_port(wanted: Option<u16>) -> Result<u16, DevError> {
    free_port_but(wanted, &[])
}

/// As [`free_port`], but none of those that were chosen before and are not used yet.
pub fn free_port_but(wanted: Option<u16>, chosen: &[u16]) -> Result<u16, DevError> {
    const TRIES: usize = 200;
    let mut rng = rand::rng();
    let random = std::iter::repeat_with(|| rng.random_range(SINGLE_PORTS)).take(TRIES);
    let found = wanted.into_iter().chain(random).find(|port| !chosen.contains(port) && listen(*port).is_some());
    found.ok_or_else(|| DevError::Unusable("no free port on 127.0.0.1".to_owned()))
}

/// A block of ports for the lnds of one agent, no other's on this machine as long as this lives.
#[derive(Debug)]
pub struct SlotPorts {
    /// The first of them.
    pub base: u16,
    _claim: TcpListener,
}

impl SlotPorts {
    /// The block that begins at `wanted`, where that is free, else any that nobody uses a port of.
    pub fn claim(wanted: Option<u16>) -> Result<Self, DevError> {
        let blocks = SLOT_PORTS.len() / usize::from(SLOT_BLOCK);
        let first = rand::rng().random_range(0..blocks);
        let nth = |n: usize| SLOT_PORTS.start + u16::try_from(n).unwrap_or(0) * SLOT_BLOCK;
        let others = (0..blocks).map(|n| nth((first + n) % blocks));
        // The claim is the last port of the block.
        let claim = |base: u16| Some(Self { base, _claim: listen(base + SLOT_BLOCK - 1)? });
        // lnds of an agent that was killed may still use the wanted block; a new agent adopts them.
        let wanted = wanted.filter(|base| SLOT_PORTS.contains(base)).and_then(claim);
        let all_free = |ports: &Self| (ports.base..ports.base + SLOT_BLOCK - 1).all(|port| listen(port).is_some());
        let found = wanted.or_else(|| others.filter_map(claim).find(all_free));
        found.ok_or_else(|| DevError::Unusable("no free block of ports on 127.0.0.1".to_owned()))
    }
}

fn listen(port: u16) -> Option<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_private_file_is_replaced_whole_and_only_its_owners() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ready.json");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        write_private(&path, b"new").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_port_in_use_is_not_given_out() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        assert_ne!(free_port(Some(port)).unwrap(), port);
        drop(taken);
        assert_eq!(free_port(Some(port)).unwrap(), port);
    }

    #[test]
    fn a_block_of_ports_has_one_owner() {
        let first = SlotPorts::claim(None).unwrap();
        let base = first.base;
        assert_ne!(SlotPorts::claim(Some(base)).unwrap().base, base);
        drop(first);
        assert_eq!(SlotPorts::claim(Some(base)).unwrap().base, base);
        assert_ne!(free_port_but(Some(base), &[base]).unwrap(), base);
    }
}
