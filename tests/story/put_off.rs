//! A payee that can take no channel just now: it has not heard of the newest block yet, or has one pending.

use crate::harness::{self, Answer, Api, Deployment, Setup, eventually};
use futures::StreamExt;
use prost::Message;
use scale_lnd::lnd::macaroon::Macaroon;
use scale_lnd::lnd::{PinnedCert, pinned_channel};
use serde_json::json;
use std::time::Duration;
use tonic::codegen::http::uri::PathAndQuery;

const DEADLINE: Duration = Duration::from_secs(240);

/// `lnrpc.ChannelAcceptRequest`, as far as it is looked at.
#[derive(Clone, PartialEq, Message)]
struct Asked {
    #[prost(bytes = "vec", tag = "3")]
    pending_chan_id: Vec<u8>,
}

/// `lnrpc.ChannelAcceptResponse`, as far as it is used.
#[derive(Clone, PartialEq, Message)]
struct Said {
    #[prost(bool, tag = "1")]
    accept: bool,
    #[prost(bytes = "vec", tag = "2")]
    pending_chan_id: Vec<u8>,
    #[prost(string, tag = "3")]
    error: String,
}

/// Lets a user's lnd refuse channels with these words, so often; how often it was asked is told in the end.
struct Refusing {
    asked: tokio::sync::watch::Receiver<u32>,
    task: tokio::task::JoinHandle<()>,
}

impl Refusing {
    async fn at(d: &Deployment, uuid: &str, words: &'static str, times: u32) -> Self {
        let out = d.path("acceptor");
        let verb = ["node", "credentials", "--app", "app", "--uuid", uuid, "--grant", "admin", "--out"];
        let lncli = d.config_cli(&[&verb[..], &[out.to_str().unwrap()]].concat()).await;
        let address = lncli.split_whitespace().find_map(|word| word.strip_prefix("--rpcserver=")).unwrap();
        let certificate = PinnedCert::from_pem(&std::fs::read(out.join("tls.cert")).unwrap()).unwrap();
        let macaroon = Macaroon::parse(&std::fs::read(out.join("admin.macaroon")).unwrap()).unwrap();

        let mut lnd = tonic::client::Grpc::new(pinned_channel(address, &certificate).unwrap());
        lnd.ready().await.unwrap();
        let (say, said) = futures::channel::mpsc::unbounded::<Said>();
        let mut request = tonic::Request::new(said);
        request.metadata_mut().insert("macaroon", macaroon.hex().parse().unwrap());
        let path = PathAndQuery::from_static("/lnrpc.Lightning/ChannelAcceptor");
        let codec = tonic_prost::ProstCodec::<Said, Asked>::default();
        let (count, asked) = tokio::sync::watch::channel(0);
        let task = tokio::spawn(async move {
            let mut questions = lnd.streaming(request, path, codec).await.unwrap().into_inner();
            while let Some(Ok(question)) = questions.next().await {
                let accept = *count.borrow() >= times;
                let error = if accept { String::new() } else { words.to_owned() };
                say.unbounded_send(Said { accept, pending_chan_id: question.pending_chan_id, error }).unwrap();
                count.send_modify(|count| *count += 1);
            }
        });
        Self { asked, task }
    }
}

async fn pay(api: &Api, payreq: &str) -> Answer {
    let answer = api.post("pay", json!({ "uuid": "alice", "payreq": payreq, "wait": 50 })).await;
    api.finished(answer).await
}

/// A pay that nobody waits for.
async fn begin(api: &Api, amount: u64) -> Answer {
    let payreq = api.invoice("bob", amount).await;
    let accepted = api.post("pay", json!({ "uuid": "alice", "payreq": payreq, "wait": 0 })).await;
    assert_eq!(accepted.status, 202, "{:#}", accepted.body);
    accepted
}

/// Waits until the operation says this of itself.
async fn progress(api: &Api, accepted: &Answer, expected: &str) {
    let path = format!("operations/{}", accepted.body["id"].as_str().unwrap());
    eventually(expected, Duration::from_secs(30), || async {
        let operation = api.get(&path, &[]).await.ok();
        assert_eq!(operation["state"], "running", "{operation:#}");
        (operation["progress"] == expected).then_some(())
    })
    .await;
}

async fn channels(api: &Api) -> usize {
    let listed = api.get("listchannels", &[("uuid", "alice")]).await.ok();
    listed["channels"].as_array().map_or(0, Vec::len)
}

/// With the words of an lnd that catches up with the chain.
#[test]
fn a_payee_that_is_behind_for_a_moment_is_asked_again() {
    harness::run(DEADLINE, async {
        let d = Deployment::start(Setup::default()).await;
        let api = d.api();
        d.create_users(&["alice", "bob"]).await;
        api.confirmed("alice", 1_000_000).await;
        let bob = Refusing::at(&d, "bob", "funding failed due to internal error", 2).await;
        let payreq = api.invoice("bob", 60_000).await;
        assert_eq!(pay(&api, &payreq).await.ok()["payment"]["status"], "SUCCEEDED");
        assert_eq!(*bob.asked.borrow(), 3, "twice in vain");
        assert_eq!(channels(&api).await, 1);
        bob.task.abort();
        d.stop().await;
    });
}

/// What the peer does not take back soon is told as it was said.
#[test]
fn a_payee_that_refuses_for_good_is_not_asked_again() {
    harness::run(DEADLINE, async {
        let d = Deployment::start(Setup::default()).await;
        let api = d.api();
        d.create_users(&["alice", "bob"]).await;
        api.confirmed("alice", 1_000_000).await;
        let bob = Refusing::at(&d, "bob", "no channels on Mondays", u32::MAX).await;
        let payreq = api.invoice("bob", 60_000).await;
        let failed = pay(&api, &payreq).await;
        assert_eq!(failed.problem(409), "channel_open_failed");
        let words = failed.body["details"]["lnd_message"].as_str().unwrap();
        assert!(words.contains("no channels on Mondays"), "{words}");
        assert_eq!(*bob.asked.borrow(), 1);
        assert_eq!(channels(&api).await, 0);
        bob.task.abort();
        d.stop().await;
    });
}

/// An lnd takes one pending channel from a peer: the second payment, for which the first one's channel is too small and
/// for which there are coins, waits until that is confirmed.
#[test]
fn two_payments_that_need_a_channel_each_get_it_one_after_the_other() {
    harness::run(DEADLINE, async {
        let d = Deployment::start(Setup::default()).await;
        let api = d.api();
        d.create_users(&["alice", "bob"]).await;
        api.confirmed("alice", 1_000_000).await;
        let address = api.post("newaddress", json!({ "uuid": "alice" })).await.ok();
        let split = json!({ "uuid": "alice", "address": address["address"], "amt": 450_000, "wait": 50 });
        let split = api.post("withdraw", split).await;
        api.finished(split).await.ok();
        api.confirmed("alice", 900_000).await;

        // The small one goes first: over the large one's channel it would find a way, and leave too little there.
        let held = d.world.hold_blocks().await;
        let small = begin(&api, 60_000).await;
        progress(&api, &small, "waiting for the channel to be confirmed").await;
        let large = begin(&api, 300_000).await;
        progress(&api, &large, "waiting for a channel with the peer to be confirmed").await;
        drop(held);
        for accepted in [small, large] {
            assert_eq!(api.finished(accepted).await.ok()["payment"]["status"], "SUCCEEDED");
        }
        assert_eq!(channels(&api).await, 2);
        d.stop().await;
    });
}
