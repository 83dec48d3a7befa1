//! Files and folders that only their owner may read, replaced whole; and locks.

use rustix::fs::{FlockOperation, flock};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// Makes a folder, and those above it, that only its owner may enter. One that exists stays as it is.
///
/// # Errors
/// It cannot be made.
pub fn private_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Replaces a file by one that only its owner may read, whatever the old one was open to. After a crash it is the old or
/// the new one, whole, and whoever reads meanwhile finds one of the two.
///
/// # Errors
/// It cannot be written; the old one is still there then.
pub fn write_private(path: &Path, contents: &[u8]) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    // What an earlier process left half done must not lend its permissions.
    let mut file = private_file(beside.as_ref())?;
    file.write_all(contents)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => sync_dir(folder),
        _ => sync_dir(Path::new(".")),
    }
}

/// An empty file that only its owner may read, whatever was there before.
///
/// # Errors
/// It cannot be made.
pub fn private_file(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// Makes what happened to the names in a folder durable.
///
/// # Errors
/// The folder cannot be opened, or its disk fails.
pub fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Opens `path`, made if need be, and takes its lock, unless somebody holds it. It is held as long as any copy of the file
/// is open, in whatever process.
///
/// # Errors
/// The file cannot be opened or locked.
pub fn try_lock(path: &Path) -> io::Result<Option<File>> {
    let file = lock_file(path)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// As [`try_lock`], but waits for the lock, and holds up its thread meanwhile.
///
/// # Errors
/// The file cannot be opened or locked.
pub fn lock(path: &Path) -> io::Result<File> {
    let file = lock_file(path)?;
    flock(&file, FlockOperation::LockExclusive)?;
    Ok(file)
}

fn lock_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_lock_is_held_until_the_last_copy_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let first = try_lock(&path).unwrap().expect("free");
        let copy = first.try_clone().unwrap();
        drop(first);
        assert!(try_lock(&path).unwrap().is_none(), "the copy holds it");
        drop(copy);
        assert!(try_lock(&path).unwrap().is_some());
    }

    #[test]
    fn a_private_file_is_replaced_whole_and_only_its_owners() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let stray = dir.path().join("file.new");
        for open in [&path, &stray] {
            fs::write(open, "old").unwrap();
            fs::set_permissions(open, fs::Permissions::from_mode(0o644)).unwrap();
        }
        write_private(&path, b"new").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        // Where it cannot be replaced the old one stays.
        fs::create_dir(&stray).unwrap();
        write_private(&path, b"newer").unwrap_err();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
    }
}
