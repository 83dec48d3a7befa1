//! `scale-lnd seal-key`: the keys that seal the secrets in the Store.

use super::admin::{self, Admin};
use super::{ConfigArgs, Failure};
use crate::deployment;
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
    /// Seal again, under the newest key, all that older keys sealed; afterwards the older ones may be destroyed. Only once
    /// every master runs with the newest key
    Rewrap(ConfigArgs),
}

/// Runs the verb.
pub async fn run(command: SealKeyCommand) -> Result<(), Failure> {
    match command {
        SealKeyCommand::Generate { path } => {
            SealKey::generate_file(&path)?;
            println!("{} is made: keep a copy where this machine's fate does not reach it", path.display());
        }
        SealKeyCommand::Rewrap(config) => {
            let Admin { store, sealer, keys, .. } = admin::open(&config).await?;
            let count = deployment::rewrap(&*store, &sealer, &keys).await?;
            println!("{count} secrets were sealed again; nothing needs the older keys any more");
        }
    }
    Ok(())
}
