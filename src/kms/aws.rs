//! AWS KMS: sealing keys are its data keys. The deployment's name and the version are their encryption context, so that KMS
//! unwraps none for another deployment, and every use of one stands in CloudTrail with its name.

use super::{KeyArn, KeyService, KmsError};
use crate::aws_words::{said, shortened};
use crate::model::deployment::WrappedKey;
use crate::seal::SealKey;
use async_trait::async_trait;
use aws_config::BehaviorVersion;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_kms::Client;
use aws_sdk_kms::config::{Builder, Region};
use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::DataKeySpec;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use std::collections::HashMap;
use std::error::Error;
use std::time::Duration;
use time::OffsetDateTime;
use zeroize::Zeroizing;

const CONNECT_WITHIN: Duration = Duration::from_secs(3);
const ATTEMPT_WITHIN: Duration = Duration::from_secs(5);
const ANSWER_WITHIN: Duration = Duration::from_secs(20);
/// What may pass (no connection, too much at once, an accident of KMS's) is tried so often, with growing pauses.
const TRIES: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(300);
/// Part of the encryption context: the deployment's name. A key policy may ask for it.
const CONTEXT_DEPLOYMENT: &str = "scale-lnd-deployment";
/// Part of the encryption context: the version of the sealing key.
const CONTEXT_VERSION: &str = "scale-lnd-key-version";

/// Which keys, and where KMS is.
#[derive(Debug, Clone)]
pub struct AwsKmsOptions {
    /// Wraps new sealing keys, and unwraps its own.
    pub key: KeyArn,
    /// These only unwrap what they have wrapped before.
    pub former: Vec<KeyArn>,
    /// Where KMS's API is, where not at AWS's usual address. None: as AWS's own tools find it (`AWS_ENDPOINT_URL_KMS`).
    pub endpoint_url: Option<String>,
}

/// KMS.
#[derive(Debug)]
pub struct AwsKms {
    current: Key,
    former: Vec<Key>,
}

#[derive(Debug)]
struct Key {
    arn: KeyArn,
    /// Of the key's region.
    client: Client,
}

impl AwsKms {
    /// Finds credentials where AWS's own tools do (environment, files, web identity, container, instance), when they are
    /// needed. Asks nobody yet.
    pub async fn open(options: AwsKmsOptions) -> Self {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT_WITHIN)
            .operation_attempt_timeout(ATTEMPT_WITHIN)
            .operation_timeout(ANSWER_WITHIN);
        let retries = RetryConfig::standard().with_max_attempts(TRIES).with_initial_backoff(FIRST_PAUSE);
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .region(Region::new(options.key.region().to_owned()))
            .retry_config(retries)
            .timeout_config(timeouts.build());
        if let Some(url) = options.endpoint_url {
            loader = loader.endpoint_url(url);
        }
        let config = loader.load().await;
        let key = |arn: KeyArn| {
            let region = Region::new(arn.region().to_owned());
            Key { client: Client::from_conf(Builder::from(&config).region(region).build()), arn }
        };
        Self { current: key(options.key), former: options.former.into_iter().map(key).collect() }
    }
}

