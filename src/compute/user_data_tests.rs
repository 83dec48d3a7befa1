use super::*;
use crate::model::provision::{Arch, LndLimits, Net, ProgramName, Reach};

fn token() -> String {
    format!("h{:024}.{:064}", 1, 2)
}

fn parsed(user_data: &str) -> Value {
    serde_json::from_str(user_data.strip_prefix("#cloud-config\n").unwrap()).unwrap()
}

fn content(cloud_config: &Value, path: &str) -> String {
    let files = cloud_config["write_files"].as_array().unwrap();
    let file = files.iter().find(|file| file["path"] == path);
    unpacked(file.unwrap_or_else(|| panic!("no {path}"))).unwrap()
}

/// One that takes much room.
fn provision() -> Provision {
    let program = |(name, arch): (ProgramName, Arch)| Program {
        name,
        arch,
        sha256: "ab".repeat(32),
        url: format!("https://downloads.example/{}/{}.tar.gz", "long".repeat(40), name.file()),
    };
    let both = |name| Arch::ALL.map(|arch| program((name, arch)));
    let nets = |third: u8| (0..16).map(move |n| format!("10.{third}.{n}.0/24").parse::<Net>().unwrap());
    Provision {
        programs: ProgramName::ALL.into_iter().flat_map(both).collect(),
        masters: (0..4).map(|n| ([10, 0, 0, n], 8081).into()).collect(),
        backends: (4..8).map(|n| ([10, 0, 0, n], 18_443).into()).collect(),
        reach: nets(1).map(|net| Reach { net, ports: (1, 65_535) }).collect(),
        fleet: nets(2).collect(),
        lnd_ports: (10_100, 10_399),
        peer_ports: (0..100).map(|n| 10_101 + 3 * n).collect(),
        limits: LndLimits { memory_mib: Some(1000), cpu_percent: Some(150) },
    }
}

fn template(masters: &[String], ca_fingerprint: &str, provision: Option<&Provision>) -> String {
    super::template(&Joining { masters, ca_fingerprint, releases: None }, provision)
}

fn masters(count: u32) -> Vec<String> {
    (0..count).map(|n| format!("master-{n}.example.com:8081")).collect()
}

#[test]
fn it_holds_what_joining_needs() {
    for provision in [None, Some(provision())] {
        let template = template(&masters(20), &"ab".repeat(32), provision.as_ref());
        assert!(fits(&template), "{}", template.len());
        let whole = with_token(&template, &token());
        assert!(whole.len() < MOST_BYTES, "{}", whole.len());
        assert!(whole.bytes().all(|b| b == b'\n' || (0x20..0x7f).contains(&b)), "plain text");
        let cloud_config = parsed(&whole);
        assert_eq!(content(&cloud_config, TOKEN), token());
        assert_eq!(whole.matches(&token()).count(), 1);
        let secret = |file: &&Value| [CONFIG, TOKEN].contains(&file["path"].as_str().unwrap());
        let files = cloud_config["write_files"].as_array().unwrap();
        assert!(files.iter().filter(secret).all(|file| file["permissions"] == "0600"));

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lndserver.toml");
        std::fs::write(&path, content(&cloud_config, CONFIG)).unwrap();
        crate::files::write_private(&folder.path().join("join-token"), token().as_bytes()).unwrap();
        let env = [("SCALE_LND_AGENT_DATA_DIR".to_owned(), "/var/lib/scale-lnd".to_owned())];
        let (agent, _) = crate::config::agent::load(Some(&path), env, &[]).unwrap();
        assert_eq!(agent.masters, masters(20));
        assert!(agent.join_token.is_some());
        assert_eq!(agent.port_base, crate::lndserver::config::PORT_BASE, "which the firewall counts on");
    }
}

#[test]
fn a_host_knows_whose_releases_to_believe_before_any_master_tells_it() {
    let keys = ["RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3".to_owned()];
    let releases = Some(Believed { keys: &keys, deployment: "ours", lowest: 7 });
    let ca_fingerprint = "ab".repeat(32);
    let joining = Joining { masters: &masters(1), ca_fingerprint: &ca_fingerprint, releases };
    let config = content(&parsed(&super::template(&joining, None)), CONFIG);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lndserver.toml");
    std::fs::write(&path, config).unwrap();
    let env = [("SCALE_LND_AGENT_DATA_DIR".to_owned(), "/var/lib/scale-lnd".to_owned())];
    let (agent, _) = crate::config::agent::load(Some(&path), env, &[]).unwrap();
    let believed = agent.releases.unwrap();
    assert_eq!((believed.deployment.as_str(), believed.lowest), ("ours", 7));
    assert!(!believed.trusted.is_empty());
}

