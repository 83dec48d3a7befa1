//! Files and folders of the local system.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::Path,
};

use super::error::DevError;
use crate::files;

/// [`files::private_dir`], with the error of this module.
pub fn private_dir(path: &Path) -> Result<(), DevError> {
    files::private_dir(path).map_err(DevError::file("make the folder", path))
}

/// [`files::write_private`], with the error of this module.
pub fn write_private(path: &Path, contents: &[u8]) -> Result<(), DevError> {
    files::write_private(path, contents).map_err(DevError::file("write", path))
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
