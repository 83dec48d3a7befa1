//! `scale-lnd rollout`: how the wanted release comes to the nodes, and what an operator may say to that.

use super::admin::{self, Admin, ListArgs, shown};
use super::{ConfigArgs, Failure, Output};
use crate::app::rollouts::Word;
use crate::model::rollout::{Rollout, State};
use crate::store::repo::{self, Entity};
use crate::store::{Change, Store};
use clap::Subcommand;
use futures::StreamExt;
use serde_json::json;

/// Verbs about rollouts.
#[derive(Debug, Subcommand)]
pub enum RolloutCommand {
    /// List rollouts, newest first
    List {
        #[command(flatten)]
        list: ListArgs,
    },
    /// Show all that is known of a rollout, as JSON
    Show(Which),
    /// Print how far a rollout is, line by line, until it is done, halted or over
    Watch(Which),
    /// Begin nothing new until it is resumed. What is under way ends as it was begun
    Pause(Which),
    /// Let a paused rollout go on
    Resume(Which),
    /// Never begin anything new. What has the release keeps it
    Abort(Which),
    /// Try again, one after the other, what has failed
    Retry(Which),
}

/// Which rollout.
#[derive(Debug, clap::Args)]
pub struct Which {
    /// The serial of its release; the newest by default
    serial: Option<u64>,
    #[command(flatten)]
    config: ConfigArgs,
}

/// Runs the verb.
pub async fn run(command: RolloutCommand) -> Result<(), Failure> {
    match command {
        RolloutCommand::List { list: args } => list(&args).await,
        RolloutCommand::Show(which) => {
            let (_, rollout) = open(&which).await?;
            println!("{:#}", serde_json::to_value(&rollout)?);
            Ok(())
        }
        RolloutCommand::Watch(which) => watch(&which).await,
        RolloutCommand::Pause(which) => say(&which, Word::Pause).await,
        RolloutCommand::Resume(which) => say(&which, Word::Resume).await,
        RolloutCommand::Abort(which) => say(&which, Word::Abort).await,
        RolloutCommand::Retry(which) => say(&which, Word::Retry).await,
    }
}

async fn list(args: &ListArgs) -> Result<(), Failure> {
    let Admin { store, .. } = admin::open(&args.config).await?;
    let mut rollouts = repo::list_all::<Rollout>(&*store, None).await?;
    rollouts.reverse();
    let mut output = Output::new(&["serial", "state", "nodes", "updated", "under_way", "failed", "created_at"]);
    for rollout in rollouts {
        let rollout = rollout.value;
        output.row([
            json!(rollout.serial),
            json!(rollout.state.name()),
            json!(rollout.progress.nodes),
            json!(rollout.progress.updated),
            json!(rollout.under_way.len()),
            json!(rollout.failed.len()),
            shown(rollout.created_at),
        ]);
    }
    output.print(args.json);
    Ok(())
}

fn none(serial: u64) -> Failure {
    Failure::Failed(format!("there is no rollout {serial}"))
}

async fn open(which: &Which) -> Result<(Admin, Rollout), Failure> {
    let admin = admin::open(&which.config).await?;
    let rollout = match which.serial {
        Some(serial) => read(&*admin.store, serial).await?,
        None => {
            let (newest, _) = repo::list::<Rollout>(&*admin.store, None, None, 1, true).await?;
            let newest = newest.into_iter().next().map(|newest| newest.value);
            newest.ok_or_else(|| Failure::Failed("there is no rollout: see `scale-lnd release apply`".to_owned()))?
        }
    };
    Ok((admin, rollout))
}

async fn read(store: &dyn Store, serial: u64) -> Result<Rollout, Failure> {
    let found = repo::get::<Rollout>(store, &Rollout::id_of(serial)).await?;
    found.map(|found| found.value).ok_or_else(|| none(serial))
}

async fn say(which: &Which, word: Word) -> Result<(), Failure> {
    let (admin, rollout) = open(which).await?;
    let serial = rollout.serial;
    let id = Rollout::id_of(serial);
    let said = repo::modify::<Rollout, Failure>(&*admin.store, &id, |rollout| {
        *rollout = word.said_to(rollout.clone()).map_err(|why| Failure::Failed(why.to_string()))?;
        Ok(true)
    });
    let rollout = said.await?.ok_or_else(|| none(serial))?.value;
    println!("rollout {serial} is {} now", rollout.state.name());
    Ok(())
}

/// One line for each change.
async fn watch(which: &Which) -> Result<(), Failure> {
    let (admin, rollout) = open(which).await?;
    let serial = rollout.serial;
    // Opened before the look, so that nothing falls between.
    let mut changes = admin.store.changes(None).await?;
    let mut told = String::new();
    loop {
        let rollout = read(&*admin.store, serial).await?;
        let line = line(&rollout);
        if line != told {
            println!("{line}");
            told = line;
        }
        match &rollout.state {
            State::Halted { why } => return Err(Failure::Failed(format!("rollout {serial} is halted: {why}"))),
            State::Done | State::Aborted | State::Superseded { .. } if rollout.under_way.is_empty() => return Ok(()),
            _ => {}
        }
        let is_of_it = |change: &Change| match change {
            Change::Put(document) => document.key.collection == Rollout::COLLECTION,
            Change::Deleted(_) => false,
            Change::Resync => true,
        };
        loop {
            let Some(item) = changes.next().await else { return Ok(()) };
            if item.is_ok_and(|item| is_of_it(&item.change)) {
                break;
            }
        }
    }
}

fn line(rollout: &Rollout) -> String {
    const WIDTH: u64 = 30;
    let (nodes, updated) = (rollout.progress.nodes, rollout.progress.updated);
    let filled = usize::try_from((WIDTH * updated).checked_div(nodes).unwrap_or(0)).unwrap_or(0);
    let bar = format!("{:<30}", "#".repeat(filled));
    let waiting = rollout.progress.waiting.iter().map(|(reason, count)| format!(", {count} {reason}"));
    let waiting: String = waiting.collect();
    let (serial, state, under_way) = (rollout.serial, rollout.state.name(), rollout.under_way.len());
    format!("release {serial} [{bar}] {updated}/{nodes} {state}, {under_way} under way{waiting}")
}
