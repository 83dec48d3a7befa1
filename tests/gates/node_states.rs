//! Nodes that cannot be called: 503 with Retry-After and a code each; and none of them slows another.

use super::store;
use crate::harness::world::world;
use crate::harness::{Api, Deployment, Setup, eventually};
use futures::future::join_all;
use scale_lnd::app::fleet::Fleet;
use scale_lnd::clock::SystemClock;
use scale_lnd::dev::btcd::{Btcd, mature_chain, start_chain};
use scale_lnd::dev::reaper::Signal;
use scale_lnd::lndserver::client::{Agents, Order};
use scale_lnd::model::MasterId;
use scale_lnd::model::host::Host;
use scale_lnd::model::node::{Claim, Node};
use scale_lnd::store::repo;
use scale_lnd::store::sqlite::{SqliteOptions, SqliteStore};
use serde_json::json;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The process of a user's lnd.
async fn pid_of(d: &Deployment, api: &Api, uuid: &str) -> i32 {
    let node = api.get("node", &[("uuid", uuid)]).await.ok();
    d.lnd_pid_of(node["identity_pubkey"].as_str().unwrap()).await
}

/// The code of a 503 that says when to ask again; `None` for a success.
#[track_caller]
fn unavailable(answer: &crate::harness::Answer) -> Option<String> {
    if answer.status == 200 {
        return None;
    }
    let code = answer.problem(503).to_owned();
    let seconds: u32 = answer.header("retry-after").expect("Retry-After").parse().unwrap();
    assert!(seconds > 0);
    Some(code)
}

/// Calls to a node that is frozen stay where they are, while another node answers.
pub async fn a_dead_node_slows_nobody(d: &Deployment, api: &Api) {
    let pid = pid_of(d, api, "bob").await;
    d.world.reaper.signal(pid, Signal::STOP).await.unwrap();
    let stuck: Vec<_> = (0..50)
        .map(|_| {
            let api = api.clone();
            tokio::spawn(async move { api.get("getinfo", &[("uuid", "bob")]).await })
        })
        .collect();
    // One after the other, and many at once.
    for _ in 0..10 {
        assert_eq!(api.get("getinfo", &[("uuid", "alice")]).await.status, 200);
    }
    let many = join_all((0..20).map(|_| api.get("walletbalance", &[("uuid", "alice")]))).await;
    assert!(many.iter().all(|answer| answer.status == 200));
    let pending = stuck.iter().filter(|call| !call.is_finished()).count();
    d.world.reaper.signal(pid, Signal::CONT).await.unwrap();
    assert!(pending > 0, "the calls to the dead node were over before the others");
    for call in stuck {
        // Woken, it answers; those for which there was no room were told to come back.
        unavailable(&call.await.unwrap());
    }
}

/// Its lnd is killed while the agent sleeps, so that nobody starts it again.
pub async fn a_stopped_node_says_so(d: &mut Deployment, api: &Api) {
    let pid = pid_of(d, api, "bob").await;
    let agent = d.agent.clone().unwrap();
    d.signal(&agent, Signal::STOP).await;
    d.world.reaper.signal(pid, Signal::KILL).await.unwrap();
    let code = eventually("the killed lnd is noticed", Duration::from_secs(10), || async {
        unavailable(&api.get("getinfo", &[("uuid", "bob")]).await)
    })
    .await;
    assert_eq!(code, "node_unreachable");
    let payreq = api.invoice("alice", 1_000).await;
    for (call, body) in [
        ("invoice", json!({ "uuid": "bob", "amt": 5 })),
        ("newaddress", json!({ "uuid": "bob" })),
        ("pay", json!({ "uuid": "bob", "payreq": payreq })),
        ("withdraw", json!({ "uuid": "bob", "address": super::money::ADDRESS, "amt": 1_000 })),
        ("closechannel", json!({ "uuid": "bob", "pubkey": super::payreqs::SOMEBODY })),
    ] {
        let answer = api.post(call, body).await;
        assert!(unavailable(&answer).is_some_and(|code| code.starts_with("node_")), "{call}: {}", answer.text);
    }
    let node = api.get("node", &[("uuid", "bob")]).await.ok();
    assert_ne!(node["state"], "ready", "{node:#}");

    d.signal(&agent, Signal::CONT).await;
    let codes = std::sync::Mutex::new(Vec::new());
    eventually("the node is back", Duration::from_secs(60), || async {
        let code = unavailable(&api.get("getinfo", &[("uuid", "bob")]).await);
        code.map_or(Some(()), |code| {
            codes.lock().unwrap().push(code);
            None
        })
    })
    .await;
    let codes = codes.into_inner().unwrap();
    let known = ["node_unreachable", "node_starting", "node_unlocking", "node_not_synced", "node_stopped"];
    assert!(codes.iter().all(|code| known.contains(&code.as_str())), "{codes:?}");
}

/// With the agent asleep a create gets nowhere.
pub async fn a_node_being_created_says_so(d: &Deployment, api: &Api) {
    let agent = d.agent.clone().unwrap();
    d.signal(&agent, Signal::STOP).await;
    let accepted = api.post("create", json!({ "uuid": "carol", "wait": 0 })).await;
    assert_eq!(accepted.status, 202, "{}", accepted.text);
    for call in ["getinfo", "newaddress"] {
        let answer = api.get(call, &[("uuid", "carol")]).await;
        assert_eq!(unavailable(&answer).as_deref(), Some("node_creating"));
    }
    assert_eq!(api.get("node", &[("uuid", "carol")]).await.ok()["state"], "creating");
    d.signal(&agent, Signal::CONT).await;
    api.finished(accepted).await.ok();
    assert_eq!(api.get("getinfo", &[("uuid", "carol")]).await.status, 200);
}

