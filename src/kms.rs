//! Key services: they make sealing keys and hand them out wrapped by a key that never leaves them. Only the wrapped form is
//! kept (in the Store, where all masters find it); whoever may not ask the service cannot open anything.

mod aws;

pub use aws::{AwsKms, AwsKmsOptions};

use crate::model::deployment::WrappedKey;
use crate::seal::SealKey;
use async_trait::async_trait;
use std::fmt;
use time::OffsetDateTime;

/// Makes and unwraps sealing keys.
#[async_trait]
pub trait KeyService: fmt::Debug + Send + Sync {
    /// Makes a sealing key for this deployment, and wraps it. Nothing is kept by the service: a key whose wrapped form was not
    /// stored is gone. Each call makes another one.
    ///
    /// # Errors
    /// See [`KmsError`].
    async fn generate(&self, deployment: &str, version: u32, now: OffsetDateTime) -> Result<WrappedKey, KmsError>;

    /// Unwraps one that was made for this deployment.
    ///
    /// # Errors
    /// See [`KmsError`].
    async fn unwrap(&self, deployment: &str, wrapped: &WrappedKey) -> Result<SealKey, KmsError>;
}

/// Why a key service gave no sealing key. In words that an operator can act on; never with a key in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KmsError {
    /// It may be used, but not by us.
    #[error(
        "KMS refuses to use {key} for this process ({said}): its role needs kms:Decrypt and kms:GenerateDataKeyWithoutPlaintext on it"
    )]
    Denied {
        /// The ARN of the key.
        key: String,
        /// KMS's words.
        said: String,
    },
    /// We have nothing to show who we are.
    #[error("there are no usable AWS credentials to ask KMS with: {0}")]
    Credentials(String),
    /// It is disabled, or about to be deleted.
    #[error(
        "the KMS key {key} cannot be used now ({said}): enable it, or cancel its deletion; without it nothing sealed opens"
    )]
    Disabled {
        /// The ARN of the key.
        key: String,
        /// KMS's words.
        said: String,
    },
    /// There is none of this name, or it is of a kind that wraps nothing.
    #[error("KMS cannot use {key}: {said}")]
    Unusable {
        /// The ARN of the key.
        key: String,
        /// KMS's words.
        said: String,
    },
    /// The wrapped key is not of that key, not of this deployment, of another version, or was altered.
    #[error(
        "sealing key {version} does not unwrap: it was made for another deployment or by another KMS key, or was altered"
    )]
    DoesNotUnwrap {
        /// The version of the sealing key.
        version: u32,
    },
    /// The configuration does not name the key that has wrapped it.
    #[error("sealing key {version} is wrapped by {by}: name it in seal.kms_key or seal.kms_former_keys")]
    NotNamed {
        /// The version of the sealing key.
        version: u32,
        /// The ARN of the key that has wrapped it.
        by: String,
    },
    /// No answer, or none that says anything. It was tried several times.
    #[error("KMS does not answer, or not as it should, again and again: {0}")]
    Unavailable(String),
    /// What came is no sealing key.
    #[error("KMS gave something that is not a sealing key")]
    Format,
}

/// The ARN of a KMS key: it names account and region, and never another key tomorrow, as an alias may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyArn(String);

impl KeyArn {
    /// Reads `arn:aws:kms:REGION:ACCOUNT:key/ID`; `None` for anything else, aliases included.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let [arn, partition, service, region, account, key] = Self::parts(text)?;
        let id = key.strip_prefix("key/")?;
        let fits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        let names = arn == "arn" && service == "kms" && account.bytes().all(|b| b.is_ascii_digit());
        (names && [partition, region, account, id].into_iter().all(fits)).then(|| Self(text.to_owned()))
    }

    fn parts(text: &str) -> Option<[&str; 6]> {
        text.split(':').collect::<Vec<_>>().try_into().ok()
    }

    /// The whole ARN.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The region that it is in.
    #[must_use]
    pub fn region(&self) -> &str {
        Self::parts(&self.0).map_or("", |parts| parts[3])
    }

    /// Whether this key can unwrap what `other` has wrapped: the same key, or the same multi-region key in another region.
    #[must_use]
    pub fn is_same_key(&self, other: &str) -> bool {
        let (Some(ours), Some(theirs)) = (Self::parts(&self.0), Self::parts(other)) else { return false };
        let but_for_region = |parts: [&str; 6]| [parts[1], parts[2], parts[4], parts[5]].map(str::to_owned);
        self.0 == other || ours[5].starts_with("key/mrk-") && but_for_region(ours) == but_for_region(theirs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARN: &str = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";

    #[test]
    fn an_arn_names_a_key_and_nothing_else() {
        let arn = KeyArn::parse(ARN).unwrap();
        assert_eq!((arn.as_str(), arn.region()), (ARN, "eu-central-1"));
        assert!(KeyArn::parse("arn:aws-cn:kms:cn-north-1:111122223333:key/mrk-1234").is_some());
        let account = ARN.replace("111122223333", "me");
        let service = ARN.replace(":kms:", ":s3:");
        for wrong in
            ["", "1234abcd", "alias/seal", "arn:aws:kms:eu-central-1:111122223333:alias/seal", &account, &service]
        {
            assert_eq!(KeyArn::parse(wrong), None, "{wrong}");
        }
        assert_eq!(KeyArn::parse(&format!("{ARN}:x")), None);
    }

    #[test]
    fn only_a_multi_region_key_is_the_same_elsewhere() {
        let elsewhere = ARN.replace("eu-central-1", "eu-west-1");
        let arn = KeyArn::parse(ARN).unwrap();
        assert!(arn.is_same_key(ARN) && !arn.is_same_key(&elsewhere));
        let multi = KeyArn::parse(&ARN.replace("1234abcd-", "mrk-")).unwrap();
        assert!(multi.is_same_key(&elsewhere.replace("1234abcd-", "mrk-")));
        assert!(!multi.is_same_key(&elsewhere.replace("1234abcd-", "mrk-9")));
        assert!(!multi.is_same_key(&multi.as_str().replace("111122223333", "999999999999")));
    }
}
