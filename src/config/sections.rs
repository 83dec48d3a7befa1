//! The sections about the deployment and its money: what each setting means, its default, and which values make no sense.

use super::setting::{Raw, Setting};
use super::source::{Found, Part, Section};
use crate::lndserver::options::LndOption;
use crate::model::Network;
use crate::model::app::Limits;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// `[deployment]`: which deployment this is. Recorded in the Store at the first start and compared at every later one.
#[derive(Debug, Clone)]
pub struct DeploymentSection {
    /// Its name: 1–32 characters of `a-z0-9-`. Secrets are sealed for it, so it never changes.
    pub name: String,
    /// The bitcoin network.
    pub network: Network,
}

/// What an operator says of a deployment on mainnet, word for word.
pub const REAL_MONEY: &str = "i understand that this is real money";

impl Part for DeploymentSection {
    const NAME: &'static str = "deployment";

    fn read(s: &mut Section<'_>) -> Option<Self> {
        let (name, network) = (s.required("name"), s.required("network"));
        let acknowledged: Option<String> = s.optional("mainnet_acknowledged");
        if acknowledged.as_deref().is_some_and(|said| said != REAL_MONEY) {
            s.fault("mainnet_acknowledged", format!("must be \"{REAL_MONEY}\", word for word"));
        } else if acknowledged.is_none() && network == Some(Network::Mainnet) {
            s.fault("mainnet_acknowledged", format!("is missing: on mainnet it must be \"{REAL_MONEY}\""));
        }
        Some(Self { name: name?, network: network? })
    }

    fn validate(&self, found: &mut Found) {
        let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if !(1..=32).contains(&self.name.len()) || !self.name.bytes().all(fits) {
            found.push(("deployment.name", "must be 1–32 characters of a-z, 0-9 and -".to_owned()));
        }
    }
}

/// `[store]`: where everything is kept.
#[derive(Debug, Clone)]
pub enum StoreSection {
    /// The embedded SQLite.
    Sqlite {
        /// The database file. All masters of the deployment run on this machine and name the same one.
        path: PathBuf,
    },
    /// Google's Firestore.
    Firestore(FirestoreSection),
}

/// `[store]` of the kind firestore. Any number of masters on any machines name the same project and database.
#[derive(Debug, Clone)]
pub struct FirestoreSection {
    /// The project at Google.
    pub project: String,
    /// The database in it, one for each deployment.
    pub database: String,
    /// A JSON file of Google's, of a service account or a workload identity federation. None: Google's usual places.
    pub credentials_file: Option<PathBuf>,
    /// Where Firestore is, where not at Google: an emulator or a proxy. Credentials go over https only.
    pub api_url: Option<String>,
}

/// The kinds of Store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StoreKind {
    Sqlite,
    Firestore,
}

impl Setting for StoreKind {
    fn parse(raw: Raw) -> Result<Self, String> {
        match String::parse(raw)?.as_str() {
            "sqlite" => Ok(Self::Sqlite),
            "firestore" => Ok(Self::Firestore),
            _ => Err("must be sqlite or firestore".to_owned()),
        }
    }
}

impl Part for StoreSection {
    const NAME: &'static str = "store";

    fn read(s: &mut Section<'_>) -> Option<Self> {
        match s.or("kind", StoreKind::Sqlite) {
            StoreKind::Sqlite => Some(Self::Sqlite { path: s.required("path")? }),
            StoreKind::Firestore => {
                let project = s.required("project");
                let database = s.or("database", "(default)".to_owned());
                let (credentials_file, api_url) = (s.optional("credentials_file"), s.optional("api_url"));
                Some(Self::Firestore(FirestoreSection { project: project?, database, credentials_file, api_url }))
            }
        }
    }

    fn validate(&self, found: &mut Found) {
        let Self::Firestore(firestore) = self else { return };
        // They become parts of paths.
        let is_name = |text: &str, more: &str| {
            (1..=63).contains(&text.len()) && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
        };
        if !is_name(&firestore.project, "-:.") {
            found.push(("store.project", "must be the id of a project, such as my-project-1".to_owned()));
        }
        if firestore.database != "(default)" && !is_name(&firestore.database, "-") {
            found.push(("store.database", "must be the id of a database, such as (default)".to_owned()));
        }
        let Some(url) = &firestore.api_url else { return };
        if !url.starts_with("https://") && !url.starts_with("http://") {
            found.push(("store.api_url", "must begin with https:// or http://".to_owned()));
        } else if url.starts_with("http://") && firestore.credentials_file.is_some() {
            found.push(("store.credentials_file", "is not used: over plain http no credentials are sent".to_owned()));
        }
    }
}