#[test]
fn a_machine_with_an_image_of_its_own_gets_no_more_than_that() {
    let cloud_config = parsed(&template(&masters(1), "ab", None));
    assert_eq!(cloud_config["write_files"].as_array().unwrap().len(), 2);
    assert!(cloud_config.get("runcmd").is_none());
}

#[test]
fn scripts_and_units_are_the_same_for_all() {
    let cloud_config = parsed(&template(&masters(1), "ab", Some(&provision())));
    let [boot, unit] = [BOOT, UNIT].map(|path| content(&cloud_config, path));
    assert!(boot.starts_with("#!/bin/bash\nset -euo pipefail\n"), "{boot}");
    assert!(!boot.contains("\n#") && !unit.contains('#'), "no comments");
    assert!(boot.contains(PROGRAMS.rsplit_once('/').unwrap().0) && boot.contains("/firewall.nft"));
    assert!(!format!("{boot}{unit}").contains("example"), "no value of the configuration");
    // The agent reads the copies that systemd makes of the two files.
    for path in [CONFIG, TOKEN] {
        let (_, name) = path.rsplit_once('/').unwrap();
        assert!(unit.contains(&format!("\nLoadCredential={name}:{path}\n")), "{unit}");
    }
    assert!(unit.contains("\nEnvironment=SCALE_LND_AGENT_LND_START=systemd\n"), "or the lnds would end with the agent");
}

#[test]
fn each_lnd_has_a_user_and_the_limits_that_are_configured() {
    let all = provision();
    let cloud_config = parsed(&template(&masters(1), "ab", Some(&all)));
    assert_eq!(content(&cloud_config, SLOTS), "100\n");
    assert_eq!(content(&cloud_config, LIMITS), "[Service]\nMemoryHigh=900M\nMemoryMax=1000M\nCPUQuota=150%\n");
    let unit = content(&cloud_config, "/etc/systemd/system/scale-lnd-lnd@.service");
    assert!(unit.contains("\nUser=scale-lnd-%i\n") && unit.contains("\nSendSIGKILL=no\n"), "{unit}");
    // The numbers that the agent, boot.sh and the firewall must agree on.
    let (boot, rules) = (content(&cloud_config, BOOT), content(&cloud_config, firewall::PATH));
    let first = crate::lndserver::config::SLOT_IDS;
    assert!(boot.contains(&format!("id=8082 first={first}\n")), "{boot}");
    assert!(rules.contains(&format!("skuid {first}-{} ", first + 999)), "{rules}");
    let rule = content(&cloud_config, POLKIT.0);
    assert!(rule.starts_with("polkit.addRule("), "without comments: {rule}");
    let unlimited = Provision { limits: LndLimits::default(), ..all };
    assert!(!template(&masters(1), "ab", Some(&unlimited)).contains("limits.conf"));
}

#[test]
fn programs_are_a_line_each() {
    let cloud_config = parsed(&template(&masters(1), "ab", Some(&provision())));
    let lines = content(&cloud_config, PROGRAMS);
    let lines: Vec<Vec<&str>> = lines.lines().map(|line| line.split(' ').collect()).collect();
    let whose: Vec<_> = lines.iter().map(|words| (words[0], words[1], words.len())).collect();
    let all = [("scale-lnd", "x86_64", 4), ("scale-lnd", "aarch64", 4), ("lnd", "x86_64", 4), ("lnd", "aarch64", 4)];
    assert_eq!(whose, all);
    assert!(lines.iter().all(|words| words[2].len() == 64 && words[3].starts_with("https://downloads.example/")));
}

#[test]
fn the_firewall_names_what_is_configured_and_no_more() {
    let provision = Provision {
        masters: [([10, 0, 0, 4], 8081).into()].into(),
        backends: ["[fd00:1::6]:18334".parse().unwrap()].into(),
        reach: vec!["10.0.9.0/24:9735-9740".parse().unwrap()],
        fleet: vec!["10.0.1.0/24".parse().unwrap(), "fd00:1::/64".parse().unwrap()],
        lnd_ports: (10_100, 10_105),
        peer_ports: vec![10_101, 10_104],
        ..provision()
    };
    insta::assert_snapshot!(firewall::rules(&provision));
}
