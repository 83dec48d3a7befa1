//! `scale-lnd master` and `scale-lnd lndserver`: the two that keep running.

use super::{ConfigArgs, Failure, admin, faults, logging, signals};
use crate::config;
use crate::files;
use crate::lndserver;
use crate::master::Master;
use serde_json::json;
use std::path::PathBuf;

/// Arguments of `master`.
#[derive(Debug, clap::Args)]
pub struct MasterArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Once it listens, write a JSON object with `url` and `agents` to this file
    #[arg(long, value_name = "PATH")]
    ready_file: Option<PathBuf>,
}

/// Arguments of `lndserver`.
#[derive(Debug, clap::Args)]
pub struct LndserverArgs {
    #[command(flatten)]
    config: ConfigArgs,
}

/// Runs a master until SIGTERM or SIGINT.
pub async fn master(args: MasterArgs) -> Result<(), Failure> {
    let config = admin::load(&args.config)?;
    logging::start(&config.log)?;
    let stop = signals::shutdown()?;
    let master = Master::open(config).await?;
    if let Some(path) = &args.ready_file {
        let ready = json!({"url": master.url(), "agents": master.agents_address()});
        // Whole or not at all: whoever waits for the file never reads half of it.
        files::write_private(path, format!("{ready}\n").as_bytes())
            .map_err(|e| Failure::Failed(format!("cannot write {}: {e}", path.display())))?;
    }
    Ok(master.run(stop).await?)
}

/// Runs the agent of this host until SIGTERM or SIGINT. Its lnds go on.
pub async fn lndserver(args: LndserverArgs) -> Result<(), Failure> {
    let loaded = config::agent::load(args.config.config.as_deref(), config::environment(), &args.config.set);
    let (agent, log) = loaded.map_err(faults)?;
    logging::start(&log)?;
    let stop = signals::shutdown()?;
    Ok(lndserver::run(agent, stop).await?)
}
