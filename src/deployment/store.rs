//! Which Store it is: the one place that names them all.

use crate::config::{Config, FirestoreSection, StoreSection};
use crate::model::Network;
use crate::store::Store;
use crate::store::firestore::{self, FirestoreOptions, FirestoreStore};
use crate::store::sqlite::{self, SqliteOptions, SqliteStore};
use std::sync::Arc;

/// Where Google's tools look for an emulator: `host:port`.
const EMULATOR: &str = "FIRESTORE_EMULATOR_HOST";

/// Why the Store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenStoreError {
    /// SQLite.
    #[error(transparent)]
    Sqlite(#[from] sqlite::OpenError),
    /// Firestore.
    #[error(transparent)]
    Firestore(#[from] firestore::OpenError),
    /// Money that is real does not go through an emulator, which forgets everything.
    #[error("on mainnet Firestore is reached by https only; store.api_url or {EMULATOR} says otherwise")]
    Plain,
}

/// Opens the Store that the configuration names.
///
/// # Errors
/// See [`OpenStoreError`].
pub async fn open_store(config: &Config) -> Result<Arc<dyn Store>, OpenStoreError> {
    match &config.store {
        StoreSection::Sqlite { path } => Ok(Arc::new(SqliteStore::open(path, SqliteOptions::default()).await?)),
        StoreSection::Firestore(section) => {
            let options = options(section, std::env::var(EMULATOR).ok());
            let plain = options.api_url.as_ref().is_some_and(|url| !url.starts_with("https://"));
            if plain && config.deployment.network == Network::Mainnet {
                return Err(OpenStoreError::Plain);
            }
            if let Some(url) = &options.api_url {
                tracing::warn!(url, "the Store is not Google's Firestore but what answers there");
            }
            Ok(Arc::new(FirestoreStore::open(options).await?))
        }
    }
}

fn options(section: &FirestoreSection, emulator: Option<String>) -> FirestoreOptions {
    let emulator = emulator.filter(|host| !host.is_empty()).map(|host| format!("http://{host}"));
    FirestoreOptions {
        database: section.database.clone(),
        credentials_file: section.credentials_file.clone(),
        api_url: section.api_url.clone().or(emulator),
        ..FirestoreOptions::new(section.project.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_over_the_emulators_variable() {
        let section = |api_url: Option<&str>| FirestoreSection {
            project: "p".to_owned(),
            database: "d".to_owned(),
            credentials_file: None,
            api_url: api_url.map(str::to_owned),
        };
        let url = |given, variable: Option<&str>| options(&section(given), variable.map(str::to_owned)).api_url;
        assert_eq!(url(None, None), None);
        assert_eq!(url(None, Some("")), None);
        assert_eq!(url(None, Some("127.0.0.1:8080")).as_deref(), Some("http://127.0.0.1:8080"));
        assert_eq!(url(Some("https://proxy"), Some("127.0.0.1:8080")).as_deref(), Some("https://proxy"));
    }
}
