//! Sealing of secrets at rest: seeds, wallet passwords, macaroon root keys, the CA's key.
//!
//! XChaCha20-Poly1305 with a random nonce. What a ciphertext is for (deployment, network, owner, field, key version) is
//! authenticated with it, so a ciphertext copied to another place in the Store does not open there.

use std::{
    collections::BTreeMap,
    fmt,
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305,
    aead::{Aead, Payload},
};
use rand::{TryRng, rngs::SysRng};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

const KEY_LEN: usize = 32;
const NONCE_LEN: usize = 24;
/// The version of the key of a deployment that has never changed its key.
pub const FIRST_VERSION: u32 = 1;

/// One sealing key. Wiped when dropped, never shown.
#[derive(Clone)]
pub struct SealKey(Zeroizing<[u8; KEY_LEN]>);

impl SealKey {
    pub fn from_bytes(bytes: [u8; KEY_LEN]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// From the value of an environment variable: 64 hexadecimal digits.
    pub fn from_hex(text: &str) -> Result<Self, KeyError> {
        let mut key = Zeroizing::new([0; KEY_LEN]);
        hex::decode_to_slice(text.trim(), key.as_mut_slice()).map_err(|_| KeyError::Format)?;
        Ok(Self(key))
    }

    /// From a file of 32 raw bytes or 64 hexadecimal digits that nobody but its owner may read or write.
    pub fn from_file(path: &Path) -> Result<Self, KeyError> {
        let read = || -> io::Result<(u32, Zeroizing<Vec<u8>>)> {
            let file = File::open(path)?;
            let mode = file.metadata()?.mode();
            // One byte more than any key file has; reserved at once, so that no copy stays behind.
            let limit = 2 * KEY_LEN + 8;
            let mut bytes = Zeroizing::new(Vec::with_capacity(limit));
            file.take(limit as u64).read_to_end(&mut bytes)?;
            Ok((mode, bytes))
        };
        let (mode, bytes) = read().map_err(|source| KeyError::Io { path: path.into(), source })?;
        if mode & 0o077 != 0 {
            return Err(KeyError::Exposed { path: path.into() });
        }
        if let Ok(raw) = bytes.as_slice().try_into() {
            return Ok(Self::from_bytes(raw));
        }
        Self::from_hex(std::str::from_utf8(&bytes).map_err(|_| KeyError::Format)?)
    }

    /// Makes a key file that did not exist, whole or not at all: another process's key is never replaced, and a crash
    /// leaves at most a stray file beside it.
    pub fn generate_file(path: &Path) -> Result<Self, KeyError> {
        let key = Self::from_bytes(random()?);
        write_new(path, &key).map_err(|source| KeyError::Io { path: path.into(), source })?;
        Ok(key)
    }
}

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealKey(redacted)")
    }
}

/// Why there is no sealing key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("a sealing key is 32 raw bytes or 64 hexadecimal digits")]
    Format,
    #[error("the sealing key file {} may be read or written by others than its owner", path.display())]
    Exposed { path: PathBuf },
    #[error("cannot use the sealing key file {}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("there must be at least one sealing key, and one of each version")]
    Versions,
    #[error("the system's random generator failed")]
    Random,
    /// Keys that are real do not go through the network for everybody to read.
    #[error("on mainnet KMS is reached by https only; {variable} says otherwise")]
    Plain { variable: &'static str },
}

fn write_new(path: &Path, key: &SealKey) -> io::Result<()> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_string_lossy();
    let stray: [u8; 8] = random().map_err(io::Error::other)?;
    let temporary = directory.join(format!(".{name}.{}", hex::encode(stray)));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    let text = Zeroizing::new(hex::encode(key.0.as_slice()));
    let done = file
        .write_all(text.as_bytes())
        .and_then(|()| file.write_all(b"\n"))
        .and_then(|()| file.sync_all())
        // A link, not a rename: it fails where the name is taken.
        .and_then(|()| std::fs::hard_link(&temporary, path));
    std::fs::remove_file(&temporary)?;
    done?;
    File::open(directory)?.sync_all()
}

/// What a secret is for. All of it is authenticated with the ciphertext.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealContext<'a> {
    pub deployment: &'a str,
    pub network: &'a str,
    /// The node_id, or `deployment` for what belongs to no node.
    pub owner: &'a str,
    pub field: &'a str,
}

impl SealContext<'_> {
    /// Length-prefixed, so that no two contexts have the same bytes.
    fn associated_data(&self, version: u32) -> Vec<u8> {
        let version = version.to_be_bytes();
        let parts = [self.deployment, self.network, self.owner, self.field].map(str::as_bytes);
        let mut out = Vec::new();
        for part in parts.into_iter().chain([version.as_slice()]) {
            out.extend((part.len() as u64).to_be_bytes());
            out.extend(part);
        }
        out
    }
}

