//! The command line as an operator meets it: what is printed, what is refused, and what is never shown.

mod credentials;
mod firestore;
mod keys;
mod mainnet;
mod master;
mod parked;
mod release;

use crate::harness::command::{self, Done};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

const PROGRAM: &str = env!("CARGO_BIN_EXE_scale-lnd");

/// A deployment's folder: a configuration and the files it names, no process.
struct Site {
    folder: tempfile::TempDir,
}

impl Site {
    fn new() -> Self {
        let site = Self { folder: tempfile::tempdir().unwrap() };
        let certificate = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(site.path("rpc.cert"), certificate.cert.pem()).unwrap();
        site.write_secret("rpc-password", "chain-password");
        site.write(
            "scale-lnd.toml",
            r#"
[deployment]
name = "cli"
network = "regtest"
[store]
path = "store.db"
[seal]
key_file = "seal.key"
[http]
listen = "127.0.0.1:0"
[agents]
listen = "127.0.0.1:0"
[chain]
rpc_host = "127.0.0.1:18334"
rpc_user = "chain-user"
rpc_password_file = "rpc-password"
rpc_cert_file = "rpc.cert"
"#,
        );
        let key = site.path("seal.key");
        assert_eq!(site.run(&["keys", "generate", key.to_str().unwrap()]).code, Some(0));
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    fn write_secret(&self, name: &str, text: &str) {
        self.write(name, text);
        std::fs::set_permissions(self.path(name), std::fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// Runs a verb in an environment that has nothing of ours but the configuration.
    fn run(&self, args: &[&str]) -> Done {
        self.run_in(args, &[])
    }

    /// The same, with these variables.
    fn run_in(&self, args: &[&str], more: &[(&str, &str)]) -> Done {
        let config = self.path("scale-lnd.toml");
        let ours: Vec<String> = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()).collect();
        let ours = ours.iter().filter(|name| name.starts_with("SCALE_LND_"));
        let mut env: Vec<(&str, Option<&str>)> = ours.map(|name| (name.as_str(), None)).collect();
        env.push(("SCALE_LND_CONFIG", config.to_str()));
        env.extend(more.iter().map(|(name, value)| (*name, Some(*value))));
        command::wait(command::run(&[&[PROGRAM], args].concat(), &env))
    }

    /// Runs what must succeed, and gives what it printed.
    fn ok(&self, args: &[&str]) -> String {
        let done = self.run(args);
        assert_eq!(done.code, Some(0), "{args:?}: {done:?}");
        done.out
    }

    fn json(&self, args: &[&str]) -> serde_json::Value {
        serde_json::from_str(&self.ok(args)).unwrap()
    }
}

fn contains(folder: &Path, needle: &str) -> Vec<PathBuf> {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    let has = |path: &PathBuf| {
        let bytes = std::fs::read(path).unwrap();
        bytes.windows(needle.len()).any(|window| window == needle.as_bytes())
    };
    files.filter(has).collect()
}

const TRUSTED: &str = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";

#[test]
fn config_check_names_every_fault_at_once_and_says_when_there_is_none() {
    let site = Site::new();
    assert_eq!(site.ok(&["config", "check"]), "the configuration is sound: deployment cli on regtest\n");
    let args = ["config", "check", "--set", "http.listen=x", "--set", "http.colour=red", "--set", "seal.key=00"];
    let faulty = site.run(&args);
    assert_eq!(faulty.code, Some(2));
    assert_eq!(faulty.err.lines().count(), 3, "{}", faulty.err);
    for name in ["http.listen", "http.colour", "seal.key: is a secret"] {
        assert!(faulty.err.contains(name), "{name}: {}", faulty.err);
    }
    // The files that it names are looked at, too.
    std::fs::remove_file(site.path("rpc.cert")).unwrap();
    std::fs::set_permissions(site.path("seal.key"), std::fs::Permissions::from_mode(0o644)).unwrap();
    std::fs::set_permissions(site.path("rpc-password"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let faulty = site.run(&["config", "check"]);
    assert_eq!((faulty.code, faulty.err.lines().count()), (Some(2), 3), "{}", faulty.err);
    // And what is in them.
    let site = Site::new();
    site.write("tls.cert", "no certificate");
    site.write_secret("tls.key", "no key");
    site.write("treasury.cert", "no certificate");
    site.write("treasury.macaroon", "everybody's");
    let file = |name: &str| site.path(name).display().to_string();
    let set = [
        format!("http.tls_cert={}", file("tls.cert")),
        format!("http.tls_key={}", file("tls.key")),
        "treasury.address=127.0.0.1:1".to_owned(),
        format!("treasury.cert_file={}", file("treasury.cert")),
        format!("treasury.macaroon_file={}", file("treasury.macaroon")),
    ];
    let mut args = vec!["config", "check"];
    args.extend(set.iter().flat_map(|set| ["--set", set.as_str()]));
    let faulty = site.run(&args);
    assert_eq!((faulty.code, faulty.err.lines().count()), (Some(2), 3), "{}", faulty.err);
    for name in ["http.tls_cert, http.tls_key: ", "treasury.cert_file: ", "treasury.macaroon_file: "] {
        assert!(faulty.err.contains(name), "{name}: {}", faulty.err);
    }
    site.write_secret("treasury.macaroon", "not a macaroon");
    assert!(site.run(&args).err.contains("treasury.macaroon_file: "));

    // A folder that can be made is no fault, one that cannot is.
    let beneath = |name: &str| format!("store.path={}", site.path(name).display());
    assert_eq!(site.run(&["config", "check", "--set", &beneath("new/folder/db")]).code, Some(0));
    let faulty = site.run(&["config", "check", "--set", &beneath("tls.cert/db")]);
    assert!(faulty.err.contains("store.path: ") && faulty.err.contains("tls.cert is not a folder"), "{}", faulty.err);
    let set = [
        format!("updates.trusted_keys={TRUSTED}"),
        "updates.repository=example/fleet".to_owned(),
        format!("updates.webhook_secret_file={}", file("tls.cert")),
        format!("updates.token_file={}", file("none")),
    ];
    let mut args = vec!["config", "check"];
    args.extend(set.iter().flat_map(|set| ["--set", set.as_str()]));
    let faulty = site.run(&args);
    assert_eq!((faulty.code, faulty.err.lines().count()), (Some(2), 2), "{}", faulty.err);
    for name in ["updates.webhook_secret_file: ", "updates.token_file: "] {
        assert!(faulty.err.contains(name), "{name}: {}", faulty.err);
    }

    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/lndserver.example.toml");
    let agent = ["config", "check", "--agent", "--config", example];
    assert_eq!(site.ok(&agent), "the agent's configuration is sound: it listens on 127.0.0.1:8082\n");
    let nowhere = site.run(&[&agent[..], &["--set", "agent.lnd=/no/such/lnd"]].concat());
    assert!(nowhere.err.contains("agent.lnd: /no/such/lnd is not a file"), "{}", nowhere.err);
    assert!(site.run(&["config", "check", "--agent"]).err.contains("agent"), "a master's file is none of an agent's");
    let agent = site.run(&["lndserver"]);
    assert_eq!(agent.code, Some(2));
    assert!(agent.err.contains("agent.data_dir: is missing") && agent.err.contains("agent.masters: is missing"));
}

#[test]
fn a_key_is_shown_once_and_kept_nowhere() {
    let site = Site::new();
    assert_eq!(site.run(&["key", "create", "--app", "wallet", "--scopes", "read"]).code, Some(1), "no such app");
    site.ok(&["app", "create", "wallet"]);
    let key = site.ok(&["key", "create", "--app", "wallet", "--scopes", "pay,read", "--note", "the backend"]);
    let (_, secret) = key.trim().rsplit_once('_').unwrap();
    assert_eq!((key.starts_with("slnd_regtest_"), secret.len()), (true, 64));
    assert_eq!(contains(site.folder.path(), secret), Vec::<PathBuf>::new());

    let listed = site.json(&["key", "list", "--json"]);
    let listed = &listed[0];
    assert_eq!((&listed["app"], &listed["note"]), (&"wallet".into(), &"the backend".into()));
    assert_eq!(listed["scopes"], serde_json::json!(["read", "pay"]));
    assert_eq!(listed["revoked_at"], serde_json::Value::Null);

    // Whoever gives the key for its id by mistake finds it in no message.
    let refused = site.run(&["key", "revoke", key.trim()]);
    assert_eq!(refused.code, Some(2));
    assert!(!refused.err.contains(secret), "{}", refused.err);
    site.ok(&["key", "revoke", listed["id"].as_str().unwrap()]);
    assert!(site.json(&["key", "list", "--json"])[0]["revoked_at"].is_string());
}

#[test]
fn an_operators_key_belongs_to_no_app_and_an_apps_key_is_no_operators() {
    let site = Site::new();
    site.ok(&["app", "create", "wallet"]);
    for args in [
        &["key", "create", "--app", "wallet", "--scopes", "operator"][..],
        &["key", "create", "--app", "wallet", "--operator"],
        &["key", "create", "--operator", "--scopes", "read"],
        &["key", "create", "--app", "wallet"],
        &["key", "create"],
    ] {
        assert_eq!(site.run(args).code, Some(2), "{args:?}");
    }
    site.ok(&["key", "create", "--operator"]);
    let listed = site.json(&["key", "list", "--json"]);
    assert_eq!((&listed[0]["app"], &listed[0]["scopes"]), (&serde_json::Value::Null, &serde_json::json!(["operator"])));
}

#[test]
fn limits_are_set_one_by_one_and_unset_by_none() {
    let site = Site::new();
    site.ok(&["app", "create", "wallet", "--nodes", "10", "--outgoing-sat-per-day", "1000"]);
    assert_eq!(site.run(&["app", "create", "wallet"]).code, Some(1));
    site.ok(&["app", "limits", "wallet", "--nodes", "none", "--creates-per-hour", "5"]);
    let listed = site.json(&["app", "list", "--json"]);
    let shown = |name: &str| listed[0][name].as_str().unwrap().to_owned();
    assert_eq!(shown("nodes"), "0/unset");
    assert_eq!(shown("creates_per_hour"), "0/5");
    assert_eq!(shown("outgoing_sat_per_day"), "0/1000");
    assert_eq!(site.run(&["app", "limits", "other", "--nodes", "1"]).code, Some(1));
    assert_eq!(site.run(&["app", "limits", "wallet", "--nodes", "many"]).code, Some(2));
}

#[test]
fn a_store_is_opened_by_its_own_deployment_and_key_only() {
    let site = Site::new();
    site.ok(&["app", "create", "wallet"]);
    for change in ["deployment.name=other", "deployment.network=simnet"] {
        let refused = site.run(&["app", "list", "--set", change]);
        assert_eq!(refused.code, Some(1), "{change}");
        assert!(refused.err.contains("the store belongs to deployment cli on regtest"), "{}", refused.err);
    }
    std::fs::remove_file(site.path("seal.key")).unwrap();
    assert_eq!(site.run(&["app", "list"]).code, Some(1), "no key");
    site.ok(&["keys", "generate", site.path("seal.key").to_str().unwrap()]);
    for verb in [&["app", "list"][..], &["master"]] {
        let refused = site.run(verb);
        assert_eq!(refused.code, Some(1), "{verb:?}");
        assert!(refused.err.contains("the sealing key does not open this store"), "{}", refused.err);
    }
}

#[test]
fn what_is_not_there_is_said_in_a_line() {
    let site = Site::new();
    let no_operation = format!("op{}", "0".repeat(32));
    let no_host = format!("h{}", "0".repeat(24));
    let out = site.path("credentials");
    for args in [
        &["operation", "show", &no_operation][..],
        &["operation", "retry", &no_operation],
        &["host", "revoke", &no_host],
        &["node", "credentials", "--app", "wallet", "--uuid", "alice", "--out", out.to_str().unwrap()],
        &["key", "revoke", "0123456789abcdef"],
        // Without a key in the environment.
        &["demo", "--at", "http://127.0.0.1:1"],
    ] {
        let refused = site.run(args);
        assert_eq!(refused.code, Some(1), "{args:?}");
        let lines: Vec<&str> = refused.err.lines().filter(|line| !line.starts_with("a new store")).collect();
        assert_eq!(lines.len(), 1, "{args:?}: {}", refused.err);
        assert!(lines[0].starts_with("scale-lnd: "), "{args:?}: {}", refused.err);
    }
    assert!(!out.exists());
}
