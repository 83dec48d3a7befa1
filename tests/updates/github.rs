//! A GitHub of the tests' own, on loopback: the two calls of its API that are made, and a webhook that signs as it does.

use crate::harness::{Api, Served};
use axum::Router;
use axum::extract::{Path, Query, State};
use axum::routing::get;
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, StatusCode};
use scale_lnd::release::signing::{self, NewKey, Protection};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use tokio::sync::watch;

pub const SECRET: &str = "webhook-s3cret";
pub const TOKEN: &str = "ghp_t0ken";
const EXAMPLE: &str = include_str!("../../deploy/fleet.toml");

/// The files of a commit, by path.
type Files = HashMap<String, Vec<u8>>;

#[derive(Debug)]
struct Repository {
    commits: Mutex<HashMap<String, Files>>,
    head: Mutex<Option<String>>,
    /// What every request is answered with, where that is not what it asks for.
    broken: Mutex<Option<StatusCode>>,
    /// Requests wait until it is false.
    held: watch::Sender<bool>,
    requests: watch::Sender<usize>,
}

/// It, and who signs the releases in it.
#[derive(Debug, Clone)]
pub struct GitHub {
    repository: Arc<Repository>,
    pub url: String,
    pub key: Arc<NewKey>,
    _served: Arc<Served>,
}

impl GitHub {
    pub async fn start() -> Self {
        let repository = Arc::new(Repository {
            commits: Mutex::default(),
            head: Mutex::default(),
            broken: Mutex::default(),
            held: watch::channel(false).0,
            requests: watch::channel(0).0,
        });
        let routes = Router::new()
            .route("/repos/acme/fleet/contents/{*path}", get(contents))
            .route("/repos/acme/fleet/commits/main", get(head))
            .with_state(Arc::clone(&repository));
        let served = Arc::new(Served::new(routes).await);
        let key = Arc::new(signing::generate(&Protection::None).unwrap());
        Self { repository, url: served.url.clone(), key, _served: served }
    }

    /// The lines of `[updates]` of a deployment that watches it.
    pub fn section(&self, poll_every_seconds: u64) -> String {
        let key = self.key.public.lines().last().unwrap();
        format!(
            "[updates]\ntrusted_keys = [\"{key}\"]\nrepository = \"acme/fleet\"\napi_url = \"{}\"\n\
             poll_every_seconds = {poll_every_seconds}\n",
            self.url
        )
    }

    /// A commit with these files, and its name.
    pub fn commit(&self, files: &[(&str, &str)]) -> String {
        let files: Files = files.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec())).collect();
        let mut commits = self.repository.commits.lock().unwrap();
        let name = hex::encode(Sha256::digest(commits.len().to_be_bytes()))[..40].to_owned();
        commits.insert(name.clone(), files);
        name
    }

    /// A commit with this manifest, signed.
    pub fn release(&self, manifest: &str) -> String {
        self.signed_by(&self.key, manifest)
    }

    pub fn signed_by(&self, key: &NewKey, manifest: &str) -> String {
        let (signature, _) = signing::sign(manifest.as_bytes(), &key.secret, &Protection::None, "test").unwrap();
        self.commit(&[("deploy/fleet.toml", manifest), ("deploy/fleet.toml.minisig", &signature)])
    }

    pub fn set_head(&self, commit: &str) {
        *self.repository.head.lock().unwrap() = Some(commit.to_owned());
    }

    /// From now on it answers this and nothing else.
    pub fn set_broken(&self, status: Option<u16>) {
        *self.repository.broken.lock().unwrap() = status.map(|status| StatusCode::from_u16(status).unwrap());
    }

    /// Whether requests wait.
    pub fn hold(&self, held: bool) {
        self.repository.held.send_replace(held);
    }

    /// Waits until there were so many requests.
    pub async fn asked(&self, times: usize) {
        self.repository.requests.subscribe().wait_for(|asked| *asked >= times).await.unwrap();
    }

    pub fn requests(&self) -> usize {
        *self.repository.requests.borrow()
    }
}

/// Answers for all that is wrong: nothing without the token.
async fn enter(repository: &Repository, headers: &HeaderMap) -> Result<(), StatusCode> {
    repository.requests.send_modify(|requests| *requests += 1);
    let _ = repository.held.subscribe().wait_for(|held| !held).await;
    if let Some(status) = *repository.broken.lock().unwrap() {
        return Err(status);
    }
    let is_known = headers.get("authorization").is_some_and(|value| value == &format!("Bearer {TOKEN}"));
    if is_known { Ok(()) } else { Err(StatusCode::NOT_FOUND) }
}

async fn contents(
    State(repository): State<Arc<Repository>>,
    Path(path): Path<String>,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
) -> Result<Vec<u8>, StatusCode> {
    enter(&repository, &headers).await?;
    let commits = repository.commits.lock().unwrap();
    let file = query.get("ref").and_then(|at| commits.get(at)).and_then(|files| files.get(&path));
    file.cloned().ok_or(StatusCode::NOT_FOUND)
}

async fn head(State(repository): State<Arc<Repository>>, headers: HeaderMap) -> Result<String, StatusCode> {
    enter(&repository, &headers).await?;
    repository.head.lock().unwrap().clone().ok_or(StatusCode::NOT_FOUND)
}

/// The example, for the tests' deployment, with this serial.
pub fn manifest(serial: u64) -> String {
    let ours =
        [("\"example\"", "\"test\""), ("\"regtest\"", "\"simnet\""), ("serial = 7", &format!("serial = {serial}"))];
    ours.iter().fold(EXAMPLE.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "{from}");
        text.replacen(from, to, 1)
    })
}

/// What GitHub says of a push to the branch.
pub fn push(commit: &str) -> Value {
    json!({ "ref": "refs/heads/main", "after": commit, "deleted": false, "repository": { "full_name": "acme/fleet" } })
}

/// Sends a delivery, signed as GitHub signs. The status and the answer.
pub async fn deliver(api: &Api, id: &str, event: &str, payload: &Value) -> (u16, Value) {
    let body = payload.to_string();
    let mut keyed = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    keyed.update(body.as_bytes());
    let signature = format!("sha256={}", hex::encode(keyed.finalize().into_bytes()));
    let sent = reqwest::Client::new()
        .post(format!("{}/lnd/v1/update", api.url))
        .header("content-type", "application/json")
        .header("x-github-event", event)
        .header("x-github-delivery", id)
        .header("x-hub-signature-256", signature)
        .body(body)
        .send();
    let answer = sent.await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}
