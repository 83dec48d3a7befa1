//! Releases on their way to a deployment: told by GitHub's webhook, found by looking at the branch, or given by an operator's
//! hand; and those that are refused.

mod github;
mod rollout;
mod upgrade;

use crate::harness::deployment::{Deployment, Setup};
use crate::harness::{self, Api, eventually};
use github::{GitHub, SECRET, TOKEN, deliver, manifest, push};
use scale_lnd::release::signing::{self, Protection};
use serde_json::Value;
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(180);
const SOON: Duration = Duration::from_secs(60);
/// So rarely that the test hears nothing of it.
const NEVER: u64 = 86_400;

/// A deployment without a host that watches `github`, and its API for the operator.
async fn watching(github: &GitHub, poll_every_seconds: u64) -> (Deployment, Api) {
    let env =
        vec![("SCALE_LND_UPDATES_TOKEN", TOKEN.to_owned()), ("SCALE_LND_UPDATES_WEBHOOK_SECRET", SECRET.to_owned())];
    let d =
        Deployment::start(Setup { slots: 0, more: github.section(poll_every_seconds), env, ..Setup::default() }).await;
    let operator = d.api().with_key(&d.operator_key().await);
    (d, operator)
}

/// How the operation that a delivery led to has ended.
async fn ended(operator: &Api, id: &str, commit: &str) -> Value {
    let (status, operation) = deliver(operator, id, "push", &push(commit)).await;
    assert_eq!(status, 202, "{operation:#}");
    operator.operation_end(operation["id"].as_str().unwrap(), SOON).await
}

/// The serial that is wanted, and where it was found.
async fn wanted(operator: &Api) -> (Option<u64>, Option<String>) {
    let told = operator.get("update", &[]).await.ok();
    (told["wanted"]["serial"].as_u64(), told["wanted"]["source"].as_str().map(str::to_owned))
}

#[test]
fn a_signed_push_makes_its_release_the_wanted_one() {
    harness::run(DEADLINE, async {
        let github = GitHub::start().await;
        let (mut d, operator) = watching(&github, NEVER).await;
        assert_eq!(wanted(&operator).await, (None, None));

        let first = github.release(&manifest(7));
        let end = ended(&operator, "d1", &first).await;
        assert_eq!(
            (end["state"].as_str(), end["result"]["is_new"].as_bool()),
            (Some("succeeded"), Some(true)),
            "{end:#}"
        );
        assert_eq!(end["result"]["release"]["lnd"], "0.21.2-beta");
        assert_eq!(wanted(&operator).await, (Some(7), Some(first.clone())));
        let rollout = end["result"]["rollout"].as_str().unwrap().strip_prefix("/lnd/v1/").unwrap();
        assert_eq!(operator.get(rollout, &[]).await.ok()["serial"], 7);

        // Sent again nothing happens, and nobody at GitHub is asked.
        let asked = github.requests();
        let (status, again) = deliver(&operator, "d1", "push", &push(&first)).await;
        assert_eq!((status, &again["id"]), (202, &end["id"]));
        assert_eq!(github.requests(), asked);

        // The same release at another commit, and a newer one, of which another master hears.
        let same = ended(&operator, "d2", &github.release(&manifest(7))).await;
        assert_eq!((same["state"].as_str(), same["result"]["is_new"].as_bool()), (Some("succeeded"), Some(false)));
        let other = d.start_master(&[]).await;
        let at_other = d.api_of(other).with_key(&operator.key);
        let newer = github.release(&manifest(8));
        assert_eq!(ended(&at_other, "d3", &newer).await["state"], "succeeded");
        assert_eq!(wanted(&operator).await, (Some(8), Some(newer)));
        assert_eq!(operator.get("update", &[]).await.ok()["rollout"]["serial"], 8);
        let before = operator.get(rollout, &[]).await.ok();
        assert_eq!((&before["state"], &before["superseded_by"]), (&"superseded".into(), &8.into()), "{before:#}");

        // An app learns nothing of it.
        let app = d.api();
        assert_eq!(app.get("update", &[]).await.problem(403), "forbidden");
        assert_eq!(app.get(rollout, &[]).await.problem(403), "forbidden");
        let id = end["id"].as_str().unwrap();
        assert_eq!(app.get(&format!("operations/{id}"), &[]).await.problem(404), "operation_not_found");
        for (path, log) in d.logs() {
            assert!(!log.contains(TOKEN) && !log.contains(SECRET), "{}", path.display());
        }
        d.stop().await;
    });
}