/// A sealed secret as it stands in the Store. Harmless without the key, and shown by `Debug` only as its size.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// The version of the key that opens it.
    v: u32,
    #[serde(with = "base64_bytes")]
    nonce: Vec<u8>,
    #[serde(with = "base64_bytes")]
    ct: Vec<u8>,
}

impl Sealed {
    pub fn key_version(&self) -> u32 {
        self.v
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealed(v{}, {} bytes)", self.v, self.ct.len())
    }
}

mod base64_bytes {
    use super::{BASE64_STANDARD, Deserialize, Engine};

    pub fn serialize<S: serde::Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&BASE64_STANDARD.encode(bytes))
    }

    pub fn deserialize<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(from)?;
        BASE64_STANDARD.decode(text.as_ref()).map_err(serde::de::Error::custom)
    }
}

/// Why a secret was not sealed or opened. Names the version, never the content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    #[error("sealed under key version {version}, which is not configured")]
    UnknownKeyVersion { version: u32 },
    /// Another key, another context, or altered.
    #[error("the sealed secret does not open here")]
    DoesNotOpen,
    #[error("the secret could not be sealed: the system's random generator failed")]
    Random,
}

/// Seals under one of its keys, the newest if not told otherwise, and opens under any of them.
#[derive(Clone, Debug)]
pub struct Sealer {
    keys: BTreeMap<u32, SealKey>,
    current: u32,
}

impl Sealer {
    /// Keys by version; the highest version seals. Fails when there is none, or two of one version.
    pub fn new(keys: impl IntoIterator<Item = (u32, SealKey)>) -> Result<Self, KeyError> {
        let mut by_version = BTreeMap::new();
        for (version, key) in keys {
            if by_version.insert(version, key).is_some() {
                return Err(KeyError::Versions);
            }
        }
        let current = *by_version.keys().next_back().ok_or(KeyError::Versions)?;
        Ok(Self { keys: by_version, current })
    }

    /// The same keys, sealing under this one.
    ///
    /// # Errors
    /// [`SealError::UnknownKeyVersion`] when it is none of them.
    pub fn sealing_under(self, version: u32) -> Result<Self, SealError> {
        if !self.keys.contains_key(&version) {
            return Err(SealError::UnknownKeyVersion { version });
        }
        Ok(Self { current: version, ..self })
    }

    /// The version under which it seals.
    #[must_use]
    pub fn current(&self) -> u32 {
        self.current
    }

    /// One key, of [`FIRST_VERSION`].
    pub fn single(key: SealKey) -> Self {
        Self { keys: BTreeMap::from([(FIRST_VERSION, key)]), current: FIRST_VERSION }
    }

    /// [`SealKey::from_file`] as the only key.
    pub fn from_file(path: &Path) -> Result<Self, KeyError> {
        SealKey::from_file(path).map(Self::single)
    }

    /// [`SealKey::generate_file`] as the only key.
    pub fn generate_file(path: &Path) -> Result<Self, KeyError> {
        SealKey::generate_file(path).map(Self::single)
    }

    /// Each call gives another ciphertext, under a nonce of the system's random generator.
    pub fn seal(&self, ctx: &SealContext<'_>, plaintext: &[u8]) -> Result<Sealed, SealError> {
        let nonce: [u8; NONCE_LEN] = random().map_err(|_| SealError::Random)?;
        let aad = ctx.associated_data(self.current);
        let ct = self
            .cipher(self.current)?
            .encrypt(&nonce.into(), Payload { msg: plaintext, aad: &aad })
            .map_err(|_| SealError::DoesNotOpen)?;
        Ok(Sealed { v: self.current, nonce: nonce.to_vec(), ct })
    }

    /// The secret, if it was sealed in this very context under one of these keys.
    pub fn open(&self, ctx: &SealContext<'_>, sealed: &Sealed) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let nonce: [u8; NONCE_LEN] = sealed.nonce.as_slice().try_into().map_err(|_| SealError::DoesNotOpen)?;
        let aad = ctx.associated_data(sealed.v);
        self.cipher(sealed.v)?
            .decrypt(&nonce.into(), Payload { msg: &sealed.ct, aad: &aad })
            .map(Zeroizing::new)
            .map_err(|_| SealError::DoesNotOpen)
    }

    /// Whether it stands under another key than new secrets do, so that it should be sealed again.
    pub fn is_outdated(&self, sealed: &Sealed) -> bool {
        sealed.v != self.current
    }

    fn cipher(&self, version: u32) -> Result<XChaCha20Poly1305, SealError> {
        let key = self.keys.get(&version).ok_or(SealError::UnknownKeyVersion { version })?;
        Ok(XChaCha20Poly1305::new((&*key.0).into()))
    }
}

fn random<const N: usize>() -> Result<[u8; N], KeyError> {
    let mut bytes = [0; N];
    SysRng.try_fill_bytes(&mut bytes).map_err(|_| KeyError::Random)?;
    Ok(bytes)
}

#[cfg(test)]
#[path = "seal_tests.rs"]
mod tests;
