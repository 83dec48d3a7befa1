//! `[seal]`: where the keys come from under which secrets are sealed: files, the environment, AWS KMS.

use super::secret::SecretSource;
use super::setting::{Raw, Setting};
use super::source::{Found, Part, Section};
use crate::kms::{AwsKmsOptions, KeyArn};
use std::path::PathBuf;

/// `[seal]`: the keys under which secrets are sealed in the Store. Which of them seals, the Store says.
#[derive(Debug, Clone)]
pub struct SealSection {
    /// The keys by version that the operator hands out.
    pub keys: Vec<(u32, SecretSource)>,
    /// The KMS key that wraps sealing keys, which are then in the Store.
    pub kms: Option<AwsKmsOptions>,
}

struct VersionedFile(u32, PathBuf);

impl Setting for VersionedFile {
    fn parse(raw: Raw) -> Result<Self, String> {
        let expected = || "must be VERSION:PATH, such as \"2:/etc/scale-lnd/seal-2.key\"".to_owned();
        let (text, folder) = match raw {
            Raw::String { text, folder } => (text, folder),
            Raw::Text(text) => (text, PathBuf::new()),
            _ => return Err(expected()),
        };
        let (version, path) = text.split_once(':').ok_or_else(expected)?;
        match version.parse() {
            Ok(version) if version > 0 && !path.is_empty() => Ok(Self(version, folder.join(path))),
            _ => Err(expected()),
        }
    }
}

impl Setting for KeyArn {
    fn parse(raw: Raw) -> Result<Self, String> {
        Self::parse(&String::parse(raw)?)
            .ok_or_else(|| "must be the ARN of a key, such as arn:aws:kms:REGION:ACCOUNT:key/ID (no alias)".to_owned())
    }
}

/// `None` only after a fault was recorded.
fn kms(s: &mut Section<'_>) -> Option<Option<AwsKmsOptions>> {
    let is_given = s.is_given("kms_key");
    let key = s.optional("kms_key");
    if is_given {
        let (former, endpoint_url) = (s.or("kms_former_keys", Vec::new()), s.optional("kms_endpoint_url"));
        return key.map(|key| Some(AwsKmsOptions { key, former, endpoint_url }));
    }
    for key in ["kms_former_keys", "kms_endpoint_url"] {
        s.refuse(key, "means nothing without kms_key");
    }
    Some(None)
}

impl Part for SealSection {
    const NAME: &'static str = "seal";

    fn read(s: &mut Section<'_>) -> Option<Self> {
        let version = s.or("key_version", 1);
        let mut keys: Vec<(u32, SecretSource)> = Vec::new();
        keys.extend(s.secret("key").map(|key| (version, SecretSource::Value(key))));
        keys.extend(s.optional("key_file").map(|path| (version, SecretSource::File(path))));
        let files: Vec<VersionedFile> = s.or("key_files", Vec::new());
        keys.extend(files.into_iter().map(|VersionedFile(version, path)| (version, SecretSource::File(path))));
        Some(Self { keys, kms: kms(s)? })
    }

    fn validate(&self, found: &mut Found) {
        let mut versions: Vec<u32> = self.keys.iter().map(|(version, _)| *version).collect();
        versions.sort_unstable();
        if versions.is_empty() && self.kms.is_none() {
            let message = "is missing: give key_file, key_files, kms_key or SCALE_LND_SEAL_KEY \
                           (`scale-lnd keys generate`)";
            found.push(("seal.key_file", message.to_owned()));
        }
        if versions.windows(2).any(|pair| pair.first() == pair.last()) {
            found.push(("seal.key_files", "two sealing keys have the same version".to_owned()));
        }
        let url = self.kms.as_ref().and_then(|kms| kms.endpoint_url.as_ref());
        if url.is_some_and(|url| !url.starts_with("https://") && !url.starts_with("http://")) {
            found.push(("seal.kms_endpoint_url", "must begin with https:// or http://".to_owned()));
        }
    }
}
