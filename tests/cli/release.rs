//! Releases at the operator's: a key, a signature, and what is wrong with a manifest before anybody else sees it.

use super::Site;
use crate::harness::command::{self, Done};
use axum::Router;
use axum::routing::get;
use sha2::{Digest, Sha256};

const EXAMPLE: &str = include_str!("../../deploy/fleet.toml");

/// A site with the example as its manifest, and a release key without a password.
fn site() -> Site {
    let site = Site::new();
    site.write("fleet.toml", EXAMPLE);
    let made = release(&site, &["keygen", "release.key", "--no-password"]);
    assert_eq!(made.code, Some(0), "{}", made.err);
    site
}

/// Runs a verb; arguments that name files of the site are made paths.
fn release(site: &Site, args: &[&str]) -> Done {
    let is_file = |arg: &str| arg.starts_with("fleet.toml") || arg.starts_with("release.key") || arg == "password";
    let path = |arg: &&str| if is_file(arg) { site.path(arg).display().to_string() } else { (*arg).to_owned() };
    let args: Vec<String> = args.iter().map(path).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    site.run(&[&["release"], &args[..]].concat())
}

#[test]
fn a_release_is_signed_and_verified() {
    use std::os::unix::fs::PermissionsExt;
    let site = site();
    let mode = std::fs::metadata(site.path("release.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let again = release(&site, &["keygen", "release.key", "--no-password"]);
    assert_eq!((again.code, again.err.contains("exists already")), (Some(1), true), "{}", again.err);

    let unsigned = release(&site, &["verify", "fleet.toml", "--trust", "release.key.pub"]);
    assert!(unsigned.err.contains("fleet.toml.minisig"), "{}", unsigned.err);
    // That it has no password need not be said again.
    let signed = release(&site, &["sign", "fleet.toml", "--key", "release.key"]);
    assert_eq!(signed.code, Some(0), "{}", signed.err);
    assert!(signed.out.contains("example on regtest, serial 7"), "{}", signed.out);
    let verified = release(&site, &["verify", "fleet.toml", "--trust", "release.key.pub"]);
    assert_eq!(verified.code, Some(0), "{}", verified.err);
    assert!(verified.out.contains("release 7 for example on regtest, until 2027-12-31T00:00:00Z"), "{}", verified.out);
    assert!(verified.out.contains("lnd        0.21.2-beta  0.20.0-beta,0.20.1-beta"), "{}", verified.out);

    // Anything else than exactly what was signed.
    site.write("fleet.toml", &EXAMPLE.replace("serial = 7", "serial = 8"));
    let changed = release(&site, &["verify", "fleet.toml", "--trust", "release.key.pub"]);
    assert_eq!(changed.code, Some(1));
    assert!(changed.err.contains("is not one of this file as it is"), "{}", changed.err);
    site.write("fleet.toml", EXAMPLE);
    let stranger = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";
    let distrusted = release(&site, &["verify", "fleet.toml", "--trust", stranger]);
    assert!(distrusted.err.contains("which is not trusted"), "{}", distrusted.err);
    let nonsense = release(&site, &["verify", "fleet.toml", "--trust", "RWx"]);
    assert_eq!(nonsense.code, Some(2), "{}", nonsense.err);
}

#[test]
fn a_key_with_a_password_signs_with_it_only() {
    let site = site();
    site.write_secret("password", "correct horse");
    let password = ["--password-file", "password"];
    let made = release(&site, &[&["keygen", "release.key2"], &password[..]].concat());
    assert_eq!(made.code, Some(0), "{}", made.err);
    let without = release(&site, &["sign", "fleet.toml", "--key", "release.key2", "--no-password"]);
    assert_eq!(without.code, Some(1));
    let signed = release(&site, &[&["sign", "fleet.toml", "--key", "release.key2"], &password[..]].concat());
    assert_eq!(signed.code, Some(0), "{}", signed.err);
    site.write_secret("password", "battery staple");
    let wrong = release(&site, &[&["sign", "fleet.toml", "--key", "release.key2"], &password[..]].concat());
    assert_eq!(wrong.code, Some(1));
    for done in [&made, &without, &signed, &wrong] {
        assert!(!format!("{}{}", done.out, done.err).contains("battery"), "{}", done.err);
    }
    let verified = release(&site, &["verify", "fleet.toml", "--trust", "release.key2.pub"]);
    assert_eq!(verified.code, Some(0), "{}", verified.err);
}

#[test]
fn a_faulty_manifest_is_not_signed() {
    let site = site();
    site.write("fleet.toml", &EXAMPLE.replace("serial = 7", "serial = seven"));
    let line = EXAMPLE[..EXAMPLE.find("serial = 7").unwrap()].matches('\n').count() + 1;
    let refused = release(&site, &["sign", "fleet.toml", "--key", "release.key", "--no-password"]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.err.contains(&format!("fleet.toml: line {line}, column 10: ")), "{}", refused.err);
    assert!(!site.path("fleet.toml.minisig").exists());
}

/// A server that has an lnd, and something else.
fn artifacts() -> std::net::SocketAddr {
    command::wait(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let routes = Router::new().route("/lnd", get(|| async { "an lnd" })).route("/other", get(|| async { "other" }));
        tokio::spawn(async move { axum::serve(listener, routes).await });
        address
    })
}

#[test]
fn artifacts_are_checked_before_anybody_has_to_load_them() {
    let (site, server) = (site(), artifacts());
    let digest = hex::encode(Sha256::digest(b"an lnd"));
    let manifest = |x86_64: &str| {
        let artifact = |arch: &str, path: &str| {
            format!("[lnd.artifacts.{arch}]\nurl = \"http://{server}/{path}\"\nsha256 = \"{digest}\"\n")
        };
        let head = &EXAMPLE[..EXAMPLE.find("[lnd.artifacts.x86_64]").unwrap()];
        site.write("fleet.toml", &format!("{head}{}{}", artifact("x86_64", x86_64), artifact("arm64", "lnd")));
    };
    manifest("lnd");
    let good = release(&site, &["check", "fleet.toml"]);
    assert_eq!(good.code, Some(0), "{}", good.err);
    assert!(good.out.contains("lnd for arm64: 6 bytes, as the manifest says"), "{}", good.out);
    manifest("other");
    let bad = release(&site, &["check", "fleet.toml"]);
    assert_eq!(bad.code, Some(1));
    assert!(bad.err.contains("its SHA-256 is ") && bad.err.contains("lnd for x86_64"), "{}", bad.err);
    let offline = release(&site, &["check", "fleet.toml", "--offline"]);
    assert_eq!(offline.code, Some(0), "{}", offline.err);
}
