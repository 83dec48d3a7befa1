//! Operations as a client meets them: accepted, followed, resumed; a close that must be told which channel.

use crate::harness::{Answer, Api};
use reqwest::{Method, Response};
use serde_json::{Value, json};

/// A server-sent event.
#[derive(Debug, Clone)]
struct Event {
    id: String,
    data: Value,
}

/// `wait=0` is answered 202 with the place to look; the stream there can be left and taken up again.
pub async fn can_be_followed_and_resumed(api: &Api) {
    // More than the channel has, so that a second one is opened, which takes a while.
    let payreq = api.invoice("bob", 200_000).await;
    let body = json!({ "uuid": "alice", "payreq": payreq, "wait": 0 });
    let accepted = api.post("pay", body.clone()).await;
    let location = accepted_at(&accepted);

    let mut stream = follow(api, &location, None).await;
    let first = next_event(&mut stream, &mut String::new()).await.expect("the state as it is");
    assert_eq!(first.data["state"], "running", "{first:?}");
    drop(stream);

    let mut stream = follow(api, &location, Some(&first.id)).await;
    let (mut rest, mut unread) = (Vec::new(), String::new());
    while let Some(event) = next_event(&mut stream, &mut unread).await {
        rest.push(event);
    }
    let last = rest.last().expect("something came after the first").clone();
    assert_eq!(last.data["state"], "succeeded", "{:#}", last.data);
    assert!(rest.iter().all(|event| event.id != first.id), "what was seen is not told again");
    assert_eq!(last.data["result"]["payment"]["status"], "SUCCEEDED");

    let shown = api.get(&location, &[]).await.ok();
    assert_eq!(shown, last.data, "the stream and the call say the same");
    assert_eq!(follow(api, &location, Some(&last.id)).await.status(), 204, "nothing more will come");

    // Asking again tells of the same payment, at once.
    let again = api.post("pay", body).await;
    assert_eq!(again.header("x-operation-id"), accepted.header("x-operation-id"));
    assert_eq!(again.ok(), shown["result"]);
}

fn accepted_at(answer: &Answer) -> String {
    assert_eq!(answer.status, 202, "{:#}", answer.body);
    assert_eq!(answer.body["state"], "running");
    let location = answer.header("location").expect("a Location").to_owned();
    assert_eq!(location, format!("/lnd/v1/operations/{}", answer.body["id"].as_str().unwrap()));
    location
}

async fn follow(api: &Api, location: &str, last_event_id: Option<&str>) -> Response {
    let http = reqwest::Client::new();
    let request = http.request(Method::GET, format!("{}{location}", api.url)).bearer_auth(&api.key);
    let mut request = request.header("accept", "text/event-stream");
    if let Some(id) = last_event_id {
        request = request.header("last-event-id", id);
    }
    request.send().await.unwrap()
}

/// The next event of a stream; `unread` keeps what has come of the one after. `None` when the stream has ended.
async fn next_event(stream: &mut Response, unread: &mut String) -> Option<Event> {
    loop {
        if let Some((block, rest)) = unread.split_once("\n\n").map(|(b, r)| (b.to_owned(), r.to_owned())) {
            *unread = rest;
            let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
            match (field("id:"), field("data:")) {
                (Some(id), Some(data)) => {
                    return Some(Event { id: id.to_owned(), data: serde_json::from_str(data).unwrap() });
                }
                _ => continue,
            }
        }
        let chunk = stream.chunk().await.unwrap()?;
        unread.push_str(std::str::from_utf8(&chunk).unwrap());
    }
}

/// Two channels with one peer and no word about which.
pub async fn a_close_wants_to_know_which_channel(api: &Api) {
    let listed = api.get("listchannels", &[("uuid", "alice")]).await.ok();
    let channels = listed["channels"].as_array().unwrap();
    assert_eq!(channels.len(), 2, "{listed:#}");
    let mut points: Vec<&str> = channels.iter().map(|c| c["channel_point"].as_str().unwrap()).collect();
    points.sort_unstable();
    let peer = &channels[0]["remote_pubkey"];
    let refused = api.post("closechannel", json!({ "uuid": "alice", "pubkey": peer })).await;
    assert_eq!(refused.problem(409), "several_channels");
    assert_eq!(refused.body["faults"][0]["parameter"], "channel_point");
    assert_eq!(*detail(&refused, "channel_points"), json!(points));

    let body = json!({ "uuid": "alice", "pubkey": peer, "channel_point": points[0], "wait": 50 });
    let closed = api.finished(api.post("closechannel", body.clone()).await).await.ok();
    assert_eq!(closed["channel_point"], points[0]);
    assert_eq!(api.finished(api.post("closechannel", body).await).await.ok(), closed, "once, and told again");
    let forced = json!({ "uuid": "alice", "pubkey": peer, "channel_point": points[0], "force": true });
    assert_eq!(api.post("closechannel", forced).await.problem(409), "close_conflict");
}

/// What a problem says besides its code.
pub fn detail<'a>(problem: &'a Answer, name: &str) -> &'a Value {
    problem.body.get(name).unwrap_or(&problem.body["details"][name])
}
