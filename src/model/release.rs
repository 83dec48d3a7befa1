//! A release: which lnd and which lndserver the hosts of a deployment are to run, where they load them from, and how fast they
//! may change to them. It is written as TOML (`release/manifest.rs`), signed, and refused whole where anything in it cannot be
//! understood: nobody guesses at what is going to hold everybody's money.

use super::network::Network;
use super::provision::{Arch, ProgramName};
use serde::de::{Error as _, Unexpected};
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The only form of a manifest that there is yet.
const FORMAT: u64 = 1;

/// A version as the program itself tells it, without `v` and without its commit, such as `0.21.2-beta`. Versions are only
/// ever compared for being the same: which may follow which is for the manifest to say.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Version(String);

impl Version {
    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// From what lnd's `GetInfo` and `lnd --version` tell: `0.21.2-beta commit=v0.21.2-beta`. The commit is empty in builds of
    /// Go's module proxy.
    #[must_use]
    pub fn of_lnd(told: &str) -> Option<(Self, Option<String>)> {
        let (version, rest) = told.split_once(' ').unwrap_or((told, ""));
        let commit = rest.trim().strip_prefix("commit=").filter(|commit| !commit.is_empty());
        Some((version.parse().ok()?, commit.map(str::to_owned)))
    }
}

impl FromStr for Version {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const LONGEST: usize = 64;
        let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'+');
        let is_version = text.starts_with(|c: char| c.is_ascii_digit()) && text.bytes().all(fits);
        if is_version && text.len() <= LONGEST {
            Ok(Self(text.to_owned()))
        } else {
            Err("is not a version as the program tells it, such as 0.21.2-beta")
        }
    }
}

impl TryFrom<String> for Version {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Version> for String {
    fn from(version: Version) -> Self {
        version.0
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A SHA-256 digest, 64 hexadecimal digits in lower case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Sha256(String);

impl Sha256 {
    /// Its digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// That of these 32 bytes.
    #[must_use]
    pub fn of_digest(digest: &[u8]) -> Self {
        Self(hex::encode(digest))
    }
}

impl TryFrom<String> for Sha256 {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        let is_digest = text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if is_digest { Ok(Self(text)) } else { Err("is not a SHA-256: 64 hexadecimal digits in lower case") }
    }
}

impl From<Sha256> for String {
    fn from(digest: Sha256) -> Self {
        digest.0
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where something is loaded from: https, or http on this machine.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ArtifactUrl(String);

impl ArtifactUrl {
    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is that of an archive which has the program in it, and not of the program itself.
    #[must_use]
    pub fn is_archive(&self) -> bool {
        let path = self.0.split(['?', '#']).next().unwrap_or_default();
        path.ends_with(".tar.gz") || path.ends_with(".tgz")
    }
}

impl TryFrom<String> for ArtifactUrl {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        const LONGEST: usize = 1000;
        let fits = |b: u8| b.is_ascii_alphanumeric() || b"-._~/:?&=%+[]".contains(&b);
        let uri = text.parse::<http::Uri>().ok().filter(|_| text.len() <= LONGEST && text.bytes().all(fits));
        let host = uri.as_ref().and_then(http::Uri::host).unwrap_or_default();
        let is_here = host.trim_matches(['[', ']']).parse().is_ok_and(|host: std::net::IpAddr| host.is_loopback());
        match uri.as_ref().and_then(http::Uri::scheme_str) {
            Some("https") if !host.is_empty() => Ok(Self(text)),
            Some("http") if is_here => Ok(Self(text)),
            _ => Err("is not a URL that begins with https:// (or http:// and an address of this machine)"),
        }
    }
}

impl From<ArtifactUrl> for String {
    fn from(url: ArtifactUrl) -> Self {
        url.0
    }
}

/// One file that a host loads: the program itself, or an archive (`.tar.gz`, `.tgz`) that has it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Artifact {
    /// Where it is.
    pub url: ArtifactUrl,
    /// The digest of what is loaded.
    pub sha256: Sha256,
}

/// What a release says of one program.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProgramRelease {
    /// What the program says of itself.
    pub version: Version,
    /// The commit that it names, where it names one.
    #[serde(default)]
    pub commit: Option<String>,
    /// The versions from which an update may start. A node on another one is left alone.
    pub update_from: Vec<Version>,
    /// The versions to which it may be reverted after it has run once: those that can read what it has written.
    #[serde(default)]
    pub revert_to: Vec<Version>,
    /// What is loaded, by processor.
    pub artifacts: BTreeMap<Arch, Artifact>,
}

impl ProgramRelease {
    /// Whether a program of this version may be replaced by this one.
    #[must_use]
    pub fn may_follow(&self, present: &Version) -> bool {
        self.update_from.contains(present)
    }

    /// Whether a program of this version may take over what this one has written.
    #[must_use]
    pub fn may_revert_to(&self, former: &Version) -> bool {
        self.revert_to.contains(former)
    }
}

/// How a release is rolled out.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RolloutSettings {
    /// How many nodes go first, alone.
    #[serde(deserialize_with = "from_1_to_1000")]
    pub canaries: u32,
    /// Which: those with this label. None: any, with channels if there are any.
    pub canary_label: Option<String>,
    /// How many nodes may be without their lnd at once, over the whole fleet.
    #[serde(deserialize_with = "from_1_to_1000")]
    pub max_unavailable: u32,
    /// And on one host.
    #[serde(deserialize_with = "from_1_to_1000")]
    pub max_unavailable_per_host: u32,
    /// How many nodes may fail before everything halts.
    pub max_failures: u32,
    /// How long the canaries have to be well before the others follow.
    #[serde(rename = "bake_seconds", with = "as_seconds")]
    pub bake: Duration,
    /// How long a node's work may go on before its lnd is stopped.
    #[serde(rename = "drain_deadline_seconds", with = "as_seconds")]
    pub drain_deadline: Duration,
    /// How long a node may take from its lnd's stop to having passed the gate.
    #[serde(rename = "progress_deadline_seconds", with = "as_seconds")]
    pub progress_deadline: Duration,
}

