//! The configuration of a master: one TOML file, the environment over it, flags over that. Read and validated once; every
//! fault is named at once, and an unknown key is a fault.
//!
//! `http.listen` of the file is `SCALE_LND_HTTP_LISTEN` of the environment and `--set http.listen=…` of the command line.
//! Values that are secrets come from files of their own or from the environment.

pub mod agent;
mod boot;
pub mod chain;
mod compute;
mod seal;
mod secret;
mod sections;
mod serving;
mod setting;
mod source;
mod updates;

pub use boot::BootSettings;
pub use chain::{ChainBackend, ChainRpc, ChainSection};
pub use compute::{ComputeSection, Ec2Section};
pub use seal::SealSection;
pub use secret::{SecretSource, must_not_be_everybodys};
pub use sections::{
    DeploymentSection, FirestoreSection, FundingSection, LndSection, PaymentsSection, StoreSection, TreasurySection,
};
pub use serving::{AgentsSection, HttpSection, LogFormat, LogSection, MasterSection};
pub use source::{ConfigFault, ENV_PREFIX, Origin};
use source::{Found, Part, Settings};
pub use updates::{GitHubSettings, UpdatesSection};

use crate::model::Network;
use crate::model::app::Limits;
use std::path::Path;

const SECTIONS: &[&str] = &[
    "deployment",
    "store",
    "seal",
    "http",
    "agents",
    "chain",
    "lnd",
    "compute",
    "treasury",
    "funding",
    "payments",
    "limits",
    "updates",
    "master",
    "log",
];

/// A master's configuration. `Debug` shows no secret.
#[derive(Debug, Clone)]
pub struct Config {
    /// Which deployment this is.
    pub deployment: DeploymentSection,
    /// The Store.
    pub store: StoreSection,
    /// The sealing keys.
    pub seal: SealSection,
    /// The REST API.
    pub http: HttpSection,
    /// The hosts' agents.
    pub agents: AgentsSection,
    /// The chain backend of the lnds.
    pub chain: ChainSection,
    /// How lnds are started.
    pub lnd: LndSection,
    /// Where machines come from.
    pub compute: ComputeSection,
    /// The treasury, if there is one.
    pub treasury: Option<TreasurySection>,
    /// What new wallets get.
    pub funding: FundingSection,
    /// How payments are made.
    pub payments: PaymentsSection,
    /// Ceilings of the deployment.
    pub limits: Limits,
    /// Whose releases are believed, if anybody's.
    pub updates: Option<UpdatesSection>,
    /// How masters share the work.
    pub master: MasterSection,
    /// What is logged.
    pub log: LogSection,
}

impl Config {
    /// Reads and validates the configuration. `flags` are (`section.key`, value).
    ///
    /// # Errors
    /// All the faults there are.
    pub fn load(
        path: Option<&Path>,
        env: impl IntoIterator<Item = (String, String)>,
        flags: &[(String, String)],
    ) -> Result<Self, Vec<ConfigFault>> {
        let mut settings = Settings::gather(SECTIONS, path, env, flags);
        match Self::read(&mut settings) {
            Some(config) if settings.is_faultless() => Ok(config),
            _ => Err(settings.into_faults()),
        }
    }

