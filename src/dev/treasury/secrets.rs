//! The treasury's secrets: made once, sealed in a file, and enough to know where the miner's coins go before the wallet
//! exists.

use std::{fs, path::Path};

use bitcoin::{
    CompressedPublicKey, Network,
    bech32::{Hrp, segwit},
    bip32::{DerivationPath, Xpriv},
    secp256k1::Secp256k1,
};
use rand::{TryRng, rngs::SysRng};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use crate::{
    app::keys,
    dev::{error::DevError, files::write_private},
    lnd::macaroon::RootKey,
    seal::{SealContext, Sealed, Sealer},
};

/// btcwallet's first address of the kind that lnd gives out by default. Its coin type is 0 on every network.
const FIRST_ADDRESS: &str = "m/84'/0'/0'/0/0";
/// Simnet's addresses begin with it.
const SIMNET: &str = "sb";

/// What the treasury's wallet is made of.
#[derive(Serialize, Deserialize)]
pub(super) struct TreasurySecrets {
    /// The seed is made from it, always the same keys.
    pub entropy: [u8; 16],
    pub password: String,
    root_key: [u8; 32],
}

impl Drop for TreasurySecrets {
    fn drop(&mut self) {
        self.entropy.zeroize();
        self.password.zeroize();
        self.root_key.zeroize();
    }
}

impl TreasurySecrets {
    /// Those in the file, or new ones, which then are in the file and were read back from it.
    pub fn load_or_make(path: &Path, sealer: &Sealer, deployment: &str) -> Result<Self, DevError> {
        let context =
            SealContext { deployment, network: "simnet", owner: keys::DEPLOYMENT, field: keys::field::TREASURY };
        if !path.exists() {
            let text = Zeroizing::new(serde_json::to_vec(&Self::random()?).map_err(unusable)?);
            let sealed = sealer.seal(&context, &text).map_err(unusable)?;
            write_private(path, &serde_json::to_vec(&sealed).map_err(unusable)?)?;
        }
        let sealed: Sealed =
            serde_json::from_slice(&fs::read(path).map_err(DevError::file("read", path))?).map_err(unusable)?;
        serde_json::from_slice(&sealer.open(&context, &sealed).map_err(unusable)?).map_err(unusable)
    }

    fn random() -> Result<Self, DevError> {
        let mut password = Zeroizing::new([0; 24]);
        let mut secrets = Self { entropy: [0; 16], password: String::new(), root_key: [0; 32] };
        for place in [&mut secrets.entropy[..], &mut secrets.root_key[..], &mut password[..]] {
            SysRng.try_fill_bytes(place).map_err(unusable)?;
        }
        secrets.password = hex::encode(*password);
        Ok(secrets)
    }

    pub fn root_key(&self) -> RootKey {
        RootKey::from_bytes(self.root_key)
    }

    /// The first address that the wallet will give out. Known beforehand, because btcd must be told at its start whom to
    /// pay.
    pub fn first_address(&self) -> Result<String, DevError> {
        // The network only decides how keys are written, and none is.
        let master = Xpriv::new_master(Network::Regtest, &self.entropy).map_err(unusable)?;
        let path: DerivationPath = FIRST_ADDRESS.parse().map_err(unusable)?;
        let secp = Secp256k1::new();
        let key = master.derive_priv(&secp, &path).map_err(unusable)?.to_priv();
        let hash = CompressedPublicKey::from_private_key(&secp, &key).map_err(unusable)?.wpubkey_hash();
        let bytes: &[u8] = hash.as_ref();
        segwit::encode_v0(Hrp::parse(SIMNET).map_err(unusable)?, bytes).map_err(unusable)
    }
}

/// The errors name what is wrong, never a secret.
fn unusable(error: impl std::fmt::Display) -> DevError {
    DevError::Unusable(format!("the treasury's secrets: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seal::SealKey;

    #[test]
    fn they_are_the_same_the_next_time_and_sealed_on_disk() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secrets");
        let sealer = Sealer::single(SealKey::from_bytes([7; 32]));
        let first = TreasurySecrets::load_or_make(&path, &sealer, "dev").unwrap();
        let second = TreasurySecrets::load_or_make(&path, &sealer, "dev").unwrap();
        assert_eq!((first.entropy, &first.password), (second.entropy, &second.password));
        assert!(!fs::read_to_string(&path).unwrap().contains(&first.password));
        let other = Sealer::single(SealKey::from_bytes([8; 32]));
        assert!(TreasurySecrets::load_or_make(&path, &other, "dev").is_err());
    }
}
