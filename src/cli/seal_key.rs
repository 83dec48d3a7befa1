//! `scale-lnd seal-key`: the keys that seal the secrets in the Store.

use super::Failure;
use crate::seal::SealKey;
use clap::Subcommand;
use std::path::PathBuf;

/// Verbs about sealing keys.
#[derive(Debug, Subcommand)]
pub enum SealKeyCommand {
    /// Make a key file that only its owner can read. Without it the wallets in the Store are lost: keep a copy elsewhere
    Generate {
        /// The file, which must not exist
        path: PathBuf,
    },
}

/// Runs the verb.
pub fn run(command: SealKeyCommand) -> Result<(), Failure> {
    let SealKeyCommand::Generate { path } = command;
    SealKey::generate_file(&path)?;
    println!("{} is made: keep a copy where this machine's fate does not reach it", path.display());
    Ok(())
}