#[test]
fn what_is_no_release_for_this_deployment_changes_nothing() {
    harness::run(DEADLINE, async {
        let github = GitHub::start().await;
        let (d, operator) = watching(&github, NEVER).await;
        let good = github.release(&manifest(7));
        assert_eq!(ended(&operator, "good", &good).await["state"], "succeeded");
        let changed = |from: &str, to: &str| manifest(8).replacen(from, to, 1);
        let stranger = signing::generate(&Protection::None).unwrap();
        let (signature, _) = signing::sign(b"another file", &github.key.secret, &Protection::None, "test").unwrap();
        let forged = [("deploy/fleet.toml", &*manifest(8)), ("deploy/fleet.toml.minisig", &*signature)];
        let unsigned = [("deploy/fleet.toml", &*manifest(8))];
        let commits = [
            ("release_older", github.release(&manifest(6))),
            ("release_serial_taken", github.release(&manifest(7).replace("bake_seconds = 600", "bake_seconds = 1"))),
            ("release_unknown_key", github.signed_by(&stranger, &manifest(8))),
            ("release_signature_wrong", github.commit(&forged)),
            ("release_other_deployment", github.release(&changed("\"test\"", "\"tests\""))),
            ("release_other_network", github.release(&changed("\"simnet\"", "\"mainnet\""))),
            ("release_expired", github.release(&changed("2027-12-31", "2026-01-01"))),
            ("release_malformed", github.release(&changed("canaries = 1", "canaries = -1"))),
            // Those for which GitHub may only be late take their time, so they are the last.
            ("release_not_found", github.commit(&unsigned)),
            ("release_not_found", "0123456789abcdef0123456789abcdef01234567".to_owned()),
        ];
        let mut operations = Vec::new();
        for (number, (code, commit)) in commits.iter().enumerate() {
            let (status, operation) = deliver(&operator, &format!("d{number}"), "push", &push(commit)).await;
            assert_eq!(status, 202, "{code}");
            operations.push((code, operation["id"].as_str().unwrap().to_owned()));
        }
        for (code, id) in operations {
            let end = operator.operation_end(&id, SOON).await;
            assert_eq!(
                (end["state"].as_str(), end["error"]["code"].as_str()),
                (Some("failed"), Some(*code)),
                "{end:#}"
            );
            if *code == "release_malformed" {
                let detail = end["error"]["detail"].as_str().unwrap();
                assert!(detail.contains("line ") && detail.contains("column 12"), "{detail}");
            }
        }
        assert_eq!(wanted(&operator).await, (Some(7), Some(good)));
        d.stop().await;
    });
}

#[test]
fn what_a_lost_webhook_would_have_told_is_found() {
    harness::run(DEADLINE, async {
        let github = GitHub::start().await;
        github.set_broken(Some(502));
        let (d, operator) = watching(&github, 1).await;
        github.asked(2).await;
        let first = github.release(&manifest(7));
        github.set_head(&first);
        github.set_broken(None);
        let is = |serial: u64| {
            let operator = operator.clone();
            move || {
                let operator = operator.clone();
                async move { wanted(&operator).await.0.filter(|wanted| *wanted == serial) }
            }
        };
        eventually("the release at the head of the branch", SOON, is(7)).await;
        // One that is refused is looked at once, and does not keep the next from being found.
        let refused = github.release(&manifest(8).replace("\"test\"", "\"other\""));
        github.set_head(&refused);
        let failed = || async {
            let operations = operator.get("operations", &[]).await.ok();
            let all = operations["operations"].as_array().unwrap().clone();
            all.into_iter().find(|operation| operation["error"]["code"] == "release_other_deployment")
        };
        let operation = eventually("the refusal", SOON, failed).await;
        github.asked(github.requests() + 3).await;
        let still = failed().await.unwrap();
        assert_eq!(still["id"], operation["id"]);
        github.set_head(&github.release(&manifest(9)));
        eventually("the next release", SOON, is(9)).await;
        d.stop().await;
    });
}

#[test]
fn a_look_outlives_the_master_that_began_it() {
    harness::run(DEADLINE, async {
        let github = GitHub::start().await;
        let (mut d, operator) = watching(&github, NEVER).await;
        let before = github.requests();
        github.hold(true);
        let commit = github.release(&manifest(7));
        let begun = tokio::time::Instant::now();
        let (status, operation) = deliver(&operator, "d1", "push", &push(&commit)).await;
        // Answered although nobody has been told anything yet.
        assert_eq!((status, operation["state"].as_str()), (202, Some("running")));
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        github.asked(before + 1).await;
        d.kill_master(0).await;
        let other = d.start_master(&[]).await;
        let at_other = d.api_of(other).with_key(&operator.key);
        github.hold(false);
        let end = at_other.operation_end(operation["id"].as_str().unwrap(), SOON).await;
        assert_eq!(end["state"], "succeeded", "{end:#}");
        assert_eq!(wanted(&at_other).await.0, Some(7));
        d.stop().await;
    });
}

#[test]
fn an_operator_gives_a_release_without_github() {
    harness::run(DEADLINE, async {
        let github = GitHub::start().await;
        let (d, operator) = watching(&github, NEVER).await;
        let write = |serial: u64| {
            let text = manifest(serial);
            let (signature, _) = signing::sign(text.as_bytes(), &github.key.secret, &Protection::None, "test").unwrap();
            std::fs::write(d.path("fleet.toml"), &text).unwrap();
            std::fs::write(d.path("fleet.toml.minisig"), signature).unwrap();
        };
        let path = d.path("fleet.toml").display().to_string();
        write(3);
        let applied = d.config_cli(&["release", "apply", &path]).await;
        assert_eq!(applied, "release 3 is wanted from now on\n");
        assert_eq!(wanted(&operator).await, (Some(3), None));
        assert_eq!(d.config_cli(&["release", "apply", &path]).await, "release 3 is the wanted one already\n");
        write(2);
        let refused = d.try_config_cli(&["release", "apply", &path]).await;
        assert_eq!(refused.code, Some(1));
        assert!(refused.err.contains("release 3 is wanted already: a deployment never goes back"), "{}", refused.err);
        std::fs::write(d.path("fleet.toml"), manifest(4)).unwrap();
        let forged = d.try_config_cli(&["release", "apply", &path]).await;
        assert!(forged.err.contains("is not one of this file as it is"), "{}", forged.err);
        assert_eq!(wanted(&operator).await, (Some(3), None));
        d.stop().await;
    });
}