impl Default for RolloutSettings {
    fn default() -> Self {
        Self {
            canaries: 1,
            canary_label: None,
            max_unavailable: 1,
            max_unavailable_per_host: 1,
            max_failures: 0,
            bake: Duration::from_secs(600),
            drain_deadline: Duration::from_secs(60),
            progress_deadline: Duration::from_secs(1800),
        }
    }
}

fn from_1_to_1000<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    let number = u32::deserialize(from)?;
    let fault = || D::Error::invalid_value(Unexpected::Unsigned(number.into()), &"a number from 1 to 1000");
    (1..=1000).contains(&number).then_some(number).ok_or_else(fault)
}

mod as_seconds {
    use super::{Deserialize, Deserializer, Duration, Unexpected};
    use serde::Serializer;
    use serde::de::Error as _;

    pub fn serialize<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(duration.as_secs())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        const A_WEEK: u64 = 7 * 24 * 3600;
        let number = u64::deserialize(from)?;
        let fault = || D::Error::invalid_value(Unexpected::Unsigned(number), &"seconds, at most those of a week");
        (number <= A_WEEK).then(|| Duration::from_secs(number)).ok_or_else(fault)
    }
}

/// A release.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    #[serde(deserialize_with = "the_format")]
    format: u64,
    /// The deployment that it is for.
    pub deployment: String,
    /// And its network.
    pub network: Network,
    /// Counts releases: a deployment never goes to one with a lower serial.
    #[serde(deserialize_with = "serial")]
    pub serial: u64,
    /// No deployment begins with it after this.
    #[serde(deserialize_with = "datetime")]
    pub expires_at: OffsetDateTime,
    /// The lnd of every node.
    #[serde(default)]
    pub lnd: Option<ProgramRelease>,
    /// The agent of every host.
    #[serde(default)]
    pub lndserver: Option<ProgramRelease>,
    /// How it is rolled out.
    #[serde(default)]
    pub rollout: RolloutSettings,
}

fn the_format<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    let number = u64::deserialize(from)?;
    let fault = || D::Error::invalid_value(Unexpected::Unsigned(number), &"1, the only format that this program knows");
    (number == FORMAT).then_some(number).ok_or_else(fault)
}

fn serial<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    let number = u64::deserialize(from)?;
    let fault = || D::Error::invalid_value(Unexpected::Unsigned(number), &"a number from 1");
    (number > 0).then_some(number).ok_or_else(fault)
}

fn datetime<'de, D: Deserializer<'de>>(from: D) -> Result<OffsetDateTime, D::Error> {
    let given = toml::value::Datetime::deserialize(from)?;
    let fault = |_| D::Error::custom("must be a time with its offset, such as 2027-03-01T00:00:00Z");
    OffsetDateTime::parse(&given.to_string(), &Rfc3339).map_err(fault)
}

impl<'de> Deserialize<'de> for Arch {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let fault = || D::Error::unknown_variant(&text, &["x86_64", "arm64"]);
        Self::ALL.into_iter().find(|arch| arch.name() == text).ok_or_else(fault)
    }
}

impl Release {
    /// What it says of a program.
    #[must_use]
    pub fn program(&self, name: ProgramName) -> Option<&ProgramRelease> {
        match name {
            ProgramName::ScaleLnd => self.lndserver.as_ref(),
            ProgramName::Lnd => self.lnd.as_ref(),
        }
    }

    /// Its programs.
    pub fn programs(&self) -> impl Iterator<Item = (ProgramName, &ProgramRelease)> {
        ProgramName::ALL.into_iter().filter_map(|name| Some((name, self.program(name)?)))
    }

    /// What is wrong with it as a whole, whoever it is for.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        if self.programs().next().is_none() {
            return Some("names neither an lnd nor an lndserver".to_owned());
        }
        self.programs().find_map(|(name, program)| {
            let of = match name {
                ProgramName::ScaleLnd => "lndserver",
                ProgramName::Lnd => "lnd",
            };
            let fault = match program {
                program if program.artifacts.is_empty() => "has no artifacts",
                program if program.may_follow(&program.version) => "has its own version in update_from",
                program if program.revert_to.iter().any(|to| !program.may_follow(to)) => {
                    "has a version in revert_to that is not in update_from"
                }
                _ => return None,
            };
            Some(format!("[{of}] {fault}"))
        })
    }

    /// Whether a deployment may begin with it now.
    ///
    /// # Errors
    /// Why not.
    pub fn fits(&self, deployment: &str, network: Network, now: OffsetDateTime) -> Result<(), Unfit> {
        if self.deployment != deployment {
            Err(Unfit::OtherDeployment { of: self.deployment.clone() })
        } else if self.network != network {
            Err(Unfit::OtherNetwork { of: self.network })
        } else if now >= self.expires_at {
            Err(Unfit::Expired { at: self.expires_at })
        } else {
            Ok(())
        }
    }
}

/// Why a release that is well signed is none for this deployment, or none any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// It is another deployment's.
    #[error("it is for the deployment {of:?}, not for this one")]
    OtherDeployment {
        /// Whose.
        of: String,
    },
    /// It is for another network.
    #[error("it is for {of}, which is not this deployment's network")]
    OtherNetwork {
        /// Which.
        of: Network,
    },
    /// It is too late to begin with it.
    #[error("it has expired, at {at}")]
    Expired {
        /// When.
        at: OffsetDateTime,
    },
}
