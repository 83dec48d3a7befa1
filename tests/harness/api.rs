//! A client of the REST API, as an app's backend would have.

use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What came back.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    pub status: u16,
    pub body: Value,
    pub headers: Vec<(String, String)>,
    /// The body as it came.
    pub text: String,
}

impl Answer {
    /// The body of a success; anything else fails the test.
    #[track_caller]
    pub fn ok(self) -> Value {
        assert!((200..300).contains(&self.status), "{} {:#}", self.status, self.body);
        self.body
    }

    /// The code of a problem with this status; anything else fails the test.
    #[track_caller]
    pub fn problem(&self, status: u16) -> &str {
        assert_eq!(self.status, status, "{:#}", self.body);
        self.body["code"].as_str().unwrap_or_else(|| panic!("no code: {:#}", self.body))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

/// One master's API with one key.
#[derive(Debug, Clone)]
pub struct Api {
    http: Client,
    pub url: String,
    pub key: String,
    /// Every answer that this client and its clones got.
    pub seen: Arc<Mutex<Vec<Answer>>>,
}

impl Api {
    pub fn new(url: &str, key: &str) -> Self {
        let http = Client::builder().timeout(Duration::from_secs(70)).build().unwrap();
        Self { http, url: url.trim_end_matches('/').to_owned(), key: key.to_owned(), seen: Arc::default() }
    }

    pub fn with_key(&self, key: &str) -> Self {
        Self { key: key.to_owned(), ..self.clone() }
    }

    /// A call by POST with a JSON body.
    pub async fn post(&self, call: &str, body: Value) -> Answer {
        self.try_post(call, body).await.unwrap()
    }

    /// The same, where the master may be killed meanwhile.
    pub async fn try_post(&self, call: &str, body: Value) -> Result<Answer, reqwest::Error> {
        self.request(Method::POST, call, &[], Some(body), &[]).await
    }

    /// A call by GET with query parameters.
    pub async fn get(&self, call: &str, query: &[(&str, &str)]) -> Answer {
        self.request(Method::GET, call, query, None, &[]).await.unwrap()
    }

    pub async fn request(
        &self,
        method: Method,
        call: &str,
        query: &[(&str, &str)],
        body: Option<Value>,
        headers: &[(&str, &str)],
    ) -> Result<Answer, reqwest::Error> {
        let mut request = self.to(method, call).query(query);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        self.answer(request).await
    }

    /// A POST of any text.
    pub async fn post_text(&self, call: &str, content_type: &str, body: &str) -> Answer {
        let request = self.to(Method::POST, call).header("content-type", content_type).body(body.to_owned());
        self.answer(request).await.unwrap()
    }

    fn to(&self, method: Method, call: &str) -> RequestBuilder {
        let path = if call.starts_with('/') { call.to_owned() } else { format!("/lnd/v1/{call}") };
        let request = self.http.request(method, format!("{}{path}", self.url));
        if self.key.is_empty() { request } else { request.bearer_auth(&self.key) }
    }

    async fn answer(&self, request: RequestBuilder) -> Result<Answer, reqwest::Error> {
        let response = request.send().await?;
        let status = response.status().as_u16();
        let headers =
            response.headers().iter().map(|(n, v)| (n.to_string(), v.to_str().unwrap_or("").to_owned())).collect();
        let text = response.text().await?;
        let body = serde_json::from_str(&text).unwrap_or_else(|_| Value::String(text.clone()));
        let answer = Answer { status, body, headers, text };
        self.seen.lock().unwrap().push(answer.clone());
        Ok(answer)
    }

    /// Creates a user's node and waits until it is there.
    pub async fn create(&self, uuid: &str) -> Value {
        let answer = self.post("create", json!({ "uuid": uuid, "wait": 50 })).await;
        self.finished(answer).await.ok()
    }

    /// Follows an operation that was still running when its call was answered, until it has ended.
    pub async fn finished(&self, answer: Answer) -> Answer {
        if answer.status != 202 {
            return answer;
        }
        let id = answer.body["id"].as_str().unwrap().to_owned();
        let operation = self.operation_end(&id, Duration::from_secs(120)).await;
        let (status, body) = match operation["state"].as_str() {
            Some("succeeded") => (200, operation["result"].clone()),
            // As the call itself would have answered, had it waited for so long.
            _ => (operation["error"]["status"].as_u64().unwrap(), operation["error"].clone()),
        };
        let status = status.try_into().unwrap();
        Answer { status, text: body.to_string(), body, headers: Vec::new() }
    }

    /// The operation, once it has ended.
    pub async fn operation_end(&self, id: &str, at_most: Duration) -> Value {
        let path = format!("operations/{id}");
        super::eventually(&format!("operation {id} ends"), at_most, || async {
            let answer = self.request(Method::GET, &path, &[], None, &[]).await.ok()?;
            let ended = answer.status == 200 && answer.body["state"] != "running";
            ended.then_some(answer.body)
        })
        .await
    }

    /// Makes an invoice and returns the payment request.
    pub async fn invoice(&self, uuid: &str, amt: u64) -> String {
        let answer = self.post("invoice", json!({ "uuid": uuid, "amt": amt })).await.ok();
        answer["payment_request"].as_str().unwrap().to_owned()
    }

    /// Waits until a node has this much in its channels: the payer knows of a payment a moment before the payee's
    /// commitment is final.
    pub async fn in_channels(&self, uuid: &str, sat: u64) {
        super::eventually(&format!("{uuid} has {sat} sat in channels"), Duration::from_secs(10), || async {
            let answer = self.get("channelbalance", &[("uuid", uuid)]).await;
            (answer.body["local_balance"]["sat"].as_str()? == sat.to_string()).then_some(())
        })
        .await;
    }

    /// Waits until a node's wallet has this much confirmed money.
    pub async fn confirmed(&self, uuid: &str, at_least: u64) -> u64 {
        super::eventually(&format!("{uuid} has {at_least} sat confirmed"), Duration::from_secs(60), || async {
            let answer = self.get("walletbalance", &[("uuid", uuid)]).await;
            let confirmed: u64 = answer.body["confirmed_balance"].as_str()?.parse().ok()?;
            (confirmed >= at_least).then_some(confirmed)
        })
        .await
    }
}
