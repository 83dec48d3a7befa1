//! Files and folders that only their owner may read, replaced whole.

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
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    file.write_all(contents)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => sync_dir(folder),
        _ => sync_dir(Path::new(".")),
    }
}

/// Makes what happened to the names in a folder durable.
///
/// # Errors
/// The folder cannot be opened, or its disk fails.
pub fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

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
