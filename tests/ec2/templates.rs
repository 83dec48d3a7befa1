//! The templates of `deploy/cloudformation`: what they make, what it may do, and a user's host made with it.

use super::moto::{Account, tag};
use super::policy::{Context, Policy};
use super::stacks::{DEPLOYMENT, SEALING_KEY, Stacks, file};
use super::{Cloud, Compute, DEADLINE, moto, recovery};
use crate::harness::{self, command, world};
use crate::host_boot;
use aws_sdk_ec2::types::{IpPermission, LaunchTemplateHttpTokensState};
use scale_lnd::model::machine::TAG_DEPLOYMENT;
use serde_json::json;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use tokio::process::Command;

const ALL: [&str; 4] = ["network", "lndserver", "chain", "masterlnd"];
const TAGGED: (&str, &str) = ("aws:RequestTag/scale-lnd-deployment", DEPLOYMENT);

/// The whole story of `make demo`, each of its two users on an instance.
#[test]
fn the_demo_is_true_on_what_the_templates_have_made() {
    harness::run(DEADLINE, async {
        let account = Account::in_region("eu-south-1", 201).await;
        // Without masters of theirs: the test starts one with what they would have.
        let stacks = Stacks::make(&account, &["network", "lndserver", "masterlnd"], 0).await;
        let settings = stacks.settings().into_iter().filter(|(name, _)| name.starts_with("SCALE_LND_COMPUTE_"));
        let env = settings.map(|(name, value)| (&*name.to_owned().leak(), value.to_owned())).collect();
        let cloud =
            Cloud::start_in(account, Compute { env, initial_funding_sat: 1_000_000, ..Compute::default() }).await;
        let (url, key) = (&cloud.d.masters[0].url, cloud.d.key.as_str());
        let program = world::program();
        let demo = [program.to_str().unwrap(), "demo", "--at", url];
        let told = command::run(&demo, &[("SCALE_LND_API_KEY", Some(key))]).await;
        assert_eq!(told.code, Some(0), "{}{}", told.out, told.err);
        assert!(told.out.contains("all of it is true"), "{}", told.out);

        let instances = cloud.account.living().await;
        assert_eq!(instances.len(), 2, "{instances:#?}");
        let instance = &instances[0];
        assert_eq!(tag(instance, TAG_DEPLOYMENT), DEPLOYMENT);
        assert_eq!(instance.subnet_id(), Some(stacks.output("PrivateSubnetA")));
        assert_eq!(instance.instance_type().unwrap().as_str(), "t3.small");
        let groups: Vec<_> = instance.security_groups().iter().map(|group| group.group_id().unwrap()).collect();
        assert_eq!(groups, [stacks.output("HostsGroup")]);
        let disks = instance.block_device_mappings().iter();
        let mut kept = disks.filter(|disk| disk.ebs().unwrap().delete_on_termination() == Some(false));
        assert_eq!(kept.next().unwrap().device_name(), Some("/dev/sdf"), "the data volume stays");
        assert!(kept.next().is_none());

        let policy = Policy(&stacks.statements["MasterRole"]);
        let called: Vec<String> = cloud.proxy.actions().iter().map(|action| format!("ec2:{action}")).collect();
        assert!(called.contains(&"ec2:RunInstances".to_owned()));
        assert!(called.iter().all(|action| policy.actions().contains(&action.as_str())), "{called:?}");
        cloud.stop().await;
    });
}

