//! What the network and the chain backend ask of the rest of the configuration.

use super::tests::{WHOLE, load};
use super::*;

/// The whole file on another network, with other lines under `[chain]`.
fn on(network: &str, lines: &str) -> Result<Config, String> {
    load(&text(network, lines), &[], &[])
}

fn text(network: &str, lines: &str) -> String {
    let (before, rest) = WHOLE.split_once("[chain]\n").unwrap();
    let (_, after) = rest.split_once("[lnd]\n").unwrap();
    format!("{before}[chain]\n{lines}\n[lnd]\n{after}").replace("regtest", network)
}

const BITCOIND: &str = "backend = \"bitcoind\"\nrpc_host = \"10.0.0.6:8332\"\nrpc_user = \"lnd\"\n\
                        rpc_password_file = \"/p\"\n";
const NEUTRINO: &str = "backend = \"neutrino\"\npeers = [\"10.0.0.6:18444\"]\n";
const BTCD: &str =
    "rpc_host = \"10.0.0.6:8334\"\nrpc_user = \"lnd\"\nrpc_password_file = \"/p\"\nrpc_cert_file = \"/c\"\n";

#[test]
fn each_backend_on_each_network() {
    for network in ["simnet", "regtest", "testnet4", "signet"] {
        assert!(matches!(on(network, BTCD).unwrap().chain.backend, ChainBackend::Btcd { .. }), "{network}");
        let fees = format!("{NEUTRINO}fee_url = \"https://fees.example/v1\"");
        assert!(matches!(on(network, &fees).unwrap().chain.backend, ChainBackend::Neutrino { .. }), "{network}");
        let bitcoind = on(network, BITCOIND);
        match network {
            "simnet" => assert!(bitcoind.unwrap_err().contains("chain.backend: bitcoind knows no simnet")),
            _ => assert!(matches!(bitcoind.unwrap().chain.backend, ChainBackend::Bitcoind { zmq: None, .. })),
        }
    }
    let zmq = format!("{BITCOIND}zmq_block = \"tcp://10.0.0.6:28332\"\nzmq_tx = \"tcp://10.0.0.6:28333\"");
    let ChainBackend::Bitcoind { zmq: Some(zmq), .. } = on("regtest", &zmq).unwrap().chain.backend else { panic!() };
    assert_eq!((&*zmq.block, &*zmq.tx), ("tcp://10.0.0.6:28332", "tcp://10.0.0.6:28333"));
}

#[test]
fn every_setting_of_another_backend_is_a_fault_that_says_so() {
    let all = "rpc_host = \"h:1\"\nrpc_user = \"u\"\nrpc_password_file = \"/p\"\nrpc_cert_file = \"/c\"\n\
               zmq_block = \"tcp://h:2\"\nzmq_tx = \"tcp://h:3\"\npeers = [\"h:4\"]\nother_peers = true\n\
               block_headers_source = \"/b\"\nfilter_headers_source = \"/f\"\nsignet_seed_nodes = [\"h\"]\n";
    let faults: Vec<String> = ["btcd", "bitcoind", "neutrino", "spv"]
        .map(|backend| on("signet", &format!("{all}fee_url = \"https://f\"\nbackend = \"{backend}\"")).err().unwrap())
        .into();
    insta::assert_snapshot!(faults.join("\n\n"));
}

#[test]
fn what_is_missing_or_wrong_for_the_backend_is_named() {
    let cases: &[(&str, &str, &[&str])] = &[
        ("regtest", "", &["chain.rpc_host: is m", "chain.rpc_user: is m", "chain.rpc_cert_file: is m"]),
        ("regtest", "backend = \"bitcoind\"", &["chain.rpc_host: is m", "chain.rpc_password_file: is m"]),
        ("regtest", "backend = \"neutrino\"", &["chain.peers: is missing: on regtest there is nobody to find"]),
        ("regtest", "backend = \"neutrino\"\npeers = [\"10.0.0.6\"]", &["chain.peers: must be addresses with a port"]),
        (
            "testnet4",
            "backend = \"neutrino\"\nother_peers = true",
            &["chain.other_peers: says nothing", "chain.fee_url"],
        ),
        ("testnet4", NEUTRINO, &["chain.fee_url: is missing: neutrino has no fee estimates (fixed"]),
        (
            "mainnet",
            &format!("{NEUTRINO}fixed_sat_per_vbyte = 5"),
            &["chain.fee_url: is missing: neutrino has no fee est"],
        ),
        ("regtest", &format!("{NEUTRINO}fee_url = \"fees\""), &["chain.fee_url: must be a URL"]),
        ("regtest", &format!("{NEUTRINO}block_headers_source = \"/b\""), &["chain.filter_headers_source: is missing"]),
        (
            "regtest",
            &format!("{NEUTRINO}block_headers_source = \"b\"\nfilter_headers_source = \"/f\""),
            &["chain.block_headers_source: must be a URL, or an absolute path on the hosts"],
        ),
        ("regtest", &format!("{BITCOIND}zmq_tx = \"tcp://h:1\""), &["chain.zmq_block: is missing: zmq_tx is given"]),
        (
            "regtest",
            &format!("{BITCOIND}zmq_block = \"h:1\"\nzmq_tx = \"h:1\""),
            &[
                "chain.zmq_block: must be an address",
                "chain.zmq_tx: must be an address",
                "chain.zmq_tx: must be another",
            ],
        ),
        ("regtest", &BITCOIND.replace("\"lnd\"", "\"$USER\""), &["chain.rpc_user: has the form of a variable"]),
        ("regtest", &format!("{BTCD}signet_challenge = \"51\""), &["chain.signet_challenge: is for signet only"]),
        ("signet", &format!("{BTCD}signet_challenge = \"5\""), &["chain.signet_challenge: must be 1 to 252 bytes"]),
        (
            "signet",
            "backend = \"neutrino\"\nfee_url = \"https://f\"\nsignet_challenge = \"51\"",
            &["chain.peers: is missing: the nodes that lnd knows by itself are the public signet's"],
        ),
    ];
    for (network, lines, expected) in cases {
        let faults = on(network, lines).err().unwrap_or_default();
        for fault in *expected {
            assert!(faults.contains(fault), "{network} {lines}: {fault:?} is not in\n{faults}");
        }
    }
    let twice = text("regtest", BTCD).replace("--accept-keysend", "--fee.url=https://f");
    assert!(load(&twice, &[], &[]).unwrap_err().contains("lnd.extra_args: the URL for fee estimates is chain.fee_url"));
}