impl std::fmt::Display for StoreSection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sqlite { path } => path.display().fmt(f),
            Self::Firestore(firestore) => {
                write!(f, "Firestore, project {}, database {}", firestore.project, firestore.database)
            }
        }
    }
}

/// `[lnd]`: how every user's lnd is started.
#[derive(Debug, Clone)]
pub struct LndSection {
    /// Whether lnd serves its own REST too (for comparisons; the API never uses it).
    pub rest: bool,
    /// More arguments for lnd. Those that safety rests on cannot be changed by them.
    pub extra_args: Vec<String>,
    /// Whether channels over 16,777,215 sat are possible.
    pub wumbo: bool,
    /// Confirmations a channel needs; none: lnd scales them with the amount.
    pub default_chan_confs: Option<u16>,
}

impl Part for LndSection {
    const NAME: &'static str = "lnd";

    fn read(s: &mut Section<'_>) -> Option<Self> {
        Some(Self {
            rest: s.or("rest", false),
            extra_args: s.or("extra_args", Vec::new()),
            wumbo: s.or("wumbo", true),
            default_chan_confs: s.optional("default_chan_confs"),
        })
    }

    fn validate(&self, found: &mut Found) {
        let refused = self.extra_args.iter().filter_map(|arg| LndOption::parse(arg).err());
        found.extend(refused.map(|e| ("lnd.extra_args", e.to_string())));
        if self.default_chan_confs.is_some_and(|confs| !(1..=100).contains(&confs)) {
            found.push(("lnd.default_chan_confs", "must be from 1 to 100".to_owned()));
        }
    }
}

/// `[treasury]`: the deployment's own lnd, which funds new wallets.
#[derive(Debug, Clone)]
pub struct TreasurySection {
    /// Its gRPC, an IP address with a port.
    pub address: SocketAddr,
    /// Its certificate (PEM), the only one that is accepted.
    pub cert_file: PathBuf,
    /// The macaroon for it (as lnd writes it).
    pub macaroon_file: PathBuf,
}

impl Part for TreasurySection {
    const NAME: &'static str = "treasury";

    fn read(s: &mut Section<'_>) -> Option<Self> {
        let (address, cert, macaroon) = (s.required("address"), s.required("cert_file"), s.required("macaroon_file"));
        Some(Self { address: address?, cert_file: cert?, macaroon_file: macaroon? })
    }
}

/// `[funding]`: what new wallets get.
#[derive(Debug, Clone)]
pub struct FundingSection {
    /// What the treasury sends to each new wallet; 0: nothing.
    pub initial_funding_sat: u64,
}

impl Part for FundingSection {
    const NAME: &'static str = "funding";

    fn read(s: &mut Section<'_>) -> Option<Self> {
        Some(Self { initial_funding_sat: s.or("initial_funding_sat", 0) })
    }
}

/// `[payments]`: how payments are made.
#[derive(Debug, Clone)]
pub struct PaymentsSection {
    /// How much time a payment request must still have for a channel to be opened for it: the opening has to confirm.
    /// None: 30 minutes, on simnet and regtest 10 seconds.
    pub open_margin: Option<Duration>,
}

impl PaymentsSection {
    /// The margin that is wanted on `network`.
    #[must_use]
    pub fn open_margin_on(&self, network: Network) -> Duration {
        let usual = if network.is_playground() { Duration::from_secs(10) } else { Duration::from_secs(30 * 60) };
        self.open_margin.unwrap_or(usual)
    }
}

impl Part for PaymentsSection {
    const NAME: &'static str = "payments";

    fn read(s: &mut Section<'_>) -> Option<Self> {
        Some(Self { open_margin: s.optional("open_margin_seconds").map(Duration::from_secs) })
    }

    fn validate(&self, found: &mut Found) {
        if self.open_margin.is_some_and(|margin| margin > Duration::from_secs(86_400)) {
            found.push(("payments.open_margin_seconds", "must be at most 86400".to_owned()));
        }
    }
}

/// `[limits]`: ceilings of the whole deployment, beside those of each app.
impl Part for Limits {
    const NAME: &'static str = "limits";

    fn read(s: &mut Section<'_>) -> Option<Self> {
        Some(Self {
            nodes: s.optional("nodes"),
            creates_per_hour: s.optional("creates_per_hour"),
            funding_sat_per_day: s.optional("funding_sat_per_day"),
            outgoing_sat_per_day: s.optional("outgoing_sat_per_day"),
        })
    }
}

/// Whether `text` is `host:port`.
pub(super) fn is_host_and_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':' | b'[' | b']');
    !host.is_empty() && host.bytes().all(fits) && port.parse::<u16>().is_ok_and(|port| port > 0)
}
