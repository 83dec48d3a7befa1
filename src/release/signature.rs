//! Whose releases are believed. Ed25519 signatures in the form of minisign (<https://jedisct1.github.io/minisign/>), of the
//! prehashed kind only.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use minisign_verify::{PublicKey, Signature};
use std::fmt;
use std::str::FromStr;

/// How minisign names the file of a signature: as the signed one, and this.
pub const SUFFIX: &str = ".minisig";

/// Bytes of the algorithm's name, which come before the key's id in keys and signatures alike.
const ALGORITHM_BYTES: usize = 2;
const ID_BYTES: usize = 8;

/// A public key, as minisign writes it on the second line of its file: `RW…`, 56 characters.
#[derive(Clone)]
pub struct TrustedKey {
    id: KeyId,
    key: PublicKey,
    base64: String,
}

/// Which key: the number that minisign shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyId(u64);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016X}", self.0)
    }
}

impl KeyId {
    /// That of a key or a signature, in base64.
    fn of(base64: &str) -> Option<Self> {
        let bytes = BASE64_STANDARD.decode(base64.trim()).ok()?;
        let id = bytes.get(ALGORITHM_BYTES..ALGORITHM_BYTES + ID_BYTES)?;
        Some(Self(u64::from_le_bytes(id.try_into().ok()?)))
    }
}

impl TrustedKey {
    /// Which it is.
    #[must_use]
    pub fn id(&self) -> KeyId {
        self.id
    }
}

impl fmt::Debug for TrustedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TrustedKey({})", self.id)
    }
}

/// As it is written in a configuration.
impl fmt::Display for TrustedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.base64)
    }
}

impl FromStr for TrustedKey {
    type Err = &'static str;

    /// The key alone, or the whole file of it.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str = "must be a public key of minisign: 56 characters that begin with RW";
        let line = text.lines().map(str::trim).rfind(|line| !line.is_empty()).ok_or(FORM)?;
        let key = PublicKey::from_base64(line).map_err(|_| FORM)?;
        Ok(Self { id: KeyId::of(line).ok_or(FORM)?, key, base64: line.to_owned() })
    }
}

/// The keys whose releases are believed. Several, so that one can take over from another.
#[derive(Debug, Clone, Default)]
pub struct TrustedKeys(Vec<TrustedKey>);

impl TrustedKeys {
    /// These.
    #[must_use]
    pub fn new(keys: Vec<TrustedKey>) -> Self {
        Self(keys)
    }

    /// Whether nobody is trusted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one of them has signed exactly these bytes; and which.
    ///
    /// # Errors
    /// It is no signature, or of another key, or of other bytes.
    pub fn verify(&self, bytes: &[u8], signature: &str) -> Result<KeyId, SignatureError> {
        let id = signature.lines().nth(1).and_then(KeyId::of).ok_or(SignatureError::Form)?;
        let decoded = Signature::decode(signature).map_err(|_| SignatureError::Form)?;
        let of_this_id: Vec<&TrustedKey> = self.0.iter().filter(|key| key.id == id).collect();
        if of_this_id.is_empty() {
            return Err(SignatureError::UnknownKey { id });
        }
        // Not the older kind, which signs the bytes themselves: minisign itself has not made it by default since 2021.
        let verifies = |key: &&TrustedKey| key.key.verify(bytes, &decoded, false).is_ok();
        if of_this_id.iter().any(verifies) { Ok(id) } else { Err(SignatureError::Wrong { id }) }
    }
}

/// Why a release is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// It is no signature of minisign's.
    #[error("the signature is none of minisign's four lines")]
    Form,
    /// Nobody trusts who made it.
    #[error("it is signed with the key {id}, which is not trusted")]
    UnknownKey {
        /// Which.
        id: KeyId,
    },
    /// It is the signature of something else.
    #[error("the signature with the key {id} is not one of this file as it is")]
    Wrong {
        /// Which.
        id: KeyId,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From minisign's own documentation and test suite: the key, and its signature of `test`.
    const KEY: &str = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";
    const PREHASHED: &str = "untrusted comment: signature from minisign secret key\n\
        RUQf6LRCGA9i559r3g7V1qNyJDApGip8MfqcadIgT9CuhV3EMhHoN1mGTkUidF/z7SrlQgXdy8ofjb7bNJJylDOocrCo8KLzZwo=\n\
        trusted comment: timestamp:1556193335\tfile:test\n\
        y/rUw2y8/hOUYjZU71eHp/Wo1KZ40fGy2VJEDl34XMJM+TX48Ss/17u3IvIfbVR1FkZZSNCisQbuQY+bHwhEBg==\n";
    /// The same bytes, of the older kind.
    const LEGACY: &str = "untrusted comment: signature from minisign secret key\n\
        RWQf6LRCGA9i59SLOFxz6NxvASXDJeRtuZykwQepbDEGt87ig1BNpWaVWuNrm73YiIiJbq71Wi+dP9eKL8OC351vwIasSSbXxwA=\n\
        trusted comment: timestamp:1555779966\tfile:test\n\
        QtKMXWyYcwdpZAlPF7tE2ENJkRd1ujvKjlj1m9RtHTBnZPa5WKU5uWRs5GoP5M/VqE81QFuMKI5k/SfNQUaOAA==\n";

    fn keys(all: &[&str]) -> TrustedKeys {
        TrustedKeys::new(all.iter().map(|key| key.parse().unwrap()).collect())
    }

    #[test]
    fn a_signature_of_minisigns_own_is_verified() {
        let trusted = keys(&[KEY]);
        assert_eq!(trusted.verify(b"test", PREHASHED).unwrap().to_string(), "E7620F1842B4E81F");
        let other = trusted.verify(b"tesT", PREHASHED).unwrap_err();
        assert!(matches!(other, SignatureError::Wrong { .. }), "{other}");
        let forged = PREHASHED.replace("timestamp:1556193335", "timestamp:1556193336");
        assert!(trusted.verify(b"test", &forged).is_err(), "the trusted comment is signed, too");
    }

    #[test]
    fn the_older_kind_is_refused() {
        assert!(keys(&[KEY]).verify(b"test", LEGACY).is_err());
    }

    #[test]
    fn other_keys_and_no_signatures_are_told_apart() {
        let error = TrustedKeys::default().verify(b"test", PREHASHED).unwrap_err();
        assert_eq!(error.to_string(), "it is signed with the key E7620F1842B4E81F, which is not trusted");
        for text in ["", "x", "a\nb\nc\nd\n", "untrusted comment: x\n\n\n\n", &PREHASHED[..150]] {
            assert_eq!(keys(&[KEY]).verify(b"test", text), Err(SignatureError::Form), "{text:?}");
        }
    }

    #[test]
    fn a_key_is_given_alone_or_as_its_file() {
        let file = format!("untrusted comment: minisign public key E7620F1842B4E81F\n{KEY}\n");
        assert_eq!(file.parse::<TrustedKey>().unwrap().id().to_string(), "E7620F1842B4E81F");
        for text in ["", "RW", "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO", "untrusted comment: x\n"] {
            assert!(text.parse::<TrustedKey>().is_err(), "{text:?}");
        }
    }
}
