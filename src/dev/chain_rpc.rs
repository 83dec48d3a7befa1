//! btcd's JSON-RPC, as far as the local simnet needs it: HTTPS, pinned to the certificate that was made for it.

use std::{fmt::Display, net::SocketAddr, str::FromStr, time::Duration};

use bitcoin::{BlockHash, Txid};
use reqwest::{Certificate, Client};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::error::DevError;

/// No call of ours takes long; mining some hundred blocks is the longest.
const DEADLINE: Duration = Duration::from_secs(60);

/// A client of one btcd. Clones share its connections.
#[derive(Debug, Clone)]
pub struct ChainRpc {
    http: Client,
    url: String,
    user: String,
    password: SecretString,
}

#[derive(Deserialize)]
struct Reply {
    result: Option<Value>,
    error: Option<RpcError>,
}

#[derive(Deserialize)]
struct RpcError {
    code: i64,
    message: String,
}

/// btcd's code for a block that it does not have.
const BLOCK_NOT_FOUND: i64 = -5;

impl ChainRpc {
    /// For the btcd at `address` that shows this certificate (PEM).
    pub fn new(address: SocketAddr, user: &str, password: SecretString, certificate: &[u8]) -> Result<Self, DevError> {
        let build = || -> reqwest::Result<Client> {
            let trusted = [Certificate::from_pem(certificate)?];
            Client::builder().tls_certs_only(trusted).no_proxy().https_only(true).timeout(DEADLINE).build()
        };
        let http = build().map_err(|source| DevError::Transport { method: "connect", source })?;
        Ok(Self { http, url: format!("https://{address}/"), user: user.to_owned(), password })
    }

    pub async fn block_count(&self) -> Result<u32, DevError> {
        self.call("getblockcount", json!([])).await
    }

    pub async fn best_block(&self) -> Result<BlockHash, DevError> {
        const METHOD: &str = "getbestblockhash";
        let hash: String = self.call(METHOD, json!([])).await?;
        parse(METHOD, &hash)
    }

    /// The whole block, serialised, as hexadecimal.
    pub async fn raw_block(&self, hash: BlockHash) -> Result<String, DevError> {
        self.call("getblock", json!([hash.to_string(), 0])).await
    }

    pub async fn has_block(&self, hash: BlockHash) -> Result<bool, DevError> {
        match self.call::<String>("getblockheader", json!([hash.to_string(), false])).await {
            Ok(_) => Ok(true),
            Err(DevError::Rpc { code: BLOCK_NOT_FOUND, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Hands in a block. One that btcd already has is no error.
    pub async fn submit_block(&self, raw: &str) -> Result<(), DevError> {
        const METHOD: &str = "submitblock";
        match self.call::<Option<String>>(METHOD, json!([raw])).await? {
            Some(refusal) if !refusal.contains("already have block") => {
                Err(DevError::Rpc { method: METHOD, code: 0, message: refusal })
            }
            _ => Ok(()),
        }
    }

    /// Mines blocks to the mining address that btcd was started with.
    pub async fn generate(&self, blocks: u32) -> Result<(), DevError> {
        self.call::<Vec<String>>("generate", json!([blocks])).await.map(drop)
    }

    /// The transactions that wait for a block.
    pub async fn mempool(&self) -> Result<Vec<Txid>, DevError> {
        const METHOD: &str = "getrawmempool";
        let txids: Vec<String> = self.call(METHOD, json!([false])).await?;
        txids.iter().map(|txid| parse(METHOD, txid)).collect()
    }

    async fn call<T: DeserializeOwned>(&self, method: &'static str, params: Value) -> Result<T, DevError> {
        let body = json!({"jsonrpc": "1.0", "id": 1, "method": method, "params": params});
        let exchange = async {
            let request = self.http.post(&self.url).json(&body);
            let request = request.basic_auth(&self.user, Some(self.password.expose_secret()));
            request.send().await?.error_for_status()?.json::<Reply>().await
        };
        let reply = exchange.await.map_err(|source| DevError::Transport { method, source })?;
        if let Some(RpcError { code, message }) = reply.error {
            return Err(DevError::Rpc { method, code, message });
        }
        serde_json::from_value(reply.result.unwrap_or_default()).map_err(|error| odd_answer(method, error))
    }
}

fn parse<T: FromStr<Err: Display>>(method: &'static str, text: &str) -> Result<T, DevError> {
    text.parse().map_err(|error| odd_answer(method, error))
}

fn odd_answer(method: &'static str, error: impl Display) -> DevError {
    DevError::Rpc { method, code: 0, message: format!("an answer of another shape: {error}") }
}
