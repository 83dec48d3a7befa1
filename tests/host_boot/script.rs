//! boot.sh, function by function: what it does to disks is done to files, and what would change the machine is only noted.

use super::{DEADLINE, Files, run, said};
use crate::harness;
use scale_lnd::compute::user_data::BOOT;
use std::fmt::Write;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Output;
use tempfile::TempDir;
use tokio::process::Command;

/// A machine that is a folder.
struct Machine {
    files: Files,
    dir: TempDir,
}

impl Machine {
    fn new() -> Self {
        Self { files: Files::usual(), dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Does these lines after the script was read, in this folder.
    async fn does(&self, lines: &str) -> Output {
        let mut text = format!(". '{}'\n", self.files.path(BOOT).display());
        for (variable, name) in [("etc", "etc"), ("data", "data"), ("store", "store"), ("bin", "bin"), ("run", "run")] {
            fs::create_dir_all(self.path(name)).unwrap();
            writeln!(text, "{variable}='{}'", self.path(name).display()).unwrap();
        }
        writeln!(text, "fstab='{0}/fstab' release='{0}/os-release'\n{lines}", self.dir.path().display()).unwrap();
        run(Command::new("bash").args(["-c", &text]).current_dir(self.dir.path())).await
    }

    async fn can(&self, lines: &str) -> String {
        let output = self.does(lines).await;
        assert!(output.status.success(), "{lines}:\n{}", said(&output));
        said(&output)
    }

    async fn cannot(&self, lines: &str) -> String {
        let output = self.does(lines).await;
        assert!(!output.status.success(), "{lines}:\n{}", said(&output));
        said(&output)
    }

    /// A disk of so many MiB, all zero.
    fn disk(&self, name: &str, mib: u64) -> fs::File {
        let file =
            fs::OpenOptions::new().create(true).truncate(true).read(true).write(true).open(self.path(name)).unwrap();
        file.set_len(mib << 20).unwrap();
        file
    }
}

#[test]
fn a_disk_gets_a_file_system_only_if_nothing_is_on_it() {
    harness::run(DEADLINE, async {
        let machine = Machine::new();
        machine.disk("blank", 320);
        let said = machine.can("file_system blank; tag TYPE blank; tag LABEL blank").await;
        assert!(said.contains("blank is blank") && said.ends_with("ext4\nscale-lnd\n"), "{said}");
        // The next boot, and a machine that gets the volume of another.
        let uuid = machine.can("tag UUID blank").await;
        assert!(machine.can("file_system blank").await.contains("has our file system"));
        assert_eq!(machine.can("tag UUID blank").await, uuid);

        let foreign: [(&str, u64, &[u8]); 6] = [
            ("a boot sector", 510, &[0x55, 0xaa]),
            ("GPT", 512, b"EFI PART"),
            ("LVM", 512, b"LABELONE\0\0\0\0\0\0\0\0"),
            ("one byte at its start", 0, &[1]),
            ("one byte further on", 200 << 20, &[1]),
            ("one byte where copies of superblocks are", 128 << 20, &[1]),
        ];
        for (what, offset, bytes) in foreign {
            machine.disk("foreign", 320).write_all_at(bytes, offset).unwrap();
            assert!(machine.cannot("file_system foreign").await.contains("it is left alone"), "{what}");
            let mut seen = vec![0; bytes.len()];
            fs::File::open(machine.path("foreign")).unwrap().read_exact_at(&mut seen, offset).unwrap();
            assert_eq!(seen, bytes, "{what}");
        }
        for (what, make) in [("another ext4", "mkfs.ext4 -q -L data foreign"), ("swap", "mkswap -q foreign")] {
            machine.disk("foreign", 320);
            machine.can(&format!("{make} 2>/dev/null; cp foreign before")).await;
            assert!(machine.cannot("file_system foreign").await.contains("it is left alone"), "{what}");
            machine.can("cmp foreign before").await;
        }
        machine.disk("small", 64);
        machine.cannot("file_system small").await;
        machine.cannot("file_system missing").await;
        // No answer is not the answer that there is nothing.
        for broken in ["blkid", "wipefs", "cmp"] {
            machine.disk("disk", 320);
            for status in [1, 4, 8, 127] {
                machine.cannot(&format!("{broken}() {{ return {status}; }}; file_system disk")).await;
            }
            machine.can("cmp --bytes=$((320 << 20)) disk /dev/zero").await;
        }
    });
}

/// `lsblk -nro NAME,TYPE,PKNAME,MOUNTPOINT,SERIAL,MODEL` of a Nitro instance.
const ROOT: &str = "nvme0n1 disk   vol0aaaaaaaaaaaaaaaa Amazon\\x20Elastic\\x20Block\\x20Store
nvme0n1p1 part nvme0n1 /  
nvme0n1p128 part nvme0n1 /boot/efi  
";
const DATA: &str = "nvme1n1 disk   vol0bbbbbbbbbbbbbbbb Amazon\\x20Elastic\\x20Block\\x20Store\n";
const OWN: &str = "nvme2n1 disk   AWS0CCCCCCCCCCCCCCCC Amazon\\x20EC2\\x20NVMe\\x20Instance\\x20Storage\n";

#[test]
fn the_data_volume_is_the_only_one_that_nobody_uses() {
    harness::run(DEADLINE, async {
        let machine = Machine::new();
        let with = |disks: &str| format!("sleep() {{ :; }}; lsblk() {{ cat <<'END'\n{disks}END\n}}\nawait_disk");
        assert_eq!(machine.can(&with(&format!("{ROOT}{DATA}"))).await, "/dev/nvme1n1\n");
        assert_eq!(machine.can(&with(&format!("{OWN}{DATA}{ROOT}"))).await, "/dev/nvme1n1\n");
        let another = DATA.replace("nvme1n1", "nvme3n1").replace("bbb", "ddd");
        let both = machine.cannot(&with(&format!("{ROOT}{DATA}{another}"))).await;
        assert!(both.contains("which is the data volume? /dev/nvme"), "{both}");
        let used = DATA.replace("disk   vol", "disk  /mnt vol");
        let parted = format!("{DATA}nvme1n1p1 part nvme1n1   \n");
        for none in [ROOT.to_owned(), format!("{ROOT}{OWN}"), format!("{ROOT}{used}"), format!("{ROOT}{parted}")] {
            let said = machine.cannot(&with(&none)).await;
            assert!(said.contains("there is no data volume"), "{none}: {said}");
        }
        machine.cannot("sleep() { :; }; lsblk() { return 1; }\nawait_disk").await;
    });
}

#[test]
fn fstab_knows_the_volume_by_its_uuid_and_no_other_is_mounted() {
    harness::run(DEADLINE, async {
        let machine = Machine::new();
        machine.disk("blank", 320);
        let root = "UUID=0 / xfs defaults 0 1";
        fs::write(machine.path("fstab"), root).unwrap();
        let noted = "mountpoint() { [ -e mounted ]; }; mount() { echo \"mount $*\"; touch mounted; }; chown() { :; }
            systemctl() { echo \"systemctl $*\"; }; await_disk() { echo blank; }\n";
        let first = machine.can(&format!("{noted}volume")).await;
        let (fstab, data) = (fs::read_to_string(machine.path("fstab")).unwrap(), machine.path("data"));
        let uuid = machine.can("tag UUID blank").await;
        let line = format!(
            "UUID={} {} ext4 noatime,nodev,nosuid,nofail,x-systemd.device-timeout=90s 0 2",
            uuid.trim(),
            data.display()
        );
        assert_eq!(fstab, format!("{root}\n{line}\n"));
        assert!(first.ends_with(&format!("systemctl daemon-reload\nmount {}\n", data.display())), "{first}");
        // The next boot: mounted by systemd, or to be mounted, but always what fstab names.
        let none_may_be_looked_for = format!("{noted}await_disk() {{ die looked; }}\n");
        assert_eq!(machine.can(&format!("{none_may_be_looked_for}volume")).await, "");
        fs::remove_file(machine.path("mounted")).unwrap();
        let again = machine.can(&format!("{none_may_be_looked_for}volume")).await;
        assert_eq!(again, format!("mount {}\n", data.display()));
        assert_eq!(fs::read_to_string(machine.path("fstab")).unwrap(), fstab);
        fs::remove_file(machine.path("mounted")).unwrap();
        let failed = machine.cannot(&format!("{none_may_be_looked_for}mount() {{ return 32; }}\nvolume")).await;
        assert!(failed.contains("cannot be mounted"), "{failed}");
    });
}

/// `curl` that finds what it is to load in this folder, under the URL's last part.
const CURL: &str = r#"
curl() {
    local output url
    while [ "$#" -gt 0 ]; do
        case "$1" in --output) output=$2 ;; --url) url=$2 ;; esac
        shift
    done
    echo "loaded $url"
    cp "${url##*/}" "$output"
}
"#;

async fn sha256(path: &Path) -> String {
    let output = run(Command::new("sha256sum").arg(path)).await;
    String::from_utf8(output.stdout).unwrap()[..64].to_owned()
}

#[test]
fn programs_are_those_of_the_machine_with_the_right_sha256() {
    harness::run(DEADLINE, async {
        let machine = Machine::new();
        fs::write(machine.path("agent"), "#!/bin/sh\necho agent\n").unwrap();
        machine
            .can("mkdir v1 && printf '#!/bin/sh\\necho lnd\\n' >v1/lnd && touch v1/lncli && tar -czf lnd.tar.gz v1")
            .await;
        machine.can("mkdir v2 && cp v1/lnd v2/ && tar -czf two.tgz v1 v2 && tar -czf none.tgz v1/lncli").await;
        let list = |machine_name: &str, agent: &str, lnd: &str, archive: &str| {
            let other = "0".repeat(64);
            let line = |name, arch, sha256: &str, file: &str| format!("{name} {arch} {sha256} https://e.x/{file}\n");
            fs::write(
                machine.path("etc/programs"),
                [
                    line("scale-lnd", "other", &other, "other"),
                    line("scale-lnd", machine_name, agent, "agent"),
                    line("lnd", machine_name, lnd, archive),
                    line("lnd", "other", &other, "other"),
                ]
                .concat(),
            )
            .unwrap();
        };
        machine.can(":").await;
        let (agent, lnd) = (sha256(&machine.path("agent")).await, sha256(&machine.path("lnd.tar.gz")).await);
        for architecture in ["x86_64", "aarch64"] {
            list(architecture, &agent, &lnd, "lnd.tar.gz");
            let uname = format!("rm -rf store bin; mkdir bin; {CURL} uname() {{ echo {architecture}; }}\n");
            let said = machine.can(&format!("{uname}programs; bin/scale-lnd; bin/lnd")).await;
            let loaded: Vec<&str> = said.lines().filter(|line| !line.starts_with("scale-lnd-boot: ")).collect();
            assert_eq!(loaded, ["loaded https://e.x/agent", "loaded https://e.x/lnd.tar.gz", "agent", "lnd"]);
            // What is there is not loaded again, so the next boot needs no network.
            let again = format!("uname() {{ echo {architecture}; }}; curl() {{ die called; }}\nprograms");
            assert_eq!(machine.can(&again).await, "");
        }
        let anew = format!("rm -rf store bin; mkdir bin; {CURL} uname() {{ echo x86_64; }}\nprograms");
        let (two, none) = (sha256(&machine.path("two.tgz")).await, sha256(&machine.path("none.tgz")).await);
        for (lnd, archive, expected) in [
            (&agent, "lnd.tar.gz", "does not have the SHA-256"),
            (&two, "two.tgz", "more than one lnd"),
            (&none, "none.tgz", "there is no lnd in its archive"),
            (&lnd, "missing.tar.gz", "cannot be loaded"),
        ] {
            list("x86_64", &agent, lnd, archive);
            let said = machine.cannot(&anew).await;
            assert!(said.contains(expected), "{said}");
            assert!(!machine.path("bin/lnd").exists() && !machine.path(&format!("store/lnd-{lnd}")).exists());
        }
        list("riscv64", &agent, &lnd, "lnd.tar.gz");
        assert!(machine.cannot(&anew).await.contains("there is no scale-lnd for x86_64"));
    });
}

#[test]
fn what_an_image_lacks_is_installed_with_the_packages_of_its_distribution() {
    harness::run(DEADLINE, async {
        let machine = Machine::new();
        let lacking = "command() { return 1; }; sleep() { :; }
            apt-get() { echo \"apt-get ${*: -2}\"; }; dnf() { echo \"dnf $*\"; }\n";
        for (release, expected) in [
            ("NAME=\"Debian\"\nID=debian\nVERSION_ID=\"12\"\n", "apt-get diffutils polkitd"),
            ("ID=\"amzn\"\nID_LIKE=\"fedora\"\n", "dnf -qy install nftables e2fsprogs curl tar diffutils polkit"),
        ] {
            fs::write(machine.path("os-release"), release).unwrap();
            assert!(machine.can(&format!("{lacking}packages")).await.contains(expected), "{expected}");
        }
        let failing = format!("{lacking}dnf() {{ return 1; }}\npackages");
        assert!(machine.cannot(&failing).await.contains("cannot install nftables"));
        assert_eq!(machine.can("command() { :; }; apt-get() { die called; }\npackages").await, "");
        fs::write(machine.path("os-release"), "ID=plan9\n").unwrap();
        assert!(machine.cannot(&format!("{lacking}packages")).await.contains("neither Debian nor Amazon Linux"));
    });
}

#[test]
fn the_agent_listens_at_the_machines_address_once_the_rules_are_loaded() {
    harness::run(DEADLINE, async {
        let machine = Machine::new();
        let route = "ip() { echo '192.0.2.1 via 10.0.1.1 dev ens5 src 10.0.1.23 uid 0 \\    cache'; }\n";
        let said = machine.can(&format!("{route}nft() {{ echo \"nft $*\"; }}\nnetwork")).await;
        assert_eq!(said, format!("nft --file {}/firewall.nft\n", machine.path("etc").display()));
        let env = fs::read_to_string(machine.path("run/agent.env")).unwrap();
        assert_eq!(env, "SCALE_LND_AGENT_LISTEN=10.0.1.23:8082\n");
        // Without rules there is no agent.
        fs::remove_file(machine.path("run/agent.env")).unwrap();
        machine.cannot(&format!("{route}nft() {{ return 1; }}\nnetwork")).await;
        machine.cannot("ip() { :; }; nft() { :; }\nnetwork").await;
        assert!(!machine.path("run/agent.env").exists());
    });
}