#[test]
fn the_templates_allow_what_is_needed_and_no_more() {
    harness::run(DEADLINE, async {
        let account = Account::in_region("af-south-1", 202).await;
        let stacks = Stacks::make(&account, &ALL, 2).await;
        assert_eq!(stacks.output("RpcHost"), format!("{}.140:18556", account.network));
        // Two masters and the chain backend, which no master may touch.
        let instances = account.living().await;
        assert_eq!(instances.len(), 3);
        assert!(instances.iter().all(|instance| tag(instance, TAG_DEPLOYMENT).is_empty()), "{instances:#?}");

        assert!(stacks.statements["HostRole"].is_empty(), "hosts do nothing in AWS");
        masters_may_run_hosts_and_nothing_else(&stacks, &account);
        masters_may_keep_their_own_hosts_only(&stacks, &account);
        hosts_are_reached_by_masters_and_peers_only(&stacks, &account).await;
        hosts_are_made_as_they_should(&stacks, &account).await;
        the_masters_settings_are_sound(&stacks).await;
        the_files_of_a_secret_are_written(&stacks).await;
        let of_systemd = [
            ("/etc/systemd/system/scale-lnd-master.service", "deploy/systemd/scale-lnd-master.service"),
            ("/usr/local/sbin/scale-lnd-verb", "deploy/systemd/scale-lnd-verb"),
        ];
        for (path, ours) in of_systemd {
            assert_eq!(stacks.boots["MasterTemplate"].files[path], file(ours), "the template has {ours}");
        }
    });
}

/// By the programs that are to read it: cloud-init, bash, systemd.
#[test]
fn host_boot_of_masters_and_of_the_chain_backend_is_as_it_should() {
    harness::run(DEADLINE, async {
        let account = Account::in_region("me-south-1", 203).await;
        let stacks = Stacks::make(&account, &ALL, 0).await;
        let schema = host_boot::tool("cloud-schema").await;
        let shellcheck = host_boot::tool("shellcheck").await;
        let (mut scripts, mut units) = (0, 0);
        for machine in ["MasterTemplate", "ChainInstance"] {
            let folder = tempfile::tempdir().unwrap();
            let user_data = folder.path().join("user-data");
            std::fs::write(&user_data, &stacks.boots[machine].user_data).unwrap();
            host_boot::passes(&schema, &[&user_data]).await;
            for (path, text) in &stacks.boots[machine].files {
                let file = folder.path().join(Path::new(path).file_name().unwrap());
                // systemd wants to see the programs, which are not here.
                std::fs::write(&file, text.replace("ExecStart=/usr/local/bin/", "ExecStart=/bin/true ")).unwrap();
                if text.starts_with("#!/bin/bash\n") {
                    host_boot::passes(&shellcheck, &[&file]).await;
                    scripts += 1;
                } else if path.ends_with(".service") {
                    let mut verify = Command::new("systemd-analyze");
                    let output = host_boot::run(verify.args(["verify", "--man=no"]).arg(&file)).await;
                    let said = host_boot::said(&output);
                    let about = said.lines().filter(|line| line.contains("scale-lnd"));
                    assert!(output.status.success() && about.count() == 0, "{said}");
                    units += 1;
                }
            }
        }
        assert_eq!((scripts, units), (4, 2));
    });
}

/// Of the account's region.
fn arn(account: &Account, resource: &str) -> String {
    format!("arn:aws:ec2:{}:123456789012:{resource}", account.region)
}

