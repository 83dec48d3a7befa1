//! Calls of the story, over real HTTP, shown as they are made.

use std::{fmt::Write, time::Duration};

use reqwest::{Client, RequestBuilder, Response, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value};
use tokio::time::sleep;

use crate::dev::{
    error::DevError,
    progress::{Progress, print},
};

const DEADLINE: Duration = Duration::from_secs(60);
const ASK_EVERY: Duration = Duration::from_millis(500);
/// Longer texts are cut when they are shown.
const SHOWN_CHARS: usize = 70;

/// The API as the app `demo` sees it.
pub(super) struct Api {
    http: Client,
    base: String,
    key: SecretString,
    progress: Progress,
}

impl Api {
    pub fn new(url: &str, key: SecretString, progress: Progress) -> Result<Self, DevError> {
        let http = Client::builder().no_proxy().timeout(DEADLINE).build().map_err(failed)?;
        Ok(Self { http, base: format!("{url}/lnd/v1"), key, progress })
    }

    pub fn chapter(&self, title: &str) {
        print(format_args!("\n== {title}\n"));
    }

    /// Says that something is true, or fails.
    pub fn check(&self, what: &str, is_true: bool) -> Result<(), DevError> {
        if is_true {
            self.progress.say(format_args!("   true: {what}"));
            return Ok(());
        }
        self.progress.say(format_args!("   NOT TRUE: {what}"));
        Err(DevError::Unusable(format!("not true: {what}")))
    }

    /// A call by GET, shown; its result once it is done.
    pub async fn done(&self, call: &str, params: &[(&str, &str)]) -> Result<Value, DevError> {
        self.say_get(call, params);
        let answer = self.finish(call, self.http.get(self.url(call)).query(params)).await?;
        self.show(&answer);
        Ok(answer)
    }

    /// A call by POST, shown; its result once it is done.
    pub async fn post(&self, call: &str, params: &[(&str, &str)]) -> Result<Value, DevError> {
        self.progress.say(format_args!("POST {call} {}", shown_params(params)));
        let typed = params.iter().map(|(name, value)| ((*name).to_owned(), typed(value)));
        let body: Map<String, Value> = typed.collect();
        let answer = self.finish(call, self.http.post(self.url(call)).json(&body)).await?;
        self.show(&answer);
        Ok(answer)
    }

    pub fn say_get(&self, call: &str, params: &[(&str, &str)]) {
        self.progress.say(format_args!("GET {call} {}", shown_params(params)));
    }

    /// A call by GET that is not shown.
    pub async fn quiet(&self, call: &str, params: &[(&str, &str)]) -> Result<Value, DevError> {
        self.finish(call, self.http.get(self.url(call)).query(params)).await
    }

    pub fn show(&self, answer: &Value) {
        let text = serde_json::to_string_pretty(&shortened(answer)).unwrap_or_default();
        let mut lines = String::new();
        for line in text.lines() {
            // Writing to a String cannot fail.
            let _ = writeln!(lines, "             {line}");
        }
        print(lines);
    }

    fn url(&self, call: &str) -> String {
        format!("{}/{call}", self.base)
    }

    async fn finish(&self, call: &str, request: RequestBuilder) -> Result<Value, DevError> {
        let (status, mut answer) = self.send(request).await?;
        if status != StatusCode::ACCEPTED {
            return succeeded(call, status, answer);
        }
        // Not done within the time that the call waited: from now on the operation is asked.
        let operation = self.url(&format!("operations/{}", answer["id"].as_str().unwrap_or_default()));
        while answer["state"] == "running" {
            sleep(ASK_EVERY).await;
            let (status, told) = self.send(self.http.get(&operation)).await?;
            answer = succeeded(call, status, told)?;
        }
        match answer["state"].as_str() {
            Some("succeeded") => Ok(answer["result"].take()),
            _ => Err(DevError::Unusable(format!("{call} failed: {}", answer["error"]))),
        }
    }

    async fn send(&self, request: RequestBuilder) -> Result<(StatusCode, Value), DevError> {
        let response: Response = request.bearer_auth(self.key.expose_secret()).send().await.map_err(failed)?;
        Ok((response.status(), response.json().await.map_err(failed)?))
    }
}

fn succeeded(call: &str, status: StatusCode, answer: Value) -> Result<Value, DevError> {
    if status.is_success() {
        return Ok(answer);
    }
    Err(DevError::Unusable(format!("{call} answered {status}: {answer}")))
}

fn failed(source: reqwest::Error) -> DevError {
    DevError::Transport { method: "the API", source }
}

/// A number as lnd's JSON has it (text) or as ours has it (a number); -1 for anything else.
pub(super) fn sat(value: &Value) -> i64 {
    value.as_i64().or_else(|| value.as_str()?.parse().ok()).unwrap_or(-1)
}

fn typed(value: &str) -> Value {
    match value {
        "true" => Value::Bool(true),
        _ => value.parse::<i64>().map_or_else(|_| value.into(), Value::from),
    }
}

fn shown_params(params: &[(&str, &str)]) -> String {
    let shown = params.iter().map(|(name, value)| format!("{name}={}", cut(value)));
    shown.collect::<Vec<_>>().join(" ")
}

/// For people: long texts are cut, and how a payment went through the network is only counted.
fn shortened(value: &Value) -> Value {
    match value {
        Value::String(text) => cut(text).into(),
        Value::Array(items) => items.iter().map(shortened).collect(),
        Value::Object(fields) => {
            let short = |(name, value): (&String, &Value)| match (name.as_str(), value) {
                ("htlcs", Value::Array(htlcs)) => (name.clone(), format!("({} in all)", htlcs.len()).into()),
                _ => (name.clone(), shortened(value)),
            };
            Value::Object(fields.iter().map(short).collect())
        }
        other => other.clone(),
    }
}

fn cut(text: &str) -> String {
    if text.chars().count() <= SHOWN_CHARS {
        return text.to_owned();
    }
    text.chars().take(SHOWN_CHARS - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn long_answers_are_cut_for_people() {
        let long = "x".repeat(200);
        let shown = shortened(&json!({"request": long, "htlcs": [1, 2], "list": [{"n": 1}]}));
        assert_eq!(shown["request"].as_str().unwrap().chars().count(), SHOWN_CHARS);
        assert_eq!(shown["htlcs"], "(2 in all)");
        assert_eq!(shown["list"], json!([{"n": 1}]));
    }

    #[test]
    fn amounts_are_read_as_text_and_as_numbers() {
        assert_eq!((sat(&json!("12")), sat(&json!(12)), sat(&Value::Null)), (12, 12, -1));
    }
}
