//! Reads an on-chain address and refuses one of another network before anything is done with it.

use super::network::Network;
use bitcoin::address::{Address, NetworkUnchecked};
use bitcoin::bech32::{self, Hrp, segwit};
use bitcoin::{ScriptBuf, WitnessProgram, WitnessVersion};

/// The output script that `address` stands for on `network`; `None` where it is not an address of that network.
///
/// Simnet's addresses are bech32 with the prefix `sb` (btcd's `chaincfg`), which the bitcoin crate does not know.
#[must_use]
pub fn script_of(address: &str, network: Network) -> Option<ScriptBuf> {
    let known = match network {
        Network::Simnet => return simnet(address),
        Network::Regtest => bitcoin::Network::Regtest,
        Network::Testnet4 => bitcoin::Network::Testnet4,
        Network::Signet => bitcoin::Network::Signet,
        Network::Mainnet => bitcoin::Network::Bitcoin,
    };
    let parsed: Address<NetworkUnchecked> = address.parse().ok()?;
    Some(parsed.require_network(known).ok()?.script_pubkey())
}

fn simnet(address: &str) -> Option<ScriptBuf> {
    let (hrp, version, program) = segwit::decode(address).ok()?;
    if hrp != Hrp::parse("sb").ok()? {
        return None;
    }
    let version = WitnessVersion::try_from(bech32::Fe32::to_u8(version)).ok()?;
    Some(ScriptBuf::new_witness_program(&WitnessProgram::new(version, &program).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_the_network() {
        let mainnet = "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4";
        let regtest = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080";
        assert!(script_of(mainnet, Network::Mainnet).is_some());
        assert!(script_of(mainnet, Network::Regtest).is_none());
        assert!(script_of(regtest, Network::Regtest).is_some());
        assert!(script_of(mainnet, Network::Simnet).is_none());
        assert!(script_of("", Network::Simnet).is_none());
        let hrp = Hrp::parse("sb").expect("a prefix");
        let simnet = segwit::encode_v0(hrp, &[7; 20]).expect("encodes");
        let script = script_of(&simnet, Network::Simnet).expect("an address of simnet");
        assert!(script.is_p2wpkh());
    }
}
