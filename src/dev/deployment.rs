//! The local deployment: the configuration of its master and its agent, its app, its keys, and the invitation of its
//! one host. All of it is made once and kept.

use std::{fs, io, path::Path};

use secrecy::SecretString;
use serde_json::{Value, json};

use super::{
    binaries::NodeBinaries,
    btcd::ChainAccess,
    error::DevError,
    files::{private_dir, write_private},
    home::{Home, Ports},
    ports::SLOTS,
    tool::Tool,
    treasury::TreasuryAccess,
};
use crate::seal::{KeyError, Sealer};

/// Its name, for which secrets are sealed.
pub const NAME: &str = "dev";
/// The app whose key is printed.
pub const APP: &str = "demo";
/// What a new user's wallet gets.
pub const INITIAL_FUNDING_SAT: u64 = 1_000_000;

/// The keys to the API.
#[derive(Debug, Clone)]
pub struct ApiKeys {
    /// Of the app, for everything that an app may do.
    pub app: SecretString,
    /// Of the deployment's operator.
    pub operator: SecretString,
}

/// The deployment's sealing key, made at the first start.
pub fn sealer(home: &Home) -> Result<Sealer, DevError> {
    let path = home.dir("seal.key");
    let opened = if path.exists() { Sealer::from_file(&path) } else { Sealer::generate_file(&path) };
    opened.map_err(|error: KeyError| DevError::Unusable(format!("the sealing key: {error}")))
}

/// Writes the configuration of the master.
pub fn write_master(
    home: &Home,
    ports: &Ports,
    chain: &ChainAccess,
    treasury: &TreasuryAccess,
    with_rest: bool,
) -> Result<(), DevError> {
    let config = json!({
        "deployment": {"name": NAME, "network": "simnet"},
        "store": {"path": home.dir("store.db")},
        "seal": {"key_file": home.dir("seal.key")},
        "http": {"listen": format!("127.0.0.1:{}", ports.http.port)},
        // Nobody looks after a certificate while nothing runs, so it outlives long pauses.
        "agents": {"listen": format!("127.0.0.1:{}", ports.agents.port), "certificate_days": 3650},
        "chain": {
            "backend": "btcd",
            "rpc_host": chain.rpc,
            "rpc_user": chain.user,
            "rpc_password_file": chain.password_file,
            "rpc_cert_file": chain.certificate,
        },
        "lnd": {"rest": with_rest},
        "treasury": {
            "address": treasury.rpc,
            "cert_file": treasury.certificate,
            "macaroon_file": treasury.funding_macaroon,
        },
        "funding": {"initial_funding_sat": INITIAL_FUNDING_SAT},
    });
    write_toml(&home.dir("master.toml"), &config)
}

/// Makes the app and its keys, unless an earlier run did.
pub async fn api_keys(home: &Home, tool: &Tool) -> Result<ApiKeys, DevError> {
    let (app, operator) = (home.dir("api.key"), home.dir("operator.key"));
    if !app.exists() {
        let apps = tool.json(&["app", "list"]).await?;
        if !rows(&apps).iter().any(|row| row["app"] == APP) {
            tool.run(&["app", "create", APP]).await?;
        }
        let scopes = "read,invoice,pay,manage";
        make_key(&app, tool, &["key", "create", "--app", APP, "--scopes", scopes, "--note", "dev"]).await?;
    }
    if !operator.exists() {
        make_key(&operator, tool, &["key", "create", "--operator", "--note", "dev"]).await?;
    }
    let read = |path: &Path| fs::read_to_string(path).map_err(DevError::file("read", path)).map(SecretString::from);
    Ok(ApiKeys { app: read(&app)?, operator: read(&operator)? })
}

/// A crash between the two leaves a key that nobody knows, which is no harm.
async fn make_key(path: &Path, tool: &Tool, args: &[&str]) -> Result<(), DevError> {
    write_private(path, tool.run(args).await?.as_bytes())
}

/// Writes the configuration of the agent, which is invited first unless it has joined.
pub async fn write_agent(
    home: &Home,
    ports: &Ports,
    binaries: &NodeBinaries,
    with_rest: bool,
    tool: &Tool,
) -> Result<(), DevError> {
    let invitation = invitation(home, tool).await?;
    let token = home.dir("join.token");
    write_private(&token, invitation["join_token"].as_str().unwrap_or_default().as_bytes())?;
    let data_dir = home.dir("agent");
    private_dir(&data_dir)?;
    let config = json!({
        "agent": {
            "data_dir": data_dir,
            "listen": format!("127.0.0.1:{}", ports.agent.port),
            "masters": [format!("127.0.0.1:{}", ports.agents.port)],
            "ca_fingerprint": invitation["ca_fingerprint"],
            "lnd": binaries.lnd,
            "port_base": ports.slots.base,
            // Of lnds that were made by an earlier run, too: those run as they were ordered then.
            "lnd_rest": with_rest,
            "join_token_file": token,
        },
    });
    write_toml(&home.dir("lndserver.toml"), &config)
}

/// The invitation of the one host. Its token is good for an hour, so a host that never joined gets a new one.
async fn invitation(home: &Home, tool: &Tool) -> Result<Value, DevError> {
    let path = home.dir("invitation.json");
    let kept = fs::read(&path).ok().and_then(|text| serde_json::from_slice::<Value>(&text).ok());
    let host = kept.as_ref().and_then(|kept| kept["host_id"].as_str());
    let invitation = match (&kept, host) {
        (Some(kept), Some(host)) => {
            let hosts = tool.json(&["host", "list"]).await?;
            if rows(&hosts).iter().any(|row| row["host"] == host && row["state"] == "enrolled") {
                return Ok(kept.clone());
            }
            tool.json(&["host", "invite", "--again", host]).await?
        }
        _ => tool.json(&["host", "invite", "--slots", &SLOTS.to_string()]).await?,
    };
    write_private(&path, invitation.to_string().as_bytes())?;
    Ok(invitation)
}

fn rows(list: &Value) -> &[Value] {
    list.as_array().map_or(&[], Vec::as_slice)
}

fn write_toml(path: &Path, config: &Value) -> Result<(), DevError> {
    let text = toml::to_string(config).map_err(|error| DevError::file("write", path)(io::Error::other(error)))?;
    write_private(path, text.as_bytes())
}
