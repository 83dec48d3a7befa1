//! The deployment's certificate authority as the Store has it, and how another takes over from it.

use crate::seal::Sealed;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

/// The deployment's certificate authority, which masters and agents know each other by. One document, made by the first
/// master.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Authority {
    /// The certificate (PEM) of the one that issues.
    pub certificate_pem: String,
    /// Its private key (PEM). Sealed for owner `deployment`, field `ca_key`.
    pub key: Sealed,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// The fingerprint of the first authority: what machines of this deployment are marked with, for ever. None while there
    /// was no other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// Grows by one with every step of every roll: of two lists of whom to believe the one of the higher step counts.
    #[serde(default)]
    pub step: u64,
    /// Another is taking over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roll: Option<Roll>,
}

/// An authority beside the one that issues.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AuthorityKey {
    /// Its certificate (PEM).
    pub certificate_pem: String,
    /// Its private key (PEM), sealed like that of the one that issues.
    pub key: Sealed,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

/// How far a change of the authority is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub enum Roll {
    /// There is another, which everybody is to believe; it issues nothing yet.
    Announced {
        /// That one.
        next: AuthorityKey,
    },
    /// The new one issues, and all certificates of the former are replaced.
    Issuing {
        /// Still believed. Machines may be on their way whose join tokens were made from its key.
        former: AuthorityKey,
    },
    /// The former is believed by no master any more, its key is gone, and hosts are told to forget it.
    Retiring,
}

impl Authority {
    /// The id of the only document.
    pub const ID: &'static str = "ca";

    /// The first of a deployment.
    #[must_use]
    pub fn first(made: AuthorityKey) -> Self {
        let AuthorityKey { certificate_pem, key, created_at } = made;
        Self { certificate_pem, key, created_at, identity: None, step: 0, roll: None }
    }

    /// The certificates of those that are to be believed; the one that issues is the first.
    #[must_use]
    pub fn believed(&self) -> Vec<&str> {
        let other = match &self.roll {
            Some(Roll::Announced { next: other } | Roll::Issuing { former: other }) => Some(&*other.certificate_pem),
            Some(Roll::Retiring) | None => None,
        };
        std::iter::once(&*self.certificate_pem).chain(other).collect()
    }

    /// Every key that is sealed here.
    pub fn keys_mut(&mut self) -> impl Iterator<Item = &mut Sealed> {
        let other = match &mut self.roll {
            Some(Roll::Announced { next: other } | Roll::Issuing { former: other }) => Some(&mut other.key),
            Some(Roll::Retiring) | None => None,
        };
        std::iter::once(&mut self.key).chain(other)
    }

    /// Begins a change to `next`. `own` is the fingerprint of the one that issues.
    #[must_use]
    pub fn announcing(self, next: AuthorityKey, own: String) -> Self {
        let identity = self.identity.or(Some(own));
        Self { identity, step: self.step + 1, roll: Some(Roll::Announced { next }), ..self }
    }

    /// The next step of the change that was begun: the new one issues, then the former is dropped, then forgotten.
    #[must_use]
    pub fn advanced(self) -> Self {
        let Self { certificate_pem, key, created_at, identity, step, roll } = self;
        let own = AuthorityKey { certificate_pem, key, created_at };
        let (issues, roll) = match roll {
            Some(Roll::Announced { next }) => (next, Some(Roll::Issuing { former: own })),
            Some(Roll::Issuing { .. }) => (own, Some(Roll::Retiring)),
            Some(Roll::Retiring) | None => (own, None),
        };
        Self { identity, step: step + 1, roll, ..Self::first(issues) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str) -> AuthorityKey {
        let sealed = r#"{"v":1,"nonce":"tUWlUIZT/h7bj2f8qNlU8Ck8N9wGFRVk","ct":"K2GAORRjydkETKQutl6/wAXNec5aOQ=="}"#;
        let key = serde_json::from_str(sealed).unwrap();
        AuthorityKey { certificate_pem: name.to_owned(), key, created_at: OffsetDateTime::UNIX_EPOCH }
    }

    #[test]
    fn whom_to_believe_never_changes_by_more_than_one() {
        let mut all = vec![Authority::first(of("a")).announcing(of("b"), "A".to_owned())];
        while all.last().unwrap().roll.is_some() {
            let last = all.last().unwrap().clone();
            let read: Authority = serde_json::from_str(&serde_json::to_string(&last).unwrap()).unwrap();
            assert_eq!(read, last);
            all.push(last.advanced());
        }
        let believed: Vec<_> = all.iter().map(|authority| authority.believed().join(" ")).collect();
        assert_eq!(believed, ["a b", "b a", "b", "b"]);
        assert_eq!(all.iter().map(|authority| authority.step).collect::<Vec<_>>(), [1, 2, 3, 4]);
        let keys: Vec<_> = all.iter_mut().map(|authority| authority.keys_mut().count()).collect();
        assert_eq!(keys, [2, 2, 1, 1]);
        let again = all.pop().unwrap().announcing(of("c"), "B".to_owned());
        assert_eq!((again.identity.as_deref(), again.believed()), (Some("A"), vec!["b", "c"]), "the first, for ever");
    }

    #[test]
    fn what_an_older_program_wrote_is_read() {
        let AuthorityKey { certificate_pem, key, .. } = of("a");
        let old =
            serde_json::json!({ "certificate_pem": certificate_pem, "key": key, "created_at": "2026-01-02T03:04:05Z" });
        let read: Authority = serde_json::from_value(old).unwrap();
        assert_eq!((read.step, read.roll.is_none(), read.believed()), (0, true, vec!["a"]));
    }
}