/// Each of the things that a RunInstances names must be allowed.
fn masters_may_run_hosts_and_nothing_else(stacks: &Stacks, account: &Account) {
    let policy = Policy(&stacks.statements["MasterRole"]);
    let template = arn(account, &format!("launch-template/{}", stacks.output("LaunchTemplate")));
    let ours = ("ec2:LaunchTemplate", template.as_str());
    let may = |resource: &str, context: Context<'_>| policy.allows("ec2:RunInstances", resource, context);

    let host = [
        ours,
        TAGGED,
        ("ec2:InstanceType", "t3.medium"),
        ("ec2:InstanceProfile", stacks.output("HostProfile")),
        ("ec2:MetadataHttpTokens", "required"),
    ];
    let instance = arn(account, "instance/*");
    assert!(may(&instance, &host));
    let wrong = [
        ("ec2:LaunchTemplate", arn(account, "launch-template/lt-0123456789abcdef0")),
        (TAGGED.0, "another".to_owned()),
        ("ec2:InstanceType", "p5.48xlarge".to_owned()),
        ("ec2:InstanceProfile", "arn:aws:iam::123456789012:instance-profile/admin".to_owned()),
        ("ec2:MetadataHttpTokens", "optional".to_owned()),
    ];
    for (key, value) in &wrong {
        let other = host.map(|(name, ours)| if name == *key { (name, value.as_str()) } else { (name, ours) });
        assert!(!may(&instance, &other), "{key} {value}");
        let without: Vec<_> = host.into_iter().filter(|(name, _)| name != key).collect();
        assert!(!may(&instance, &without), "without {key}");
    }

    let volume = [ours, TAGGED, ("ec2:Encrypted", "true")];
    assert!(may(&arn(account, "volume/*"), &volume));
    assert!(!may(&arn(account, "volume/*"), &[ours, TAGGED, ("ec2:Encrypted", "false")]));
    assert!(!may(&arn(account, "volume/*"), &volume[1..]));

    let image = |id: &str| format!("arn:aws:ec2:{}::image/{id}", account.region);
    let right = [
        image(stacks.output("HostImageId")),
        arn(account, &format!("subnet/{}", stacks.output("PrivateSubnetA"))),
        arn(account, &format!("subnet/{}", stacks.output("PrivateSubnetB"))),
        arn(account, &format!("security-group/{}", stacks.output("HostsGroup"))),
        arn(account, "network-interface/*"),
        template.clone(),
    ];
    for resource in &right {
        assert!(may(resource, &[ours]), "{resource}");
        assert!(!may(resource, &[]), "{resource} without the template");
    }
    let wrong = [
        image("ami-0123456789abcdef0"),
        arn(account, &format!("subnet/{}", stacks.output("PublicSubnetA"))),
        arn(account, &format!("security-group/{}", stacks.output("MastersGroup"))),
        arn(account, "key-pair/a"),
    ];
    for resource in &wrong {
        assert!(!may(resource, &[ours]), "{resource}");
    }
}

fn masters_may_keep_their_own_hosts_only(stacks: &Stacks, account: &Account) {
    let policy = Policy(&stacks.statements["MasterRole"]);
    let (instance, volume) = (arn(account, "instance/i-1"), arn(account, "volume/vol-1"));
    let tag = |name| [("aws:ResourceTag/scale-lnd-deployment", name)];
    let keep = ["TerminateInstances", "StopInstances", "StartInstances", "AttachVolume", "DetachVolume"];
    for action in keep.map(|action| format!("ec2:{action}")) {
        for resource in [&instance, &volume] {
            assert!(policy.allows(&action, resource, &tag(DEPLOYMENT)), "{action}");
            assert!(!policy.allows(&action, resource, &tag("another")), "{action} of another deployment's");
            assert!(!policy.allows(&action, resource, &[]), "{action} of what is nobody's");
        }
    }
    let (run, others) = recovery::ACTIONS.split_first().unwrap();
    assert!(policy.actions().contains(&format!("ec2:{run}").as_str()));
    for action in others {
        let action = format!("ec2:{action}");
        // EC2 asks about instance and volume, each by its own tag, or, where it knows no narrower, about everything.
        let allowed =
            [instance.as_str(), &volume].iter().all(|resource| policy.allows(&action, resource, &tag(DEPLOYMENT)));
        assert!(allowed, "{action}, by which a host is recovered");
    }
    let running = ("ec2:CreateAction", "RunInstances");
    assert!(policy.allows("ec2:CreateTags", &instance, &[running, TAGGED]));
    assert!(!policy.allows("ec2:CreateTags", &instance, &[TAGGED]), "what is there is not made ours");
    assert!(!policy.allows("ec2:CreateTags", &instance, &[("ec2:CreateAction", "CreateVolume"), TAGGED]));
    assert!(!policy.allows("ec2:CreateTags", &instance, &[running, (TAGGED.0, "another")]));

    let to_ec2 = [("iam:PassedToService", "ec2.amazonaws.com")];
    assert!(policy.allows("iam:PassRole", stacks.output("HostRole"), &to_ec2));
    assert!(!policy.allows("iam:PassRole", stacks.output("MasterRole"), &to_ec2));
    let context = |name| [("kms:EncryptionContext:scale-lnd-deployment", name)];
    for action in ["kms:Decrypt", "kms:GenerateDataKeyWithoutPlaintext"] {
        assert!(policy.allows(action, SEALING_KEY, &context(DEPLOYMENT)), "{action}");
        assert!(!policy.allows(action, SEALING_KEY, &context("another")), "{action}");
        assert!(!policy.allows(action, SEALING_KEY, &[]), "{action}");
    }
    // Whatever changes something has a condition.
    let mut free = policy.unconditional();
    free.retain(|action| !action.starts_with("ec2:Describe"));
    assert_eq!(free, ["secretsmanager:GetSecretValue"]);
    assert!(!policy.actions().iter().any(|action| action.contains('*')), "{:?}", policy.actions());
}

