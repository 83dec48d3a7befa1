//! What the real program asks for before it works with real money. No coin and no lnd is near: the network is a name here.

use super::master::{DEADLINE, LIMIT, end, reaper, with_settings};
use super::{PROGRAM, Site};
use crate::harness::{command, within};
use scale_lnd::model::AppId;
use scale_lnd::model::app::{App, Limits};
use scale_lnd::store::Store;
use scale_lnd::store::repo;
use scale_lnd::store::sqlite::{SqliteOptions, SqliteStore};
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::time::timeout;

const LIMITS: [&str; 8] =
    ["--nodes", "5", "--creates-per-hour", "5", "--funding-sat-per-day", "0", "--outgoing-sat-per-day", "100000"];

/// A site on mainnet that lacks all that mainnet asks for.
fn bare() -> Site {
    let site = Site::new();
    let text = std::fs::read_to_string(site.path("scale-lnd.toml")).unwrap();
    site.write("scale-lnd.toml", &text.replace("regtest", "mainnet"));
    site
}

/// A site on mainnet that has it, and the certificate of its API.
fn whole() -> (Site, String) {
    let site = bare();
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    site.write("tls.cert", &made.cert.pem());
    site.write_secret("tls.key", &made.signing_key.serialize_pem());
    let text = std::fs::read_to_string(site.path("scale-lnd.toml")).unwrap();
    let text = text
        .replace("\"mainnet\"", "\"mainnet\"\nmainnet_acknowledged = \"i understand that this is real money\"")
        .replace("[http]", "[http]\ntls_cert = \"tls.cert\"\ntls_key = \"tls.key\"");
    let ceilings =
        "[limits]\nnodes = 10\ncreates_per_hour = 10\nfunding_sat_per_day = 0\noutgoing_sat_per_day = 1000000\n";
    site.write("scale-lnd.toml", &format!("{text}{ceilings}"));
    (site, made.cert.pem())
}

#[test]
fn a_master_does_not_start_on_mainnet_by_accident() {
    let site = bare();
    for verb in [&["config", "check"][..], &["master"]] {
        let refused = site.run(verb);
        assert_eq!(refused.code, Some(2), "{refused:?}");
        let wanted = [
            "deployment.mainnet_acknowledged: is missing: on mainnet it must be \"i understand that this is real money\"",
            "http.tls_cert: is missing: on mainnet the API is HTTPS",
            "limits.nodes: is missing: on mainnet every ceiling is set",
            "limits.creates_per_hour: is missing",
            "limits.funding_sat_per_day: is missing",
            "limits.outgoing_sat_per_day: is missing",
        ];
        for fault in wanted {
            assert!(refused.err.contains(fault), "{fault} is not in {}", refused.err);
        }
        assert_eq!(refused.err.lines().count(), wanted.len(), "{}", refused.err);
    }
    assert!(!site.path("store.db").exists(), "nothing was done");
}

#[test]
fn a_sealing_key_in_the_environment_is_refused_on_mainnet() {
    let (site, _) = whole();
    assert_eq!(site.ok(&["config", "check"]), "the configuration is sound: deployment cli on mainnet\n");
    let config = site.path("scale-lnd.toml");
    let key = "ab".repeat(32);
    let env = [
        ("SCALE_LND_CONFIG", config.to_str()),
        ("SCALE_LND_SEAL_KEY", Some(key.as_str())),
        ("SCALE_LND_SEAL_KEY_VERSION", Some("2")),
    ];
    let refused = command::wait(command::run(&[PROGRAM, "master"], &env));
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.err.contains("SCALE_LND_SEAL_KEY: seal.key: is in the environment"), "{}", refused.err);
    assert!(!refused.err.contains(&key) && !site.path("store.db").exists());
}

#[test]
fn an_app_on_mainnet_has_every_limit_from_its_first_moment_on() {
    let (site, _) = whole();
    let refused = site.run(&["app", "create", "wallet", "--nodes", "5"]);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    for missing in ["--creates-per-hour", "--funding-sat-per-day", "--outgoing-sat-per-day"] {
        assert!(refused.err.contains(&format!("{missing} is missing: on mainnet every limit")), "{}", refused.err);
    }
    assert_eq!(site.json(&["app", "list", "--json"]), json!([]));

    site.ok(&[&["app", "create", "wallet"][..], &LIMITS].concat());
    let refused = site.run(&["app", "limits", "wallet", "--outgoing-sat-per-day", "none"]);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.err.contains("--outgoing-sat-per-day is missing"), "{}", refused.err);
    let apps = site.json(&["app", "list", "--json"]);
    assert_eq!(apps[0]["outgoing_sat_per_day"], "0/100000", "{apps:#}");
    site.ok(&["app", "limits", "wallet", "--nodes", "6"]);
}

/// However an app came to be without limits, the master does no work for it that could cost something.
#[tokio::test]
async fn a_master_on_mainnet_does_nothing_for_an_app_without_limits() {
    within(DEADLINE, async {
        let (site, certificate) = whole();
        site.ok(&[&["app", "create", "wallet"][..], &LIMITS].concat());
        let store = SqliteStore::open(&site.path("store.db"), SqliteOptions::default()).await.unwrap();
        let app =
            App { id: AppId::parse("bare").unwrap(), limits: Limits::default(), created_at: OffsetDateTime::now_utc() };
        store.commit(vec![repo::create(&app).unwrap()]).await.unwrap();
        drop(store);
        let key = site.ok(&["key", "create", "--app", "bare", "--scopes", "read,manage"]);

        let reaper = reaper().await;
        let (mut process, url) = with_settings(&site, &reaper, &[]).await;
        assert!(url.starts_with("https://"), "{url}");
        let trusted = reqwest::Certificate::from_pem(certificate.as_bytes()).unwrap();
        let client = reqwest::Client::builder().timeout(LIMIT).tls_certs_only([trusted]).build().unwrap();
        let becomes_ready = async {
            while client.get(format!("{url}/readyz")).send().await.map(|answer| answer.status().as_u16()).ok()
                != Some(200)
            {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        };
        timeout(LIMIT, becomes_ready).await.unwrap();
        let call =
            client.post(format!("{url}/lnd/v1/create")).bearer_auth(key.trim()).json(&json!({ "uuid": "alice" }));
        let answer = call.send().await.unwrap();
        let status = answer.status().as_u16();
        let problem: Value = answer.json().await.unwrap();
        assert_eq!((status, &problem["code"]), (409, &json!("limit_unset")), "{problem:#}");
        let nodes = client.get(format!("{url}/lnd/v1/nodes")).bearer_auth(key.trim()).send().await.unwrap();
        assert_eq!(nodes.json::<Value>().await.unwrap()["nodes"], json!([]), "nothing was done");
        end(&reaper, &mut process).await;
        timeout(LIMIT, reaper.stop(None)).await.unwrap().unwrap();
    })
    .await;
}
