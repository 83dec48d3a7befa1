//! `scale-lnd lndserver`: what keeps running.

use super::{ConfigArgs, Failure, faults, logging, signals};
use crate::config;
use crate::lndserver;

/// Arguments of `lndserver`.
#[derive(Debug, clap::Args)]
pub struct LndserverArgs {
    #[command(flatten)]
    config: ConfigArgs,
}

/// Runs the agent of this host until SIGTERM or SIGINT. Its lnds go on.
pub async fn lndserver(args: LndserverArgs) -> Result<(), Failure> {
    let loaded = config::agent::load(args.config.config.as_deref(), config::environment(), &args.config.set);
    let (agent, log) = loaded.map_err(faults)?;
    logging::start(&log)?;
    let stop = signals::shutdown()?;
    Ok(lndserver::run(agent, stop).await?)
}
