//! What verbs stand on that work on the Store directly: the operator types them on the masters' machine, beside running
//! masters, which notice through the change feed.

use super::{ConfigArgs, Failure, faults};
use crate::app::keys::Keys;
use crate::clock::{Clock, SystemClock};
use crate::config::{self, Config};
use crate::deployment::{self, KeySource, Opened};
use crate::model::AppId;
use crate::store::Store;
use std::sync::Arc;
use time::OffsetDateTime;

/// An opened Store whose deployment and keys fit the configuration.
pub struct Admin {
    /// The configuration.
    pub config: Config,
    /// The Store.
    pub store: Arc<dyn Store>,
    /// Where the sealing keys come from.
    pub key_source: KeySource,
    /// Seals, opens, bakes.
    pub keys: Keys,
}

/// Flags that every listing has.
#[derive(Debug, Clone, clap::Args)]
pub struct ListArgs {
    /// Where the configuration is.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Print JSON instead of a table
    #[arg(long)]
    pub json: bool,
}

/// Reads the configuration; every fault is a line.
pub fn load(args: &ConfigArgs) -> Result<Config, Failure> {
    Config::load(args.config.as_deref(), config::environment(), &args.set).map_err(faults)
}

/// Reads the configuration and opens the Store.
pub async fn open(args: &ConfigArgs) -> Result<Admin, Failure> {
    let config = load(args)?;
    let store = deployment::open_store(&config).await?;
    let key_source = KeySource::open(&config).await?;
    let opening = deployment::open(&*store, &key_source, &config.deployment, now()).await?;
    if opening.opened == Opened::New {
        eprintln!("a new store was made: {}", config.store);
    }
    let keys = Keys::new(Arc::new(opening.sealer), config.deployment.name.clone(), config.deployment.network);
    Ok(Admin { config, store, key_source, keys })
}

/// Now.
pub fn now() -> OffsetDateTime {
    SystemClock.now()
}

/// Reads an app's name from an argument.
pub fn app_id(text: &str) -> Result<AppId, String> {
    AppId::parse(text).ok_or_else(|| "must be 1–32 characters of a-z, 0-9 and -, not beginning with -".to_owned())
}

/// A time for people.
pub fn shown(at: OffsetDateTime) -> serde_json::Value {
    let text = at.replace_nanosecond(0).unwrap_or(at).format(&time::format_description::well_known::Rfc3339);
    text.map_or(serde_json::Value::Null, serde_json::Value::String)
}
