//! A node's secrets: made, sealed for their node and field, opened when needed, and the macaroons baked from them.

use crate::error::{Error, Result};
use crate::lnd::macaroon::{Caveat, Grant, Macaroon, RootKey, bake};
use crate::model::node::{Node, Secrets};
use crate::model::{Network, NodeId};
use crate::seal::{SealContext, SealError, Sealed, Sealer};
use arc_swap::ArcSwap;
use rand::Rng;
use std::sync::Arc;
use zeroize::Zeroizing;

/// The owner of what belongs to no node. It is part of what is sealed and never changes.
pub const DEPLOYMENT: &str = "deployment";

/// The names of the sealed fields. They are part of what is sealed and never change.
pub mod field {
    /// aezeed mnemonic.
    pub const SEED: &str = "seed";
    /// Wallet password.
    pub const WALLET_PASSWORD: &str = "wallet_password";
    /// Macaroon root key.
    pub const MACAROON_ROOT_KEY: &str = "macaroon_root_key";
    /// Key of idempotent invoices' preimages.
    pub const INVOICE_KEY: &str = "invoice_key";
    /// The private key of the deployment's CA.
    pub const CA_KEY: &str = "ca_key";
    /// What shows that the sealing keys are the right ones.
    pub const KEY_CHECK: &str = "key_check";
    /// What the treasury of `dev` is made of.
    pub const TREASURY: &str = "treasury";
}

/// Seals and opens for one deployment. Its sealing keys may change while it is used.
#[derive(Debug)]
pub struct Keys {
    sealer: ArcSwap<Sealer>,
    deployment: String,
    network: Network,
}

impl Keys {
    /// For this deployment on this network.
    #[must_use]
    pub fn new(sealer: Arc<Sealer>, deployment: String, network: Network) -> Self {
        Self { sealer: ArcSwap::new(sealer), deployment, network }
    }

    /// The deployment's name.
    #[must_use]
    pub fn deployment(&self) -> &str {
        &self.deployment
    }

    /// From now on with these sealing keys.
    pub fn replace(&self, sealer: Arc<Sealer>) {
        self.sealer.store(sealer);
    }

    /// The version of the sealing key under which is sealed.
    #[must_use]
    pub fn sealing(&self) -> u32 {
        self.sealer.load().current()
    }

