//! SIGTERM to a master that is in the middle of a step, with another one beside it.

use crate::harness::world::tail;
use crate::harness::{self, Answer, Api, Deployment, Setup, eventually};
use crate::matrix::stop_between_commits;
use reqwest::Method;
use scale_lnd::dev::reaper::{Exit, Signal};
use scale_lnd::model::node::{Claim, Heartbeat};
use scale_lnd::store::repo;
use scale_lnd::store::sqlite::{SqliteOptions, SqliteStore};
use serde_json::json;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

const POINT: &str = "create.start_lnd.before";
const DEADLINE: Duration = Duration::from_secs(180);

/// A create that stands still in one of two masters.
struct World {
    d: Deployment,
    store: SqliteStore,
    /// The masters: the one that works, and the one that would.
    busy: usize,
    idle: usize,
    /// The call that waits at the busy one.
    waiting: JoinHandle<Answer>,
    operation: String,
    go: PathBuf,
    node: String,
    /// The claim of the busy one.
    claim: Claim,
}

impl World {
    async fn new(setup: Setup) -> Self {
        let mut d = Deployment::start(setup).await;
        d.end_masters().await;
        let faults = d.path("faults");
        std::fs::create_dir_all(&faults).unwrap();
        let plan = format!("{POINT}=pause");
        let env = [("SCALE_LND_FAULT", plan.as_str()), ("SCALE_LND_FAULT_DIR", faults.to_str().unwrap())];
        let busy = d.start_master(&env).await;
        let api = d.api_of(busy);
        let call = api.clone();
        let waiting = tokio::spawn(async move { call.post("create", json!({ "uuid": "alice", "wait": 50 })).await });
        let (reached, log) = (faults.join(format!("{POINT}.reached")), d.masters[busy].log.clone());
        eventually(&format!("{POINT} is reached (log: {})", tail(&log)), Duration::from_secs(60), || async {
            reached.exists().then_some(())
        })
        .await;
        let idle = d.start_master(&[]).await;
        let operations = api.get("operations", &[]).await.ok();
        let operation = operations["operations"][0]["id"].as_str().unwrap().to_owned();
        let node = d.node_id("alice").await;
        let store = SqliteStore::open(&d.path("store.db"), SqliteOptions::default()).await.unwrap();
        let claim = repo::get::<Claim>(&store, &node).await.unwrap().unwrap().value;
        assert!(claim.holder.is_some());
        Self { store, busy, idle, waiting, operation, go: faults.join(format!("{POINT}.go")), node, claim, d }
    }

    async fn claim_now(&self) -> Claim {
        repo::get::<Claim>(&self.store, &self.node).await.unwrap().unwrap().value
    }

    async fn has_heartbeat(&self, claim: &Claim) -> bool {
        let holder = claim.holder.as_ref().unwrap();
        repo::get::<Heartbeat>(&self.store, holder.as_str()).await.unwrap().is_some()
    }

    /// SIGTERM to the busy one, and what all who are there see of it while the step goes on.
    async fn terminate(&mut self) {
        let api = self.d.api_of(self.busy);
        let mut events = self.events(&api).await;
        assert!(events.chunk().await.unwrap().is_some(), "the state as it is now");
        let process = self.d.masters[self.busy].process.clone();
        self.d.signal(&process, Signal::TERM).await;

        let accepted = (&mut self.waiting).await.unwrap();
        assert_eq!((accepted.status, &accepted.body["id"]), (202, &json!(self.operation)), "{accepted:?}");
        while events.chunk().await.expect("an orderly end").is_some() {}
        let ready = api.with_key("").request(Method::GET, "/readyz", &[], None, &[]).await.unwrap();
        assert_eq!(ready.problem(503), "not_ready");
        let asked = api.get(&format!("operations/{}", self.operation), &[]).await.ok();
        assert_eq!(asked["state"], "running", "whoever asks is told");
        assert_eq!(self.claim_now().await, self.claim, "the step goes on under its claim");
    }

    async fn events(&self, api: &Api) -> reqwest::Response {
        let url = format!("{}/lnd/v1/operations/{}", api.url, self.operation);
        let request = reqwest::Client::new().get(url).bearer_auth(&api.key).header("accept", "text/event-stream");
        request.send().await.unwrap()
    }

    async fn ended(&self) -> Exit {
        let mut process = self.d.masters[self.busy].process.clone();
        tokio::time::timeout(Duration::from_secs(30), process.exited()).await.expect("the master ends")
    }

    /// Waits until the work was claimed anew.
    async fn taken_over(&self, at_most: Duration) -> Claim {
        eventually("the other master claims the work", at_most, || async {
            let claim = self.claim_now().await;
            (claim.epoch > self.claim.epoch).then_some(claim)
        })
        .await
    }

    /// The other master brings the create to its end.
    async fn finish(self) {
        let ended = self.d.api_of(self.idle).operation_end(&self.operation, Duration::from_secs(90)).await;
        assert_eq!(ended["state"], "succeeded", "{ended:#}");
        assert_eq!(self.claim_now().await.epoch, self.claim.epoch + 1, "one other master, once");
        self.d.stop().await;
    }
}

/// The lease is so long that nobody could take the work over by waiting.
#[test]
fn a_step_that_ends_in_the_grace_leaves_its_work_to_another_master_at_once() {
    harness::run(DEADLINE, async {
        let more = "shutdown_grace_seconds = 60\n".to_owned();
        let mut world = World::new(Setup { lease_ttl_ms: 60_000, more, ..Setup::default() }).await;
        world.terminate().await;
        // The other one must not be quicker than a look at what is left behind.
        let idle = world.d.masters[world.idle].process.clone();
        stop_between_commits(&world.d, &idle).await;
        std::fs::write(&world.go, b"").unwrap();
        assert_eq!(world.ended().await, Exit::Code(0));
        assert_eq!(world.claim_now().await, Claim { holder: None, ..world.claim.clone() }, "released");
        assert!(!world.has_heartbeat(&world.claim).await, "its heartbeat is gone with it");
        world.d.signal(&idle, Signal::CONT).await;
        let claim = world.taken_over(Duration::from_secs(20)).await;
        assert_ne!(claim.holder, world.claim.holder);
        world.finish().await;
    });
}

#[test]
fn a_step_that_does_not_end_in_the_grace_keeps_its_claim_until_that_is_dead() {
    harness::run(DEADLINE, async {
        let more = "shutdown_grace_seconds = 8\n".to_owned();
        let mut world = World::new(Setup { more, ..Setup::default() }).await;
        world.terminate().await;
        assert_eq!(world.ended().await, Exit::Code(0));
        let ended = Instant::now();
        assert_eq!(world.claim_now().await, world.claim, "not released");
        assert!(world.has_heartbeat(&world.claim).await, "the others wait until it has stood still for long enough");
        world.taken_over(Duration::from_secs(60)).await;
        // The last beat was up to a quarter of a second old, and the reaper tells of an end a little later.
        assert!(ended.elapsed() > Duration::from_millis(2000), "{:?}", ended.elapsed());
        world.finish().await;
    });
}
