//! Where the lnd and the btcd of the local system are.

use std::{
    env,
    ffi::OsStr,
    path::{Path, PathBuf},
};

use super::error::DevError;

/// The folder that `make` puts lnd and btcd into, if they do not come from PATH.
pub const FOLDER_VARIABLE: &str = "SCALE_LND_NODE_BIN";

/// The programs of the local system.
#[derive(Debug, Clone)]
pub struct NodeBinaries {
    pub lnd: PathBuf,
    pub btcd: PathBuf,
}

impl NodeBinaries {
    /// From the folder that the environment names, else from PATH.
    pub fn find() -> Result<Self, DevError> {
        match env::var_os(FOLDER_VARIABLE) {
            Some(folder) => Self::among(&[PathBuf::from(folder)]),
            None => Self::among(&env::split_paths(&env::var_os("PATH").unwrap_or_default()).collect::<Vec<_>>()),
        }
    }

    /// From the first of these folders that has them.
    pub fn among(folders: &[PathBuf]) -> Result<Self, DevError> {
        let find = |name: &str| {
            let found = folders.iter().map(|folder| folder.join(name)).find(|path| is_program(path));
            found.ok_or_else(|| {
                DevError::Unusable(format!("there is no {name} in {FOLDER_VARIABLE} or PATH; `make dev` builds it"))
            })
        };
        Ok(Self { lnd: find("lnd")?, btcd: find("btcd")? })
    }
}

fn is_program(path: &Path) -> bool {
    path.file_name() != Some(OsStr::new("")) && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
}