/// A master that waits before it unlocks.
pub async fn a_locked_node_says_so(d: &mut Deployment) -> Api {
    d.end_masters().await;
    let faults = d.path("faults");
    std::fs::create_dir_all(&faults).unwrap();
    let point = "upkeep.unlock.before";
    let plan = format!("{point}=pause");
    d.start_master(&[("SCALE_LND_FAULT", &plan), ("SCALE_LND_FAULT_DIR", faults.to_str().unwrap())]).await;
    let api = d.api();
    let pid = pid_of(d, &api, "bob").await;
    d.world.reaper.signal(pid, Signal::KILL).await.unwrap();
    eventually("the master is about to unlock", Duration::from_secs(30), || async {
        faults.join(format!("{point}.reached")).exists().then_some(())
    })
    .await;
    let answer = api.get("getinfo", &[("uuid", "bob")]).await;
    assert_eq!(unavailable(&answer).as_deref(), Some("node_unlocking"));
    let refused = api.post("invoice", json!({ "uuid": "bob", "amt": 5 })).await;
    assert_eq!(unavailable(&refused).as_deref(), Some("node_unlocking"));
    assert_eq!(api.get("node", &[("uuid", "bob")]).await.ok()["state"], "unlocking");
    std::fs::write(faults.join(format!("{point}.go")), b"").unwrap();
    eventually("the node is unlocked", Duration::from_secs(60), || async {
        unavailable(&api.get("getinfo", &[("uuid", "bob")]).await).is_none().then_some(())
    })
    .await;
    api
}

/// A btcd of a test's own.
pub struct Chain {
    btcd: Btcd,
    dir: PathBuf,
}

/// A deployment on a chain that nobody else needs.
pub async fn on_a_chain_of_its_own() -> (Deployment, Chain) {
    let world = world().await;
    let dir = tempfile::Builder::new().prefix("chain-").tempdir_in(world.dir.path()).unwrap().keep();
    let address = super::money::ADDRESS;
    let (btcd, mut kept, _) = start_chain(&world.reaper, &world.binaries.btcd, &dir, address).await.unwrap();
    mature_chain(&btcd, &mut kept).await.unwrap();
    let setup = Setup { chain: Some(btcd.access.clone()), initial_funding_sat: 0, ..super::setup() };
    (Deployment::start(setup).await, Chain { btcd, dir })
}

/// Its btcd has lost the blocks that lnd has seen.
pub async fn a_node_that_is_behind_the_chain_says_so(d: &Deployment, chain: Chain) {
    let (api, reaper, program) = (d.api(), &d.world.reaper, &d.world.binaries.btcd);
    api.create("alice").await;
    chain.btcd.stop(reaper).await.unwrap();
    std::fs::remove_dir_all(chain.dir.join("data")).unwrap();
    let empty = Btcd::start(reaper, program, &chain.dir, None).await.unwrap();
    assert_eq!(empty.rpc.block_count().await.unwrap(), 0);
    reaper.signal(pid_of(d, &api, "alice").await, Signal::KILL).await.unwrap();
    says(&api, "node_not_synced", "not_synced").await;

    empty.stop(reaper).await.unwrap();
    let (btcd, _, restored) = start_chain(reaper, program, &chain.dir, super::money::ADDRESS).await.unwrap();
    assert_eq!(restored, 400);
    reaper.signal(pid_of(d, &api, "alice").await, Signal::KILL).await.unwrap();
    eventually("the node is synced again", Duration::from_secs(60), || async {
        unavailable(&api.get("getinfo", &[("uuid", "alice")]).await).is_none().then_some(())
    })
    .await;
    assert!(btcd.rpc.block_count().await.unwrap() > 400);
}

/// A master of this deployment orders the agent to stop it.
pub async fn a_node_that_was_stopped_by_an_order_says_so(d: &Deployment) {
    let api = d.api();
    let id = d.node_id("alice").await;
    let store = Arc::new(SqliteStore::open(&d.path("store.db"), SqliteOptions::default()).await.unwrap());
    let life = time::Duration::days(1);
    let fleet = Fleet::open(store.clone(), Arc::new(SystemClock), &store::keys(d), life).await.unwrap();
    let own = fleet.master_credentials(&MasterId::random(&mut rand::rng())).unwrap();
    let agents = Agents::new(fleet.trust(), own);
    let node = repo::get::<Node>(&*store, &id).await.unwrap().unwrap().value;
    let host = repo::get::<Host>(&*store, node.placement.unwrap().host.as_str()).await.unwrap().unwrap().value;
    let epoch = repo::get::<Claim>(&*store, &id).await.unwrap().unwrap().value.epoch;
    agents.stop_node(Order { host: &host, epoch }, &node.id).await.unwrap();
    says(&api, "node_stopped", "stopped").await;
}

/// From some moment on alice's node is told to be that, by every call.
async fn says(api: &Api, code: &str, state: &str) {
    eventually(code, Duration::from_secs(60), || async {
        (unavailable(&api.get("getinfo", &[("uuid", "alice")]).await).as_deref() == Some(code)).then_some(())
    })
    .await;
    for (call, body) in [
        ("getinfo", json!({ "uuid": "alice" })),
        ("invoice", json!({ "uuid": "alice", "amt": 5 })),
        ("pay", json!({ "uuid": "alice", "payreq": super::payreqs::good(1_000) })),
        ("withdraw", json!({ "uuid": "alice", "address": super::money::ADDRESS, "amt": 1_000 })),
    ] {
        let answer = api.post(call, body).await;
        assert_eq!(unavailable(&answer).as_deref(), Some(code), "{call}: {}", answer.text);
    }
    assert_eq!(api.get("node", &[("uuid", "alice")]).await.ok()["state"], state);
}
