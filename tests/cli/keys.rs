//! Sealing keys: where they come from, what is said when they cannot be had, and changing them.

use super::Site;
use super::master::{DEADLINE, LIMIT, end, master, ready, reaper};
use crate::harness::{command, eventually, ports, within};
use crate::keys::kms::{ENV, Kms};
use scale_lnd::dev::reaper::{Reaper, Spawned};
use scale_lnd::model::node::Heartbeat;
use scale_lnd::store::repo;
use scale_lnd::store::sqlite::{SqliteOptions, SqliteStore};
use serde_json::json;
use tokio::time::timeout;

const LOST: &str = "the sealing key does not open this store: sealed under key version";

impl Site {
    fn seal(&self, lines: &str) {
        let config = std::fs::read_to_string(self.path("scale-lnd.toml")).unwrap();
        let (before, rest) = config.split_once("[seal]\n").unwrap();
        let (_, after) = rest.split_once("[http]").unwrap();
        self.write("scale-lnd.toml", &format!("{before}[seal]\n{lines}\n[http]{after}"));
    }

    /// Key files of these versions; those that are missing are made.
    pub(super) fn seal_by_files(&self, versions: &[u32]) {
        let name = |version: &u32| if *version == 1 { "seal.key".to_owned() } else { format!("seal-{version}.key") };
        for path in versions.iter().map(|version| self.path(&name(version))).filter(|path| !path.exists()) {
            self.ok(&["keys", "generate", path.to_str().unwrap()]);
        }
        let files: Vec<_> = versions.iter().map(|version| format!("\"{version}:{}\"", name(version))).collect();
        self.seal(&format!("key_files = [{}]", files.join(", ")));
    }
}

#[test]
fn an_older_key_can_be_destroyed_after_a_rotation() {
    let site = Site::new();
    site.ok(&["host", "invite", "--slots", "2", "--json"]);
    let refused = site.run(&["keys", "rotate"]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.err.contains("there is no newer sealing key than version 1"), "{}", refused.err);
    site.seal_by_files(&[1, 2]);
    site.ok(&["host", "list"]);
    site.seal_by_files(&[1]);
    site.ok(&["host", "list"]);
    site.seal_by_files(&[1, 2]);
    assert!(site.ok(&["keys", "rotate"]).starts_with("1 secrets were sealed again under sealing key 2"));
    assert_eq!(site.json(&["keys", "list", "--json"]), json!([{"version": 2, "state": "seals", "wrapped_by": null}]));
    std::fs::remove_file(site.path("seal.key")).unwrap();
    site.seal_by_files(&[2]);
    // The authority's key opens: an invitation needs it.
    assert_eq!(site.json(&["host", "invite", "--json"])["join_token"].as_str().map(str::len), Some(25 + 1 + 64));
    site.seal_by_files(&[1]);
    let refused = site.run(&["host", "list"]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.err.contains(LOST), "{}", refused.err);
}

#[test]
fn a_rotation_that_is_killed_anywhere_is_finished_by_the_next() {
    let site = Site::new();
    site.ok(&["host", "invite", "--slots", "2", "--json"]);
    let points =
        ["announce.before", "announce.after", "switch.before", "switch.after", "retire.before", "retire.after"];
    for (version, point) in (2..).zip(points) {
        site.seal_by_files(&[version - 1, version]);
        let fault = format!("keys.{point}=kill");
        let killed = site.run_in(&["keys", "rotate"], &[("SCALE_LND_FAULT", &fault)]);
        assert_eq!(killed.code, None, "{point}: {killed:?}");
        // Whatever has become of it: with both keys the Store opens, and so does what is in it.
        site.ok(&["host", "invite", "--json"]);
        let again = site.run(&["keys", "rotate"]);
        match point {
            "retire.after" => assert!(again.err.contains("there is no newer sealing key"), "{point}: {again:?}"),
            "announce.before" => assert!(!again.out.contains("had been begun before"), "{point}: {again:?}"),
            _ => assert!(again.out.contains("had been begun before"), "{point}: {again:?}"),
        }
        let only = json!([{"version": version, "state": "seals", "wrapped_by": null}]);
        assert_eq!(site.json(&["keys", "list", "--json"]), only, "{point}");
        site.seal_by_files(&[version]);
        site.ok(&["host", "invite", "--json"]);
    }
}

