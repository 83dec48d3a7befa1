//! Builds what a master has, from its configuration.

use super::{MasterError, authorities};
use crate::app::feed::Feed;
use crate::app::fleet::Fleet;
use crate::app::hosting::Supply;
use crate::app::keys::Keys;
use crate::app::lease::{Lease, Observer};
use crate::app::lnds::Lnds;
use crate::app::parts::Turns;
use crate::app::updates::{Source, Updates};
use crate::app::{Parts, Settings, Treasury};
use crate::clock::{SharedClock, SystemClock};
use crate::compute::ec2::{Ec2, Ec2Options};
use crate::config::{
    ComputeSection, Config, Ec2Section, GitHubSettings, SecretSource, TreasurySection, UpdatesSection,
    must_not_be_everybodys,
};
use crate::deployment::{self, KeySource};
use crate::github::GitHub;
use crate::http::Webhook;
use crate::lnd::PinnedCert;
use crate::lnd::client::LndClient;
use crate::lnd::macaroon::Macaroon;
use crate::lndserver::client::Agents;
use crate::model::{MasterId, Sat};
use crate::pki::Credentials;
use crate::release::TrustedKeys;
use secrecy::SecretString;
use std::path::Path;
use std::sync::Arc;
use zeroize::Zeroizing;

/// What a master has, before it listens.
pub(super) struct Built {
    pub(super) id: MasterId,
    pub(super) parts: Arc<Parts>,
    pub(super) fleet: Arc<Fleet>,
    pub(super) credentials: Credentials,
    pub(super) key_source: KeySource,
}

pub(super) async fn build(config: &Config) -> Result<Built, MasterError> {
    let clock: SharedClock = Arc::new(SystemClock);
    let key_source = KeySource::open(config).await?;
    let settings = settings(config)?;
    let treasury = config.treasury.as_ref().map(treasury).transpose()?;
    let store = deployment::open_store(config).await?;
    let section = &config.deployment;
    let opening = deployment::open(&*store, &key_source, section, clock.now()).await?;

    let keys = Keys::new(Arc::new(opening.sealer), section.name.clone(), section.network);
    let life = time::Duration::days(config.agents.certificate_days.into());
    let fleet = Arc::new(Fleet::open(Arc::clone(&store), Arc::clone(&clock), &keys, life).await?);
    let id = MasterId::random(&mut rand::rng());
    let credentials = fleet.master_credentials(&id)?;
    let ttl = config.master.lease_ttl;
    let supply = match &config.compute {
        ComputeSection::Manual => None,
        ComputeSection::Ec2(ec2) => Some(supply(config, ec2, &fleet).await?),
    };
    let lease = Lease::new(id.clone(), ttl, Arc::clone(&clock));
    lease.tell_keys(opening.versions);
    authorities::tell(&lease, &fleet, &credentials);
    let updates = config.updates.as_ref().map(|section| updates(config, section)).transpose()?;
    let parts = Parts {
        feed: Feed::new(),
        lease,
        observer: Observer::new(ttl),
        keys,
        lnds: Lnds::default(),
        agents: Agents::new(fleet.trust(), credentials.clone()),
        treasury,
        settings,
        supply,
        updates,
        turns: Turns::default(),
        funding_turn: tokio::sync::Mutex::default(),
        store,
        clock,
    };
    Ok(Built { id, parts: Arc::new(parts), fleet, credentials, key_source })
}

fn settings(config: &Config) -> Result<Settings, MasterError> {
    let network = config.deployment.network;
    Ok(Settings {
        network,
        initial_funding_sat: Sat(config.funding.initial_funding_sat),
        ceilings: config.limits,
        fixed_sat_per_vbyte: config.chain.sat_per_vbyte_on(network),
        open_margin: config.payments.open_margin_on(network),
        spec: super::node_spec(config)?,
    })
}

