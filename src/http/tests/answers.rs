//! What is answered about nodes that no lnd needs to be asked for.

use super::*;
use crate::model::app::Scope::{Operator, Read};
use crate::model::host::{Enrolment, Host, Invitation};
use serde_json::json;

#[tokio::test]
async fn strangers_and_other_apps_users_are_the_same_bytes() {
    let api = Api::new().await;
    let (shop, rival) = (api.shop().await, api.key(Some("rival"), &[Read]).await);
    api.node("shop", "alice", Phase::Ready, None).await;
    for call in ["getinfo", "node", "listchannels", "walletbalance", "listinvoices"] {
        let theirs = api.get(&rival, &format!("{call}?uuid=alice")).await;
        let nobodys = api.get(&rival, &format!("{call}?uuid=nobody")).await;
        assert_eq!(theirs.refusal(), (404, "user_not_found".into()), "{call}");
        assert_eq!(theirs.bytes, nobodys.bytes, "{call}");
        let names = |answer: &Answer| answer.headers.keys().map(|name| name.to_string()).collect::<Vec<_>>();
        assert_eq!(names(&theirs), names(&nobodys), "{call}");
    }
    assert_ne!(api.get(&shop, "getinfo?uuid=alice").await.status, StatusCode::NOT_FOUND);
    assert_eq!(api.get(&rival, "nodes").await.json()["nodes"], json!([]));
}

#[tokio::test]
async fn a_node_that_is_not_ready_says_why() {
    use Process::{Running, Stopped};
    let api = Api::new().await;
    let key = api.shop().await;
    let table = [
        ("creating", Phase::Creating, None, 503, "node_creating", Some("creating")),
        ("stopped", Phase::Ready, Some((Stopped, WalletState::Unknown)), 503, "node_stopped", Some("stopped")),
        ("locked", Phase::Ready, Some((Running, WalletState::Locked)), 503, "node_unlocking", Some("unlocking")),
        ("starting", Phase::Ready, Some((Running, WalletState::Unknown)), 503, "node_starting", Some("starting")),
        ("syncing", Phase::Ready, Some((Running, WalletState::RpcActive)), 503, "node_not_synced", Some("not_synced")),
        ("deleted", Phase::Deleted, Some((Stopped, WalletState::Unknown)), 409, "node_deleted", Some("deleted")),
        ("failed", Phase::Failed, None, 404, "user_not_found", None),
    ];
    for (uuid, phase, runtime, status, code, state) in table {
        api.node("shop", uuid, phase, runtime).await;
        let answer = api.get(&key, &format!("getinfo?uuid={uuid}")).await;
        assert_eq!(answer.refusal(), (status, code.to_owned()));
        assert_eq!(answer.headers.contains_key(header::RETRY_AFTER), status == 503, "{uuid}");
        let changing = api.post(&key, "invoice", &json!({"uuid": uuid, "amt": 5})).await;
        assert_eq!(changing.refusal(), (status, code.to_owned()), "{uuid}");
        let node = api.get(&key, &format!("node?uuid={uuid}")).await;
        match state {
            Some(state) => assert_eq!(node.json()["state"], state),
            None => assert_eq!(node.refusal().0, 404),
        }
    }
    let all = api.get(&key, "nodes").await.json();
    assert_eq!(all["nodes"].as_array().map(Vec::len), Some(6), "{all}");
}

