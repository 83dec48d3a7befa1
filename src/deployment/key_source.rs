//! Where the sealing keys come from: those that the operator configures, and those that a key service has wrapped, which are
//! in the Store.

use super::OpenError;
use crate::app::keys;
use crate::config::{Config, DeploymentSection, SealSection, SecretSource};
use crate::kms::{AwsKms, KeyService, KmsError};
use crate::model::Network;
use crate::model::deployment::{Deployment, WrappedKey};
use crate::seal::{KeyError, SealContext, SealError, SealKey, Sealed, Sealer};
use secrecy::ExposeSecret;
use std::collections::BTreeMap;
use std::sync::Arc;
use time::OffsetDateTime;
use tokio::sync::Mutex;

/// What is sealed to see whether a key opens the Store.
const CHECK: &[u8] = b"scale-lnd";
/// Where AWS's tools look for another KMS than AWS's.
const ENDPOINTS: [&str; 2] = ["AWS_ENDPOINT_URL_KMS", "AWS_ENDPOINT_URL"];

/// The sealing keys there are for a deployment.
#[derive(Debug)]
pub struct KeySource {
    configured: BTreeMap<u32, SealKey>,
    service: Option<Arc<dyn KeyService>>,
    /// What the service has unwrapped, so that it is asked once for each.
    unwrapped: Mutex<Vec<(WrappedKey, SealKey)>>,
}

/// The sealing keys that the operator hands out: in files or in the environment.
///
/// # Errors
/// When a key cannot be read, is exposed to others, or there are two of one version.
pub fn configured(section: &SealSection) -> Result<BTreeMap<u32, SealKey>, KeyError> {
    let mut keys = BTreeMap::new();
    for (version, source) in &section.keys {
        let key = match source {
            SecretSource::Value(hex) => SealKey::from_hex(hex.expose_secret()),
            SecretSource::File(path) => SealKey::from_file(path),
        };
        if keys.insert(*version, key?).is_some() {
            return Err(KeyError::Versions);
        }
    }
    Ok(keys)
}

impl KeySource {
    /// Of these keys and, if there is one, this service.
    #[must_use]
    pub fn new(configured: BTreeMap<u32, SealKey>, service: Option<Arc<dyn KeyService>>) -> Self {
        Self { configured, service, unwrapped: Mutex::default() }
    }

    /// As configured. KMS is not asked yet.
    ///
    /// # Errors
    /// As [`configured`]; and on mainnet keys come over https only.
    pub async fn open(config: &Config) -> Result<Self, KeyError> {
        let configured = configured(&config.seal)?;
        let Some(options) = &config.seal.kms else { return Ok(Self::new(configured, None)) };
        let is_plain = |url: String| url.starts_with("http://");
        let variable = ENDPOINTS.into_iter().find(|name| std::env::var(name).is_ok_and(is_plain));
        if let Some(variable) = variable.filter(|_| config.deployment.network == Network::Mainnet) {
            return Err(KeyError::Plain { variable });
        }
        Ok(Self::new(configured, Some(Arc::new(AwsKms::open(options.clone()).await))))
    }

    /// The newest version that the operator has handed out.
    pub(super) fn newest_configured(&self) -> Option<u32> {
        self.configured.keys().next_back().copied()
    }

    /// Whether a service can make new keys.
    pub(super) fn has_service(&self) -> bool {
        self.service.is_some()
    }

    /// What seals and opens in the Store of `deployment`: proven to open all that may be sealed there.
    ///
    /// # Errors
    /// When a key is missing, is another one, or the service does not unwrap it.
    pub async fn sealer(&self, deployment: &Deployment) -> Result<Sealer, OpenError> {
        let mut keys = self.configured.clone();
        for wrapped in &deployment.wrapped {
            if keys.insert(wrapped.version, self.unwrap(&deployment.name, wrapped).await?).is_some() {
                return Err(KeyError::Versions.into());
            }
        }
        // Of keys that were retired meanwhile: what was read from the Store before that still opens in this process.
        for (wrapped, key) in self.unwrapped.lock().await.iter() {
            keys.entry(wrapped.version).or_insert_with(|| key.clone());
        }
        if keys.is_empty() {
            return Err(SealError::UnknownKeyVersion { version: deployment.sealing() }.into());
        }
        let sealer = Sealer::new(keys)?.sealing_under(deployment.sealing())?;
        for check in &deployment.key_checks {
            sealer.open(&check_context(deployment), check)?;
        }
        Ok(sealer)
    }

    /// A deployment that is new, and what seals in it.
    pub(super) async fn first(
        &self,
        section: &DeploymentSection,
        now: OffsetDateTime,
    ) -> Result<(Deployment, Sealer), OpenError> {
        let newest = self.newest_configured();
        let version = if self.has_service() { newest.unwrap_or(0) + 1 } else { newest.ok_or(KeyError::Versions)? };
        let mut deployment = Deployment {
            name: section.name.clone(),
            network: section.network,
            key_checks: Vec::new(),
            sealing: Some(version),
            wrapped: Vec::new(),
            created_at: now,
        };
        self.announce(&mut deployment, version, now).await?;
        let sealer = self.sealer(&deployment).await?;
        Ok((deployment, sealer))
    }

    /// Adds this version to `deployment`: the configured key, else one that the service makes. It counts when the document was
    /// stored.
    pub(crate) async fn announce(
        &self,
        deployment: &mut Deployment,
        version: u32,
        now: OffsetDateTime,
    ) -> Result<(), OpenError> {
        let key = match (self.configured.get(&version), &self.service) {
            (Some(key), _) => key.clone(),
            (None, Some(service)) => {
                let wrapped = service.generate(&deployment.name, version, now).await?;
                // What is kept unwraps, before anything is sealed under it.
                let key = self.unwrap(&deployment.name, &wrapped).await?;
                deployment.wrapped.push(wrapped);
                key
            }
            (None, None) => return Err(SealError::UnknownKeyVersion { version }.into()),
        };
        // Where none is named the newest seals, which this one must not do yet.
        deployment.sealing = Some(deployment.sealing());
        let check: Sealed = Sealer::new([(version, key)])?.seal(&check_context(deployment), CHECK)?;
        deployment.key_checks.push(check);
        Ok(())
    }

    async fn unwrap(&self, deployment: &str, wrapped: &WrappedKey) -> Result<SealKey, KmsError> {
        let mut unwrapped = self.unwrapped.lock().await;
        if let Some((_, key)) = unwrapped.iter().find(|(known, _)| known == wrapped) {
            return Ok(key.clone());
        }
        let not_named = || KmsError::NotNamed { version: wrapped.version, by: wrapped.by.clone() };
        let key = self.service.as_ref().ok_or_else(not_named)?.unwrap(deployment, wrapped).await?;
        unwrapped.push((wrapped.clone(), key.clone()));
        Ok(key)
    }
}

fn check_context(deployment: &Deployment) -> SealContext<'_> {
    SealContext {
        deployment: &deployment.name,
        network: deployment.network.as_str(),
        owner: keys::DEPLOYMENT,
        field: keys::field::KEY_CHECK,
    }
}