    fn read(settings: &mut Settings) -> Option<Self> {
        let has_treasury = settings.is_given(TreasurySection::NAME);
        let has_updates = settings.is_given(UpdatesSection::NAME);
        // All of them are read before the first one that is missing ends this.
        let deployment = settings.part::<DeploymentSection>();
        let store = settings.part::<StoreSection>();
        let seal = settings.part::<SealSection>();
        let http = settings.part::<HttpSection>();
        let agents = settings.part::<AgentsSection>();
        let chain = settings.part::<ChainSection>();
        let lnd = settings.part::<LndSection>();
        let compute = settings.part::<ComputeSection>();
        let treasury = if has_treasury { settings.part::<TreasurySection>() } else { None };
        let funding = settings.part::<FundingSection>();
        let payments = settings.part::<PaymentsSection>();
        let limits = settings.part::<Limits>();
        let updates = if has_updates { settings.part::<UpdatesSection>() } else { None };
        let master = settings.part::<MasterSection>();
        let log = settings.part::<LogSection>();

        let mut found = Found::new();
        if funding.as_ref().is_some_and(|f| f.initial_funding_sat > 0) && !has_treasury {
            found.push(("funding.initial_funding_sat", "needs a treasury: [treasury] is missing".to_owned()));
        }
        if deployment.as_ref().is_some_and(|d| d.network == Network::Mainnet) {
            mainnet(store.as_ref(), http.as_ref(), seal.as_ref(), limits.as_ref(), &mut found);
        }
        if let (Some(deployment), Some(chain)) = (&deployment, &chain) {
            chain.validate_on(deployment.network, lnd.as_ref(), &mut found);
        }
        if let (Some(ComputeSection::Ec2(ec2)), Some(agents), Some(chain)) = (&compute, &agents, &chain) {
            ec2.validate_with(agents, chain, updates.as_ref(), &mut found);
        }
        settings.found(found);

        Some(Self {
            deployment: deployment?,
            store: store?,
            seal: seal?,
            http: http?,
            agents: agents?,
            chain: chain?,
            lnd: lnd?,
            compute: compute?,
            treasury,
            funding: funding?,
            payments: payments?,
            limits: limits?,
            updates,
            master: master?,
            log: log?,
        })
    }
}

/// What must be there where the money is real.
fn mainnet(
    store: Option<&StoreSection>,
    http: Option<&HttpSection>,
    seal: Option<&SealSection>,
    limits: Option<&Limits>,
    found: &mut Found,
) {
    if let Some(StoreSection::Firestore(FirestoreSection { api_url: Some(url), .. })) = store
        && !url.starts_with("https://")
    {
        found.push(("store.api_url", "must be https on mainnet".to_owned()));
    }
    if http.is_some_and(|http| http.tls_cert.is_none() && http.tls_key.is_none()) {
        found.push(("http.tls_cert", "is missing: on mainnet the API is HTTPS".to_owned()));
    }
    let of_environment = |(_, source): &(u32, SecretSource)| matches!(source, SecretSource::Value(_));
    if seal.is_some_and(|seal| seal.keys.iter().any(of_environment)) {
        let message = "is in the environment, which children inherit and process listings show: on mainnet give \
                       key_file, key_files or kms_key";
        found.push(("seal.key", message.to_owned()));
    }
    let kms_url = seal.and_then(|seal| seal.kms.as_ref()?.endpoint_url.as_ref());
    if kms_url.is_some_and(|url| !url.starts_with("https://")) {
        found.push(("seal.kms_endpoint_url", "must be https on mainnet: keys come from there".to_owned()));
    }
    let Some(limits) = limits else { return };
    let ceilings = limits.unset().into_iter().map(|name| match name {
        "nodes" => "limits.nodes",
        "creates_per_hour" => "limits.creates_per_hour",
        "funding_sat_per_day" => "limits.funding_sat_per_day",
        _ => "limits.outgoing_sat_per_day",
    });
    found.extend(ceilings.map(|key| (key, "is missing: on mainnet every ceiling is set".to_owned())));
}

/// The variables of this process that may be settings.
pub fn environment() -> Vec<(String, String)> {
    let ours = std::env::vars_os().filter_map(|(name, value)| {
        let name = name.into_string().ok()?;
        name.starts_with(ENV_PREFIX).then(|| (name, value.to_string_lossy().into_owned()))
    });
    ours.collect()
}

#[cfg(test)]
#[path = "config/tests.rs"]
mod tests;

#[cfg(test)]
#[path = "config/network_tests.rs"]
mod network_tests;
