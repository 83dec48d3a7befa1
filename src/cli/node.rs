//! `scale-lnd node`: users' nodes, and credentials for looking into one with lncli.

use super::admin::{self, Admin, ListArgs, app_id, now, shown};
use super::node_secrets::{self, SecretsArgs};
use super::node_update::{self, UpdateArgs};
use super::{ConfigArgs, Failure, Output};
use crate::files;
use crate::lnd::macaroon::{Caveat, Grant, Macaroon, Op, bake};
use crate::model::node::{Endpoint, Node, NodeName, Runtime};
use crate::model::{AppId, Network, Uuid};
use crate::store::repo;
use crate::store::{IndexEntry, Store};
use clap::Subcommand;
use rand::Rng;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use time::Duration;

/// Verbs about nodes.
#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// List nodes with their state
    List {
        /// Only those of this app
        #[arg(long, value_parser = app_id)]
        app: Option<AppId>,
        #[command(flatten)]
        list: ListArgs,
    },
    /// Write the certificate and a macaroon for one node, and print the lncli line for them
    Credentials(CredentialsArgs),
    /// Write a node's seed, wallet password and channel.backup, to restore it by hand where its disk is lost
    Secrets(SecretsArgs),
    /// Replace a node's lnd by that of the wanted release, or put it back where it does not pass as the same node
    Update(UpdateArgs),
}

/// Whose node.
#[derive(Debug, clap::Args)]
pub struct Whose {
    /// The app
    #[arg(long, value_parser = app_id)]
    app: AppId,
    /// The user
    #[arg(long, value_parser = uuid)]
    uuid: Uuid,
}

/// Which node, and what the macaroon allows.
#[derive(Debug, clap::Args)]
pub struct CredentialsArgs {
    #[command(flatten)]
    whose: Whose,
    /// The folder for the files; it is made if it does not exist
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// What the macaroon allows and no more; several are possible
    #[arg(long, value_delimiter = ',', default_value = "read", value_parser = grant)]
    grant: Vec<Grant>,
    /// Let the macaroon expire after this many hours
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    hours: Option<u32>,
    #[command(flatten)]
    config: ConfigArgs,
}

fn uuid(text: &str) -> Result<Uuid, String> {
    Uuid::parse(text).ok_or_else(|| "must be 1–128 characters of A-Za-z0-9._~-".to_owned())
}

fn name(grant: Grant) -> &'static str {
    match grant {
        Grant::Read => "read",
        Grant::GetInfo => "getinfo",
        Grant::Balances => "balances",
        Grant::Channels => "channels",
        Grant::Invoice => "invoice",
        Grant::Pay => "pay",
        Grant::OpenChannel => "open",
        Grant::CloseChannel => "close",
        Grant::Peers => "peers",
        Grant::Address => "address",
        Grant::Withdraw => "withdraw",
        Grant::Backup => "backup",
        Grant::Stop => "stop",
        Grant::Admin => "admin",
    }
}

fn grant(text: &str) -> Result<Grant, String> {
    Grant::ALL
        .into_iter()
        .find(|grant| name(*grant) == text)
        .ok_or_else(|| format!("must be one of {}", Grant::ALL.map(name).join(", ")))
}

/// Runs the verb.
pub async fn run(command: NodeCommand) -> Result<(), Failure> {
    match command {
        NodeCommand::List { app, list: args } => list(app, &args).await,
        NodeCommand::Credentials(args) => credentials(&args).await,
        NodeCommand::Secrets(args) => node_secrets::run(&args).await,
        NodeCommand::Update(args) => node_update::run(&args).await,
    }
}

