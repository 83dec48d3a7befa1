//! What a new host boots from: the user data that the configuration makes, and in it the script, the units and the firewall's
//! rules of `deploy/host`. Each is checked by the program that is to read it, and what does not need a machine is done: disks
//! that are files, programs that come from nowhere, a network of the test's own. A machine of its own, in namespaces,
//! runs the units (`machine`). That all this makes a host of a real instance was never tried here.

mod firewall;
mod machine;
mod script;

use crate::harness;
use crate::lndserver::world::World;
use scale_lnd::compute::user_data::{self, BOOT, Believed, Joining};
use scale_lnd::config::{ComputeSection, Config};
use scale_lnd::model::provision::Provision;
use serde_json::Value;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;
use tempfile::TempDir;
use tokio::process::Command;

const DEADLINE: Duration = Duration::from_secs(300);

/// A program of those that `deploy/host/ensure.sh` brings, as `make test` has found them, else as that script finds them.
pub async fn tool(name: &str) -> PathBuf {
    if let Some(folder) = std::env::var_os("HOST_CHECKS") {
        return PathBuf::from(folder).join(name);
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/host/ensure.sh");
    let found = run(&mut Command::new(script)).await;
    assert!(found.status.success(), "{}", said(&found));
    Path::new(String::from_utf8(found.stdout).unwrap().trim()).join(name)
}

pub async fn run(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).kill_on_drop(true).output().await.unwrap()
}

pub fn said(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat()
}

/// Runs a check that must find nothing.
pub async fn passes(program: impl AsRef<OsStr>, arguments: &[&Path]) {
    let output = run(Command::new(&program).args(arguments)).await;
    assert!(output.status.success(), "{:?} {arguments:?}:\n{}", program.as_ref(), said(&output));
}

const MASTER: &str = r#"
[deployment]
name = "prod"
network = "regtest"
[store]
path = "store.db"
[seal]
key_file = "seal.key"
[agents]
advertise = ["10.0.0.4:8081", "[2001:db8:1::5]:8081"]
[chain]
backend = "bitcoind"
rpc_host = "10.0.0.6:18443"
rpc_user = "lnd"
rpc_password_file = "rpc-password"
zmq_block = "tcp://10.0.0.6:28332"
zmq_tx = "tcp://10.0.0.6:28333"
[compute]
kind = "ec2"
region = "eu-central-1"
launch_template = "lt-0123456789abcdef0"
launch_template_version = 3
max_hosts = 100
"#;

/// The user data of a host of these instance types, through the configuration.
fn user_data_for(types: &[&str], nodes_per_host: u32) -> String {
    let (config, provision) = configured(types, nodes_per_host);
    let (masters, ca_fingerprint) = (&config.agents.dialled(), &"cd".repeat(32));
    let template = user_data::template(&Joining { masters, ca_fingerprint, releases: None }, provision.as_ref());
    user_data::with_token(&template, &format!("h{:024}.{:064}", 1, 2))
}

/// That of a host that can join.
fn user_data_for_master(world: &World, token: &str, nodes_per_host: u16) -> String {
    let (_, provision) = configured(&["t3.small"], nodes_per_host.into());
    let (masters, ca_fingerprint) = (&[world.master.to_string()], &world.fleet.ca().fingerprint().to_string());
    let keys = &[world.release_key.key.to_string()];
    let releases = Some(Believed { keys, deployment: "test", lowest: 1 });
    let template = user_data::template(&Joining { masters, ca_fingerprint, releases }, provision.as_ref());
    user_data::with_token(&template, token)
}

fn configured(types: &[&str], nodes_per_host: u32) -> (Config, Option<Provision>) {
    let places: Vec<String> = types.iter().map(|of_type| format!("subnet-0:{of_type}")).collect();
    let program = |name, arch| format!("{name}:{arch}:{}:https://downloads.example/{name}.tar.gz", "ab".repeat(32));
    let of_arch = |arch| [program("scale-lnd", arch), program("lnd", arch)];
    let programs: Vec<String> = ["x86_64", "arm64"].into_iter().flat_map(of_arch).collect();
    let text = format!(
        "{MASTER}places = {places:?}\nprograms = {programs:?}\nnodes_per_host = {nodes_per_host}\n\
         fleet_networks = [\"10.0.1.0/24\", \"2001:db8:2::/64\"]\nalso_reach = [\"10.0.9.0/24:9735-9736\"]\n"
    );
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("master.toml");
    std::fs::write(&path, &text).unwrap();
    let config = Config::load(Some(&path), [], &[]).unwrap_or_else(|faults| panic!("{text}\n{faults:#?}"));
    let ComputeSection::Ec2(ec2) = &config.compute else { panic!("EC2 is meant") };
    let provision = ec2.provision(&config.agents, &config.chain);
    (config, provision)
}

