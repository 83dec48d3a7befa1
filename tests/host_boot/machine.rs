//! A machine with a systemd of its own (`machine.sh`), made a host by the real user data: the real agent, real lnds, and the
//! units, users and permissions that they have on an instance. Not done are boot.sh's volume, packages, programs and firewall.
//!
//! Where there can be no such machine, the test says so and passes.

use super::{run, said, user_data_for_master};
use crate::harness::Files;
use crate::lndserver::releases::{manifest, signed};
use crate::lndserver::world::{LIMIT, World, own_address, spec, timed, until};
use scale_lnd::compute::user_data::unpacked;
use scale_lnd::dev::reaper::{Spawn, Spawned};
use scale_lnd::lndserver::client::Order;
use scale_lnd::lndserver::proto;
use scale_lnd::model::node::{Process, WalletState};
use scale_lnd::model::{HostId, NodeId};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;
use tokio::process::Command;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/host_boot/machine.sh");
const AGENT: &str = "scale-lnd.service";

struct Machine {
    /// The machine's first process.
    init: i32,
    /// What has started it, in the reaper's sight.
    process: Spawned,
    data: PathBuf,
    log: PathBuf,
}

impl Machine {
    /// Boots it, with what the user data has written.
    async fn boot(world: &World, files: &Path) -> Option<Self> {
        let folder = world.dir.path().join("machine");
        let (root, data, log) = (folder.join("root"), folder.join("data"), folder.join("log"));
        for path in [&root, &data] {
            std::fs::create_dir_all(path).unwrap();
        }
        let lnd = lnd_binary();
        let agent = PathBuf::from(env!("CARGO_BIN_EXE_scale-lnd"));
        let spawn = Spawn::new("machine", "/bin/bash").arg(SCRIPT);
        let spawn =
            [&root, files, &data, &agent, &lnd].into_iter().fold(spawn, |s, path| s.arg(path.to_str().unwrap()));
        let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        let process = world.reaper.spawn(spawn.env("PATH", path).log(&log)).await.unwrap();
        let mut machine = Self { init: 0, process, data, log };
        let booted = tokio::time::timeout(LIMIT, machine.is_up()).await;
        booted.is_ok().then_some(machine)
    }

