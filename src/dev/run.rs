//! `scale-lnd dev`: the local system in a terminal, until Ctrl-C.

use std::{path::PathBuf, time::Duration};

use tokio_util::sync::CancellationToken;

use super::{
    binaries::NodeBinaries,
    error::DevError,
    home::Home,
    progress::Progress,
    ready,
    reaper::{self, Notice, Reaper},
    system::{Options, System},
    tool::own_program,
};

/// How long each kind of process may take to end; then it is killed.
const STOP_GRACE: Duration = Duration::from_secs(30);

/// The arguments of `dev`.
#[derive(Debug, Clone, clap::Args)]
pub struct DevArgs {
    /// Throw away what earlier runs left in the data folder
    #[arg(long)]
    fresh: bool,
    /// The API's port on loopback; 0: any [default: 8080 if that is free]
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// Where everything is kept [default: scale-lnd/dev below the user's data folder]
    #[arg(long, value_name = "PATH")]
    data_dir: Option<PathBuf>,
    /// Write a JSON object with url, api_key, network, chain and treasury to this file once all is up
    #[arg(long, value_name = "PATH")]
    ready_file: Option<PathBuf>,
    /// Let every lnd serve its own REST, too
    #[arg(long)]
    lnd_rest: bool,
}

/// Runs the local system until `stop`.
pub async fn dev(args: DevArgs, stop: CancellationToken) -> Result<(), DevError> {
    let progress = Progress::begin();
    if let Some(path) = &args.ready_file {
        ready::remove_file(path)?;
    }
    let data_dir = args.data_dir.clone().map_or_else(Home::usual_dir, Ok)?;
    let options =
        Options { program: own_program()?, binaries: NodeBinaries::find()?, port: args.port, lnd_rest: args.lnd_rest };
    let home = Home::open(&data_dir)?;
    progress.say(format_args!("data: {}", home.path().display()));
    let record = home.record();
    let result = beneath_reaper(&record, progress, async |reaper| {
        home.end_strays().await?;
        if args.fresh {
            home.clear()?;
            progress.say("data: thrown away");
        }
        let mut system = tokio::select! {
            system = System::start(reaper, home, options, progress) => system?,
            () = stop.cancelled() => return Ok(()),
        };
        progress.say(format_args!("ready after {:.1} s", progress.seconds()));
        ready::print_welcome(&system);
        if let Some(path) = &args.ready_file {
            ready::write_file(path, &system)?;
        }
        tokio::select! {
            error = system.watch(reaper) => Err(error),
            () = stop.cancelled() => Ok(()),
        }
    });
    let result = result.await;
    if let Some(path) = &args.ready_file {
        ready::remove_file(path)?;
    }
    result
}

/// Does the work with a reaper, and afterwards ends all that is beneath it, whatever came of the work.
pub(super) async fn beneath_reaper<T>(
    record: &std::path::Path,
    progress: Progress,
    work: impl AsyncFnOnce(&Reaper) -> Result<T, DevError>,
) -> Result<T, DevError> {
    let options = reaper::Options { program: own_program()?, grace: STOP_GRACE, record: Some(record.to_owned()) };
    let told = move |notice| match notice {
        Notice::WaitingForPreviousRun => progress.say("waiting until an earlier run has ended"),
        Notice::Stopping(names) => progress.say(format_args!("stopping {}", names.join(", "))),
    };
    let start = async || Reaper::start(&options, told).await.map_err(DevError::io("start the reaper"));
    let reaper = start().await?;
    let result = work(&reaper).await;
    if reaper.stop(None).await.is_err() {
        // It was killed itself. The next one ends what it left.
        start().await?.stop(None).await.map_err(DevError::io("end what was started"))?;
    }
    progress.say("everything is stopped");
    result
}
