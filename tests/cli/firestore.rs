//! Verbs on a Store in Firestore: that is not there, whose credentials are no good, and that works.

use super::Site;
use crate::harness::emulator::{Emulator, project};
use crate::harness::{command, ports};

impl Site {
    /// The same with Firestore as its store.
    fn on_firestore(self, lines: &str) -> Self {
        let text = std::fs::read_to_string(self.path("scale-lnd.toml")).unwrap();
        let store = format!("kind = \"firestore\"\n{lines}");
        self.write("scale-lnd.toml", &text.replace("path = \"store.db\"", &store));
        self
    }
}

#[test]
fn a_firestore_that_is_not_there_is_said_in_a_line() {
    let url = format!("http://127.0.0.1:{}", ports::free(1));
    let site = Site::new().on_firestore(&format!("project = \"nothing\"\napi_url = \"{url}\""));
    assert_eq!(site.run(&["config", "check"]).code, Some(0));
    for verb in [&["app", "list"][..], &["master"]] {
        let done = site.run(verb);
        assert_eq!(done.code, Some(1), "{done:?}");
        assert!(done.err.contains(&format!("Firestore cannot be reached at {url}")), "{done:?}");
    }
}

#[test]
fn a_credentials_file_that_is_no_good_is_said_in_a_line() {
    let site = Site::new().on_firestore("project = \"nothing\"\ncredentials_file = \"key.json\"");
    let checked = site.run(&["config", "check"]);
    assert!(checked.code == Some(2) && checked.err.contains("store.credentials_file: cannot read"), "{checked:?}");
    site.write_secret("key.json", "{\"type\": \"service_account\", \"private_key\": \"hunter2\"}");
    let done = site.run(&["app", "list"]);
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(done.err.contains("is not a complete service_account file"), "{done:?}");
    assert!(!format!("{done:?}").contains("hunter2"), "{done:?}");
}

#[test]
fn verbs_work_on_firestore() {
    let url = command::wait(async { Emulator::shared().await.url.clone() });
    let site = Site::new().on_firestore(&format!("project = \"{}\"\napi_url = \"{url}\"", project()));
    site.ok(&["app", "create", "shop"]);
    site.ok(&["key", "create", "--app", "shop", "--scopes", "read"]);
    assert_eq!(site.json(&["app", "list", "--json"])[0]["app"], "shop");
    assert_eq!(site.json(&["key", "list", "--json"]).as_array().unwrap().len(), 1);
    // Another sealing key does not open it, as with every store.
    std::fs::remove_file(site.path("seal.key")).unwrap();
    site.ok(&["keys", "generate", site.path("seal.key").to_str().unwrap()]);
    assert_eq!(site.run(&["app", "list"]).code, Some(1));
}

#[test]
fn keys_change_on_firestore() {
    let url = command::wait(async { Emulator::shared().await.url.clone() });
    let site = Site::new().on_firestore(&format!("project = \"{}\"\napi_url = \"{url}\"", project()));
    let invitation = site.json(&["host", "invite", "--json"]);
    site.seal_by_files(&[1, 2]);
    let rotated = site.ok(&["keys", "rotate"]);
    assert!(rotated.starts_with("1 secrets were sealed again under sealing key 2"), "{rotated}");
    // In the middle of it the keys of two authorities are there.
    let held_up = site.run(&["keys", "roll-authority", "--wait", "0"]);
    let host = invitation["host_id"].as_str().unwrap();
    let named = format!("these hosts' invitations must be used, expire, or be revoked: {host}");
    assert!(held_up.code == Some(1) && held_up.err.contains(&named), "{held_up:?}");
    site.seal_by_files(&[2, 3]);
    let rotated = site.ok(&["keys", "rotate"]);
    assert!(rotated.starts_with("2 secrets were sealed again under sealing key 3"), "{rotated}");
    site.seal_by_files(&[3]);
    site.ok(&["host", "revoke", host]);
    let rolled = site.ok(&["keys", "roll-authority"]);
    let authority = rolled.split_whitespace().next().unwrap();
    assert_ne!(authority, invitation["ca_fingerprint"]);
    assert_eq!(site.json(&["host", "invite", "--json"])["ca_fingerprint"], authority);
}

#[test]
fn a_deployment_moves_from_sqlite_to_firestore() {
    let url = command::wait(async { Emulator::shared().await.url.clone() });
    let (site, name) = (Site::new(), project());
    site.ok(&["app", "create", "shop"]);
    site.ok(&["key", "create", "--app", "shop", "--scopes", "read"]);
    let keys = site.json(&["key", "list", "--json"]);
    let from = format!("sqlite:{}", site.path("store.db").display());
    let to = format!("firestore:{name}/(default)");
    let copy = ["store", "copy", "--from", &from, "--to", &to, "--api-url", &url];
    assert!(site.ok(&copy).contains("all read back and equal"));
    assert!(site.ok(&copy).contains("was complete before"));

    let done = site.run(&["app", "list"]);
    assert!(done.code == Some(1) && done.err.contains(&format!("the deployment was moved to {to}")), "{done:?}");
    let site = site.on_firestore(&format!("project = \"{name}\"\napi_url = \"{url}\""));
    assert_eq!(site.json(&["app", "list", "--json"])[0]["app"], "shop");
    assert_eq!(site.json(&["key", "list", "--json"]), keys);

    for wrong in ["sqlite:", "firestore:", "firestore:a/b/c", "mongo:x"] {
        assert_eq!(site.run(&["store", "copy", "--from", wrong, "--to", &to]).code, Some(2), "{wrong}");
    }
    let missing = format!("sqlite:{}", site.path("missing.db").display());
    assert_eq!(site.run(&["store", "copy", "--from", &missing, "--to", &to]).code, Some(2));
    assert!(!site.path("missing.db").exists());
}