    async fn is_up(&mut self) {
        loop {
            let pid = self.process.pid;
            let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
            if let Some(init) = children.split_whitespace().next() {
                self.init = init.parse().unwrap();
                // systemd answers from its own file system, and has what it is asked for.
                if self.does(&["systemctl", "is-active", "machine.target"]).await.status.success() {
                    return;
                }
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Does it inside, as root.
    async fn does(&self, command: &[&str]) -> Output {
        run(Command::new("nsenter").args(["-t", &self.init.to_string(), "--all"]).args(command)).await
    }

    async fn can(&self, command: &[&str]) -> String {
        let output = self.does(command).await;
        assert!(output.status.success(), "{command:?}: {}\n{}", said(&output), self.journal().await);
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Does it inside, as one user with the groups it has.
    async fn as_user(&self, user: &str, command: &[&str]) -> Output {
        let become_user = ["setpriv", "--reuid", user, "--regid", user, "--init-groups", "--no-new-privs"];
        self.does(&[become_user.as_slice(), command].concat()).await
    }

    async fn journal(&self) -> String {
        let journal = self.does(&["journalctl", "--no-pager", "--lines=60", "--output=cat"]).await;
        format!("{}{}", said(&journal), std::fs::read_to_string(&self.log).unwrap_or_default())
    }

    async fn is_active(&self, slot: u16) -> bool {
        self.does(&["systemctl", "is-active", &unit(slot)]).await.status.success()
    }

    /// The lnd of a slot: its pid inside, and its user.
    async fn lnd(&self, slot: u16) -> (u32, u32) {
        let pid = self.can(&["systemctl", "show", "--property=MainPID", "--value", &unit(slot)]).await;
        let user = self.can(&["stat", "--format=%u", &format!("/proc/{pid}")]).await;
        let name = self.can(&["cat", &format!("/proc/{pid}/comm")]).await;
        assert_eq!(name, "lnd");
        (pid.parse().unwrap(), user.parse().unwrap())
    }

    /// The instance's folder of a node.
    fn instance(&self, node: &NodeId) -> PathBuf {
        self.data.join("nodes").join(node.as_str()).join("instance")
    }
}

fn lnd_binary() -> PathBuf {
    PathBuf::from(std::env::var("SCALE_LND_NODE_BIN").unwrap()).join("lnd")
}

fn unit(slot: u16) -> String {
    format!("scale-lnd-lnd@{slot}.service")
}

/// The user data's files, where they belong.
fn write_files(user_data: &str, to: &Path) {
    for file in super::files_of(user_data) {
        let path = to.join(file["path"].as_str().unwrap().trim_start_matches('/'));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, unpacked(&file).unwrap()).unwrap();
        let mode = u32::from_str_radix(file["permissions"].as_str().unwrap(), 8).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
}

/// What boot.sh does beside what needs an instance: its users, and their folder.
const BOOT: &str = ". /usr/local/lib/scale-lnd/boot
    accounts
    chown $id:$id $data
    chmod 0700 $data
    install -d $run
    echo SCALE_LND_AGENT_LISTEN=$ADDRESS >$run/agent.env";

/// A machine whose agent has joined, and its host; none where there can be none.
async fn machine(world: &World, slots: u16) -> Option<(Machine, HostId)> {
    let able = run(Command::new("/bin/bash").args([SCRIPT, "able"])).await;
    if !able.status.success() {
        eprintln!("NOT TESTED, a machine with a systemd of its own: {}", said(&able).trim());
        return None;
    }
    let (host, token) = world.fleet.invite_host(slots).await.unwrap();
    let user_data = user_data_for_master(world, token.expose(), slots);
    let files = world.dir.path().join("files");
    write_files(&user_data, &files);
    let address = own_address(8082);
    let boot = format!("[Service]\nEnvironment=ADDRESS={address}\nExecStart=\nExecStart=/bin/bash -euc '{BOOT}'\n")
        .replace("\n    ", "; ")
        .replace('$', "$$");
    let drop_in = files.join("etc/systemd/system/scale-lnd-boot.service.d/test.conf");
    std::fs::create_dir_all(drop_in.parent().unwrap()).unwrap();
    std::fs::write(drop_in, boot).unwrap();
    let machine = Machine::boot(world, &files).await;
    let Some(machine) = machine else {
        eprintln!("NOT TESTED, a machine with a systemd of its own: it does not boot");
        return None;
    };
    machine.can(&["systemctl", "start", AGENT]).await;
    // Before what waits in it gives up.
    let joined = tokio::time::timeout(LIMIT - Duration::from_secs(5), world.joined(&host)).await;
    assert!(joined.is_ok(), "{}", machine.journal().await);
    Some((machine, host))
}

/// The pid that the agent has of a node's lnd, once it has asked it how it is.
async fn pid(world: &World, host: &HostId, node: &NodeId) -> u32 {
    until("the agent's word of an lnd", async || {
        let status = world.agents.status(&world.host(host).await).await.ok()?;
        let found = status.nodes.into_iter().find(|status| status.node_id == node.as_str())?;
        match found.process?.state? {
            proto::process::State::Running(running) if found.wallet != 0 => Some(running.pid),
            _ => None,
        }
    })
    .await
}

async fn start(world: &World, host: &HostId, slot: u16, machine: &Machine) -> NodeId {
    let node = world.place(host, slot).await;
    let at = world.host(host).await;
    let started = world.agents.ensure_node(Order { host: &at, epoch: 1 }, spec(&node, slot)).await;
    let endpoint = match started {
        Ok(endpoint) => endpoint,
        Err(error) => panic!("{error}\n{}", machine.journal().await),
    };
    assert_eq!(endpoint.address, at.address.unwrap());
    node
}

#[tokio::test]
async fn each_lnd_is_a_unit_of_a_user_of_its_own_and_outlives_its_agent() {
    timed(async {
        let world = World::new().await;
        let Some((machine, host)) = machine(&world, 2).await else { return };
        let one = start(&world, &host, 0, &machine).await;
        let two = start(&world, &host, 1, &machine).await;
        let (first, second) = (machine.lnd(0).await, machine.lnd(1).await);
        assert_eq!((first.1, second.1), (8100, 8101), "each has a user of its own");
        assert_eq!([pid(&world, &host, &one).await, pid(&world, &host, &two).await], [first.0, second.0]);
        let agent = machine.can(&["systemctl", "show", "--property=MainPID", "--value", AGENT]).await;
        assert_eq!(machine.can(&["stat", "--format=%u", &format!("/proc/{agent}")]).await, "8082");

        nobody_reads_anothers_folder(&machine, &one, &two, first.0).await;
        the_agent_may_do_no_more_than_it_needs(&machine).await;

        // What lnd writes as its own user gets to the Store, by the group.
        let backup = "umask 0027; cd /var/lib/scale-lnd/instance/lnd/data/chain/bitcoin/simnet
            echo backup >temp-dont-use.backup; mv temp-dont-use.backup channel.backup";
        let inside =
            ["nsenter", "-t", &first.0.to_string(), "--mount", "setpriv", "--reuid", "8100", "--regid", "8100"];
        machine.can(&[inside.as_slice(), &["--clear-groups", "bash", "-c", backup]].concat()).await;
        assert_eq!(world.backups(&one, 1).await, [b"backup\n"]);

        // The agent ends, the lnds do not, and the next agent has them again.
        machine.can(&["systemctl", "stop", AGENT]).await;
        assert_eq!((machine.lnd(0).await, machine.lnd(1).await), (first, second));
        machine.can(&["systemctl", "start", AGENT]).await;
        assert_eq!([pid(&world, &host, &one).await, pid(&world, &host, &two).await], [first.0, second.0]);
        assert_eq!(world.runtime(&one, |r| r.process == Process::Running).await.starts, 1);

        // An lnd that dies is told of, and started again.
        let told = world.runtime(&one, |runtime| matches!(runtime.process, Process::Restarting { .. }));
        let of_first = first.0.to_string();
        let kill = ["kill", "-KILL", &of_first];
        let (told, _) = tokio::join!(told, machine.can(&kill));
        let Process::Restarting { reason } = told.process else { panic!("{told:?}") };
        assert!(reason.starts_with("signal 9: "), "{reason}");
        world.runtime(&one, |runtime| runtime.starts == 2 && runtime.wallet != WalletState::Unknown).await;
        assert_ne!(machine.lnd(0).await.0, first.0);

        // One that is stopped stays so; its slot takes another node, which gets nothing of it.
        let at = world.host(&host).await;
        world.agents.stop_node(Order { host: &at, epoch: 2 }, &one).await.unwrap();
        assert!(!machine.is_active(0).await && machine.is_active(1).await);
        world.agents.remove_node(Order { host: &at, epoch: 2 }, &one).await.unwrap();
        let three = start(&world, &host, 0, &machine).await;
        assert_eq!(machine.lnd(0).await.1, 8100);
        let removed = machine.can(&["bash", "-c", "echo /var/lib/scale-lnd/removed/*"]).await;
        let denied = machine.as_user("scale-lnd-0", &["ls", &removed]).await;
        assert!(!denied.status.success() && said(&denied).contains("Permission denied"), "{}", said(&denied));

        // The machine is shut down: the lnds end as they should.
        let _cut_off = machine.does(&["systemctl", "poweroff"]).await;
        let mut machine = machine;
        tokio::time::timeout(LIMIT, machine.process.exited()).await.expect("the machine is off");
        for node in [&two, &three] {
            let log = machine.instance(node).join("lnd/logs/bitcoin/simnet/lnd.log");
            let log = std::fs::read_to_string(log).unwrap();
            assert!(log.lines().last().unwrap().contains("Shutdown complete"), "{log}");
        }
    })
    .await;
}

/// As a child does: from its next start on, as its own user, from a file that it cannot write.
#[tokio::test]
async fn a_units_lnd_is_that_of_a_release_where_its_node_is_told_so() {
    timed(async {
        let (world, files) = (World::new().await, Files::start().await);
        let Some((machine, host)) = machine(&world, 1).await else { return };
        let node = start(&world, &host, 0, &machine).await;
        let own = machine.lnd(0).await.0;
        let lnd = files.put("lnd", std::fs::read(lnd_binary()).unwrap());
        let manifest = manifest(&files, 7, "0.21.2-beta", "lnd", &lnd);
        let at = world.host(&host).await;
        let signature = signed(&manifest, &world.release_key);
        let installed = world.agents.install_release(&at, &manifest, &signature).await;
        assert_eq!(installed.unwrap_or_else(|error| panic!("{error:?}")), Some(lnd.clone()));
        let order = Order { host: &at, epoch: 1 };
        let told = |lnd: &str| proto::NodeSpec { lnd_sha256: lnd.to_owned(), ..spec(&node, 0) };
        let program = async |pid: u32| machine.can(&["readlink", &format!("/proc/{pid}/exe")]).await;

        world.agents.ensure_node(order, told(&lnd.to_string())).await.unwrap();
        assert_eq!(machine.lnd(0).await.0, own, "what runs goes on");
        world.agents.stop_node(order, &node).await.unwrap();
        world.agents.ensure_node(order, told(&lnd.to_string())).await.unwrap();
        let pid = machine.can(&["systemctl", "show", "--property=MainPID", "--value", &unit(0)]).await.parse().unwrap();
        assert_eq!(program(pid).await, "/var/lib/scale-lnd/program");
        assert_eq!(machine.can(&["stat", "--format=%u", &format!("/proc/{pid}")]).await, "8100");
        let inside = ["nsenter", "-t", &pid.to_string(), "--mount", "setpriv", "--reuid", "8100", "--clear-groups"];
        let write = [inside.as_slice(), &["sh", "-c", "echo x >>/var/lib/scale-lnd/program"]].concat();
        assert!(!machine.does(&write).await.status.success(), "it cannot change its own program");

        world.agents.stop_node(order, &node).await.unwrap();
        world.agents.ensure_node(order, told("")).await.unwrap();
        assert_eq!(program(machine.lnd(0).await.0).await, "/usr/local/bin/lnd", "and back");
        let _cut_off = machine.does(&["systemctl", "poweroff"]).await;
    })
    .await;
}

async fn nobody_reads_anothers_folder(machine: &Machine, one: &NodeId, two: &NodeId, lnd: u32) {
    // An lnd does not even see the folders.
    let lnd = lnd.to_string();
    let seen = machine.can(&["nsenter", "-t", &lnd, "--mount", "ls", "/var/lib/scale-lnd"]).await;
    assert_eq!(seen, "instance\nlock");
    // And if it did, with all doors to them open.
    let nodes = "/var/lib/scale-lnd/nodes";
    let doors = ["/var/lib/scale-lnd".to_owned(), nodes.to_owned(), format!("{nodes}/{one}"), format!("{nodes}/{two}")];
    let doors: Vec<&str> = doors.iter().map(String::as_str).collect();
    machine.can(&[["chmod", "o+x"].as_slice(), &doors].concat()).await;
    for name in ["lnd.conf", "output", "lnd/tls.key", "lnd/tls.cert", "lnd/logs/bitcoin/simnet/lnd.log"] {
        let read = async |node: &NodeId, user: &str| {
            machine.as_user(user, &["cat", &format!("{nodes}/{node}/instance/{name}")]).await
        };
        for (node, own, other) in [(one, "scale-lnd-0", "scale-lnd-1"), (two, "scale-lnd-1", "scale-lnd-0")] {
            let output = read(node, own).await;
            assert!(output.status.success(), "{name}: {}", said(&output));
            let output = read(node, other).await;
            assert!(said(&output).contains("Permission denied"), "{name} by {other}: {}", said(&output));
        }
    }
    for (path, mode, owner) in [("record.json", 0o600, 8082), ("instance/lnd", 0o770, 8082)] {
        let meta = std::fs::metadata(machine.data.join("nodes").join(one.as_str()).join(path)).unwrap();
        assert_eq!((meta.permissions().mode() & 0o777, meta.uid()), (mode, owner), "{path}");
    }
    machine.can(&[["chmod", "o-x"].as_slice(), &doors].concat()).await;
}

async fn the_agent_may_do_no_more_than_it_needs(machine: &Machine) {
    let (lnd, other) = (unit(0), "scale-lnd-lnd@x.service".to_owned());
    for command in [
        ["start", "systemd-journald.service"],
        ["stop", "dbus.service"],
        ["start", &other],
        ["restart", &lnd],
        ["kill", &lnd],
        ["poweroff", "--force"],
    ] {
        let ask = [["systemctl", "--no-ask-password"].as_slice(), &command].concat();
        let output = machine.as_user("scale-lnd", &ask).await;
        assert!(!output.status.success(), "{command:?}");
    }
    // Nor may an lnd, of another.
    let output = machine.as_user("scale-lnd-1", &["systemctl", "--no-ask-password", "stop", &lnd]).await;
    assert!(!output.status.success() && machine.is_active(0).await);
}
