//! Workload identity federation from AWS, as far as it can be seen without either cloud: a credentials file of the form that
//! gcloud writes, whose addresses are a server's on loopback that plays EC2's metadata (IMDSv2), Google's STS and the
//! impersonation. That server checks what it is told by its own means, the signature of the AWS request included.
//! <https://google.aip.dev/auth/4117>, <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>

use super::from_file;
use axum::extract::{Form, State};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use firestore::gcloud_sdk::google_cloud_auth::credentials::CacheableResource;
use hmac::{Hmac, KeyInit, Mac};
use http::{Extensions, HeaderMap, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

const AUDIENCE: &str =
    "//iam.googleapis.com/projects/42/locations/global/workloadIdentityPools/fleet/providers/masters";
const KEY_ID: &str = "ASIAEXAMPLE";
const SECRET_KEY: &str = "wJalrXUtnFEMI/s3cretKEY";
const SESSION: &str = "the-roles-s3ssion";
const SUBJECT: &str = "urn:ietf:params:aws:token-type:aws4_request";

/// What goes wrong at the server.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    Metadata,
    Sts,
    Impersonation,
}

#[derive(Debug, Clone)]
struct Played {
    fault: Option<Fault>,
    asked: Arc<Mutex<Vec<&'static str>>>,
}

impl Played {
    fn note(&self, what: &'static str, fault: Option<Fault>) -> Result<(), StatusCode> {
        self.asked.lock().unwrap().push(what);
        if fault.is_some() && self.fault == fault { Err(StatusCode::FORBIDDEN) } else { Ok(()) }
    }
}

fn has_session(headers: &HeaderMap) {
    assert_eq!(headers["x-aws-ec2-metadata-token"], "imds-session");
}

async fn serve(fault: Option<Fault>) -> (String, Played) {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let played = Played { fault, asked: Arc::default() };
    let routes = Router::new()
        .route("/latest/api/token", put(session))
        .route("/latest/meta-data/placement/availability-zone", get(zone))
        .route("/latest/meta-data/iam/security-credentials", get(role))
        .route("/latest/meta-data/iam/security-credentials/masters", get(keys))
        .route("/v1/token", post(exchange))
        .route(
            "/v1/projects/-/serviceAccounts/masters@p.iam.gserviceaccount.com:generateAccessToken",
            post(impersonate),
        )
        .with_state(played.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, routes).await });
    (url, played)
}

async fn session(State(played): State<Played>, headers: HeaderMap) -> Result<&'static str, StatusCode> {
    played.note("session", None)?;
    assert!(headers.contains_key("x-aws-ec2-metadata-token-ttl-seconds"));
    Ok("imds-session")
}

async fn zone(State(played): State<Played>, headers: HeaderMap) -> Result<&'static str, StatusCode> {
    has_session(&headers);
    played.note("zone", None).map(|()| "eu-central-1b")
}

async fn role(State(played): State<Played>, headers: HeaderMap) -> Result<&'static str, StatusCode> {
    has_session(&headers);
    played.note("role", Some(Fault::Metadata)).map(|()| "masters")
}

async fn keys(State(played): State<Played>, headers: HeaderMap) -> Result<Json<Value>, StatusCode> {
    has_session(&headers);
    played.note("keys", None)?;
    Ok(Json(json!({ "AccessKeyId": KEY_ID, "SecretAccessKey": SECRET_KEY, "Token": SESSION, "Code": "Success" })))
}

async fn exchange(
    State(played): State<Played>,
    Form(form): Form<BTreeMap<String, String>>,
) -> Result<Json<Value>, (StatusCode, Json<Value>)> {
    let refused = |status| (status, Json(json!({ "error": "invalid_grant", "error_description": "not this pool" })));
    played.note("exchange", Some(Fault::Sts)).map_err(refused)?;
    assert_eq!(form["grant_type"], "urn:ietf:params:oauth:grant-type:token-exchange");
    assert_eq!((form["audience"].as_str(), form["subject_token_type"].as_str()), (AUDIENCE, SUBJECT));
    // It is encoded as a form's value is, within the form.
    let (request, _) = form_urlencoded::parse(form["subject_token"].as_bytes()).next().unwrap();
    is_signed(&serde_json::from_str(&request).unwrap());
    let token_type = "urn:ietf:params:oauth:token-type:access_token";
    Ok(Json(json!({
        "access_token": "federated-t0ken", "issued_token_type": token_type, "token_type": "Bearer", "expires_in": 3600,
    })))
}

