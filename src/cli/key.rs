//! `scale-lnd key`: API keys. The secret is printed once, on standard output, and nowhere kept.

use super::admin::{self, Admin, ListArgs, app_id, now, shown};
use super::{ConfigArgs, Failure, Output};
use crate::apikey::{ApiKey, ApiKeyId};
use crate::error::StoreError;
use crate::model::AppId;
use crate::model::app::{ApiKeyRecord, App, Scope};
use crate::store::repo;
use clap::Subcommand;
use serde_json::json;

/// Verbs about API keys.
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Make a key and print it: the only time it is shown
    Create(CreateArgs),
    /// List all keys, revoked ones too
    List(ListArgs),
    /// Revoke a key; every master refuses it within 5 seconds
    Revoke {
        /// The key's id, as `key list` shows it (never the key itself)
        id: String,
        #[command(flatten)]
        config: ConfigArgs,
    },
}

/// What a new key is for.
#[derive(Debug, clap::Args)]
pub struct CreateArgs {
    /// The app it belongs to
    #[arg(long, value_parser = app_id, required_unless_present = "operator", conflicts_with = "operator")]
    app: Option<AppId>,
    /// A key of the deployment's operator, which belongs to no app
    #[arg(long, conflicts_with = "scopes")]
    operator: bool,
    /// What it may do: read, invoice, pay, manage
    #[arg(long, value_delimiter = ',', value_parser = scope, required_unless_present = "operator")]
    scopes: Vec<Scope>,
    /// What it is for, for your own list
    #[arg(long, default_value = "")]
    note: String,
    #[command(flatten)]
    config: ConfigArgs,
}

fn scope(text: &str) -> Result<Scope, String> {
    let of_apps = [Scope::Read, Scope::Invoice, Scope::Pay, Scope::Manage];
    of_apps
        .into_iter()
        .find(|scope| scope.as_str() == text)
        .ok_or_else(|| format!("must be one of {}", of_apps.map(Scope::as_str).join(", ")))
}

/// Runs the verb.
pub async fn run(command: KeyCommand) -> Result<(), Failure> {
    match command {
        KeyCommand::Create(args) => create(args).await,
        KeyCommand::List(args) => list(&args).await,
        KeyCommand::Revoke { id, config } => revoke(id, &config).await,
    }
}

async fn create(args: CreateArgs) -> Result<(), Failure> {
    let Admin { config, store, .. } = admin::open(&args.config).await?;
    if let Some(app) = &args.app
        && repo::get::<App>(&*store, app.as_str()).await?.is_none()
    {
        return Err(Failure::Failed(format!("there is no app {app}: scale-lnd app create {app}")));
    }
    let key = ApiKey::generate(config.deployment.network.as_str(), &mut rand::rng())?;
    let mut scopes = if args.operator { vec![Scope::Operator] } else { args.scopes };
    scopes.sort();
    scopes.dedup();
    let record = ApiKeyRecord {
        id: key.id().clone(),
        app: args.app,
        scopes,
        hash: key.hash(),
        note: args.note,
        created_at: now(),
        revoked_at: None,
    };
    store.commit(vec![repo::create(&record)?]).await?;
    eprintln!("key {} is shown this once:", record.id);
    println!("{}", key.expose());
    Ok(())
}

async fn list(args: &ListArgs) -> Result<(), Failure> {
    let Admin { store, .. } = admin::open(&args.config).await?;
    let mut output = Output::new(&["id", "app", "scopes", "note", "created_at", "revoked_at"]);
    for key in repo::list_all::<ApiKeyRecord>(&*store, None).await? {
        let key = key.value;
        let scopes: Vec<&str> = key.scopes.iter().map(|scope| scope.as_str()).collect();
        let (created, revoked) = (shown(key.created_at), key.revoked_at.map(shown));
        output.row([json!(key.id), json!(key.app), json!(scopes), json!(key.note), created, json!(revoked)]);
    }
    output.print(args.json);
    Ok(())
}

async fn revoke(id: String, config: &ConfigArgs) -> Result<(), Failure> {
    // A whole key has the length of a secret; an id is refused for another form before it could be logged or stored.
    let id = ApiKeyId::try_from(id).map_err(|_| Failure::usage("this is not the id of a key (see `key list`)"))?;
    let Admin { store, .. } = admin::open(config).await?;
    let revoked = repo::modify::<ApiKeyRecord, StoreError>(&*store, id.as_str(), |key| {
        if key.revoked_at.is_some() {
            return Ok(false);
        }
        key.revoked_at = Some(now());
        Ok(true)
    });
    match revoked.await? {
        Some(_) => println!("key {id} is revoked"),
        None => return Err(Failure::Failed(format!("there is no key {id}"))),
    }
    Ok(())
}
