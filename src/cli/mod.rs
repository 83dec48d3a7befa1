//! The command line: what an operator types. Each verb is a small file; errors are one line; secrets are never arguments.

mod admin;
mod app;
mod config_check;
mod host;
mod key;
mod keys;
mod logging;
mod node;
mod node_secrets;
mod node_update;
mod operation;
mod output;
mod release;
mod rollout;
mod run;
mod signals;
mod store;

use crate::config::ConfigFault;
use crate::dev::{self, reaper};
use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

pub use output::Output;

/// A Lightning node for every user of an app: the control plane.
#[derive(Debug, Parser)]
#[command(name = "scale-lnd", version, arg_required_else_help = true, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a master: the REST API, the workflows, the agents' listener
    Master(run::MasterArgs),
    /// Run the whole system on this machine, on simnet, until Ctrl-C
    Dev(dev::DevArgs),
    /// Show the whole story on a system of its own: two users, a payment, a close, a withdrawal
    Demo(dev::DemoArgs),
    /// Run the agent of a host, which starts and adopts that host's lnds
    Lndserver(run::LndserverArgs),
    /// Look at the configuration
    #[command(subcommand)]
    Config(config_check::ConfigCommand),
    /// API keys
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Apps and what they may cost
    #[command(subcommand)]
    App(app::AppCommand),
    /// Hosts: invite, list, revoke
    #[command(subcommand)]
    Host(host::HostCommand),
    /// Users' nodes
    #[command(subcommand)]
    Node(node::NodeCommand),
    /// Durable operations: look at them, free parked ones
    #[command(subcommand)]
    Operation(operation::OperationCommand),
    /// Sealing keys, under which the secrets in the Store are sealed: make, list, change
    #[command(subcommand, alias = "seal-key")]
    Keys(keys::KeysCommand),
    /// The Store: move a deployment to another
    #[command(subcommand)]
    Store(store::StoreCommand),
    /// Releases: what the hosts run. Make a key, sign, verify, check
    #[command(subcommand)]
    Release(release::ReleaseCommand),
    /// Rollouts: how the wanted release comes to the nodes
    #[command(subcommand)]
    Rollout(rollout::RolloutCommand),
    /// Ends everything beneath it when its owner is gone (used by `dev` and tests)
    #[command(name = "__reaper", hide = true)]
    Reaper(reaper::ReaperArgs),
}

/// Where the configuration is.
#[derive(Debug, Clone, clap::Args)]
pub struct ConfigArgs {
    /// The configuration file (TOML)
    #[arg(long, short, env = "SCALE_LND_CONFIG", value_name = "PATH")]
    pub config: Option<PathBuf>,
    /// A setting over file and environment, such as http.listen=127.0.0.1:8080 (again and again; never a secret)
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE", value_parser = key_value)]
    pub set: Vec<(String, String)>,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
        None => Err("must be SECTION.KEY=VALUE".to_owned()),
    }
}

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub enum Failure {
    /// It could not.
    Failed(String),
    /// It was asked wrongly, or the configuration is wrong: every fault.
    Usage(Vec<String>),
}

impl Failure {
    /// Something that was asked wrongly.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::Usage(vec![message.into()])
    }
}

/// Every fault of a configuration is a line.
fn faults(faults: Vec<ConfigFault>) -> Failure {
    Failure::Usage(faults.iter().map(ToString::to_string).collect())
}

impl<E: std::error::Error + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Failed(in_a_line(&error))
    }
}

/// An error with those behind it, in a line.
pub(crate) fn in_a_line(error: &(dyn std::error::Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        line = format!("{line}: {cause}");
        source = cause.source();
    }
    line
}

/// Parses the arguments and runs the command. Exit codes: 0 done, 1 it could not, 2 asked or configured wrongly.
#[must_use]
pub fn main() -> ExitCode {
    // Two providers in one process make rustls panic, so the one there is is named before anything uses TLS.
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        eprintln!("scale-lnd: a TLS provider is installed already");
        return ExitCode::FAILURE;
    }
    let done = match Cli::parse().command {
        // Without a runtime of its own: it has to stay small and outlive the rest.
        Command::Reaper(args) => return reaper::run(&args),
        command => start(command),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Failed(line)) => {
            eprintln!("scale-lnd: {line}");
            ExitCode::FAILURE
        }
        Err(Failure::Usage(lines)) => {
            for line in lines {
                eprintln!("scale-lnd: {line}");
            }
            ExitCode::from(2)
        }
    }
}

fn start(command: Command) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(dispatch(command));
    // What still runs (a resolver, a lost connection) must not keep the process.
    runtime.shutdown_background();
    result
}

async fn dispatch(command: Command) -> Result<(), Failure> {
    match command {
        Command::Master(args) => run::master(args).await,
        Command::Lndserver(args) => run::lndserver(args).await,
        Command::Dev(args) => Ok(dev::dev(args, signals::shutdown()?).await?),
        Command::Demo(args) => Ok(dev::demo(args, signals::shutdown()?).await?),
        Command::Config(command) => config_check::run(command),
        Command::Key(command) => key::run(command).await,
        Command::App(command) => app::run(command).await,
        Command::Host(command) => host::run(command).await,
        Command::Node(command) => node::run(command).await,
        Command::Operation(command) => operation::run(command).await,
        Command::Keys(command) => keys::run(command).await,
        Command::Store(command) => store::run(command).await,
        Command::Release(command) => release::run(command).await,
        Command::Rollout(command) => rollout::run(command).await,
        Command::Reaper(_) => Err(Failure::usage("the reaper runs alone")),
    }
}
