//! Another certificate authority for a deployment that works.

use super::{Calls, LIMIT};
use crate::gates::store::{all, keys, of};
use crate::harness::{self, Deployment, Setup, eventually};
use scale_lnd::app::fleet::Fleet;
use scale_lnd::clock::SystemClock;
use scale_lnd::lndserver::client::Agents;
use scale_lnd::lndserver::proto::RenewRequest;
use scale_lnd::lndserver::proto::fleet_client::FleetClient;
use scale_lnd::model::MasterId;
use scale_lnd::model::host::Host;
use scale_lnd::pki::{self, ClientTls, Credentials, Trust};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(300);

/// As a master has it that opens the store now.
async fn fleet(d: &Deployment) -> Fleet {
    Fleet::open(of(d).await, Arc::new(SystemClock), &keys(d), time::Duration::DAY).await.unwrap()
}

async fn host(d: &Deployment, id: &str) -> Host {
    all::<Host>(&*of(d).await).await.into_iter().find(|host| host.id.as_str() == id).unwrap()
}

/// What the agent has, for whoever took it.
fn taken(d: &Deployment, fleet: &Fleet) -> (Credentials, String) {
    let read = |name: &str| std::fs::read_to_string(d.path("host/agent").join(name)).unwrap();
    (Credentials::from_pem(&read("cert.pem"), &read("key.pem"), &fleet.ca()).unwrap(), read("key.pem"))
}

async fn obeyed(trust: &Trust, own: Credentials, host: &Host) -> bool {
    Agents::new(trust.clone(), own).status(host).await.is_ok()
}

/// Whether a master takes this certificate for one of its hosts.
async fn heard(d: &Deployment, trust: &Trust, (own, key): &(Credentials, String)) -> bool {
    let invitation: Value = serde_json::from_str(&d.config_cli(&["host", "invite", "--json"]).await).unwrap();
    d.config_cli(&["host", "revoke", invitation["host_id"].as_str().unwrap()]).await;
    let request = RenewRequest { csr_pem: pki::make_csr_for(key).unwrap() };
    let masters = invitation["masters"].as_array().unwrap().iter().map(|master| master.as_str().unwrap());
    for master in masters {
        let channel = trust.dial_master(own).unwrap().channel(&ClientTls::endpoint(master).unwrap());
        if FleetClient::new(channel).renew(request.clone()).await.is_ok() {
            return true;
        }
    }
    false
}

async fn pay(d: &Deployment) {
    let payreq = d.api().invoice("bob", 10_000).await;
    let paid = d.api().post("pay", json!({ "uuid": "alice", "payreq": payreq, "wait": 50 })).await;
    assert_eq!(d.api().finished(paid).await.ok()["payment"]["status"], "SUCCEEDED");
}

#[test]
fn another_authority_takes_over_while_users_pay() {
    harness::run(DEADLINE, async {
        let mut d = Deployment::start(Setup { slots: 4, ..Setup::default() }).await;
        d.start_master(&[]).await;
        d.create_users(&["alice", "bob"]).await;
        let calls = Calls::start(&d, "alice");
        calls.some_more().await;
        // What a thief of the authority's key can make, and what somebody took from a host.
        let former = fleet(&d).await;
        let thief = || former.master_credentials(&MasterId::random(&mut rand::rng())).unwrap();
        let first = all::<Host>(&*of(&d).await).await.remove(0);
        let first = first.id.as_str();
        let before = taken(&d, &former);
        assert!(obeyed(&former.trust(), thief(), &host(&d, first).await).await);

        // Killed when the other one issues; and then a host is down.
        let roll = ["keys", "roll-authority"];
        let (paid, killed) = tokio::join!(pay(&d), d.faulty_config_cli(&roll, "authority.issue.after=kill"));
        let () = paid;
        assert_eq!(killed.code, None, "{killed:?}");
        d.kill_agent().await;
        let held_up = d.try_config_cli(&["keys", "roll-authority", "--wait", "5"]).await;
        assert_eq!(held_up.code, Some(1), "{held_up:?}");
        let named = format!("must follow, or be revoked (`scale-lnd host revoke`): {first} (");
        assert!(held_up.err.contains(&named), "{}", held_up.err);
        calls.some_more().await;
        d.start_agent(&[]).await;
        let (paid, said) = tokio::join!(pay(&d), d.config_cli(&roll));
        let () = paid;
        assert!(said.contains("nobody believes another one") && said.contains("begun before"), "{said}");
        calls.some_more().await;

        let now = fleet(&d).await;
        assert!(said.starts_with(&now.ca().fingerprint().to_string()), "{said}");
        let own = || now.master_credentials(&MasterId::random(&mut rand::rng())).unwrap();
        assert!(obeyed(&now.trust(), own(), &host(&d, first).await).await, "its certificate is by the new one");
        assert!(!obeyed(&now.trust(), thief(), &host(&d, first).await).await, "the former is worth nothing");
        assert!(!obeyed(&former.trust(), own(), &host(&d, first).await).await);
        assert!(!heard(&d, &now.trust(), &before).await && heard(&d, &now.trust(), &taken(&d, &now)).await);

        // Orders and reports go on, restarts included, and a new host joins.
        d.create_users(&["carol"]).await;
        d.kill_agent().await;
        d.start_agent(&[]).await;
        calls.end().await;
        d.end_masters().await;
        d.start_master(&[]).await;
        let second = d.another_host("-2", 1).await;
        for id in [first, &second] {
            eventually(&format!("{id} obeys"), LIMIT, || async {
                let host = host(&d, id).await;
                (host.report.is_some() && obeyed(&now.trust(), own(), &host).await).then_some(())
            })
            .await;
        }
        eventually("alice's lnd answers", LIMIT, || async {
            (d.api().get("getinfo", &[("uuid", "alice")]).await.status == 200).then_some(())
        })
        .await;
        d.create_users(&["dave"]).await;
        pay(&d).await;
        d.stop().await;
    });
}
