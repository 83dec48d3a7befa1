//! `[updates]`: whose releases are believed, and where they are found.

use super::secret::SecretSource;
use super::setting::{Raw, Setting};
use super::source::{Found, Part, Section};
use crate::model::updates::Watched;
use crate::release::TrustedKey;
use std::time::Duration;

/// `[updates]`. Without it the deployment wants no release.
#[derive(Debug, Clone)]
pub struct UpdatesSection {
    /// The keys whose releases are believed.
    pub trusted_keys: Vec<TrustedKey>,
    /// Where releases are found by themselves. None: only an operator gives them.
    pub github: Option<GitHubSettings>,
}

/// The repository at GitHub.
#[derive(Debug, Clone)]
pub struct GitHubSettings {
    /// What is watched.
    pub watched: Watched,
    /// The manifest's path in it; its signature is beside it.
    pub manifest: String,
    /// Where GitHub's API is.
    pub api_url: String,
    /// A token that may read the repository, if it is private.
    pub token: Option<SecretSource>,
    /// The webhook's secret, and the one before it while it is changed. None: no webhook is taken.
    pub webhook_secrets: Vec<SecretSource>,
    /// How often the branch is looked at, whatever the webhook tells.
    pub poll_every: Duration,
}

impl Setting for TrustedKey {
    fn parse(raw: Raw) -> Result<Self, String> {
        String::parse(raw)?.parse().map_err(str::to_owned)
    }
}

const OF_GITHUB: [&str; 10] = [
    "branch",
    "manifest",
    "api_url",
    "poll_every_seconds",
    "token",
    "token_file",
    "webhook_secret",
    "webhook_secret_file",
    "former_webhook_secret",
    "former_webhook_secret_file",
];

impl GitHubSettings {
    /// `None` where no repository is named, and nothing about one may be said then.
    fn read(s: &mut Section<'_>) -> Option<Self> {
        let Some(repository) = s.optional::<String>("repository") else {
            for key in OF_GITHUB {
                s.refuse(key, "means nothing without repository");
            }
            return None;
        };
        let branch = s.or("branch", "main".to_owned());
        let secrets = [
            s.secret_or_file("webhook_secret", "webhook_secret_file"),
            s.secret_or_file("former_webhook_secret", "former_webhook_secret_file"),
        ];
        if let [None, Some(_)] = secrets {
            s.fault("former_webhook_secret_file", "means nothing without webhook_secret");
        }
        Some(Self {
            watched: Watched { repository, branch },
            manifest: s.or("manifest", "deploy/fleet.toml".to_owned()),
            api_url: s.or("api_url", "https://api.github.com".to_owned()),
            token: s.secret_or_file("token", "token_file"),
            webhook_secrets: secrets.into_iter().flatten().collect(),
            poll_every: Duration::from_secs(s.or("poll_every_seconds", 900)),
        })
    }

    fn validate(&self, found: &mut Found) {
        let is_part = |part: &str| {
            let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
            (1..=100).contains(&part.len()) && part.bytes().all(fits) && !part.bytes().all(|b| b == b'.')
        };
        let Watched { repository, branch } = &self.watched;
        if !repository.split_once('/').is_some_and(|(owner, name)| is_part(owner) && is_part(name)) {
            found.push(("updates.repository", "must be OWNER/NAME, such as acme/fleet".to_owned()));
        }
        if crate::model::updates::GitRef::parse(branch).is_none() {
            found.push(("updates.branch", "must be the name of a branch, such as main".to_owned()));
        }
        if !self.manifest.split('/').all(is_part) {
            let message = "must be a path in the repository, such as deploy/fleet.toml".to_owned();
            found.push(("updates.manifest", message));
        }
        let is_here = |rest: &str| {
            let host = rest.split(['/', ':']).next().unwrap_or_default();
            host.parse().is_ok_and(|host: std::net::IpAddr| host.is_loopback())
        };
        let url = self.api_url.as_str();
        if !url.starts_with("https://") && !url.strip_prefix("http://").is_some_and(is_here) {
            let message = "must begin with https:// (or http:// and an address of this machine)".to_owned();
            found.push(("updates.api_url", message));
        }
        if !(1..=86_400).contains(&self.poll_every.as_secs()) {
            found.push(("updates.poll_every_seconds", "must be from 1 to 86400".to_owned()));
        }
    }
}

impl Part for UpdatesSection {
    const NAME: &'static str = "updates";

    fn read(s: &mut Section<'_>) -> Option<Self> {
        let trusted_keys = s.required("trusted_keys");
        let github = GitHubSettings::read(s);
        Some(Self { trusted_keys: trusted_keys?, github })
    }

    fn validate(&self, found: &mut Found) {
        if self.trusted_keys.is_empty() {
            found.push(("updates.trusted_keys", "must have a key at least (`scale-lnd release keygen`)".to_owned()));
        }
        if let Some(github) = &self.github {
            github.validate(found);
        }
    }
}
