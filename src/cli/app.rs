//! `scale-lnd app`: apps and what they may cost.

use super::admin::{self, Admin, ListArgs, app_id, now, shown};
use super::{ConfigArgs, Failure, Output};
use crate::app::usage;
use crate::model::app::{App, Limits};
use crate::model::{AppId, Network};
use crate::store::repo;
use clap::Subcommand;
use serde_json::{Value, json};

/// Verbs about apps.
#[derive(Debug, Subcommand)]
pub enum AppCommand {
    /// Make an app
    Create {
        /// Its name: 1–32 characters of a-z, 0-9 and -
        #[arg(value_parser = app_id)]
        app: AppId,
        #[command(flatten)]
        limits: LimitArgs,
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// List all apps with their limits and what is used of them
    List(ListArgs),
    /// Change limits; those that are not named stay. Unset means refused, except on simnet and regtest; on mainnet all
    /// of them are set
    Limits {
        /// The app
        #[arg(value_parser = app_id)]
        app: AppId,
        #[command(flatten)]
        limits: LimitArgs,
        #[command(flatten)]
        config: ConfigArgs,
    },
}

/// A limit as it is typed: a number, or `none` to unset it.
#[derive(Debug, Clone, Copy)]
struct Limit(Option<u64>);

fn limit(text: &str) -> Result<Limit, String> {
    match text {
        "none" => Ok(Limit(None)),
        number => number.parse().map(|n| Limit(Some(n))).map_err(|_| "must be a whole number, or none".to_owned()),
    }
}

/// The limits of an app.
#[derive(Debug, Clone, clap::Args)]
pub struct LimitArgs {
    /// Nodes that exist at a time
    #[arg(long, value_name = "N", value_parser = limit)]
    nodes: Option<Limit>,
    /// Nodes created within an hour
    #[arg(long, value_name = "N", value_parser = limit)]
    creates_per_hour: Option<Limit>,
    /// Funding by the treasury within a day (UTC), in satoshi
    #[arg(long, value_name = "SAT", value_parser = limit)]
    funding_sat_per_day: Option<Limit>,
    /// Money that leaves its nodes within a day (UTC), in satoshi, all fees included
    #[arg(long, value_name = "SAT", value_parser = limit)]
    outgoing_sat_per_day: Option<Limit>,
}

impl LimitArgs {
    fn apply(&self, limits: &mut Limits) {
        let set = |place: &mut Option<u64>, limit: Option<Limit>| {
            if let Some(Limit(value)) = limit {
                *place = value;
            }
        };
        set(&mut limits.nodes, self.nodes);
        set(&mut limits.creates_per_hour, self.creates_per_hour);
        set(&mut limits.funding_sat_per_day, self.funding_sat_per_day);
        set(&mut limits.outgoing_sat_per_day, self.outgoing_sat_per_day);
    }
}

/// Runs the verb.
pub async fn run(command: AppCommand) -> Result<(), Failure> {
    match command {
        AppCommand::Create { app, limits, config } => create(app, &limits, &config).await,
        AppCommand::List(args) => list(&args).await,
        AppCommand::Limits { app, limits, config } => change(&app, &limits, &config).await,
    }
}

async fn create(id: AppId, limits: &LimitArgs, config: &ConfigArgs) -> Result<(), Failure> {
    let Admin { store, config, .. } = admin::open(config).await?;
    let mut app = App { id, limits: Limits::default(), created_at: now() };
    limits.apply(&mut app.limits);
    refuse_unset(config.deployment.network, &app.limits)?;
    match store.commit(vec![repo::create(&app)?]).await {
        Ok(_) => println!("app {} is made", app.id),
        Err(e) if e.is_conflict() => return Err(Failure::Failed(format!("there is an app {} already", app.id))),
        Err(e) => return Err(e.into()),
    }
    Ok(())
}

/// On mainnet an app has every limit, from its first moment on.
fn refuse_unset(network: Network, limits: &Limits) -> Result<(), Failure> {
    if network != Network::Mainnet {
        return Ok(());
    }
    let missing = limits.unset().into_iter();
    let faults: Vec<String> = missing
        .map(|name| format!("--{} is missing: on mainnet every limit of an app is set", name.replace('_', "-")))
        .collect();
    if faults.is_empty() { Ok(()) } else { Err(Failure::Usage(faults)) }
}

async fn change(id: &AppId, limits: &LimitArgs, config: &ConfigArgs) -> Result<(), Failure> {
    let Admin { store, config, .. } = admin::open(config).await?;
    let changed = repo::modify::<App, Failure>(&*store, id.as_str(), |app| {
        limits.apply(&mut app.limits);
        refuse_unset(config.deployment.network, &app.limits)?;
        Ok(true)
    });
    match changed.await? {
        Some(_) => println!("the limits of app {id} are changed"),
        None => return Err(Failure::Failed(format!("there is no app {id}"))),
    }
    Ok(())
}

async fn list(args: &ListArgs) -> Result<(), Failure> {
    let Admin { store, .. } = admin::open(&args.config).await?;
    let columns = &["app", "nodes", "creates_per_hour", "funding_sat_per_day", "outgoing_sat_per_day", "created_at"];
    let mut output = Output::new(columns);
    for app in repo::list_all::<App>(&*store, None).await? {
        let app = app.value;
        let used = usage::used(&*store, app.id.as_str(), now()).await?;
        output.row([
            json!(app.id),
            of(used.nodes, app.limits.nodes),
            of(used.creates, app.limits.creates_per_hour),
            of(used.funding_sat.0, app.limits.funding_sat_per_day),
            of(used.outgoing_sat.0, app.limits.outgoing_sat_per_day),
            shown(app.created_at),
        ]);
    }
    output.print(args.json);
    Ok(())
}

fn of(used: u64, limit: Option<u64>) -> Value {
    match limit {
        Some(limit) => json!(format!("{used}/{limit}")),
        None => json!(format!("{used}/unset")),
    }
}