#[test]
fn a_change_of_the_authority_that_is_killed_anywhere_is_finished_by_the_next() {
    let site = Site::new();
    site.ok(&["host", "list"]);
    let mut known = std::collections::HashSet::new();
    let points = ["announce", "issue", "retire", "end"].map(|step| [format!("{step}.before"), format!("{step}.after")]);
    for point in points.as_flattened() {
        let fault = format!("authority.{point}=kill");
        let killed = site.run_in(&["keys", "roll-authority"], &[("SCALE_LND_FAULT", &fault)]);
        assert_eq!(killed.code, None, "{point}: {killed:?}");
        // Whatever has become of it: whoever is invited now, and soon revoked, finds a master.
        let invitation = site.json(&["host", "invite", "--json"]);
        site.ok(&["host", "revoke", invitation["host_id"].as_str().unwrap()]);
        let pins = invitation["ca_fingerprint"].as_str().unwrap().split(',').count();
        let both = ["announce.after", "issue.before", "issue.after", "retire.before"].contains(&point.as_str());
        assert_eq!(pins, if both { 2 } else { 1 }, "{point}");
        let finished = site.ok(&["keys", "roll-authority", "--wait", "0"]);
        let goes_on = !["announce.before", "end.after"].contains(&point.as_str());
        assert_eq!(finished.contains("had been begun before"), goes_on, "{point}: {finished}");
        let authority = finished.split_whitespace().next().unwrap().to_owned();
        assert_eq!(site.json(&["host", "invite", "--json"])["ca_fingerprint"], json!(authority), "{point}");
        for host in site.json(&["host", "list", "--json"]).as_array().unwrap() {
            site.ok(&["host", "revoke", host["host"].as_str().unwrap()]);
        }
        assert!(known.insert(authority), "{point}");
    }
}

/// A master whose heartbeat can be seen beside those of others.
async fn started(site: &Site, reaper: &Reaper, others: usize) -> Spawned {
    std::fs::remove_file(site.path("ready.json")).ok();
    let process = reaper.spawn(master(site).arg("--set").arg("master.lease_ttl_ms=1000")).await.unwrap();
    ready(site).await;
    let store = SqliteStore::open(&site.path("store.db"), SqliteOptions::default()).await.unwrap();
    eventually("the master's heart beats", LIMIT, || async {
        let beating = repo::list_all::<Heartbeat>(&store, None).await.unwrap().len();
        (beating == others + 1).then_some(())
    })
    .await;
    process
}

#[tokio::test]
async fn a_master_without_the_new_key_is_named_and_goes_on() {
    within(2 * DEADLINE, async {
        let (site, reaper) = (Site::new(), reaper().await);
        let mut old = started(&site, &reaper, 0).await;
        site.seal_by_files(&[1, 2]);
        let refused = site.run(&["keys", "rotate", "--wait", "4"]);
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(refused.err.contains("these masters run without sealing key 2: m"), "{}", refused.err);
        assert_eq!(old.exit(), None, "it goes on");

        let mut new = started(&site, &reaper, 1).await;
        site.seal_by_files(&[1]);
        let late = site.run(&["master"]);
        assert_eq!(late.code, Some(1), "{late:?}");
        assert!(late.err.contains(LOST), "{}", late.err);

        site.seal_by_files(&[1, 2]);
        end(&reaper, &mut old).await;
        let finished = site.ok(&["keys", "rotate"]);
        assert!(finished.contains("had been begun before"), "{finished}");
        assert_eq!(new.exit(), None, "the one that has both goes on");
        end(&reaper, &mut new).await;
        timeout(LIMIT, reaper.stop(None)).await.unwrap().unwrap();
    })
    .await;
}

