//! `scale-lnd keys`: the sealing keys, under which the secrets in the Store are sealed, and the authority of the deployment's
//! certificates.

use super::admin::{self, Admin, ListArgs};
use super::{ConfigArgs, Failure, Output};
use crate::clock::SystemClock;
use crate::deployment::{RollSaid, Rolled, Rolling, Rotated, Rotation, Said};
use crate::model::deployment::Deployment;
use crate::seal::SealKey;
use crate::store::repo;
use clap::Subcommand;
use serde_json::json;
use std::cmp::Ordering;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Verbs about the deployment's keys.
#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Make a key file that only its owner can read. Without it the wallets in the Store are lost: keep a copy elsewhere
    Generate {
        /// The file, which must not exist
        path: PathBuf,
    },
    /// List the sealing keys that the Store needs
    List(ListArgs),
    /// Change to a newer sealing key while masters serve: seal under it once they all have it, seal again what older keys
    /// sealed, and retire those. After an interruption type it again
    Rotate {
        #[command(flatten)]
        config: ConfigArgs,
        /// How long to wait for masters to have the new key
        #[arg(long, value_name = "SECONDS", default_value_t = 60)]
        wait: u64,
    },
    /// Put another certificate authority in place of the deployment's while masters and hosts serve: everybody believes both,
    /// gets a certificate of the new one, and forgets the former, whose key is deleted. To be typed where hosts can be
    /// reached; after an interruption type it again
    RollAuthority {
        #[command(flatten)]
        config: ConfigArgs,
        /// How long each step waits for masters and hosts that have not followed
        #[arg(long, value_name = "SECONDS", default_value_t = 60)]
        wait: u64,
    },
}

/// Runs the verb.
pub async fn run(command: KeysCommand) -> Result<(), Failure> {
    match command {
        KeysCommand::Generate { path } => {
            SealKey::generate_file(&path)?;
            println!("{} is made: keep a copy where this machine's fate does not reach it", path.display());
        }
        KeysCommand::List(args) => {
            let store = admin::open(&args.config).await?.store;
            let found = repo::get::<Deployment>(&*store, Deployment::ID).await?;
            if let Some(found) = found {
                listed(&found.value).print(args.json);
            }
        }
        KeysCommand::Rotate { config, wait } => rotate(&config, Duration::from_secs(wait)).await?,
        KeysCommand::RollAuthority { config, wait } => roll_authority(&config, Duration::from_secs(wait)).await?,
    }
    Ok(())
}

fn listed(deployment: &Deployment) -> Output {
    let sealing = deployment.sealing();
    let mut output = Output::new(&["version", "state", "wrapped_by"]);
    let mut versions = deployment.versions();
    versions.sort_unstable();
    for version in versions {
        let state = match version.cmp(&sealing) {
            Ordering::Less => "still needed",
            Ordering::Equal => "seals",
            Ordering::Greater => "announced",
        };
        let by = deployment.wrapped.iter().find(|wrapped| wrapped.version == version).map(|wrapped| &wrapped.by);
        output.row([json!(version), json!(state), json!(by)]);
    }
    output
}

async fn rotate(config: &ConfigArgs, patience: Duration) -> Result<(), Failure> {
    let Admin { store, key_source, .. } = admin::open(config).await?;
    let rotation = Rotation { store: &*store, source: &key_source, patience };
    let Rotated { version, secrets, was_begun } =
        rotation.run(admin::now(), |said| eprintln!("{}", line(&said))).await?;
    println!("{secrets} secrets were sealed again under sealing key {version}; nothing needs an older one any more");
    if was_begun {
        println!("this change had been begun before; for another one type it again");
    }
    Ok(())
}

fn line(said: &Said) -> String {
    match said {
        Said::Announced(version) => {
            format!("sealing key {version} is announced: no master starts without it from now on")
        }
        Said::Waiting(masters) => {
            let masters: Vec<&str> = masters.iter().map(|master| master.as_str()).collect();
            format!("waiting for masters that do not have it yet: {}", masters.join(", "))
        }
        Said::Seals(version) => format!("every master has sealing key {version}: it seals from now on"),
    }
}

async fn roll_authority(config: &ConfigArgs, patience: Duration) -> Result<(), Failure> {
    let Admin { store, keys, .. } = admin::open(config).await?;
    let rolling = Rolling { store, keys: &keys, clock: Arc::new(SystemClock), patience };
    let Rolled { authority, was_begun } = rolling.run(|said| eprintln!("{}", roll_line(&said))).await?;
    println!("{authority} is the deployment's authority now, and nobody believes another one");
    if was_begun {
        println!("this change had been begun before; for another one type it again");
    }
    Ok(())
}

fn roll_line(said: &RollSaid) -> String {
    match said {
        RollSaid::Announced(authority) => format!("another authority is made, and announced: {authority}"),
        RollSaid::Waiting(waiting) => format!("waiting: {waiting}"),
        RollSaid::Issues(authority) => format!("everybody believes {authority}: it issues from now on"),
        RollSaid::Dropped => {
            "everybody has a certificate of it: the former is believed no more, and its key is deleted".to_owned()
        }
    }
}
