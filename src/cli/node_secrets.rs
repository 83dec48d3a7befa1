//! `scale-lnd node secrets`: what a person needs to restore a node whose disk is lost, and nobody else may ever see.

use super::admin::{self, Admin};
use super::node::{Whose, cannot_write, find, write_private};
use super::{ConfigArgs, Failure};
use crate::app::keys::field;
use crate::files;
use crate::model::node::{Backup, BackupHead, Node};
use crate::store::Store;
use crate::store::repo;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use std::path::PathBuf;

/// Whose secrets, and where they go.
#[derive(Debug, clap::Args)]
pub struct SecretsArgs {
    #[command(flatten)]
    whose: Whose,
    /// The folder for the files; it is made if it does not exist
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    config: ConfigArgs,
}

/// Writes the files. Prints their names and none of what is in them.
pub async fn run(args: &SecretsArgs) -> Result<(), Failure> {
    let Admin { config, store, keys, .. } = admin::open(&args.config).await?;
    let node = find(&*store, &args.whose).await?;
    if node.secrets.is_none() {
        return Err(Failure::Failed("this node has no secrets: it never came so far as to have a wallet".to_owned()));
    }
    files::private_dir(&args.out).map_err(|e| cannot_write(&args.out, &e))?;
    for (name, field) in [("seed.txt", field::SEED), ("wallet-password", field::WALLET_PASSWORD)] {
        let path = args.out.join(name);
        write_private(&path, &keys.open_of(&node, field)?)?;
        println!("{}", path.display());
    }
    match newest_backup(&*store, &node).await? {
        Some((bytes, is_good)) => {
            let path = args.out.join("channel.backup");
            write_private(&path, &bytes)?;
            println!("{}", path.display());
            if !is_good {
                eprintln!("this channel.backup is the newest; that it covers every channel was never verified");
            }
        }
        None => eprintln!("there is no channel.backup: no channel of this node was ever heard of"),
    }
    eprintln!("whoever has these has the money of this node, on {}.", config.deployment.network);
    eprintln!("use them only where its lnd is gone for good: two lnds on one seed lose money (docs/operations.md)");
    Ok(())
}

/// The backup to restore, and whether it is known to cover every channel.
async fn newest_backup(store: &dyn Store, node: &Node) -> Result<Option<(Vec<u8>, bool)>, Failure> {
    let Some(head) = repo::get::<BackupHead>(store, node.id.as_str()).await?.map(|head| head.value) else {
        return Ok(None);
    };
    let id = Backup::id_of(&node.id, head.good.unwrap_or(head.newest));
    let unreadable = || Failure::Failed("the channel.backup in the store cannot be read".to_owned());
    let backup = repo::get::<Backup>(store, &id).await?.ok_or_else(unreadable)?.value;
    let bytes = BASE64_STANDARD.decode(backup.bytes).map_err(|_| unreadable())?;
    Ok(Some((bytes, head.good.is_some())))
}
