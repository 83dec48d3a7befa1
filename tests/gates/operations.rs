//! Operations as a client meets them: accepted, followed, resumed; a close that must be told which channel.

use crate::harness::events::Events;
use crate::harness::{Answer, Api};
use serde_json::{Value, json};

/// `wait=0` is answered 202 with the place to look; the stream there can be left and taken up again.
pub async fn can_be_followed_and_resumed(api: &Api) {
    // More than the channel has, so that a second one is opened, which takes a while.
    let payreq = api.invoice("bob", 200_000).await;
    let body = json!({ "uuid": "alice", "payreq": payreq, "wait": 0 });
    let accepted = api.post("pay", body.clone()).await;
    let location = accepted_at(&accepted);

    let mut stream = Events::follow(api, &location, None).await;
    let first = stream.next().await.expect("the state as it is");
    assert_eq!(first.data["state"], "running", "{first:?}");
    drop(stream);

    let mut stream = Events::follow(api, &location, Some(&first.id)).await;
    let mut rest = Vec::new();
    while let Some(event) = stream.next().await {
        rest.push(event);
    }
    let last = rest.last().expect("something came after the first").clone();
    assert_eq!(last.data["state"], "succeeded", "{:#}", last.data);
    assert!(rest.iter().all(|event| event.id != first.id), "what was seen is not told again");
    assert_eq!(last.data["result"]["payment"]["status"], "SUCCEEDED");

    let shown = api.get(&location, &[]).await.ok();
    assert_eq!(shown, last.data, "the stream and the call say the same");
    assert_eq!(Events::follow(api, &location, Some(&last.id)).await.status(), 204, "nothing more will come");

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
