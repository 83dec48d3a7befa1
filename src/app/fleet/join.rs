//! Join tokens that can be made again: a request to EC2 that is repeated must be the same one, and the token is part of it.
//! So it is derived, from the authority's key, and kept nowhere.

use crate::error::{Error, Result};
use crate::model::HostId;
use crate::model::host::{Invitation, token_digest};
use crate::pki::Pins;
use hmac::{Hmac, KeyInit, Mac};
use secrecy::SecretString;
use sha2::Sha256;
use std::fmt;
use time::OffsetDateTime;
use zeroize::Zeroizing;

/// Derives join tokens. Whoever has it can join as any host that waits for its machine.
#[derive(Clone)]
pub struct JoinKey(Zeroizing<Vec<u8>>);

impl JoinKey {
    /// Of the authority with this private key.
    pub(super) fn of(ca_key_pem: &str) -> Result<Self> {
        derive(ca_key_pem.as_bytes(), &["scale-lnd", "join tokens"]).map(Self)
    }

    /// The token of this host in this generation: `<host>.<generation>.<secret>`. An agent that finds its folder on a volume
    /// that belonged to an earlier machine sees by it that it must join anew.
    ///
    /// # Errors
    /// None that can happen.
    pub fn token(&self, host: &HostId, generation: u64) -> Result<SecretString> {
        let secret = self.secret(host, generation)?;
        Ok(format!("{host}.{generation}.{}", secret.as_str()).into())
    }

    /// What is kept of that token, which goes out with these `pins`, the first of them this key's.
    ///
    /// # Errors
    /// None that can happen.
    pub fn invitation(
        &self,
        host: &HostId,
        generation: u64,
        expires_at: OffsetDateTime,
        pins: &Pins,
    ) -> Result<Invitation> {
        let token_sha256 = token_digest(host, generation, &self.secret(host, generation)?);
        Ok(Invitation { token_sha256, expires_at, authorities: super::named(pins) })
    }

    fn secret(&self, host: &HostId, generation: u64) -> Result<Zeroizing<String>> {
        let bytes = derive(&self.0, &["join", host.as_str(), &generation.to_string()])?;
        Ok(Zeroizing::new(hex::encode(bytes.as_slice())))
    }
}

impl fmt::Debug for JoinKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinKey(redacted)")
    }
}

fn derive(key: &[u8], parts: &[&str]) -> Result<Zeroizing<Vec<u8>>> {
    let mac = Hmac::<Sha256>::new_from_slice(key);
    let mut mac = mac.map_err(|_| Error::Invariant("a key that HMAC does not take".to_owned()))?;
    for part in parts {
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part.as_bytes());
    }
    Ok(Zeroizing::new(mac.finalize().into_bytes().to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;

    #[test]
    fn a_token_is_the_same_again_and_for_one_generation_of_one_host() {
        let key = JoinKey::of("the key of an authority").unwrap();
        let [host, other] = [(); 2].map(|()| HostId::random(&mut rand::rng()));
        let token = |key: &JoinKey, host, generation| key.token(host, generation).unwrap().expose_secret().to_owned();
        let first = token(&key, &host, 1);
        assert_eq!(first, token(&key, &host, 1));
        let another = JoinKey::of("the key of another authority").unwrap();
        for different in [token(&key, &host, 2), token(&key, &other, 1), token(&another, &host, 1)] {
            assert_ne!(first, different);
        }
        let (id, (generation, secret)) =
            first.split_once('.').map(|(id, rest)| (id, rest.split_once('.').unwrap())).unwrap();
        assert_eq!(generation, "1");
        let pins: Pins = "00".repeat(32).parse().unwrap();
        let kept = key.invitation(&host, 1, OffsetDateTime::UNIX_EPOCH, &pins).unwrap();
        assert_eq!((id, kept.token_sha256), (host.as_str(), token_digest(&host, 1, secret)));
        assert!(!format!("{key:?}").contains(&hex::encode(&key.0)));
    }
}