/// Who may come in at a port.
fn at(rules: &[IpPermission], port: i32) -> Vec<String> {
    let open = |rule: &&IpPermission| (rule.from_port().unwrap()..=rule.to_port().unwrap()).contains(&port);
    let mut who = Vec::new();
    for rule in rules.iter().filter(open) {
        assert_eq!(rule.ip_protocol(), Some("tcp"));
        who.extend(rule.user_id_group_pairs().iter().map(|pair| pair.group_id().unwrap().to_owned()));
        who.extend(rule.ip_ranges().iter().map(|range| range.cidr_ip().unwrap().to_owned()));
    }
    who.sort_unstable();
    who
}

async fn hosts_are_reached_by_masters_and_peers_only(stacks: &Stacks, account: &Account) {
    let (masters, hosts) = (stacks.output("MastersGroup").to_owned(), stacks.output("HostsGroup").to_owned());
    let rules = account.ingress(&hosts).await;
    for port in [8082, 10100, 10102] {
        assert_eq!(at(&rules, port), [masters.as_str()], "agent and gRPC, port {port}");
    }
    let mut peers = vec!["192.0.2.0/24".to_owned(), hosts.clone(), masters.clone()];
    peers.sort_unstable();
    assert_eq!(at(&rules, 10101), peers, "the peers' port is in the masters' range");
    for port in [22, 443, 10099, 10103] {
        assert!(at(&rules, port).is_empty(), "port {port}");
    }
    let chain = account.ingress(stacks.output("ChainGroup")).await;
    assert_eq!(at(&chain, 18556), [hosts.as_str()]);
    assert!(at(&chain, 22).is_empty());
    let rules = account.ingress(&masters).await;
    assert_eq!((at(&rules, 8080).len(), at(&rules, 8081).len()), (2, 1), "the balancers: {rules:#?}");
    assert!(at(&rules, 8080).iter().all(|who| who.starts_with("sg-") && *who != hosts));
    assert!(at(&rules, 22).is_empty());
}

async fn hosts_are_made_as_they_should(stacks: &Stacks, account: &Account) {
    let data = account.template_data(stacks.output("LaunchTemplate")).await;
    let metadata = data.metadata_options().unwrap();
    assert_eq!(metadata.http_tokens(), Some(&LaunchTemplateHttpTokensState::Required), "IMDSv2 only");
    assert_eq!(metadata.http_put_response_hop_limit(), Some(1));
    assert_eq!(data.iam_instance_profile().unwrap().arn(), Some(stacks.output("HostProfile")));
    assert!(data.user_data().is_none() && data.instance_type().is_none() && data.network_interfaces().is_empty());
    let disks = data.block_device_mappings();
    assert!(disks.iter().all(|disk| disk.ebs().unwrap().encrypted() == Some(true)));
    let kept = disks.iter().filter(|disk| disk.ebs().unwrap().delete_on_termination() == Some(false));
    assert_eq!(kept.count(), 1, "{disks:#?}");
}