/// What new hosts are made of, where EC2 starts them.
async fn supply(config: &Config, section: &Ec2Section, fleet: &Arc<Fleet>) -> Result<Supply, MasterError> {
    let (deployment, authority) = (config.deployment.name.clone(), fleet.identity());
    let options = Ec2Options {
        region: section.region.clone(),
        endpoint_url: section.endpoint_url.clone(),
        deployment: deployment.clone(),
        authority: authority.clone(),
    };
    Ok(Supply {
        compute: Arc::new(Ec2::open(options).await),
        rules: section.rules,
        template: section.template.clone(),
        places: section.places.clone(),
        join_within: section.join_within.try_into().unwrap_or(time::Duration::HOUR),
        observe_every: section.observe_every,
        deployment,
        authority,
        masters: config.agents.dialled(),
        provision: section.provision(&config.agents, &config.chain),
        release_keys: config.updates.iter().flat_map(|u| &u.trusted_keys).map(ToString::to_string).collect(),
        fleet: Arc::clone(fleet),
    })
}

fn updates(config: &Config, section: &UpdatesSection) -> Result<Updates, MasterError> {
    let source = |github: &GitHubSettings| {
        let token = github.token.as_ref().map(|token| secret("updates.token_file", token)).transpose()?;
        let client = GitHub::new(&github.api_url, &github.watched.repository, token);
        let client = client.map_err(|e| MasterError::File { key: "updates.api_url", reason: e.to_string() })?;
        let (watched, manifest) = (github.watched.clone(), github.manifest.clone());
        Ok::<_, MasterError>(Source { github: client, watched, manifest, poll_every: github.poll_every })
    };
    Ok(Updates {
        trusted: TrustedKeys::new(section.trusted_keys.clone()),
        deployment: config.deployment.name.clone(),
        network: config.deployment.network,
        source: section.github.as_ref().map(source).transpose()?,
        turn: tokio::sync::Mutex::default(),
    })
}

/// What takes GitHub's webhook, where there is a secret for it.
pub(super) fn webhook(config: &Config) -> Result<Option<Webhook>, MasterError> {
    let Some(github) = config.updates.as_ref().and_then(|updates| updates.github.as_ref()) else { return Ok(None) };
    let secrets = github.webhook_secrets.iter().map(|source| secret("updates.webhook_secret_file", source));
    let secrets = secrets.collect::<Result<Vec<_>, _>>()?;
    Ok((!secrets.is_empty()).then(|| Webhook::new(&secrets, github.watched.clone())))
}

fn secret(key: &'static str, source: &SecretSource) -> Result<SecretString, MasterError> {
    source.text().map_err(|reason| MasterError::File { key, reason })
}

fn treasury(section: &TreasurySection) -> Result<Treasury, MasterError> {
    let (certificate, macaroon) = (treasury_certificate(section)?, treasury_macaroon(section)?);
    let client = LndClient::new(&section.address.to_string(), &certificate);
    let client = client.map_err(|e| MasterError::File { key: "treasury.address", reason: e.to_string() })?;
    Ok(Treasury { client, macaroon })
}

/// The treasury's certificate.
///
/// # Errors
/// [`MasterError::File`].
pub fn treasury_certificate(section: &TreasurySection) -> Result<PinnedCert, MasterError> {
    let key = "treasury.cert_file";
    let certificate = read(key, &section.cert_file)?;
    PinnedCert::from_pem(&certificate).map_err(|e| MasterError::File { key, reason: e.to_string() })
}

/// The macaroon for the treasury, from a file that is not everybody's.
///
/// # Errors
/// [`MasterError::File`].
pub fn treasury_macaroon(section: &TreasurySection) -> Result<Macaroon, MasterError> {
    let key = "treasury.macaroon_file";
    must_not_be_everybodys(&section.macaroon_file).map_err(|reason| MasterError::File { key, reason })?;
    let macaroon = read(key, &section.macaroon_file)?;
    Macaroon::parse(&macaroon).map_err(|e| MasterError::File { key, reason: e.to_string() })
}

pub(super) fn read(key: &'static str, path: &Path) -> Result<Zeroizing<Vec<u8>>, MasterError> {
    let read = std::fs::read(path).map(Zeroizing::new);
    read.map_err(|e| MasterError::File { key, reason: format!("cannot read {}: {e}", path.display()) })
}
