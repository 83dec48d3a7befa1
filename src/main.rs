//! `scale-lnd`: the subcommands; nothing else names the adapters.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use scale_lnd::dev::reaper;

#[derive(Debug, Parser)]
#[command(name = "scale-lnd", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Ends everything beneath it when its owner is gone (used by `dev` and tests).
    #[command(name = "__reaper", hide = true)]
    Reaper(reaper::ReaperArgs),
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Reaper(args) => reaper::run(&args),
    }
}
