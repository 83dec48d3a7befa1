//! Making release keys, and signing with them: at the operator's, on a machine that is no master. Keys and signatures are
//! minisign's, whose own program can be used instead.

use super::signature::TrustedKey;
use minisign::{KeyPair, PublicKey, SecretKey, SecretKeyBox};
use secrecy::{ExposeSecret, SecretString};
use std::io::Cursor;
use zeroize::Zeroizing;

/// Why it could not be done. Never shows a password or a key.
#[derive(Debug, thiserror::Error)]
pub enum SigningError {
    /// minisign's words for it.
    #[error("{doing}: {reason}")]
    Minisign {
        /// At what.
        doing: &'static str,
        /// Why.
        reason: String,
    },
    /// Nobody can be asked.
    #[error("there is no terminal at which to ask for the password: give --password-file, or --no-password")]
    NoTerminal,
    /// What it made does not verify.
    #[error("the signature that was made does not verify")]
    Unverified,
}

fn failed(doing: &'static str) -> impl FnOnce(minisign::PError) -> SigningError {
    move |error| SigningError::Minisign { doing, reason: error.to_string() }
}

/// How a secret key is protected in its file.
#[derive(Debug)]
pub enum Protection {
    /// By this password.
    Password(SecretString),
    /// By one that is asked for at the terminal.
    Asked,
    /// By nothing but the permissions of the file.
    None,
}

impl Protection {
    /// Whether somebody is there, if somebody is to be asked.
    fn can_be_asked(&self) -> Result<(), SigningError> {
        match self {
            Self::Asked => std::fs::File::open("/dev/tty").map(drop).map_err(|_| SigningError::NoTerminal),
            Self::Password(_) | Self::None => Ok(()),
        }
    }

    /// What minisign takes for one: none, and it asks.
    fn password(&self) -> Option<String> {
        match self {
            Self::Password(password) => Some(password.expose_secret().to_owned()),
            Self::Asked | Self::None => None,
        }
    }
}

/// A new key pair: the files of the secret and the public key.
#[derive(Debug)]
pub struct NewKey {
    /// The file of the secret key.
    pub secret: SecretString,
    /// The file of the public key.
    pub public: String,
    /// The public key.
    pub key: TrustedKey,
}

/// Makes a key pair.
///
/// # Errors
/// There is no randomness.
pub fn generate(protection: &Protection) -> Result<NewKey, SigningError> {
    let doing = "making a key";
    protection.can_be_asked()?;
    let pair = match protection {
        Protection::None => KeyPair::generate_unencrypted_keypair(),
        Protection::Password(_) | Protection::Asked => KeyPair::generate_encrypted_keypair(protection.password()),
    };
    let pair = pair.map_err(failed(doing))?;
    let secret = pair.sk.to_box(Some("secret key for releases of scale-lnd")).map_err(failed(doing))?;
    let public = pair.pk.to_box().map_err(failed(doing))?.into_string();
    let key = pair.pk.to_base64().parse().map_err(|_| SigningError::Unverified)?;
    Ok(NewKey { secret: secret.into_string().into(), public, key })
}

/// The signature of `bytes` by a secret key as its file has it. What the trusted comment says is signed with them.
///
/// # Errors
/// It is no secret key, or the password is another.
pub fn sign(
    bytes: &[u8],
    secret: &SecretString,
    protection: &Protection,
    trusted_comment: &str,
) -> Result<(String, TrustedKey), SigningError> {
    let text = Zeroizing::new(secret.expose_secret().to_owned());
    let boxed = || SecretKeyBox::from_string(&text).map_err(failed("reading the secret key"));
    let secret = match (protection, boxed()?.into_unencrypted_secret_key()) {
        // There is nothing to ask for.
        (Protection::Asked, Ok(secret)) => secret,
        _ => open(boxed()?, protection)?,
    };
    let public = PublicKey::from_secret_key(&secret).map_err(failed("reading the secret key"))?;
    let signed = minisign::sign(Some(&public), &secret, Cursor::new(bytes), Some(trusted_comment), None)
        .map_err(failed("signing"))?
        .into_string();
    // By the other implementation, which is what masters and hosts have.
    let key: TrustedKey = public.to_base64().parse().map_err(|_| SigningError::Unverified)?;
    let trusted = super::TrustedKeys::new(vec![key.clone()]);
    trusted.verify(bytes, &signed).map_err(|_| SigningError::Unverified)?;
    Ok((signed, key))
}

fn open(boxed: SecretKeyBox, protection: &Protection) -> Result<SecretKey, SigningError> {
    protection.can_be_asked()?;
    let opened = match protection {
        Protection::None => boxed.into_unencrypted_secret_key(),
        Protection::Password(_) | Protection::Asked => boxed.into_secret_key(protection.password()),
    };
    opened.map_err(failed("opening the secret key"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::release::TrustedKeys;

    #[test]
    fn what_is_signed_is_verified() {
        for protection in [Protection::None, Protection::Password("correct horse".into())] {
            let key = generate(&protection).unwrap();
            let (signature, by) = sign(b"release", &key.secret, &protection, "serial:7").unwrap();
            assert_eq!(by.id(), key.key.id());
            assert!(signature.contains("trusted comment: serial:7"));
            let trusted = TrustedKeys::new(vec![key.public.parse().unwrap()]);
            assert_eq!(trusted.verify(b"release", &signature), Ok(key.key.id()));
            assert!(trusted.verify(b"releasf", &signature).is_err());
        }
    }

    #[test]
    fn a_key_opens_with_its_password_only() {
        let key = generate(&Protection::Password("correct horse".into())).unwrap();
        for protection in [Protection::None, Protection::Password("battery".into())] {
            let error = sign(b"release", &key.secret, &protection, "").unwrap_err().to_string();
            assert!(!error.contains("battery"), "{error}");
        }
        assert!(sign(b"release", &"nonsense".into(), &Protection::None, "").is_err());
        assert!(!format!("{key:?}").contains(key.secret.expose_secret()));
    }
}