/// What was negative is never remembered: a node can be used in the moment in which it can be.
#[tokio::test]
async fn a_node_that_becomes_ready_is_ready_at_once() {
    let api = Api::new().await;
    let key = api.shop().await;
    let id = api.node("shop", "alice", Phase::Creating, Some((Process::Running, WalletState::ServerActive))).await;
    assert_eq!(api.get(&key, "getinfo?uuid=alice").await.refusal().1, "node_creating");
    for _ in 0..20 {
        api.change::<Node>(id.as_str(), |node| node.phase = Phase::Ready).await;
        let code = api.get(&key, "getinfo?uuid=alice").await.refusal().1;
        assert_eq!(code, "internal", "past every gate, the node has no endpoint");
        api.change::<Node>(id.as_str(), |node| node.phase = Phase::Creating).await;
        let stale = async {
            while api.get(&key, "getinfo?uuid=alice").await.refusal().1 != "node_creating" {
                // Out of memory every answer is there at once: the follower of the feed would never have its turn.
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(SOON, stale).await.expect("the change arrives by the feed");
    }
}

#[tokio::test]
async fn lists_come_in_pages() {
    let api = Api::new().await;
    let key = api.shop().await;
    for n in 0..5 {
        api.node("shop", &format!("user{n}"), Phase::Creating, None).await;
        api.node("rival", &format!("user{n}"), Phase::Creating, None).await;
    }
    let mut seen = Vec::new();
    let mut path = "nodes?limit=2".to_owned();
    loop {
        let page = api.get(&key, &path).await.json();
        let nodes = page["nodes"].as_array().expect("a list");
        assert!(nodes.len() <= 2);
        seen.extend(nodes.iter().map(|node| node["uuid"].as_str().expect("a uuid").to_owned()));
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("nodes?limit=2&cursor={cursor}");
    }
    seen.sort();
    assert_eq!(seen, ["user0", "user1", "user2", "user3", "user4"]);
    for bad in ["limit=0", "limit=1001", "limit=x", "cursor=", "cursor=%00"] {
        assert_eq!(api.get(&key, &format!("nodes?{bad}")).await.refusal().0, 400, "{bad}");
    }
}

#[tokio::test]
async fn hosts_are_shown_without_where_they_are() {
    let api = Api::new().await;
    let operator = api.key(None, &[Operator]).await;
    api.put(&Host {
        id: HostId::random(&mut rand::rng()),
        generation: 1,
        enrolment: Enrolment::Invited(Invitation {
            token_sha256: "secret".into(),
            expires_at: OffsetDateTime::UNIX_EPOCH,
            authorities: Vec::new(),
        }),
        address: Some([10, 9, 8, 7].into()),
        agent_port: Some(4242),
        capacity: 3,
        slots: [(0, NodeId::random(&mut rand::rng()))].into(),
        compute: None,
        report: None,
        joined: crate::model::host::Joined::Unknown,
        refused_at: None,
        created_at: OffsetDateTime::UNIX_EPOCH,
    })
    .await;
    let answer = api.get(&operator, "hosts").await;
    let host = &answer.json()["hosts"][0];
    assert_eq!((&host["state"], &host["used"], &host["capacity"]), (&json!("invited"), &json!(1), &json!(3)));
    let text = String::from_utf8(answer.bytes.clone()).expect("text");
    assert!(!text.contains("10.9.8.7") && !text.contains("secret") && !text.contains("4242"), "{text}");
}

#[tokio::test]
async fn answers_are_private_and_named() {
    let api = Api::new().await;
    let key = api.shop().await;
    let (one, two) = (api.get(&key, "nodes").await, api.get(&key, "nodes").await);
    assert_eq!(one.headers[header::CACHE_CONTROL], "no-store");
    assert_eq!(one.headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
    assert_ne!(one.headers["x-request-id"], two.headers["x-request-id"]);
}

#[tokio::test]
async fn money_parameters_are_checked_before_anything_is_asked() {
    let api = Api::new().await;
    let key = api.shop().await;
    let amounts =
        [json!(0), json!(-5), json!(1.5), json!(2_100_000_000_000_001_u64), json!("5"), json!("all"), json!(null)];
    for amt in amounts {
        let answer = api.post(&key, "invoice", &json!({"uuid": "nobody", "amt": amt})).await;
        assert_eq!((answer.refusal().0, answer.faults()), (400, vec!["amt".to_owned()]), "{amt}");
    }
    for (body, fault) in [
        (json!({"uuid": "a", "address": "sb1qqqqqqqqqqqqqqqq"}), "amt"),
        (json!({"uuid": "a", "address": "sb1qqqqqqqqqqqqqqqq", "amt": 5, "all": true}), "amt"),
        (json!({"uuid": "a", "address": "no", "all": true}), "address"),
    ] {
        assert_eq!(api.post(&key, "withdraw", &body).await.faults(), [fault], "{body}");
    }
    let pubkey = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";
    api.node("shop", "alice", Phase::Creating, None).await;
    for host in ["nowhere", "http://a:1", "a:0", "no-such-host.invalid:9735", "169.254.169.254:80", "0.0.0.0:1"] {
        let answer = api.post(&key, "addpeer", &json!({"uuid": "alice", "pubkey": pubkey, "host": host})).await;
        assert_eq!((answer.refusal().0, answer.faults()), (400, vec!["host".to_owned()]), "{host}");
    }
}
