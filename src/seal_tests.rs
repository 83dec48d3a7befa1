use std::{fs, os::unix::fs::PermissionsExt};

use proptest::prelude::*;

use super::*;

const CTX: SealContext<'_> = SealContext { deployment: "prod", network: "mainnet", owner: "node1", field: "seed" };

fn key(byte: u8) -> SealKey {
    SealKey::from_bytes([byte; 32])
}

fn sealer() -> Sealer {
    Sealer::single(key(1))
}

#[test]
fn what_was_sealed_opens() {
    let sealed = sealer().seal(&CTX, b"abandon ability").unwrap();
    assert_eq!(sealer().open(&CTX, &sealed).unwrap().as_slice(), b"abandon ability");
    assert_eq!(sealed.key_version(), FIRST_VERSION);
}

#[test]
fn nothing_opens_in_another_context() {
    let sealed = sealer().seal(&CTX, b"abandon ability").unwrap();
    let others = [
        SealContext { deployment: "test", ..CTX },
        SealContext { network: "simnet", ..CTX },
        SealContext { owner: "node2", ..CTX },
        SealContext { field: "wallet_password", ..CTX },
        // The same letters, cut elsewhere.
        SealContext { deployment: "prodm", network: "ainnet", ..CTX },
        SealContext { owner: "node", field: "1seed", ..CTX },
        SealContext { deployment: CTX.network, network: CTX.deployment, ..CTX },
    ];
    for other in others {
        assert_eq!(sealer().open(&other, &sealed), Err(SealError::DoesNotOpen), "{other:?}");
    }
}

#[test]
fn two_swapped_ciphertexts_do_not_open() {
    let other = SealContext { owner: "node2", ..CTX };
    let (one, two) = (sealer().seal(&CTX, b"one").unwrap(), sealer().seal(&other, b"two").unwrap());
    assert_eq!(sealer().open(&CTX, &two), Err(SealError::DoesNotOpen));
    assert_eq!(sealer().open(&other, &one), Err(SealError::DoesNotOpen));
}

#[test]
fn another_key_or_an_altered_ciphertext_does_not_open() {
    let sealed = sealer().seal(&CTX, b"abandon").unwrap();
    assert_eq!(Sealer::single(key(2)).open(&CTX, &sealed), Err(SealError::DoesNotOpen));
    for at in 0..sealed.ct.len() {
        let mut altered = sealed.clone();
        altered.ct[at] ^= 1;
        assert_eq!(sealer().open(&CTX, &altered), Err(SealError::DoesNotOpen));
    }
    let mut altered = sealed.clone();
    altered.nonce[0] ^= 1;
    assert_eq!(sealer().open(&CTX, &altered), Err(SealError::DoesNotOpen));
    altered.nonce.pop();
    assert_eq!(sealer().open(&CTX, &altered), Err(SealError::DoesNotOpen));
}

#[test]
fn a_newer_key_seals_and_the_older_still_opens() {
    let old = sealer().seal(&CTX, b"abandon").unwrap();
    let both = Sealer::new([(1, key(1)), (2, key(2))]).unwrap();
    assert!(both.is_outdated(&old));
    assert_eq!(both.open(&CTX, &old).unwrap().as_slice(), b"abandon");
    let new = both.seal(&CTX, b"abandon").unwrap();
    assert!(!both.is_outdated(&new));
    assert_eq!(sealer().open(&CTX, &new), Err(SealError::UnknownKeyVersion { version: 2 }));
    // The version is authenticated too: the same key under another number does not open it.
    let mut renumbered = new.clone();
    renumbered.v = 1;
    let same = Sealer::new([(1, key(2)), (2, key(2))]).unwrap();
    assert_eq!(same.open(&CTX, &renumbered), Err(SealError::DoesNotOpen));
}

#[test]
fn there_is_a_key_and_one_of_each_version() {
    assert!(matches!(Sealer::new([]), Err(KeyError::Versions)));
    assert!(matches!(Sealer::new([(1, key(1)), (1, key(2))]), Err(KeyError::Versions)));
}