/// What cloud-init writes: each has a path, permissions and a content.
fn files_of(user_data: &str) -> Vec<Value> {
    let cloud_config: Value = serde_json::from_str(user_data.strip_prefix("#cloud-config\n").unwrap()).unwrap();
    cloud_config["write_files"].as_array().unwrap().clone()
}

/// The files of a new host, each under its last name.
struct Files(TempDir);

impl Files {
    fn of(user_data: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for file in files_of(user_data) {
            let name = Path::new(file["path"].as_str().unwrap()).file_name().unwrap();
            std::fs::write(folder.path().join(name), user_data::unpacked(&file).unwrap()).unwrap();
        }
        Self(folder)
    }

    fn usual() -> Self {
        Self::of(&user_data_for(&["t4g.small"], 1))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(Path::new(name).file_name().unwrap())
    }

    fn replace(&self, name: &str, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.path(name)).unwrap();
        assert!(text.contains(from), "{from} is not in {name}: {text}");
        std::fs::write(self.path(name), text.replace(from, to)).unwrap();
    }
}

#[test]
fn cloud_init_takes_the_user_data_for_every_architecture_and_ec2_has_room_for_it() {
    harness::run(DEADLINE, async {
        let check = tool("cloud-schema").await;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("user-data");
        for (types, nodes_per_host) in
            [(vec!["t4g.small"], 1), (vec!["t3.small"], 20), (vec!["c7g.large", "c7i.large"], 200)]
        {
            let user_data = user_data_for(&types, nodes_per_host);
            assert!(user_data.len() < user_data::MOST_BYTES, "{types:?}: {}", user_data.len());
            std::fs::write(&path, &user_data).unwrap();
            passes(&check, &[&path]).await;
        }
        // The check does see what is wrong.
        std::fs::write(&path, user_data_for(&["t4g.small"], 1).replace("\"0600\"", "600")).unwrap();
        let output = run(Command::new(&check).arg(&path)).await;
        assert!(!output.status.success() && said(&output).contains("permissions"), "{}", said(&output));
    });
}

#[test]
fn the_scripts_are_without_fault() {
    harness::run(DEADLINE, async {
        let files = Files::usual();
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let at = |path: &str| here.join(path);
        let ours = ["host/boot", "host/ensure", "moto/ensure", "emulator/ensure", "nodes/ensure"];
        let mut scripts: Vec<PathBuf> = ours.iter().map(|name| at(&format!("deploy/{name}.sh"))).collect();
        scripts.extend([
            files.path(BOOT),
            at(".ci/run"),
            at(".ci/need"),
            at(".ci/cargo-tool"),
            at(".ci/advisories"),
            at("tests/host_boot/machine.sh"),
        ]);
        let arguments: Vec<&Path> =
            std::iter::once(Path::new("-x")).chain(scripts.iter().map(PathBuf::as_path)).collect();
        passes(&tool("shellcheck").await, &arguments).await;
    });
}

#[test]
fn systemd_knows_every_line_of_the_units() {
    harness::run(DEADLINE, async {
        let files = Files::usual();
        // What boot.sh installs is not on this machine.
        files.replace("scale-lnd.service", "/usr/local/bin/scale-lnd ", "/bin/true ");
        files.replace("scale-lnd-boot.service", BOOT, "/bin/true");
        std::fs::rename(files.path("scale-lnd-lnd@.service"), files.path("scale-lnd-lnd@0.service")).unwrap();
        let units =
            ["scale-lnd.service", "scale-lnd-boot.service", "scale-lnd-lnd@0.service"].map(|name| files.path(name));
        let verify = || async {
            let mut command = Command::new("systemd-analyze");
            // The units of the machine, and ours.
            command.env("SYSTEMD_UNIT_PATH", format!("{}:", files.0.path().display()));
            run(command.args(["verify", "--man=no"]).args(&units)).await
        };
        let output = verify().await;
        let ours = said(&output);
        let ours: Vec<&str> = ours.lines().filter(|line| line.contains("scale-lnd")).collect();
        assert!(output.status.success() && ours.is_empty(), "{}", said(&output));

        for unit in [&units[0], &units[2]] {
            let mut security = Command::new("systemd-analyze");
            security.args(["security", "--offline=true", "--threshold=20", "--no-pager"]).arg(unit);
            let output = run(&mut security).await;
            assert!(output.status.success(), "{}", said(&output));
        }

        // The check does see what is wrong.
        files.replace("scale-lnd.service", "NoNewPrivileges=yes", "NoNewPrivilege=yes");
        assert!(said(&verify().await).contains("NoNewPrivilege"), "{}", said(&verify().await));
    });
}