    fn context<'a>(&'a self, owner: &'a str, field: &'a str) -> SealContext<'a> {
        SealContext { deployment: &self.deployment, network: self.network.as_str(), owner, field }
    }

    /// Seals `plaintext` as `field` of `owner` (a node's id, or [`DEPLOYMENT`]).
    pub fn seal(&self, owner: &str, field: &str, plaintext: &[u8]) -> Result<Sealed, SealError> {
        self.sealer.load().seal(&self.context(owner, field), plaintext)
    }

    /// Opens what was sealed as `field` of `owner`.
    pub fn open(&self, owner: &str, field: &str, sealed: &Sealed) -> Result<Zeroizing<Vec<u8>>, SealError> {
        self.sealer.load().open(&self.context(owner, field), sealed)
    }

    /// Seals a secret again if it does not stand under the key that seals now. Whether it did.
    pub fn seal_again(&self, owner: &str, field: &str, sealed: &mut Sealed) -> Result<bool, SealError> {
        let sealer = self.sealer.load();
        if !sealer.is_outdated(sealed) {
            return Ok(false);
        }
        let context = self.context(owner, field);
        *sealed = sealer.seal(&context, &sealer.open(&context, sealed)?)?;
        Ok(true)
    }

    /// The same for all secrets of the node `id`. How many there were.
    pub fn seal_all_again(&self, id: &NodeId, secrets: &mut Secrets) -> Result<usize, SealError> {
        let all = [
            (field::SEED, &mut secrets.seed),
            (field::WALLET_PASSWORD, &mut secrets.wallet_password),
            (field::MACAROON_ROOT_KEY, &mut secrets.macaroon_root_key),
            (field::INVOICE_KEY, &mut secrets.invoice_key),
        ];
        let mut done = 0;
        for (field, sealed) in all {
            done += usize::from(self.seal_again(id.as_str(), field, sealed)?);
        }
        Ok(done)
    }

    /// Opens a secret of a node that has its secrets.
    pub fn open_of(&self, node: &Node, field: &str) -> Result<Zeroizing<Vec<u8>>> {
        let secrets = node.secrets.as_ref().ok_or_else(|| Error::Invariant("a node without secrets".to_owned()))?;
        let sealed = match field {
            field::SEED => &secrets.seed,
            field::WALLET_PASSWORD => &secrets.wallet_password,
            field::MACAROON_ROOT_KEY => &secrets.macaroon_root_key,
            field::INVOICE_KEY => &secrets.invoice_key,
            other => return Err(Error::Invariant(format!("no secret is called {other}"))),
        };
        Ok(self.open(node.id.as_str(), field, sealed)?)
    }

    /// The root key of a node's macaroons.
    pub fn root_key(&self, node: &Node) -> Result<RootKey> {
        let bytes = self.open_of(node, field::MACAROON_ROOT_KEY)?;
        RootKey::from_slice(&bytes).ok_or_else(|| Error::Invariant("a macaroon root key of another length".to_owned()))
    }

    /// A macaroon for `node` that allows what `grant` names and no more.
    pub fn bake(&self, node: &Node, grant: Grant, caveats: &[Caveat]) -> Result<Macaroon> {
        let mut nonce = [0u8; 16];
        rand::rng().fill_bytes(&mut nonce);
        Ok(bake(&self.root_key(node)?, nonce, &grant.ops(), caveats))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seal::SealKey;

    /// What was sealed before: what a secret is sealed for must never change, or none that is stored opens any more.
    #[test]
    fn what_was_stored_opens() {
        let keys =
            Keys::new(Arc::new(Sealer::single(SealKey::from_bytes([7; 32]))), "test".to_owned(), Network::Simnet);
        let stored = [
            (
                "n1",
                field::SEED,
                r#"{"v":1,"nonce":"OvCk560dflxX7g4S6812wESgtiTJb3L+","ct":"/3s2WlI3ElDBxQUXN4mB6eIcNRk="}"#,
            ),
            (
                "n1",
                field::WALLET_PASSWORD,
                r#"{"v":1,"nonce":"IeL7ptTFr5X3kndU0HUOFx9M/SdgWenD","ct":"lbU2a25AhwnuN/go5Y4IaI6ZULWtXtnAVbvXH2SxDg=="}"#,
            ),
            (
                "n1",
                field::MACAROON_ROOT_KEY,
                r#"{"v":1,"nonce":"7wGpgvs0dnDC32uypIzkfCjG5MtlRpPp","ct":"URmtejudH3E+lGhkr50eYl3UcAqwNMrlrGnN/dSAovxb"}"#,
            ),
            (
                "n1",
                field::INVOICE_KEY,
                r#"{"v":1,"nonce":"gt6+8/1DJV7T9MSa5V1tAqpZ51mWj2yJ","ct":"Vu7v7VanoqcINaCTTAw876MutoUsM+qW4qQv"}"#,
            ),
            (
                DEPLOYMENT,
                field::CA_KEY,
                r#"{"v":1,"nonce":"tUWlUIZT/h7bj2f8qNlU8Ck8N9wGFRVk","ct":"K2GAORRjydkETKQutl6/wAXNec5aOQ=="}"#,
            ),
            (
                DEPLOYMENT,
                field::KEY_CHECK,
                r#"{"v":1,"nonce":"VmglUxrMH7BcjJ6P8qK7/PZD/xhkclda","ct":"MZSkArJILCex3T5rhdazTZYKwiFldV81eg=="}"#,
            ),
            (
                DEPLOYMENT,
                field::TREASURY,
                r#"{"v":1,"nonce":"KaLtuKhb5DMu+w3DCk0d5yKjGKXeQpp9","ct":"+dpSSY3seJsSHP+QSvqzSpNXUYDJRH0f"}"#,
            ),
        ];
        for (owner, name, sealed) in stored {
            let sealed: Sealed = serde_json::from_str(sealed).unwrap();
            assert_eq!(&**keys.open(owner, name, &sealed).unwrap(), name.as_bytes(), "{name}");
        }
    }
}
