use super::*;
use secrecy::ExposeSecret;
use std::path::PathBuf;
use std::time::Duration;

pub(super) const WHOLE: &str = r#"
[deployment]
name = "prod"
network = "regtest"
[store]
path = "/var/lib/scale-lnd/store.db"
[seal]
key_files = ["2:/etc/scale-lnd/seal-2.key", "1:seal-1.key"]
[http]
listen = "0.0.0.0:8443"
tls_cert = "/etc/scale-lnd/tls.crt"
tls_key = "/etc/scale-lnd/tls.key"
[agents]
listen = "0.0.0.0:8081"
advertise = ["10.0.0.5:8081"]
[chain]
rpc_host = "10.0.0.6:18556"
rpc_user = "lnd"
rpc_password_file = "/etc/scale-lnd/rpc-password"
rpc_cert_file = "/etc/scale-lnd/rpc.cert"
[lnd]
extra_args = ["--accept-keysend"]
[treasury]
address = "10.0.0.7:10009"
cert_file = "/etc/scale-lnd/treasury.crt"
macaroon_file = "/etc/scale-lnd/treasury.macaroon"
[funding]
initial_funding_sat = 100_000
[limits]
nodes = 1000
"#;

struct File {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

fn file(text: &str) -> File {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("scale-lnd.toml");
    std::fs::write(&path, text).unwrap();
    File { _folder: folder, path }
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

pub(super) fn load(text: &str, env: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<Config, String> {
    let file = file(text);
    Config::load(Some(&file.path), pairs(env), &pairs(flags)).map_err(|faults| {
        let lines: Vec<String> = faults.iter().map(ToString::to_string).collect();
        lines.join("\n").replace(&file.path.display().to_string(), "scale-lnd.toml")
    })
}

fn without_folder(shown: &str, file: &File) -> String {
    shown.replace(&file.path.parent().unwrap().display().to_string(), "FOLDER")
}

#[test]
fn a_whole_file_is_read() {
    let file = file(WHOLE);
    let config = Config::load(Some(&file.path), [], &[]).unwrap();
    insta::assert_snapshot!(without_folder(&format!("{config:#?}"), &file));
}

#[test]
fn every_fault_is_named_at_once_with_its_place() {
    let text = r#"
[deployment]
name = "Prod!"
network = "mainnet"
colour = "blue"
[http]
listen = "localhost"
changing_gets = "yes"
tls_key = "/k"
max_concurrency = -1
body_limit_bytes = 0
[chain]
rpc_host = "10.0.0.6"
rpc_password = "hunter2"
[treasury]
address = "10.0.0.7:10009"
[limits]
nodes = 10
[lnd]
extra_args = ["lnddir=/x"]
[htpp]
listen = "127.0.0.1:1"
"#;
    let env = [
        ("SCALE_LND_MASTER_LEASE_TTL", "1"),
        ("SCALE_LND_LOG_FORMAT", "xml"),
        ("SCALE_LND_HTPP_LISTEN", "127.0.0.1:1"),
        ("SCALE_LND_FAULT", "kept"),
        ("SCALE_LND_AGENT_LISTEN", "kept: it is the agent's"),
    ];
    let flags = [("seal.key", "00"), ("master.lease_ttl_ms", "1"), ("nothing", "1")];
    insta::assert_snapshot!(load(text, &env, &flags).unwrap_err());
}

#[test]
fn nothing_at_all_names_what_is_missing() {
    insta::assert_snapshot!(load("", &[], &[]).unwrap_err());
}

#[test]
fn a_file_that_is_not_toml_is_named_with_its_line() {
    let error = load("[deployment]\nname = \nnetwork = \"simnet\"\n", &[], &[]).unwrap_err();
    assert!(error.starts_with("scale-lnd.toml:2: "), "{error}");
}

#[test]
fn a_missing_file_is_a_fault() {
    let faults = Config::load(Some(Path::new("/nonexistent/scale-lnd.toml")), [], &[]).unwrap_err();
    assert!(faults[0].to_string().contains("cannot read /nonexistent/scale-lnd.toml") || faults.len() > 1);
    assert!(faults.iter().any(|fault| fault.message.starts_with("cannot read /nonexistent/scale-lnd.toml")));
}

#[test]
fn the_environment_is_over_the_file_and_flags_over_the_environment() {
    let env = [
        ("SCALE_LND_HTTP_LISTEN", "127.0.0.1:1"),
        ("SCALE_LND_AGENTS_LISTEN", "127.0.0.1:2"),
        ("SCALE_LND_AGENTS_ADVERTISE", "a.example:1, b.example:2"),
        ("SCALE_LND_HTTP_CHANGING_GETS", "false"),
    ];
    let config = load(WHOLE, &env, &[("http.listen", "127.0.0.1:3")]).unwrap();
    assert_eq!(config.http.listen.port(), 3);
    assert_eq!(config.agents.listen.port(), 2);
    assert_eq!(config.agents.advertise, ["a.example:1", "b.example:2"]);
    assert!(!config.http.changing_gets);
    assert_eq!(config.limits.nodes, Some(1000));
}

#[test]
fn a_relative_path_of_the_file_is_relative_to_the_file() {
    let file = file(&WHOLE.replace("/var/lib/scale-lnd/store.db", "data/store.db"));
    let config = Config::load(Some(&file.path), [], &[]).unwrap();
    assert_eq!(database(&config), file.path.parent().unwrap().join("data/store.db"));
    let env = pairs(&[("SCALE_LND_STORE_PATH", "data/store.db")]);
    let config = Config::load(Some(&file.path), env, &[]).unwrap();
    assert_eq!(database(&config), Path::new("data/store.db"));
}

#[test]
fn secrets_are_taken_from_the_environment_and_never_shown() {
    let env = [("SCALE_LND_SEAL_KEY", "5ea1ed"), ("SCALE_LND_CHAIN_RPC_PASSWORD", "hunter2")];
    let text = WHOLE.replace("key_files", "key_version = 3\nkey_files");
    let config = load(&text, &env, &[]).unwrap();
    assert_eq!(config.chain.backend.rpc().unwrap().password.text().unwrap().expose_secret(), "hunter2");
    assert_eq!(config.seal.keys.iter().map(|(version, _)| *version).collect::<Vec<_>>(), [3, 2, 1]);
    let shown = format!("{config:?}");
    assert!(!shown.contains("hunter2") && !shown.contains("5ea1ed"), "{shown}");
}

#[test]
fn plain_http_stays_on_loopback_unless_told() {
    let plain = WHOLE.replace("tls_cert", "#").replace("tls_key", "#");
    assert!(load(&plain, &[], &[]).unwrap_err().contains("http.listen: is not loopback"));
    assert!(load(&plain, &[], &[("http.allow_plain_http", "true")]).is_ok());
    assert!(load(&plain, &[], &[("http.listen", "[::1]:8080")]).is_ok());
}

#[test]
fn a_password_file_that_everybody_may_read_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let file = file("hunter2\n");
    let source = SecretSource::File(file.path.clone());
    std::fs::set_permissions(&file.path, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(source.text().unwrap_err().contains("may be read or written by everybody"));
    std::fs::set_permissions(&file.path, std::fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(source.text().unwrap().expose_secret(), "hunter2");
}

/// The settings that a file gives when its comments are taken at their word.
fn uncommented(example: &str) -> String {
    let is_setting = |line: &str| {
        let name: String = line.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
        !name.is_empty() && line[name.len()..].starts_with(" = ") || line.starts_with('[') && line.ends_with(']')
    };
    let lines = example.lines().map(|line| line.strip_prefix("# ").filter(|rest| is_setting(rest)).unwrap_or(line));
    lines.collect::<Vec<_>>().join("\n")
}

fn known_keys(faults: &[String]) -> Vec<String> {
    let lists = faults.iter().filter_map(|fault| fault.split_once("unknown key; [")?.1.split_once("] has "));
    lists.flat_map(|(_, keys)| keys.split(", ").map(str::to_owned).collect::<Vec<_>>()).collect()
}

#[test]
fn the_examples_are_whole_and_right() {
    let master = include_str!("../../docs/master.example.toml");
    let agent = include_str!("../../docs/lndserver.example.toml");
    // As they stand, and with every comment taken at its word (one sealing key is enough then).
    let all_of_master = uncommented(master).replace("key_files", "#");
    load(master, &[], &[]).unwrap();
    load(&all_of_master, &[], &[]).unwrap();
    let all_of_agent = uncommented(agent);
    for text in [agent, &all_of_agent] {
        agent::load(Some(&file(text).path), [], &[]).unwrap();
    }

    // Nothing is left out: every key that is known stands in them.
    let colours = uncommented(master).replace("]\n", "]\ncolour = 1\n").replace("]\ncolour = 1\n\n", "]\n\n");
    let all_faults = load(&colours, &[], &[]).unwrap_err();
    let keys = known_keys(&all_faults.lines().map(str::to_owned).collect::<Vec<_>>());
    assert!(keys.len() > 40, "{keys:?}");
    let in_environment = ["key", "rpc_password", "token", "webhook_secret", "former_webhook_secret"];
    // (Those of other chain backends stand there indented.)
    for key in keys.iter().filter(|key| !in_environment.contains(&key.as_str())) {
        assert!(master.contains(&format!("{key} = ")), "{key} is not in master.example.toml");
    }
    let colours = all_of_agent.replace("[agent]\n", "[agent]\ncolour = 1\n");
    let faults = agent::load(Some(&file(&colours).path), [], &[]).unwrap_err();
    let keys = known_keys(&faults.iter().map(ToString::to_string).collect::<Vec<_>>());
    assert!(keys.len() > 7, "{keys:?}");
    for key in keys.iter().filter(|key| *key != "join_token") {
        assert!(agent.contains(&format!("{key} = ")), "{key} is not in lndserver.example.toml");
    }
}

/// Settings whose comment shows an example: there is no default that could be shown.
const EXAMPLES: &[&str] = &[
    "trusted_keys",
    "repository",
    "branch",
    "manifest",
    "api_url",
    "token_file",
    "webhook_secret_file",
    "former_webhook_secret_file",
    "poll_every_seconds",
    "address",
    "fixed_sat_per_vbyte",
    "open_margin_seconds",
    "advertise",
    "cert_file",
    "creates_per_hour",
    "default_chan_confs",
    "extra_args",
    "fee_url",
    "funding_sat_per_day",
    "join_token_file",
    "key_files",
    "lnd_rest",
    "macaroon_file",
    "nodes",
    "outgoing_sat_per_day",
    "release_keys",
    "release_deployment",
    "lowest_release",
    "tls_cert",
    "tls_key",
    "wumbo",
];

/// The example with only those comments taken at their word that show a default.
fn with_defaults(example: &str) -> String {
    let is_example = |line: &str| {
        let name = line.strip_prefix("# ").and_then(|line| line.split_once(" = "));
        name.is_some_and(|(name, _)| EXAMPLES.contains(&name)) || line == "# [treasury]"
    };
    uncommented(&example.lines().filter(|line| !is_example(line)).collect::<Vec<_>>().join("\n"))
}

#[test]
fn the_defaults_that_the_examples_show_are_the_programs() {
    let master = include_str!("../../docs/master.example.toml");
    let (as_it_stands, told) = (load(master, &[], &[]).unwrap(), load(&with_defaults(master), &[], &[]).unwrap());
    assert!(with_defaults(master).contains("\nlisten = "), "comments are taken at their word");
    assert_eq!(format!("{as_it_stands:#?}"), format!("{told:#?}"));
    let agent = include_str!("../../docs/lndserver.example.toml");
    let shown = |text: &str| format!("{:#?}", agent::load(Some(&file(text).path), [], &[]).unwrap());
    assert_eq!(shown(agent), shown(&with_defaults(agent)));

    // These two depend on the network.
    let told = load(&uncommented(master).replace("key_files", "#"), &[], &[]).unwrap();
    assert!(as_it_stands.payments.open_margin.is_none() && as_it_stands.chain.fixed_sat_per_vbyte.is_none());
    assert_eq!(told.payments.open_margin, Some(as_it_stands.payments.open_margin_on(Network::Mainnet)));
    assert!(master.contains("regtest: 10)"));
    assert_eq!(as_it_stands.payments.open_margin_on(Network::Regtest), Duration::from_secs(10));
    assert_eq!(told.chain.fixed_sat_per_vbyte, as_it_stands.chain.sat_per_vbyte_on(Network::Simnet));
    assert_eq!(as_it_stands.chain.sat_per_vbyte_on(Network::Mainnet), None);
}

#[test]
fn kms_does_instead_of_key_files() {
    let example = include_str!("../../docs/master.example.toml").lines().filter_map(|line| line.strip_prefix("#   "));
    let lines: Vec<_> = example.filter(|line| line.starts_with("kms_")).collect();
    let files = "key_files = [\"2:/etc/scale-lnd/seal-2.key\", \"1:seal-1.key\"]";
    let config = load(&WHOLE.replace(files, &lines.join("\n")), &[], &[]).unwrap();
    let kms = config.seal.kms.unwrap();
    assert_eq!((lines.len(), config.seal.keys.len(), kms.key.region()), (3, 0, "eu-central-1"));
    assert!(kms.former.is_empty() && kms.endpoint_url.unwrap().starts_with("https://"));
}

fn database(config: &Config) -> &Path {
    match &config.store {
        StoreSection::Sqlite { path } => path,
        StoreSection::Firestore(_) => panic!("SQLite is the default"),
    }
}

/// The whole configuration with this as its store.
fn with_store(lines: &str) -> Result<Config, String> {
    load(&WHOLE.replace("path = \"/var/lib/scale-lnd/store.db\"", lines), &[], &[])
}

#[test]
fn firestore_is_a_store() {
    let config = with_store("kind = \"firestore\"\nproject = \"my-project\"").unwrap();
    assert_eq!(config.store.to_string(), "Firestore, project my-project, database (default)");
    // As the example has it.
    let example = include_str!("../../docs/master.example.toml").lines().filter_map(|l| l.strip_prefix("#     "));
    let example: Vec<_> = example.filter(|line| line.contains(" = ")).collect();
    assert_eq!(example.len(), 5);
    assert_eq!(with_store(&example.join("\n")).unwrap().store.to_string(), config.store.to_string());
    let lines = "kind = \"firestore\"\nproject = \"p\"\ndatabase = \"prod\"\ncredentials_file = \"key.json\"";
    let StoreSection::Firestore(section) = with_store(lines).unwrap().store else { panic!("Firestore is meant") };
    assert_eq!(section.database, "prod");
    assert!(section.credentials_file.unwrap().ends_with("key.json"));
}

/// What the example shows of `[compute]` with instances of the deployment's own.
fn compute_of_example() -> String {
    let example = include_str!("../../docs/master.example.toml");
    let (_, after) = example.split_once("# With ec2 instead").unwrap();
    let lines = after.lines().skip(1).map_while(|line| line.strip_prefix("#   "));
    format!("{WHOLE}\n[compute]\n{}", lines.collect::<Vec<_>>().join("\n"))
}

#[test]
fn instances_of_the_deployments_own_are_configured() {
    let text = compute_of_example();
    let ComputeSection::Ec2(told) = load(&text, &[], &[]).unwrap().compute else { panic!("instances are meant") };
    assert_eq!((told.places.len(), told.places[1].instance_type.as_str()), (2, "t4g.small"));
    // What the example shows beside what must be given are the defaults.
    let defaults = ["nodes_per_host", "spare_slots", "join_within_seconds", "observe_every_seconds", "endpoint_url"];
    let least = text.lines().filter(|line| !defaults.iter().any(|name| line.starts_with(name)));
    let least = least.collect::<Vec<_>>().join("\n");
    let ComputeSection::Ec2(least) = load(&least, &[], &[]).unwrap().compute else { panic!("instances are meant") };
    assert!(least.endpoint_url.is_none());
    assert_eq!((told.rules, told.join_within), (least.rules, least.join_within));
    assert_eq!(told.observe_every, least.observe_every);
    // Every key that is known stands there.
    let faults = load(&format!("{text}\ncolour = 1"), &[], &[]).unwrap_err();
    for key in known_keys(&[faults]) {
        assert!(text.contains(&format!("\n{key} = ")), "{key} is not in master.example.toml");
    }
    assert!(matches!(load(WHOLE, &[], &[]).unwrap().compute, ComputeSection::Manual));
}

#[test]
fn faults_of_compute_are_named() {
    let cases = [
        ("kind = \"ec2\"", "kind = \"gcp\"", "compute.kind: must be manual or ec2"),
        ("region = \"eu-central-1\"", "", "compute.region: is missing"),
        ("launch_template = \"lt-", "launch_template = \"", "compute.launch_template: must be an id"),
        ("template_version = 3", "template_version = 0", "compute.launch_template_version: must be a number from 1"),
        ("subnet-0fedcba9876543210:", "", "compute.places: must be SUBNET:TYPE"),
        ("max_hosts = 100", "", "compute.max_hosts: is missing"),
        ("nodes_per_host = 1", "nodes_per_host = 0", "compute.nodes_per_host: must be from 1"),
        ("within_seconds = 900", "within_seconds = 4", "compute.join_within_seconds: must be from 5"),
        ("\"https://ec2", "\"ec2", "compute.endpoint_url: must begin with"),
        ("scale-lnd:arm64", "scale-lnd:x86_64", "compute.programs: has no scale-lnd for arm64, which t4g.small needs"),
        ("\"scale-lnd:", "\"lnd:", "compute.programs: has more than one lnd for arm64"),
        ("\"lnd:arm64", "\"btcd:arm64", "compute.programs: must begin with scale-lnd: or lnd:"),
        ("https://downloads", "http://downloads", "compute.programs: needs a URL that begins with https://"),
        ("https://downloads.example/", "https://downloads.example/$(id)", "compute.programs: needs a URL"),
        ("arm64:0000", "arm64:000", "compute.programs: needs a SHA-256 of 64 hexadecimal digits"),
        ("arm64:0000", "arm64:000g", "compute.programs: needs a SHA-256 of 64 hexadecimal digits"),
        ("[\"10.0.1.0/24\"", "[\"10.0.1.1/24\"", "compute.fleet_networks: must be a network"),
        ("[\"10.0.1.0/24\", \"10.0.2.0/24\"]", "[]", "compute.fleet_networks: must name the networks"),
        ("[\"10.0.1.0/24\"", "[\"169.254.0.0/16\"", "compute.fleet_networks: has link-local addresses"),
        ("fleet_networks = ", "# ", "compute.fleet_networks: is missing"),
        ("\"10.0.0.7:9735\"", "\"10.0.0.7\"", "compute.also_reach: must be a network and a port or two"),
        ("\"10.0.0.7:9735\"", "\"169.254.169.254:80\"", "compute.also_reach: has link-local addresses"),
        ("memory_mib = 1024", "memory_mib = 256", "compute.lnd_memory_mib: must be from 512"),
        ("cpu_percent = 100", "cpu_percent = 1", "compute.lnd_cpu_percent: must be from 10"),
        ("nodes_per_host = 1 ", "nodes_per_host = 1000 ", "more than EC2 takes: fewer nodes_per_host"),
    ];
    for (right, wrong, expected) in cases {
        let text = compute_of_example();
        assert!(text.contains(right), "{right}");
        let faults = load(&text.replacen(right, wrong, 1), &[], &[]).unwrap_err();
        assert!(faults.contains(expected), "{wrong}: {faults}");
    }
}

#[test]
fn the_hosts_firewall_must_know_where_masters_and_the_backend_are() {
    let text = compute_of_example();
    let nowhere = text.replace("also_reach", "# also_reach");
    for (address, name) in [("10.0.0.6:18556", "btcd.internal:18556"), ("10.0.0.5:8081", "masters.internal:8081")] {
        load(&text.replace(address, name), &[], &[]).unwrap();
        let faults = load(&nowhere.replace(address, name), &[], &[]).unwrap_err();
        assert_eq!(
            faults,
            format!("compute.also_reach: is missing: {name} is a name, and the hosts' firewall must know its network")
        );
    }
    load(&nowhere, &[], &[]).unwrap();
    // Without programs the image has the firewall.
    let (before, after) = text.split_once("programs = [").unwrap();
    let faults = load(&format!("{before}{}", after.split_once("\n]").unwrap().1), &[], &[]).unwrap_err();
    for key in ["fleet_networks", "also_reach"] {
        assert!(faults.contains(&format!("compute.{key}: is for hosts that are made of bare machines")), "{faults}");
    }
}

#[test]
fn faults_of_a_store_are_named() {
    let cases = [
        ("kind = \"postgres\"\npath = \"x\"", "store.kind: must be sqlite or firestore"),
        ("kind = \"firestore\"", "store.project: is missing"),
        ("kind = \"firestore\"\nproject = \"a/b\"", "store.project: must be the id of a project"),
        ("kind = \"firestore\"\nproject = \"p\"\ndatabase = \"(other)\"", "store.database: must be the id"),
        ("kind = \"firestore\"\nproject = \"p\"\npath = \"x\"", "store.path: unknown key; [store] has kind, project"),
        ("path = \"x\"\nproject = \"p\"", "store.project: unknown key; [store] has kind, path"),
        ("kind = \"firestore\"\nproject = \"p\"\napi_url = \"localhost:80\"", "store.api_url: must begin with"),
        (
            "kind = \"firestore\"\nproject = \"p\"\napi_url = \"http://x\"\ncredentials_file = \"k\"",
            "store.credentials_file: is not used",
        ),
    ];
    for (lines, expected) in cases {
        let faults = with_store(lines).unwrap_err();
        assert!(faults.contains(expected), "{lines}: {faults}");
    }
}

const UPDATES: &str = "\n[updates]\ntrusted_keys = [\"RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3\"]\n";

fn updates(lines: &str) -> Result<UpdatesSection, String> {
    load(&format!("{WHOLE}{UPDATES}{lines}"), &[], &[]).map(|config| config.updates.unwrap())
}

#[test]
fn releases_are_found_at_github_or_by_an_operators_hand() {
    assert!(load(WHOLE, &[], &[]).unwrap().updates.is_none());
    assert!(updates("").unwrap().github.is_none());
    let github = updates("repository = \"acme/fleet\"").unwrap().github.unwrap();
    assert!(github.webhook_secrets.is_empty() && github.token.is_none());
    // What the example shows are the defaults.
    let example = uncommented(include_str!("../../docs/master.example.toml")).replace("key_files", "#");
    let told = load(&example, &[], &[]).unwrap().updates.unwrap().github.unwrap();
    let shown = |github: &GitHubSettings| {
        let GitHubSettings { watched, manifest, api_url, poll_every, .. } = github;
        format!("{watched:?} {manifest} {api_url} {poll_every:?}")
    };
    assert_eq!((shown(&told), told.webhook_secrets.len()), (shown(&github), 2));
    let of_env = [("SCALE_LND_UPDATES_TOKEN", "ghp_x"), ("SCALE_LND_UPDATES_WEBHOOK_SECRET", "s3cret")];
    let config = load(&format!("{WHOLE}{UPDATES}repository = \"acme/fleet\""), &of_env, &[]).unwrap();
    let shown = format!("{config:?}");
    assert!(!shown.contains("ghp_x") && !shown.contains("s3cret"));
}

#[test]
fn faults_of_updates_are_named() {
    let faults = |lines: &str| updates(lines).unwrap_err().replace("scale-lnd.toml:", "");
    let wrong = r#"repository = "fleet"
branch = "../main"
manifest = "/etc/passwd"
api_url = "http://github.example"
poll_every_seconds = 0
former_webhook_secret_file = "x"
webhook_secret = "in the file"
"#;
    insta::assert_snapshot!(faults(wrong));
    assert!(faults("branch = \"main\"").contains("updates.branch: means nothing without repository"));
    for repository in ["acme/fleet/x", "acme/..", "a b/c", "acme/", "/fleet"] {
        assert!(faults(&format!("repository = {repository:?}")).contains("updates.repository: must be OWNER/NAME"));
    }
    let untrusting = load(&format!("{WHOLE}\n[updates]\ntrusted_keys = []"), &[], &[]).unwrap_err();
    assert!(untrusting.contains("updates.trusted_keys: must have a key at least"), "{untrusting}");
    let nonsense = load(&format!("{WHOLE}\n[updates]\ntrusted_keys = [\"RWx\"]"), &[], &[]).unwrap_err();
    assert!(nonsense.contains("updates.trusted_keys: must be a public key of minisign"), "{nonsense}");
}
