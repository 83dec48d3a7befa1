//! Holds our JSON against lnd's own REST: the same call on the same node must give the same text, key for key in the
//! same order, value for value.

#![expect(dead_code, reason = "for the tests that have nodes with REST on")]

use std::future::Future;

use scale_lnd::lnd::LndError;
use scale_lnd::lnd::macaroon::Macaroon;
use serde::Serialize;

/// The REST side of one lnd.
#[derive(Clone, Debug)]
pub struct Rest {
    http: reqwest::Client,
    url: String,
    macaroon: Macaroon,
}

/// How often a pair that differs is asked for again: some values (bytes sent, uptime) change by themselves.
const TRIES: usize = 30;

impl Rest {
    /// For the lnd whose `--restlisten` is `address`. The certificate is not looked at: this is for tests on loopback.
    pub fn new(address: &str, macaroon: &Macaroon) -> Self {
        let http = reqwest::Client::builder().danger_accept_invalid_certs(true).build().unwrap();
        Self { http, url: format!("https://{address}"), macaroon: macaroon.clone() }
    }

    /// What a GET gives, without the blanks that Go's protojson strews in.
    pub async fn get(&self, path: &str) -> String {
        self.send(self.http.get(format!("{}{path}", self.url))).await
    }

    /// What a POST gives.
    pub async fn post(&self, path: &str, body: serde_json::Value) -> String {
        self.send(self.http.post(format!("{}{path}", self.url)).json(&body)).await
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> String {
        let answer = request.header("Grpc-Metadata-macaroon", self.macaroon.hex()).send().await.unwrap();
        let status = answer.status();
        let text = answer.text().await.unwrap();
        assert!(status.is_success(), "{status}: {text}");
        compact(&text)
    }

    /// Fails unless `ours` gives, as JSON, what a GET of `path` gives. `ours` is called again for each try.
    pub async fn same<T: Serialize, F: Future<Output = Result<T, LndError>>>(&self, path: &str, ours: impl Fn() -> F) {
        let theirs = || self.get(path);
        compare(path, theirs, ours).await;
    }

    /// Like [`Self::same`], for a POST.
    pub async fn same_post<T: Serialize, F: Future<Output = Result<T, LndError>>>(
        &self,
        path: &str,
        body: serde_json::Value,
        ours: impl Fn() -> F,
    ) {
        let theirs = || self.post(path, body.clone());
        compare(path, theirs, ours).await;
    }
}

async fn compare<T: Serialize, F: Future<Output = Result<T, LndError>>, G: Future<Output = String>>(
    what: &str,
    theirs: impl Fn() -> G,
    ours: impl Fn() -> F,
) {
    let mut pair = (String::new(), String::new());
    for _ in 0..TRIES {
        let our_json = serde_json::to_string(&ours().await.unwrap()).unwrap();
        pair = (our_json, theirs().await);
        if pair.0 == pair.1 {
            return;
        }
    }
    panic!("{what}:\nours  {}\nlnd's {}", pair.0, pair.1);
}

/// Without the white space between tokens.
fn compact(json: &str) -> String {
    let (mut in_string, mut escaped) = (false, false);
    let keep = |c: &char| {
        if in_string {
            in_string = escaped || *c != '"';
            escaped = !escaped && *c == '\\';
            return true;
        }
        in_string = *c == '"';
        !c.is_whitespace()
    };
    json.chars().filter(keep).collect()
}