async fn impersonate(
    State(played): State<Played>,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> Result<Json<Value>, StatusCode> {
    played.note("impersonate", Some(Fault::Impersonation))?;
    assert_eq!(headers["authorization"], "Bearer federated-t0ken");
    assert_eq!(body["scope"], json!(["https://www.googleapis.com/auth/datastore"]));
    Ok(Json(json!({ "accessToken": "masters-t0ken", "expireTime": "2099-01-01T00:00:00Z" })))
}

/// A GetCallerIdentity request that AWS would take: its signature, made anew from what it says.
fn is_signed(request: &Value) {
    let url = request["url"].as_str().unwrap();
    let host_and_query = url.strip_prefix("https://sts.eu-central-1.amazonaws.com/?").unwrap();
    assert_eq!(host_and_query, "Action=GetCallerIdentity&Version=2011-06-15");
    assert_eq!(request["method"], "POST");
    let mut headers: BTreeMap<String, String> = BTreeMap::new();
    for header in request["headers"].as_array().unwrap() {
        let text = |name: &str| header[name].as_str().unwrap().to_owned();
        headers.insert(text("key").to_lowercase(), text("value"));
    }
    let authorization = headers.remove("authorization").unwrap();
    assert_eq!(headers["x-goog-cloud-target-resource"], AUDIENCE);
    assert_eq!(headers["x-amz-security-token"], SESSION);
    let (date, names) = (headers["x-amz-date"].clone(), headers.keys().cloned().collect::<Vec<_>>().join(";"));
    let lines: String = headers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
    let empty = hex::encode(Sha256::digest(b""));
    let canonical = format!("POST\n/\n{host_and_query}\n{lines}\n{names}\n{empty}");
    let scope = format!("{}/eu-central-1/sts/aws4_request", &date[..8]);
    let to_sign = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", hex::encode(Sha256::digest(canonical.as_bytes())));
    let start = format!("AWS4{SECRET_KEY}").into_bytes();
    let key = scope.split('/').fold(start, |key, part| keyed(&key, part));
    let signature = hex::encode(keyed(&key, &to_sign));
    let expected =
        format!("AWS4-HMAC-SHA256 Credential={KEY_ID}/{scope}, SignedHeaders={names}, Signature={signature}");
    assert_eq!(authorization, expected);
}

fn keyed(key: &[u8], text: &str) -> Vec<u8> {
    let mut keyed = Hmac::<Sha256>::new_from_slice(key).unwrap();
    keyed.update(text.as_bytes());
    keyed.finalize().into_bytes().to_vec()
}

/// What a master would send to Firestore with this file.
async fn authorization(url: &str, impersonates: bool) -> Result<String, String> {
    let mut file = json!({
        "universe_domain": "googleapis.com",
        "type": "external_account",
        "audience": AUDIENCE,
        "subject_token_type": SUBJECT,
        "token_url": format!("{url}/v1/token"),
        "credential_source": {
            "environment_id": "aws1",
            "region_url": format!("{url}/latest/meta-data/placement/availability-zone"),
            "url": format!("{url}/latest/meta-data/iam/security-credentials"),
            "regional_cred_verification_url": "https://sts.{region}.amazonaws.com?Action=GetCallerIdentity&Version=2011-06-15",
            "imdsv2_session_token_url": format!("{url}/latest/api/token"),
        },
    });
    if impersonates {
        let account = "masters@p.iam.gserviceaccount.com";
        file["service_account_impersonation_url"] =
            json!(format!("{url}/v1/projects/-/serviceAccounts/{account}:generateAccessToken"));
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("firestore.json");
    std::fs::write(&path, file.to_string()).unwrap();
    let credentials = from_file(&path).map_err(|error| error.to_string())?;
    let headers = credentials.headers(Extensions::new()).await.map_err(|error| super::chain(&error))?;
    let CacheableResource::New { data, .. } = headers else { panic!("nothing is cached") };
    Ok(data["authorization"].to_str().unwrap().to_owned())
}

#[tokio::test]
async fn the_role_of_an_instance_becomes_a_token_of_googles() {
    let (url, played) = serve(None).await;
    assert_eq!(authorization(&url, false).await.unwrap(), "Bearer federated-t0ken");
    assert_eq!(*played.asked.lock().unwrap(), ["session", "zone", "role", "keys", "exchange"]);
    assert_eq!(authorization(&url, true).await.unwrap(), "Bearer masters-t0ken");
    assert_eq!(played.asked.lock().unwrap().last(), Some(&"impersonate"));
}

#[tokio::test]
async fn whoever_refuses_is_told_without_a_secret() {
    for fault in [Fault::Metadata, Fault::Sts, Fault::Impersonation] {
        let (url, _) = serve(Some(fault)).await;
        let error = authorization(&url, true).await.unwrap_err();
        println!("{fault:?}: {error}");
        for secret in [SECRET_KEY, SESSION, "federated-t0ken", "imds-session"] {
            assert!(!error.contains(secret), "{error}");
        }
        assert!(error.contains("403"), "{error}");
    }
}
