//! Secrets of the configuration: where they come from; they are read when they are used.

use secrecy::SecretString;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Where a secret comes from. `Debug` shows the path of a file, never a value.
#[derive(Debug, Clone)]
pub enum SecretSource {
    /// The environment gave it.
    Value(SecretString),
    /// This file has it.
    File(PathBuf),
}

impl SecretSource {
    /// The secret as text, without white space around it.
    ///
    /// # Errors
    /// When the file cannot be read, is empty, or others than its owner and group may read it.
    pub fn text(&self) -> Result<SecretString, String> {
        match self {
            Self::Value(value) => Ok(value.clone()),
            Self::File(path) => read_secret(path),
        }
    }
}

/// Makes sure that a file with something secret in it is not everybody's.
///
/// # Errors
/// When it cannot be looked at, or others than its owner and group may read or write it.
pub fn must_not_be_everybodys(path: &Path) -> Result<(), String> {
    let shown = path.display();
    let mode = std::fs::metadata(path).map_err(|e| format!("cannot read {shown}: {e}"))?.mode();
    if mode & 0o007 != 0 {
        return Err(format!("{shown} may be read or written by everybody: chmod o-rwx"));
    }
    Ok(())
}

fn read_secret(path: &Path) -> Result<SecretString, String> {
    must_not_be_everybodys(path)?;
    let shown = path.display();
    let text = zeroize::Zeroizing::new(std::fs::read_to_string(path).map_err(|e| format!("cannot read {shown}: {e}"))?);
    match text.trim() {
        "" => Err(format!("{shown} is empty")),
        secret => Ok(secret.into()),
    }
}
