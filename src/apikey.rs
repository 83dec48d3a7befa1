//! API keys: `slnd_<network>_<id>_<secret>`. Shown once, hashed at rest, compared in constant time.

use std::{fmt, str::FromStr};

use rand::CryptoRng;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

const PREFIX: &str = "slnd";
const ID_LEN: usize = 16;
const SECRET_LEN: usize = 64;

/// The public part of a key: 16 hexadecimal digits, fit for logs and for the Store's document id.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ApiKeyId(String);

impl ApiKeyId {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ApiKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for ApiKeyId {
    type Error = MalformedApiKey;

    fn try_from(text: String) -> Result<Self, MalformedApiKey> {
        if is_hex(&text, ID_LEN) { Ok(Self(text)) } else { Err(MalformedApiKey) }
    }
}

impl From<ApiKeyId> for String {
    fn from(id: ApiKeyId) -> Self {
        id.0
    }
}

/// A whole key, as an app holds it. `Debug` shows all but the secret; wiped when dropped.
#[derive(Clone)]
pub struct ApiKey {
    text: Zeroizing<String>,
    network: String,
    id: ApiKeyId,
}

impl ApiKey {
    /// A new key with 256 random bits. Fails only if `network` is not a network's name.
    pub fn generate(network: &str, rng: &mut impl CryptoRng) -> Result<Self, MalformedApiKey> {
        let mut id = [0; ID_LEN / 2];
        rng.fill_bytes(&mut id);
        let mut secret = Zeroizing::new([0; SECRET_LEN / 2]);
        rng.fill_bytes(secret.as_mut_slice());
        let secret = Zeroizing::new(hex::encode(secret.as_slice()));
        Zeroizing::new(format!("{PREFIX}_{network}_{}_{}", hex::encode(id), secret.as_str())).parse()
    }

    /// The network the key is for; a key of another network opens nothing here.
    pub fn network(&self) -> &str {
        &self.network
    }

    pub fn id(&self) -> &ApiKeyId {
        &self.id
    }

    /// The key itself, to be shown to its owner once.
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// What is stored of it.
    pub fn hash(&self) -> ApiKeyHash {
        ApiKeyHash(Sha256::digest(self.text.as_bytes()).into())
    }
}

impl FromStr for ApiKey {
    type Err = MalformedApiKey;

    /// Strict: one spelling only, no white space, lower case.
    fn from_str(text: &str) -> Result<Self, MalformedApiKey> {
        let mut parts = text.split('_');
        let (Some(PREFIX), Some(network), Some(id), Some(secret), None) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(MalformedApiKey);
        };
        if !is_network(network) || !is_hex(secret, SECRET_LEN) {
            return Err(MalformedApiKey);
        }
        let id = ApiKeyId::try_from(id.to_owned())?;
        Ok(Self { text: Zeroizing::new(text.to_owned()), network: network.to_owned(), id })
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiKey({PREFIX}_{}_{}_redacted)", self.network, self.id)
    }
}

/// SHA-256 of a whole key, network and id included. Enough for 256 random bits; no slow hash is needed.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ApiKeyHash([u8; 32]);

impl ApiKeyHash {
    /// Whether `key` is the one that was hashed, in a time that says nothing about where they differ.
    pub fn matches(&self, key: &ApiKey) -> bool {
        self.0.ct_eq(&key.hash().0).into()
    }

    /// The hash of no key, to be compared with when there is none of that id, so that both take equally long.
    pub fn of_nothing() -> Self {
        Self([0; 32])
    }
}

impl fmt::Debug for ApiKeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKeyHash(redacted)")
    }
}

impl TryFrom<String> for ApiKeyHash {
    type Error = MalformedApiKey;

    fn try_from(text: String) -> Result<Self, MalformedApiKey> {
        let mut hash = Self([0; 32]);
        hex::decode_to_slice(text, &mut hash.0).map_err(|_| MalformedApiKey)?;
        Ok(hash)
    }
}

impl From<ApiKeyHash> for String {
    fn from(hash: ApiKeyHash) -> Self {
        hex::encode(hash.0)
    }
}

/// The text is not an API key. Says nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an API key")]
pub struct MalformedApiKey;

fn is_hex(text: &str, len: usize) -> bool {
    text.len() == len && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_network(text: &str) -> bool {
    (1..=16).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;

    fn key(seed: u64) -> ApiKey {
        ApiKey::generate("simnet", &mut StdRng::seed_from_u64(seed)).unwrap()
    }

    #[test]
    fn a_generated_key_is_read_back() {
        let key = key(1);
        let read: ApiKey = key.expose().parse().unwrap();
        assert_eq!((read.network(), read.id(), read.expose()), ("simnet", key.id(), key.expose()));
        assert_eq!(key.expose().len(), "slnd_simnet_".len() + 16 + 1 + 64);
        assert!(key.hash().matches(&read));
    }

    #[test]
    fn no_other_key_matches() {
        let hash = key(1).hash();
        assert!(!hash.matches(&key(2)));
        let elsewhere: ApiKey = key(1).expose().replace("simnet", "mainnet").parse().unwrap();
        assert!(!hash.matches(&elsewhere));
        assert!(!ApiKeyHash::of_nothing().matches(&key(1)));
    }

    #[test]
    fn every_letter_of_the_secret_counts() {
        let key = key(1);
        for at in key.expose().len() - 64..key.expose().len() {
            let mut text = key.expose().as_bytes().to_vec();
            text[at] = if text[at] == b'0' { b'1' } else { b'0' };
            let other: ApiKey = std::str::from_utf8(&text).unwrap().parse().unwrap();
            assert!(!key.hash().matches(&other));
        }
    }

    #[test]
    fn debug_shows_no_secret() {
        let key = key(1);
        let shown = format!("{key:?} {:?}", key.hash());
        assert_eq!(shown, format!("ApiKey(slnd_simnet_{}_redacted) ApiKeyHash(redacted)", key.id()));
    }

    #[test]
    fn the_hash_is_stored_as_hex_and_is_not_the_key() {
        let key = key(1);
        let json = serde_json::to_string(&key.hash()).unwrap();
        assert_eq!(json.len(), 66);
        assert!(!json.contains(&key.expose()[key.expose().len() - 64..]));
        assert!(serde_json::from_str::<ApiKeyHash>(&json).unwrap().matches(&key));
        assert!(serde_json::from_str::<ApiKeyHash>("\"00\"").is_err());
        assert!(serde_json::from_str::<ApiKeyId>("\"../etc\"").is_err());
    }

    #[test]
    fn only_one_spelling_is_a_key() {
        let good = key(1).expose().to_owned();
        let wrong = [
            String::new(),
            format!(" {good}"),
            format!("{good}\n"),
            format!("{good}_"),
            good.to_uppercase(),
            good.replacen("slnd", "sk", 1),
            good.replacen("simnet", "", 1),
            good.replacen("simnet", "Simnet", 1),
            good.replacen("simnet", "../net", 1),
            good[..good.len() - 1].to_owned(),
            format!("{good}0"),
            good.replacen('_', "__", 1),
        ];
        for text in wrong {
            assert!(text.parse::<ApiKey>().is_err(), "{text:?}");
        }
        assert!(ApiKey::generate("no_net", &mut StdRng::seed_from_u64(1)).is_err());
    }

    proptest! {
        #[test]
        fn rubbish_is_refused(text in "slnd_[a-z]{0,8}_[0-9a-f]{0,20}_\\PC{0,70}") {
            if let Ok(key) = text.parse::<ApiKey>() {
                prop_assert_eq!(key.expose(), text);
            }
        }
    }
}
