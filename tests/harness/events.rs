//! The stream of an operation's events.

use super::Api;
use reqwest::{Method, Response, StatusCode};
use serde_json::Value;

/// A server-sent event.
#[derive(Debug, Clone)]
pub struct Event {
    pub id: String,
    pub data: Value,
}

/// A stream as it was answered.
#[derive(Debug)]
pub struct Events {
    response: Response,
    /// What has come of the event after the last one that was told.
    unread: String,
}

impl Events {
    /// Follows the operation at `location`; where somebody left off who saw the event with this id.
    pub async fn follow(api: &Api, location: &str, last_event_id: Option<&str>) -> Self {
        let http = reqwest::Client::new();
        let request = http.request(Method::GET, format!("{}{location}", api.url)).bearer_auth(&api.key);
        let mut request = request.header("accept", "text/event-stream");
        if let Some(id) = last_event_id {
            request = request.header("last-event-id", id);
        }
        Self { response: request.send().await.unwrap(), unread: String::new() }
    }

    pub fn status(&self) -> StatusCode {
        self.response.status()
    }

    /// The next event; `None` when the stream has ended, and in good order.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some((block, rest)) = self.unread.split_once("\n\n").map(|(b, r)| (b.to_owned(), r.to_owned())) {
                self.unread = rest;
                let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
                match (field("id:"), field("data:")) {
                    (Some(id), Some(data)) => {
                        return Some(Event { id: id.to_owned(), data: serde_json::from_str(data).unwrap() });
                    }
                    _ => continue,
                }
            }
            let chunk = self.response.chunk().await.unwrap()?;
            self.unread.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }
}
