//! A key in moto's KMS, and in front of it a server of the tests' own that can do what moto cannot: refuse, and fail.

use crate::ec2::moto::Moto;
use crate::harness::Served;
use aws_sdk_kms::config::{BehaviorVersion, Credentials, Region};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, header};
use std::sync::{Arc, Mutex};

const REGION: &str = "eu-central-1";
const TARGET: &str = "x-amz-target";
const JSON: &str = "application/x-amz-json-1.1";

/// What AWS's tools find in the environment: nothing of this machine's own.
pub const ENV: [(&str, &str); 5] = [
    ("AWS_CONFIG_FILE", "/nonexistent"),
    ("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent"),
    ("AWS_EC2_METADATA_DISABLED", "true"),
    ("AWS_ACCESS_KEY_ID", "test"),
    ("AWS_SECRET_ACCESS_KEY", "test"),
];

/// What goes wrong, until it is taken back.
#[derive(Debug, Default, Clone, Copy)]
pub struct Faults {
    /// Nothing is allowed.
    pub denied: bool,
    /// The key is about to be deleted.
    pub pending_deletion: bool,
    /// So many of the next calls fail by an accident.
    pub accidents: usize,
}

#[derive(Debug)]
struct Shared {
    moto: String,
    http: reqwest::Client,
    faults: Mutex<Faults>,
    calls: Mutex<Vec<String>>,
}

/// The server; it ends with this.
#[derive(Debug)]
pub struct Kms {
    pub url: String,
    shared: Arc<Shared>,
    _served: Served,
}

impl Kms {
    pub async fn start() -> Self {
        let moto = Moto::shared().await.url.clone();
        let http = reqwest::Client::new();
        let shared = Arc::new(Shared { moto, http, faults: Mutex::default(), calls: Mutex::default() });
        let served = Served::new(Router::new().fallback(answer).with_state(Arc::clone(&shared))).await;
        Self { url: served.url.clone(), shared, _served: served }
    }

    pub fn set(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.shared.faults.lock().unwrap());
    }

    /// The calls since the last time, by name.
    pub fn calls(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.calls.lock().unwrap())
    }

    /// A new key: its ARN.
    pub async fn key() -> String {
        let config = aws_sdk_kms::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(REGION))
            .endpoint_url(&Moto::shared().await.url)
            .credentials_provider(Credentials::new("test", "test", None, None, "test"))
            .build();
        let made = aws_sdk_kms::Client::from_conf(config).create_key().send().await.unwrap();
        made.key_metadata().unwrap().arn().unwrap().to_owned()
    }

    /// The lines of `[seal]` for a key.
    pub fn lines(&self, key: &str) -> String {
        format!("kms_key = \"{key}\"\nkms_endpoint_url = \"{}\"", self.url)
    }
}

async fn answer(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    let target = headers.get(TARGET).and_then(|target| target.to_str().ok()).unwrap_or_default().to_owned();
    let call = target.rsplit('.').next().unwrap_or_default().to_owned();
    shared.calls.lock().unwrap().push(call);
    let faults = {
        let mut faults = shared.faults.lock().unwrap();
        let now = *faults;
        faults.accidents = faults.accidents.saturating_sub(1);
        now
    };
    if faults.accidents > 0 {
        return error(500, "KMSInternalException", "The request was rejected because an internal exception occurred.");
    }
    if faults.denied {
        return error(400, "AccessDeniedException", "User: test is not authorized to perform: kms:Decrypt");
    }
    if faults.pending_deletion {
        return error(400, "KMSInvalidStateException", "The key is pending deletion.");
    }
    let mut request = shared.http.post(format!("{}/", shared.moto)).body(body);
    for name in [header::AUTHORIZATION.as_str(), header::CONTENT_TYPE.as_str(), TARGET] {
        if let Some(value) = headers.get(name) {
            request = request.header(name, value);
        }
    }
    let answer = request.send().await.unwrap();
    (answer.status(), [(header::CONTENT_TYPE, JSON)], answer.text().await.unwrap()).into_response()
}

fn error(status: u16, kind: &str, message: &str) -> Response {
    let body = serde_json::json!({ "__type": kind, "message": message }).to_string();
    (StatusCode::from_u16(status).unwrap(), [(header::CONTENT_TYPE, JSON)], body).into_response()
}