fn context(deployment: &str, version: u32) -> HashMap<String, String> {
    let pairs = [(CONTEXT_DEPLOYMENT, deployment.to_owned()), (CONTEXT_VERSION, version.to_string())];
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// A copy of what KMS gave, wiped when dropped; the SDK's own is not ours to wipe.
fn seal_key(plaintext: Option<Blob>) -> Result<SealKey, KmsError> {
    let plaintext = Zeroizing::new(plaintext.ok_or(KmsError::Format)?.into_inner());
    let bytes = Zeroizing::new(<[u8; 32]>::try_from(plaintext.as_slice()).map_err(|_| KmsError::Format)?);
    Ok(SealKey::from_bytes(*bytes))
}

#[async_trait]
impl KeyService for AwsKms {
    async fn generate(&self, deployment: &str, version: u32, now: OffsetDateTime) -> Result<WrappedKey, KmsError> {
        let Key { arn, client } = &self.current;
        // Without plaintext: who uses it unwraps what is kept, which proves that it unwraps.
        let request = client.generate_data_key_without_plaintext().key_id(arn.as_str()).key_spec(DataKeySpec::Aes256);
        let answer = request.set_encryption_context(Some(context(deployment, version))).send().await;
        let answer = answer.map_err(|error| failed(&error, arn, version))?;
        let blob = BASE64_STANDARD.encode(answer.ciphertext_blob().ok_or(KmsError::Format)?);
        Ok(WrappedKey { version, by: arn.as_str().to_owned(), blob, created_at: now })
    }

    async fn unwrap(&self, deployment: &str, wrapped: &WrappedKey) -> Result<SealKey, KmsError> {
        let version = wrapped.version;
        let not_named = || KmsError::NotNamed { version, by: wrapped.by.clone() };
        // Only keys that the configuration names: whoever can write to the Store must not choose.
        let mut keys = std::iter::once(&self.current).chain(&self.former);
        let Key { arn, client } = keys.find(|key| key.arn.is_same_key(&wrapped.by)).ok_or_else(not_named)?;
        let blob = BASE64_STANDARD.decode(&wrapped.blob).map_err(|_| KmsError::DoesNotUnwrap { version })?;
        let request = client.decrypt().key_id(arn.as_str()).ciphertext_blob(Blob::new(blob));
        let answer = request.set_encryption_context(Some(context(deployment, version))).send().await;
        seal_key(answer.map_err(|error| failed(&error, arn, version))?.plaintext)
    }
}

fn failed<E, R>(error: &SdkError<E, R>, key: &KeyArn, version: u32) -> KmsError
where
    E: ProvideErrorMetadata + Error + 'static,
    R: std::fmt::Debug + 'static,
{
    match error {
        SdkError::ServiceError(answered) => {
            let error = answered.err();
            meaning(error.code().unwrap_or_default(), error.message().unwrap_or_default(), key, version)
        }
        // Nothing to sign it with, which the SDK tells by its words alone: the error's type is of a crate below.
        SdkError::ConstructionFailure(_) | SdkError::DispatchFailure(_) if said(error).contains("credential") => {
            KmsError::Credentials(said(error))
        }
        _ => KmsError::Unavailable(said(error)),
    }
}

/// By code. What we do not know is taken for an accident.
fn meaning(code: &str, message: &str, key: &KeyArn, version: u32) -> KmsError {
    let said = shortened(&format!("{code}: {message}")).to_owned();
    let key = key.as_str().to_owned();
    match code {
        "AccessDeniedException" | "AccessDenied" | "NotAuthorized" => KmsError::Denied { key, said },
        "UnrecognizedClientException"
        | "InvalidClientTokenId"
        | "InvalidSignatureException"
        | "SignatureDoesNotMatch"
        | "IncompleteSignature"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "ExpiredToken"
        | "ExpiredTokenException"
        | "RequestExpired"
        | "OptInRequired" => KmsError::Credentials(said),
        "DisabledException" | "KMSInvalidStateException" => KmsError::Disabled { key, said },
        "NotFoundException" | "InvalidKeyUsageException" | "InvalidArnException" | "ValidationException" => {
            KmsError::Unusable { key, said }
        }
        "InvalidCiphertextException" | "IncorrectKeyException" => KmsError::DoesNotUnwrap { version },
        _ => KmsError::Unavailable(said),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_mean_what_they_say() {
        let key = KeyArn::parse("arn:aws:kms:eu-central-1:111122223333:key/1234").unwrap();
        let of = |code: &str| meaning(code, "because", &key, 3);
        assert!(matches!(of("AccessDeniedException"), KmsError::Denied { .. }));
        assert!(matches!(of("UnrecognizedClientException"), KmsError::Credentials(_)));
        assert!(matches!(of("KMSInvalidStateException"), KmsError::Disabled { .. }));
        assert!(matches!(of("NotFoundException"), KmsError::Unusable { .. }));
        assert_eq!(of("InvalidCiphertextException"), KmsError::DoesNotUnwrap { version: 3 });
        for passing in ["KMSInternalException", "ThrottlingException", "DependencyTimeoutException", ""] {
            assert!(matches!(of(passing), KmsError::Unavailable(_)), "{passing}");
        }
        let denied = meaning("AccessDeniedException", &"x".repeat(5000), &key, 3).to_string();
        assert!(denied.contains(key.as_str()) && denied.contains("kms:Decrypt") && denied.len() < 600, "{denied}");
    }

    #[test]
    fn what_is_no_key_of_ours_is_refused() {
        assert!(seal_key(Some(Blob::new([7; 32]))).is_ok());
        for wrong in [None, Some(Blob::new([7; 16])), Some(Blob::new([]))] {
            assert_eq!(seal_key(wrong).err(), Some(KmsError::Format));
        }
    }
}