#[test]
fn the_same_secret_is_sealed_differently_each_time() {
    assert_ne!(sealer().seal(&CTX, b"abandon").unwrap(), sealer().seal(&CTX, b"abandon").unwrap());
}

#[test]
fn it_is_json_of_base64_strings() {
    let sealed = Sealed { v: 1, nonce: vec![0; 24], ct: vec![255; 3] };
    let json = serde_json::to_string(&sealed).unwrap();
    assert_eq!(json, r#"{"v":1,"nonce":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","ct":"////"}"#);
    assert_eq!(serde_json::from_str::<Sealed>(&json).unwrap(), sealed);
    assert_eq!(serde_json::from_slice::<Sealed>(json.as_bytes()).unwrap(), sealed);
    assert!(serde_json::from_str::<Sealed>(r#"{"v":1,"nonce":"?","ct":""}"#).is_err());
}

#[test]
fn debug_shows_no_secret() {
    let sealed = sealer().seal(&CTX, b"abandon").unwrap();
    let shown = format!("{:?} {sealed:?}", sealer());
    assert_eq!(shown, "Sealer { keys: {1: SealKey(redacted)}, current: 1 } Sealed(v1, 23 bytes)");
}

#[test]
fn a_generated_file_is_private_and_never_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("seal.key");
    let sealed = Sealer::generate_file(&path).unwrap().seal(&CTX, b"abandon").unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
    assert!(matches!(Sealer::generate_file(&path), Err(KeyError::Io { source, .. })
        if source.kind() == io::ErrorKind::AlreadyExists));
    assert_eq!(Sealer::from_file(&path).unwrap().open(&CTX, &sealed).unwrap().as_slice(), b"abandon");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no stray file");
}

#[test]
fn a_key_file_is_raw_or_hex_and_only_the_owners() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key");
    let write = |content: &[u8], mode| {
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        SealKey::from_file(&path)
    };
    let hex = hex::encode([7; 32]);
    assert_eq!(write(&[7; 32], 0o600).unwrap().0.as_slice(), [7; 32]);
    assert_eq!(write(hex.as_bytes(), 0o400).unwrap().0.as_slice(), [7; 32]);
    assert_eq!(write(format!("{hex}\n").as_bytes(), 0o600).unwrap().0.as_slice(), [7; 32]);
    for wrong in [&b""[..], &[7; 31], &[7; 33], &[0xff; 64], &hex.as_bytes()[1..], &[b'0'; 66], &[b'0'; 4096]] {
        assert!(matches!(write(wrong, 0o600), Err(KeyError::Format)), "{} bytes", wrong.len());
    }
    for mode in [0o640, 0o604, 0o620, 0o601] {
        assert!(matches!(write(&[7; 32], mode), Err(KeyError::Exposed { .. })), "{mode:o}");
    }
    let missing = SealKey::from_file(&dir.path().join("none"));
    assert!(matches!(missing, Err(KeyError::Io { .. })));
}

#[test]
fn an_environment_value_is_hex() {
    assert_eq!(SealKey::from_hex(&hex::encode([7; 32])).unwrap().0.as_slice(), [7; 32]);
    assert!(SealKey::from_hex("").is_err());
    assert!(SealKey::from_hex(&hex::encode([7; 31])).is_err());
}

proptest! {
    #[test]
    fn no_two_contexts_are_alike(a: [String; 4], b: [String; 4]) {
        let data = |p: &[String; 4]| {
            SealContext { deployment: &p[0], network: &p[1], owner: &p[2], field: &p[3] }.associated_data(1)
        };
        prop_assert_eq!(data(&a) == data(&b), a == b);
    }

    #[test]
    fn whatever_is_sealed_opens(plaintext: Vec<u8>) {
        let sealed = sealer().seal(&CTX, &plaintext).unwrap();
        prop_assert_eq!(sealer().open(&CTX, &sealed).unwrap().to_vec(), plaintext);
    }
}