async fn list(app: Option<AppId>, args: &ListArgs) -> Result<(), Failure> {
    let Admin { store, .. } = admin::open(&args.config).await?;
    let index = app.map(|app| IndexEntry { name: "app", value: app.to_string() });
    let columns = &["node", "app", "uuid", "phase", "process", "wallet", "host", "slot", "pubkey", "created_at"];
    let mut output = Output::new(columns);
    for node in repo::list_all::<Node>(&*store, index).await? {
        let node = node.value;
        let runtime = repo::get::<Runtime>(&*store, node.id.as_str()).await?;
        let (process, wallet) = match runtime {
            Some(runtime) => (process(&runtime.value), json!(runtime.value.wallet)),
            None => (Value::Null, Value::Null),
        };
        output.row([
            json!(node.id),
            json!(node.app),
            json!(node.uuid),
            json!(node.phase),
            process,
            wallet,
            json!(node.placement.as_ref().map(|placement| &placement.host)),
            json!(node.placement.as_ref().map(|placement| placement.slot)),
            json!(node.identity_pubkey),
            shown(node.created_at),
        ]);
    }
    output.print(args.json);
    Ok(())
}

fn process(runtime: &Runtime) -> Value {
    let process = serde_json::to_value(&runtime.process).unwrap_or_default();
    process.get("process").cloned().unwrap_or_default()
}

async fn credentials(args: &CredentialsArgs) -> Result<(), Failure> {
    let Admin { config, store, keys, .. } = admin::open(&args.config).await?;
    let node = find(&*store, &args.whose).await?;
    let endpoint = node.endpoint.clone().ok_or_else(|| Failure::Failed("this node was never started".to_owned()))?;
    let mut nonce = [0; 16];
    rand::rng().fill_bytes(&mut nonce);
    let ops: Vec<Op> = args.grant.iter().flat_map(|grant| grant.ops()).collect();
    let expiry = args.hours.map(|hours| Caveat::TimeBefore(now() + Duration::hours(hours.into())));
    let macaroon = bake(&keys.root_key(&node)?, nonce, &ops, expiry.as_slice());
    let files = write_files(&args.out, &endpoint, &macaroon, &macaroon_name(&args.grant))?;
    let looks = args.grant.iter().any(|grant| matches!(grant, Grant::Read | Grant::GetInfo | Grant::Admin));
    let verb = if looks { " getinfo" } else { "" };
    println!("{}{verb}", lncli(&endpoint, config.deployment.network, &files));
    Ok(())
}

pub(super) async fn find(store: &dyn Store, Whose { app, uuid }: &Whose) -> Result<Node, Failure> {
    let none = || Failure::Failed(format!("app {app} has no user {uuid}"));
    let id = repo::get::<NodeName>(store, &NodeName::id_of(app, uuid)).await?.ok_or_else(none)?.value.node;
    Ok(repo::get::<Node>(store, id.as_str()).await?.ok_or_else(none)?.value)
}

fn macaroon_name(grants: &[Grant]) -> String {
    let names: Vec<&str> = grants.iter().map(|grant| name(*grant)).collect();
    format!("{}.macaroon", names.join("-"))
}

struct Files {
    certificate: PathBuf,
    macaroon: PathBuf,
}

fn write_files(folder: &Path, endpoint: &Endpoint, macaroon: &Macaroon, name: &str) -> Result<Files, Failure> {
    files::private_dir(folder).map_err(|e| cannot_write(folder, &e))?;
    let files = Files { certificate: folder.join("tls.cert"), macaroon: folder.join(name) };
    write_private(&files.certificate, endpoint.certificate_pem.as_bytes())?;
    write_private(&files.macaroon, macaroon.as_bytes())?;
    Ok(files)
}

pub(super) fn write_private(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    files::write_private(path, bytes).map_err(|e| cannot_write(path, &e))
}

pub(super) fn cannot_write(path: &Path, error: &std::io::Error) -> Failure {
    Failure::Failed(format!("cannot write {}: {error}", path.display()))
}

fn lncli(endpoint: &Endpoint, network: Network, files: &Files) -> String {
    let server = SocketAddr::new(endpoint.address, endpoint.rpc_port);
    let (certificate, macaroon) = (files.certificate.display(), files.macaroon.display());
    format!("lncli --network={network} --rpcserver={server} --tlscertpath='{certificate}' --macaroonpath='{macaroon}'")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_grant_has_one_name() {
        let names: std::collections::BTreeSet<_> = Grant::ALL.into_iter().map(name).collect();
        assert_eq!(names.len(), Grant::ALL.len());
        assert!(Grant::ALL.into_iter().all(|g| grant(name(g)) == Ok(g)));
        assert!(grant("everything").is_err());
    }
}