#[test]
fn without_kms_a_master_does_not_start_and_says_why() {
    let site = Site::new();
    let (kms, key) = command::wait(async { (Kms::start().await, Kms::key().await) });
    site.seal(&kms.lines(&key));
    let says = |env: &[(&str, &str)], words: &[&str]| {
        let refused = site.run_in(&["master"], env);
        assert_eq!((refused.code, refused.err.lines().filter(|l| l.starts_with("scale-lnd: ")).count()), (Some(1), 1));
        for word in words {
            assert!(refused.err.contains(word), "{word}: {}", refused.err);
        }
    };
    kms.set(|faults| faults.denied = true);
    says(&ENV, &["KMS refuses to use", &key, "kms:Decrypt and kms:GenerateDataKeyWithoutPlaintext"]);
    kms.set(|faults| faults.denied = false);
    says(&ENV[..3], &["there are no usable AWS credentials"]);
    // Nothing was made by all that.
    assert!(site.run_in(&["app", "create", "wallet"], &ENV).err.contains("a new store was made"));

    kms.set(|faults| faults.pending_deletion = true);
    says(&ENV, &["cannot be used now", "cancel its deletion"]);
    // What passes soon is tried again.
    kms.set(|faults| *faults = crate::keys::kms::Faults { accidents: 2, ..Default::default() });
    let listed = site.run_in(&["app", "list"], &ENV);
    assert_eq!(listed.code, Some(0), "{listed:?}");
    let nowhere = format!("http://127.0.0.1:{}", ports::free(1));
    site.seal(&format!("kms_key = \"{key}\"\nkms_endpoint_url = \"{nowhere}\""));
    says(&ENV, &["KMS does not answer, or not as it should, again and again"]);

    let other = command::wait(Kms::key());
    site.seal(&kms.lines(&other));
    says(&ENV, &["sealing key 1 is wrapped by", &key, "seal.kms_former_keys"]);
    site.seal("key_file = \"seal.key\"");
    says(&ENV, &["sealing key 1 is wrapped by", &key]);
}

#[test]
fn keys_move_from_a_file_to_kms_and_from_one_kms_key_to_another() {
    let site = Site::new();
    site.ok(&["host", "invite", "--json"]);
    let (kms, first, second) = command::wait(async { (Kms::start().await, Kms::key().await, Kms::key().await) });
    let ok = |args: &[&str]| {
        let done = site.run_in(args, &ENV);
        assert_eq!(done.code, Some(0), "{done:?}");
        done.out
    };
    site.seal(&format!("key_file = \"seal.key\"\n{}", kms.lines(&first)));
    ok(&["keys", "rotate"]);
    std::fs::remove_file(site.path("seal.key")).unwrap();
    site.seal(&kms.lines(&first));
    ok(&["host", "invite", "--json"]);

    site.seal(&format!("{}\nkms_former_keys = [\"{first}\"]", kms.lines(&second)));
    ok(&["keys", "rotate"]);
    site.seal(&kms.lines(&second));
    ok(&["host", "invite", "--json"]);
    let listed: serde_json::Value = serde_json::from_str(&ok(&["keys", "list", "--json"])).unwrap();
    assert_eq!(listed, json!([{ "version": 3, "state": "seals", "wrapped_by": second }]));
    // No plaintext of a key was ever in the Store: what is there is what KMS has wrapped.
    assert!(kms.calls().iter().all(|call| ["Decrypt", "GenerateDataKeyWithoutPlaintext"].contains(&call.as_str())));
}

#[test]
fn config_check_names_what_is_wrong_with_kms() {
    let site = Site::new();
    let faults = |lines: &str| {
        site.seal(lines);
        let faulty = site.run(&["config", "check"]);
        assert_eq!(faulty.code, Some(2), "{lines}: {faulty:?}");
        faulty.err
    };
    assert!(faults("kms_key = \"alias/seal\"").contains("seal.kms_key: must be the ARN of a key"));
    let key = "kms_key = \"arn:aws:kms:eu-central-1:111122223333:key/1234\"";
    assert!(faults(&format!("{key}\nkms_endpoint_url = \"kms\"")).contains("seal.kms_endpoint_url: must begin with"));
    let alone = faults("key_file = \"seal.key\"\nkms_former_keys = []");
    assert!(alone.contains("seal.kms_former_keys: means nothing without kms_key"), "{alone}");
    assert!(faults("").contains("seal.key_file: is missing: give key_file, key_files, kms_key or"));
    site.seal(key);
    assert_eq!(site.run(&["config", "check"]).code, Some(0));
}
