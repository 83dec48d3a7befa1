//! `scale-lnd config check`: every fault of a master's configuration at once, the files it names included.

use super::{ConfigArgs, Failure, admin, in_a_line};
use crate::config::chain::fault_of_password;
use crate::config::{ChainBackend, Config, StoreSection};
use crate::{deployment, http, master};
use clap::Subcommand;
use secrecy::ExposeSecret;
use std::path::Path;

/// Verbs about the configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Name every fault at once, or say that there is none
    Check(ConfigArgs),
}

/// Runs the verb.
pub fn run(command: ConfigCommand) -> Result<(), Failure> {
    let ConfigCommand::Check(args) = command;
    let config = admin::load(&args)?;
    let faults = faults_of_files(&config);
    if !faults.is_empty() {
        return Err(Failure::Usage(faults));
    }
    println!("the configuration is sound: deployment {} on {}", config.deployment.name, config.deployment.network);
    Ok(())
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
    match &config.store {
        StoreSection::Sqlite { path } => {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            if folder.is_some_and(|folder| !folder.is_dir()) {
                faults.push("store.path: its folder does not exist".to_owned());
            }
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