/// With all that the stacks give to a master, and little beside.
async fn the_masters_settings_are_sound(stacks: &Stacks) {
    let dir = tempfile::tempdir().unwrap();
    let (config, program) = (dir.path().join("master.toml"), world::program());
    // The file that the page has its reader write, with the files that are named in it; of testnet4 and without a treasury.
    let page = file("docs/aws.md");
    let text = page.split("\n    [deployment]\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let text: String = text.lines().map(|line| format!("{}\n", line.trim())).collect();
    let text = text.split("[treasury]").next().unwrap();
    let here = format!("{}/", dir.path().display());
    std::fs::write(&config, format!("[deployment]\n{}", text.replace("/etc/scale-lnd/", &here))).unwrap();
    for name in ["rpc.cert", "rpc-password", "firestore.json"] {
        let path = dir.path().join(name);
        std::fs::write(&path, "abc").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o400)).unwrap();
    }
    let program = program.to_str().unwrap();
    let seal = dir.path().join("seal.key").display().to_string();
    assert_eq!(command::run(&[program, "seal-key", "generate", &seal], &[]).await.code, Some(0));
    // Masters make themselves a certificate at this place.
    let made = rcgen::generate_simple_self_signed(["scale-lnd".to_owned()]).unwrap();
    let (cert, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let files = [("tls.crt", cert), ("tls.key", key)].map(|(name, text)| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o400)).unwrap();
        (format!("/etc/scale-lnd/{name}"), path.display().to_string())
    });
    let mut settings = stacks.settings();
    for (there, here) in &files {
        settings.iter_mut().filter(|(_, value)| value == there).for_each(|(_, value)| *value = here);
    }
    let env: Vec<_> = settings.into_iter().map(|(name, value)| (name, Some(value))).collect();
    let done = command::run(&[program, "config", "check", "--config", config.to_str().unwrap()], &env).await;
    assert_eq!(done.code, Some(0), "{}", done.err);
    assert!(done.out.contains(&format!("deployment {DEPLOYMENT} on testnet4")), "{}", done.out);
    let set = |name: &str| env.iter().find(|(setting, _)| *setting == name).unwrap().1.unwrap().to_owned();
    assert_eq!(set("SCALE_LND_AGENTS_ADVERTISE"), stacks.output("Agents"));
    assert_eq!(set("SCALE_LND_COMPUTE_MAX_HOSTS"), "7");
}

/// By the script of the masters' user data, for whoever runs the test.
async fn the_files_of_a_secret_are_written(stacks: &Stacks) {
    let dir = tempfile::tempdir().unwrap();
    let (script, folder) = (dir.path().join("files.py"), dir.path().join("etc"));
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(&script, &stacks.boots["MasterTemplate"].files["/usr/local/sbin/scale-lnd-files"]).unwrap();
    let python = moto::python().await;
    let write = async |secret: serde_json::Value| {
        let secret_file = dir.path().join("secret.json");
        std::fs::write(&secret_file, secret.to_string()).unwrap();
        let line = r#""$0" "$1" "$2" "$(id -un)" <"$3""#;
        let paths = [&python, &script, &folder, &secret_file].map(|path| path.to_str().unwrap());
        command::run(&[&["/bin/sh", "-c", line], paths.as_slice()].concat(), &[]).await
    };
    // Twice: the second time they are there.
    for text in ["one\n", "two\n"] {
        let done = write(json!({ "master.toml": text, "treasury.macaroon.base64": "AP8B" })).await;
        assert_eq!(done.code, Some(0), "{}", done.err);
        assert_eq!(std::fs::read_to_string(folder.join("master.toml")).unwrap(), text);
        assert_eq!(std::fs::read(folder.join("treasury.macaroon")).unwrap(), [0, 255, 1]);
    }
    let mode = folder.join("master.toml").metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o400);
    assert_eq!(write(json!({ "../x": "" })).await.code, Some(1));
    assert!(!dir.path().join("x").exists());
}
