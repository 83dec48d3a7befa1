//! `scale-lnd config check`: every fault of a master's or an agent's configuration at once, the files it names included.

use super::faults as faults_of;
use super::{ConfigArgs, Failure, admin, in_a_line};
use crate::config::chain::fault_of_password;
use crate::config::{self, ChainBackend, Config, StoreSection};
use crate::{deployment, http, master};
use clap::Subcommand;
use secrecy::ExposeSecret;
use std::path::Path;

/// Verbs about the configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Name every fault at once, or say that there is none
    Check(CheckArgs),
}

/// What is checked.
#[derive(Debug, clap::Args)]
pub struct CheckArgs {
    /// It is the configuration of a host's agent (`lndserver.toml`), not of a master
    #[arg(long)]
    agent: bool,
    #[command(flatten)]
    config: ConfigArgs,
}

/// Runs the verb.
pub fn run(command: ConfigCommand) -> Result<(), Failure> {
    let ConfigCommand::Check(args) = command;
    if args.agent {
        return agent(&args.config);
    }
    let config = admin::load(&args.config)?;
    let faults = faults_of_files(&config);
    if !faults.is_empty() {
        return Err(Failure::Usage(faults));
    }
    println!("the configuration is sound: deployment {} on {}", config.deployment.name, config.deployment.network);
    Ok(())
}

fn agent(args: &ConfigArgs) -> Result<(), Failure> {
    let loaded = config::agent::load(args.config.as_deref(), config::environment(), &args.set);
    let (agent, _) = loaded.map_err(faults_of)?;
    let folder = not_a_folder(&agent.data_dir).map(|fault| format!("agent.data_dir: {fault}"));
    // One without a folder is looked for in PATH, which may be another for the agent than here.
    let named = agent.lnd.components().count() > 1;
    let program = (named && !agent.lnd.is_file()).then(|| format!("agent.lnd: {} is not a file", agent.lnd.display()));
    let faults: Vec<String> = folder.into_iter().chain(program).collect();
    if !faults.is_empty() {
        return Err(Failure::Usage(faults));
    }
    println!("the agent's configuration is sound: it listens on {}", agent.listen);
    Ok(())
}

/// Why a folder can neither be there nor be made.
fn not_a_folder(path: &Path) -> Option<String> {
    let there = path.ancestors().find(|ancestor| ancestor.exists())?;
    (!there.is_dir()).then(|| format!("{} is not a folder", there.display()))
}

fn faults_of_files(config: &Config) -> Vec<String> {
    let mut faults = Vec::new();
    if let Err(e) = deployment::configured(&config.seal) {
        faults.push(format!("seal: {}", in_a_line(&e)));
    }
    if let Some(rpc) = config.chain.backend.rpc() {
        let found = match rpc.password.text() {
            Ok(password) => fault_of_password(password.expose_secret()).map(str::to_owned),
            Err(message) => Some(message),
        };
        faults.extend(found.map(|message| format!("chain.rpc_password_file: {message}")));
    }
    let mut files = Vec::new();
    if let ChainBackend::Btcd { cert_file, .. } = &config.chain.backend {
        files.push(("chain.rpc_cert_file", cert_file.as_path()));
    }
    if let (Some(cert), Some(key)) = (&config.http.tls_cert, &config.http.tls_key) {
        let found = http::check_certificate(cert, key).err();
        faults.extend(found.map(|e| format!("http.tls_cert, http.tls_key: {}", in_a_line(&e))));
    }
    if let Some(treasury) = &config.treasury {
        faults.extend(master::treasury_certificate(treasury).err().map(|e| in_a_line(&e)));
        faults.extend(master::treasury_macaroon(treasury).err().map(|e| in_a_line(&e)));
    }
    faults.extend(files.into_iter().filter_map(|(key, path)| unreadable(path).map(|e| format!("{key}: {e}"))));
    if let Some(github) = config.updates.as_ref().and_then(|updates| updates.github.as_ref()) {
        let secrets = github.webhook_secrets.iter().map(|secret| ("updates.webhook_secret_file", secret));
        let all = secrets.chain(github.token.iter().map(|token| ("updates.token_file", token)));
        faults.extend(all.filter_map(|(key, secret)| secret.text().err().map(|e| format!("{key}: {e}"))));
    }
    match &config.store {
        StoreSection::Sqlite { path } => {
            // The folder is made with the database.
            let fault = path.parent().and_then(not_a_folder);
            faults.extend(fault.map(|fault| format!("store.path: {fault}")));
        }
        StoreSection::Firestore(firestore) => {
            let unreadable = firestore.credentials_file.as_deref().and_then(unreadable);
            faults.extend(unreadable.map(|e| format!("store.credentials_file: {e}")));
        }
    }
    faults
}

fn unreadable(path: &Path) -> Option<String> {
    std::fs::File::open(path).err().map(|e| format!("cannot read {}: {e}", path.display()))
}