const ACKNOWLEDGED: &str = "network = \"mainnet\"\nmainnet_acknowledged = \"i understand that this is real money\"";
const CEILINGS: &str = "nodes = 1\ncreates_per_hour = 1\nfunding_sat_per_day = 1\noutgoing_sat_per_day = 1";

/// All that mainnet asks for.
fn mainnet() -> String {
    WHOLE.replace("network = \"regtest\"", ACKNOWLEDGED).replace("nodes = 1000", CEILINGS)
}

#[test]
fn mainnet_funds_nothing_unless_told() {
    assert_eq!(load(&mainnet(), &[], &[]).unwrap().funding.initial_funding_sat, 100_000, "it was told");
    let silent = mainnet().replace("[funding]\ninitial_funding_sat = 100_000\n", "");
    assert_eq!(load(&silent, &[], &[]).unwrap().funding.initial_funding_sat, 0);
}

#[test]
fn mainnet_wants_to_be_acknowledged_word_for_word() {
    let silent = WHOLE.replace("regtest", "mainnet").replace("nodes = 1000", CEILINGS);
    let faults = load(&silent, &[], &[]).unwrap_err();
    assert_eq!(
        faults,
        "deployment.mainnet_acknowledged: is missing: on mainnet it must be \"i understand that this is real money\""
    );
    for said in ["true", "yes", "I understand that this is real money"] {
        let faults = load(&silent, &[], &[("deployment.mainnet_acknowledged", said)]).unwrap_err();
        assert!(faults.contains("deployment.mainnet_acknowledged: must be \"i understand"), "{faults}");
    }
}

#[test]
fn mainnet_wants_https_every_ceiling_and_a_sealing_key_that_is_not_in_the_environment() {
    let without = mainnet().replace("creates_per_hour = 1\n", "");
    let faults = load(&without, &[], &[]).unwrap_err();
    assert_eq!(faults, "limits.creates_per_hour: is missing: on mainnet every ceiling is set");
    let plain = mainnet().replace("tls_cert", "#").replace("tls_key", "#");
    let faults = load(&plain, &[], &[("http.allow_plain_http", "true")]).unwrap_err();
    assert_eq!(faults, "http.tls_cert: is missing: on mainnet the API is HTTPS");

    let env = [("SCALE_LND_SEAL_KEY", "00"), ("SCALE_LND_SEAL_KEY_VERSION", "3")];
    let faults = load(&mainnet(), &env, &[]).unwrap_err();
    assert!(faults.starts_with("SCALE_LND_SEAL_KEY: seal.key: is in the environment"), "{faults}");
    assert_eq!(faults.lines().count(), 1);
    assert!(load(WHOLE, &env, &[]).is_ok(), "elsewhere it may be");

    let kms =
        [("seal.kms_key", "arn:aws:kms:eu-central-1:111122223333:key/1234"), ("seal.kms_endpoint_url", "http://kms")];
    let faults = load(&mainnet(), &[], &kms).unwrap_err();
    assert_eq!(faults, "--set: seal.kms_endpoint_url: must be https on mainnet: keys come from there");
    assert!(load(&mainnet(), &[], &kms[..1]).is_ok() && load(WHOLE, &[], &kms).is_ok());
}

#[test]
fn the_example_has_every_backend() {
    let example = include_str!("../../docs/master.example.toml");
    let indented = |heading: &str| {
        let (_, after) = example.split_once(heading).unwrap_or_else(|| panic!("no {heading:?}"));
        let lines = after.lines().skip(1).map_while(|line| line.strip_prefix("#   ")).collect::<Vec<_>>();
        assert!(!lines.is_empty(), "{heading}");
        lines.join("\n")
    };
    let (bitcoind, neutrino) = (indented("# With bitcoind"), indented("# With neutrino"));
    assert!(matches!(on("regtest", &bitcoind).unwrap().chain.backend, ChainBackend::Bitcoind { zmq: Some(_), .. }));
    assert!(matches!(on("regtest", &neutrino).unwrap().chain.backend, ChainBackend::Neutrino { .. }));
    let signet = format!("{neutrino}\n{}\nfee_url = \"https://f\"", indented("# In a signet"));
    assert!(on("signet", &signet).unwrap().chain.signet_challenge.is_some());
}
