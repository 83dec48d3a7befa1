//! What is done to the processes at a point of a workflow.

use crate::harness::world::tail;
use crate::harness::{Answer, Api, Deployment, eventually};
use reqwest::Method;
use scale_lnd::dev::reaper::{Signal, Spawned};
use serde_json::Value;
use sqlx::ConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;
use std::time::Duration;

/// Who is struck, and how.
#[derive(Debug, Clone, Copy)]
pub enum Blow {
    /// The master is killed at the point, and started again.
    KillMaster,
    /// The master is killed at the point while another runs, which takes over.
    TakeOver,
    /// The master waits at the point while the agent is killed and started again.
    KillAgent,
    /// The master is stopped at the point; another takes over and finishes; then the first is woken.
    StopMaster,
}

/// A call that may be repeated: by its natural key, or by its Idempotency-Key.
#[derive(Debug, Clone)]
pub struct Call {
    path: &'static str,
    body: Value,
    idempotency_key: Option<String>,
}

impl Call {
    pub fn new(path: &'static str, body: Value) -> Self {
        Self { path, body, idempotency_key: None }
    }

    pub fn with_idempotency_key(self, key: &str) -> Self {
        Self { idempotency_key: Some(format!("\"{key}\"")), ..self }
    }

    async fn send(&self, api: &Api) -> Result<Answer, reqwest::Error> {
        let key = self.idempotency_key.as_deref().map(|key| ("idempotency-key", key));
        let headers: Vec<(&str, &str)> = key.into_iter().collect();
        api.request(Method::POST, self.path, &[], Some(self.body.clone()), &headers).await
    }

    /// The answer to the call, which is repeated, as a client does, for as long as it is asked to come back later.
    async fn answer(&self, api: &Api) -> Result<Answer, reqwest::Error> {
        eventually(&format!("{} is taken", self.path), Duration::from_secs(60), || async {
            let answer = self.send(api).await;
            (!answer.as_ref().is_ok_and(|answer| answer.status == 503)).then_some(answer)
        })
        .await
    }

    /// Repeats the call, as a client does that got no answer, until it is done.
    async fn until_done(&self, api: &Api, point: &str) -> Value {
        let what = format!("{} is accepted after {point}", self.path);
        let answer = eventually(&what, Duration::from_secs(60), || async {
            let answer = self.send(api).await.ok()?;
            (answer.status != 503).then_some(answer)
        });
        let answer = api.finished(answer.await).await;
        assert!(answer.status == 200, "{point}: {} {:#}", answer.status, answer.body);
        answer.body
    }
}

/// Sends `call`, strikes at `point`, and sees to it that the call is done in the end, with the same answer for all.
pub async fn strike(d: &mut Deployment, blow: Blow, point: &str, call: &Call) {
    eprintln!("{blow:?} at {point}");
    d.end_masters().await;
    match blow {
        Blow::KillMaster => kill_master(d, point, call).await,
        Blow::TakeOver => take_over(d, point, call).await,
        Blow::KillAgent => kill_agent(d, point, call).await,
        Blow::StopMaster => stop_master(d, point, call).await,
    }
}

async fn kill_master(d: &mut Deployment, point: &str, call: &Call) {
    let doomed = d.start_master(&[("SCALE_LND_FAULT", &format!("{point}=kill"))]).await;
    let unanswered = tokio::spawn({
        let (call, api) = (call.clone(), d.api_of(doomed));
        async move { call.answer(&api).await }
    });
    d.master_died(doomed).await;
    let _lost = unanswered.await.unwrap();
    d.start_master(&[]).await;
    call.until_done(&d.api(), point).await;
}

/// A master that waits at the point, with the call on its way.
async fn paused_master(d: &mut Deployment, point: &str, call: &Call) -> (usize, std::path::PathBuf) {
    let dir = d.path("faults");
    std::fs::create_dir_all(&dir).unwrap();
    let plan = format!("{point}=pause");
    let index =
        d.start_master(&[("SCALE_LND_FAULT", plan.as_str()), ("SCALE_LND_FAULT_DIR", dir.to_str().unwrap())]).await;
    let sent = tokio::spawn({
        let (call, api) = (call.clone(), d.api_of(index));
        async move { call.answer(&api).await }
    });
    let reached = dir.join(format!("{point}.reached"));
    let log = d.masters[index].log.clone();
    let reached = eventually(&format!("{point} is reached (log: {})", tail(&log)), Duration::from_secs(60), || async {
        (reached.exists() || sent.is_finished()).then(|| reached.exists())
    })
    .await;
    assert!(reached, "{point} is not on the way: {:#?}", sent.await.unwrap());
    (index, dir.join(format!("{point}.go")))
}

async fn take_over(d: &mut Deployment, point: &str, call: &Call) {
    let (doomed, _) = paused_master(d, point, call).await;
    let other = d.start_master(&[]).await;
    d.kill_master(doomed).await;
    call.until_done(&d.api_of(other), point).await;
}

async fn kill_agent(d: &mut Deployment, point: &str, call: &Call) {
    let (_, go) = paused_master(d, point, call).await;
    d.kill_agent().await;
    d.start_agent(&[]).await;
    std::fs::write(go, b"").unwrap();
    call.until_done(&d.api(), point).await;
}

async fn stop_master(d: &mut Deployment, point: &str, call: &Call) {
    let (stopped, go) = paused_master(d, point, call).await;
    let process = d.masters[stopped].process.clone();
    stop_between_commits(d, &process).await;
    let second = d.start_master(&[]).await;
    let answer = call.until_done(&d.api_of(second), point).await;
    std::fs::write(go, b"").unwrap();
    d.signal(&process, Signal::CONT).await;
    // The woken one finds that the work is another's.
    let log = d.masters[stopped].log.clone();
    eventually(&format!("the woken master lets go at {point}"), Duration::from_secs(20), || async {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        text.contains("work on this subject ends here").then_some(())
    })
    .await;
    let again = call.until_done(&d.api_of(second), point).await;
    assert_eq!(again, answer, "the same answer before and after the woken master, at {point}");
}

/// Stops the master, all of it.
async fn stop(d: &Deployment, process: &Spawned) {
    d.signal(process, Signal::STOP).await;
    // The signal is sent; until each thread has taken it a commit can still begin.
    eventually("the master stands still", Duration::from_secs(20), || async {
        (process.exit().is_some() || stands_still(process.pid)).then_some(())
    })
    .await;
}

/// Stops the master while it does not hold SQLite's lock. One that is stopped inside a commit keeps everybody from writing
/// until it is woken: nothing can go wrong then, but nothing goes on either, which is SQLite's way and not the point here.
pub async fn stop_between_commits(d: &Deployment, process: &Spawned) {
    let database = d.path("store.db");
    if !database.exists() {
        return stop(d, process).await;
    }
    let options = SqliteConnectOptions::new().filename(database).busy_timeout(Duration::ZERO);
    let mut store = options.connect().await.unwrap();
    for _ in 0..100 {
        stop(d, process).await;
        if sqlx::query("BEGIN IMMEDIATE").execute(&mut store).await.is_ok() {
            sqlx::query("ROLLBACK").execute(&mut store).await.unwrap();
            return;
        }
        d.signal(process, Signal::CONT).await;
    }
    panic!("the master is always in the middle of a commit");
}

/// Whether all threads are stopped (proc(5)).
fn stands_still(pid: i32) -> bool {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return true };
    threads.flatten().all(|thread| {
        let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('T'))
    })
}
