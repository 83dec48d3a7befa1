//! `scale-lnd operation`: durable operations, and those that wait for a person.

use super::admin::{self, Admin, ListArgs, now, shown};
use super::{ConfigArgs, Failure, Output};
use crate::model::OperationId;
use crate::model::operation::{Operation, State};
use crate::store::IndexEntry;
use crate::store::repo;
use clap::{Subcommand, ValueEnum};
use serde_json::{Value, json};

/// Verbs about operations.
#[derive(Debug, Subcommand)]
pub enum OperationCommand {
    /// List operations, newest first
    List {
        /// Only those in this state
        #[arg(long)]
        state: Option<StateName>,
        /// At most this many
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=1000))]
        limit: u16,
        #[command(flatten)]
        list: ListArgs,
    },
    /// Show all that is known of one operation, as JSON
    Show {
        #[arg(value_parser = operation_id)]
        id: OperationId,
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Let a parked operation run again, from the step where it was parked
    Retry {
        #[arg(value_parser = operation_id)]
        id: OperationId,
        #[command(flatten)]
        config: ConfigArgs,
    },
}

/// A state by its name.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum StateName {
    Running,
    Succeeded,
    Failed,
    Parked,
}

impl StateName {
    fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Parked => "parked",
        }
    }
}

fn operation_id(text: &str) -> Result<OperationId, String> {
    OperationId::parse(text).ok_or_else(|| "is not the id of an operation (see `operation list`)".to_owned())
}

/// Runs the verb.
pub async fn run(command: OperationCommand) -> Result<(), Failure> {
    match command {
        OperationCommand::List { state, limit, list: args } => list(state, limit, &args).await,
        OperationCommand::Show { id, config } => show(&id, &config).await,
        OperationCommand::Retry { id, config } => retry(&id, &config).await,
    }
}

async fn list(state: Option<StateName>, limit: u16, args: &ListArgs) -> Result<(), Failure> {
    let Admin { store, .. } = admin::open(&args.config).await?;
    let index = state.map(|state| IndexEntry { name: "state", value: state.as_str().to_owned() });
    let (operations, _) = repo::list::<Operation>(&*store, index, None, limit.into(), true).await?;
    let mut output = Output::new(&["id", "kind", "state", "step", "app", "uuid", "code", "progress", "updated_at"]);
    for operation in operations {
        let operation = operation.value;
        let code = match &operation.state {
            State::Failed { error } | State::Parked { error } => json!(error.code),
            State::Running | State::Succeeded { .. } => Value::Null,
        };
        output.row([
            json!(operation.id),
            json!(operation.work.kind()),
            json!(operation.state.name()),
            json!(operation.work.step()),
            json!(operation.owner.as_ref().map(|owner| &owner.app)),
            json!(operation.owner.as_ref().map(|owner| &owner.uuid)),
            code,
            json!(operation.progress),
            shown(operation.updated_at),
        ]);
    }
    output.print(args.json);
    Ok(())
}

async fn show(id: &OperationId, config: &ConfigArgs) -> Result<(), Failure> {
    let Admin { store, .. } = admin::open(config).await?;
    let found = repo::get::<Operation>(&*store, id.as_str()).await?.ok_or_else(|| none(id))?;
    println!("{:#}", serde_json::to_value(&found.value)?);
    Ok(())
}

async fn retry(id: &OperationId, config: &ConfigArgs) -> Result<(), Failure> {
    let Admin { store, .. } = admin::open(config).await?;
    let freed = repo::modify::<Operation, Failure>(&*store, id.as_str(), |operation| {
        let state = operation.state.name();
        if operation.free(now()) {
            return Ok(true);
        }
        Err(Failure::Failed(format!("operation {id} is not parked, it is {state}")))
    });
    freed.await?.ok_or_else(|| none(id))?;
    println!("operation {id} runs again");
    Ok(())
}

fn none(id: &OperationId) -> Failure {
    Failure::Failed(format!("there is no operation {id}"))
}
