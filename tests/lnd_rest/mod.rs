//! lnd's own REST: what our answers are held against, and a look at a node past our masters. The tests' deployments have it
//! on.

use crate::harness::Deployment;
use scale_lnd::lnd::macaroon::Macaroon;
use serde_json::Value;

/// The REST side of one lnd.
#[derive(Clone, Debug)]
pub struct Rest {
    http: reqwest::Client,
    url: String,
    macaroon: Macaroon,
}

impl Rest {
    /// That of a user's node, with a macaroon that the operator was given for it: what it allows is told as the command line
    /// names it, `read,address`. It stays good when lnd is started again.
    pub async fn of(d: &Deployment, uuid: &str, grants: &str) -> Self {
        let out = d.path(&format!("credentials-{uuid}"));
        let verb = ["node", "credentials", "--app", "app", "--uuid", uuid, "--grant", grants, "--out"];
        let lncli = d.config_cli(&[&verb[..], &[out.to_str().unwrap()]].concat()).await;
        let server = lncli.split_whitespace().find_map(|word| word.strip_prefix("--rpcserver=")).unwrap();
        let (address, rpc_port) = server.rsplit_once(':').unwrap();
        let rest_port = rpc_port.parse::<u16>().unwrap() + 2;
        let macaroon = std::fs::read(out.join(format!("{}.macaroon", grants.replace(',', "-")))).unwrap();
        // Its certificate is not looked at: all of this is on loopback.
        let http = reqwest::Client::builder().danger_accept_invalid_certs(true).build().unwrap();
        Self { http, url: format!("https://{address}:{rest_port}"), macaroon: Macaroon::parse(&macaroon).unwrap() }
    }

    /// What a GET gives.
    pub async fn get(&self, path: &str) -> Value {
        self.send(self.http.get(format!("{}{path}", self.url))).await
    }

    /// What a POST gives.
    pub async fn post(&self, path: &str, body: Value) -> Value {
        self.send(self.http.post(format!("{}{path}", self.url)).json(&body)).await
    }

    /// What a DELETE gives.
    pub async fn delete(&self, path: &str) -> Value {
        self.send(self.http.delete(format!("{}{path}", self.url))).await
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Value {
        let answer = request.header("Grpc-Metadata-macaroon", self.macaroon.hex()).send().await.unwrap();
        let status = answer.status();
        let text = answer.text().await.unwrap();
        assert!(status.is_success(), "{status}: {text}");
        serde_json::from_str(&text).unwrap()
    }
}
