//! What the deployment is told about releases, and which it wants: a webhook's delivery is only a hint that somewhere in the
//! watched repository there may be one.

mod hint;

pub use hint::{Hint, Ignored, Watched, hint};

use super::ids::{OperationId, digest_id};
use serde::{Deserialize, Serialize};
use std::fmt;
use time::OffsetDateTime;

/// A place in the history of a git repository: a commit, or a tag. It becomes part of a URL's query and nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GitRef(String);

impl GitRef {
    /// One of these characters, as long as git lets a name be on most systems.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        const LONGEST: usize = 200;
        let fits = |b: u8| b.is_ascii_alphanumeric() || b"._/+-@".contains(&b);
        let begins = text.starts_with(|c: char| c.is_ascii_alphanumeric());
        let is_name = begins && text.len() <= LONGEST && text.bytes().all(fits) && !text.contains("..");
        is_name.then(|| Self(text.to_owned()))
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is a commit, and not a name that may come to mean another one.
    #[must_use]
    pub fn is_commit(&self) -> bool {
        matches!(self.0.len(), 40 | 64) && self.0.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    }
}

impl TryFrom<String> for GitRef {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text).ok_or("is no commit and no tag")
    }
}

impl From<GitRef> for String {
    fn from(source: GitRef) -> Self {
        source.0
    }
}

impl fmt::Display for GitRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of a delivery: GitHub's `X-GitHub-Delivery`, which a redelivery keeps.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DeliveryId(String);

impl DeliveryId {
    /// A GUID, or what looks as harmless.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        ((1..=64).contains(&text.len()) && text.bytes().all(fits)).then(|| Self(text.to_owned()))
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for DeliveryId {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text).ok_or("is not the name of a delivery")
    }
}

impl From<DeliveryId> for String {
    fn from(id: DeliveryId) -> Self {
        id.0
    }
}

/// A delivery of a webhook that was really GitHub's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// Its name.
    pub id: DeliveryId,
    /// GitHub's name of the event.
    pub event: String,
    /// What it came to.
    pub heard: Heard,
    /// When it first came.
    #[serde(with = "time::serde::rfc3339")]
    pub received_at: OffsetDateTime,
}

impl Delivery {
    /// The index by which the latest are found, and those that are forgotten: the hour since 1970 in which it came.
    pub const HOUR: &'static str = "hour";
    /// How long it is kept. GitHub lets deliveries of three days be sent again.
    pub const KEPT_FOR: time::Duration = time::Duration::days(7);
}

/// What a delivery came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Heard {
    /// It says nothing of a release.
    Ignored {
        /// Why.
        reason: Ignored,
    },
    /// There may be a release.
    Hint {
        /// Where.
        source: GitRef,
        /// The operation that looks.
        operation: OperationId,
    },
}

/// Who looks, or has looked, at a place for a release: a place is looked at once, however often one is told of it, unless
/// that has failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Looked {
    /// The place.
    pub source: GitRef,
    /// The operation.
    pub operation: OperationId,
}

impl Looked {
    /// Its id in the Store.
    #[must_use]
    pub fn id_of(source: &GitRef) -> String {
        digest_id(&["look", source.as_str()])
    }
}

/// A release that was wanted once, with what others need to make sure of it for themselves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseRecord {
    /// Its serial.
    pub serial: u64,
    /// The manifest, exactly as it was signed.
    pub manifest: String,
    /// Its signature.
    pub signature: String,
    /// The key that has signed it.
    pub signed_by: String,
    /// Where it was found; none: an operator gave it.
    pub source: Option<GitRef>,
    /// When the deployment began to want it.
    #[serde(with = "time::serde::rfc3339")]
    pub wanted_since: OffsetDateTime,
}

impl ReleaseRecord {
    /// Its id in the Store: in the order of serials.
    #[must_use]
    pub fn id_of(serial: u64) -> String {
        format!("{serial:020}")
    }
}

/// Which release the deployment wants. There is one such document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// Its serial. It only rises.
    pub serial: u64,
}

impl Wanted {
    /// Its id in the Store.
    pub const ID: &'static str = "release";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_git_are_harmless_in_a_url() {
        for good in ["0123456789abcdef0123456789abcdef01234567", "v1.2.3", "release/2026-11+1", "a"] {
            assert!(GitRef::parse(good).is_some(), "{good}");
        }
        for bad in ["", "-x", "/x", "a..b", "a b", "a&ref=b", "a?b", "a#b", "a%2e", "ä", &"x".repeat(201)] {
            assert!(GitRef::parse(bad).is_none(), "{bad}");
        }
        assert!(GitRef::parse("0123456789abcdef0123456789abcdef01234567").unwrap().is_commit());
        assert!(!GitRef::parse("0123456789ABCDEF0123456789abcdef01234567").unwrap().is_commit());
    }

    #[test]
    fn releases_are_in_the_order_of_their_serials() {
        assert!(ReleaseRecord::id_of(9) < ReleaseRecord::id_of(10));
        assert!(ReleaseRecord::id_of(u64::MAX - 1) < ReleaseRecord::id_of(u64::MAX));
    }
}
