//! Files and folders of the local system.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
};

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
}
