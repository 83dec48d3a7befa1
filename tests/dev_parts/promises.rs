//! What `scale-lnd dev` promises with its arguments and its ready file, and that what it prints works when it is pasted.

use std::{net::TcpListener, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use scale_lnd::{
    dev::reaper::{Exit, Reaper, Spawn},
    lnd::{LndClient, PinnedCert, macaroon::Macaroon},
};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{
    btcd::reaper,
    command::{Dev, dev, ready_file},
};

const LIMIT: Duration = Duration::from_secs(180);
const README: &str = include_str!("../../README.md");

#[tokio::test]
async fn dev_keeps_what_its_arguments_promise() {
    let work = async {
        let dir = tempfile::tempdir().unwrap();
        let reaper = reaper().await;
        a_port_that_is_taken_is_not_replaced(&reaper, dir.path()).await;

        // This one or none: not the one that it would choose.
        let port = crate::harness::ports::free(1);
        let asked = format!("--port={port}");
        let first = Dev::start_with(&reaper, dir.path(), &[&asked, "--lnd-rest"]).await;
        assert_eq!(first.ready["url"], format!("http://127.0.0.1:{port}"));
        the_ready_file_says_what_is_up(&first, dir.path()).await;
        what_is_printed_can_be_pasted(&reaper, &first, dir.path()).await;
        let (_, alice) = first.get("node?uuid=alice").await;
        let mut rest = rest_of_the_nodes(dir.path());
        assert_eq!(rest.len(), 2, "alice and bob: {rest:?}");
        rest.push(first.ready["treasury"]["rest"].as_str().unwrap().to_owned());
        for lnd in &rest {
            assert!(rest_answers(lnd).await, "{lnd} of {rest:?}");
        }
        let old = first.ready.clone();
        first.stop(&reaper).await;

        // The same port, keys and users without being told, and no REST.
        let second = Dev::start_with(&reaper, dir.path(), &[]).await;
        assert_eq!((&second.ready["url"], &second.ready["api_key"]), (&old["url"], &old["api_key"]));
        assert_eq!(second.ready["treasury"]["identity_pubkey"], old["treasury"]["identity_pubkey"]);
        assert_eq!(second.ready["treasury"]["rest"], Value::Null);
        let (_, again) = second.get("node?uuid=alice").await;
        assert_eq!(again["identity_pubkey"], alice["identity_pubkey"], "{again}");
        channel_is_active_again(&second).await;
        for lnd in &rest {
            assert!(!rest_answers(lnd).await, "{lnd}");
        }
        second.stop(&reaper).await;

        let fresh = Dev::start_with(&reaper, dir.path(), &["--fresh", "--port=0"]).await;
        let (status, nobody) = fresh.get("node?uuid=alice").await;
        assert_eq!((status, &nobody["code"]), (404, &json!("user_not_found")));
        assert_eq!(fresh.get_as("nodes", old["api_key"].as_str().unwrap()).await.0, 401, "the old key");
        assert_ne!(fresh.ready["treasury"]["identity_pubkey"], old["treasury"]["identity_pubkey"]);
        assert!(!dir.path().join("data/agent/nodes").read_dir().is_ok_and(|mut nodes| nodes.next().is_some()));
        fresh.stop(&reaper).await;
        reaper.stop(None).await.unwrap();
    };
    timeout(LIMIT, work).await.unwrap();
}

async fn a_port_that_is_taken_is_not_replaced(reaper: &Reaper, dir: &Path) {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let mut refused = reaper.spawn(dev(dir, &[&format!("--port={port}")])).await.unwrap();
    assert_eq!(refused.exited().await, Exit::Code(1));
    let told = std::fs::read_to_string(dir.join("dev.out")).unwrap();
    assert!(told.contains(&format!("port {port} is in use")), "{told}");
    assert!(!ready_file(dir).exists(), "nothing was up");
}

/// Everything that the file names answers at the very moment when the file is there.
async fn the_ready_file_says_what_is_up(dev: &Dev, dir: &Path) {
    let ready = &dev.ready;
    assert_eq!(std::fs::metadata(ready_file(dir)).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(ready["network"], "simnet");
    let (status, hosts) = dev.get_as("hosts", ready["operator_key"].as_str().unwrap()).await;
    assert_eq!(status, 200, "{hosts}");
    assert!(hosts["hosts"][0]["report"].is_object(), "a host takes lnds: {hosts}");
    assert_eq!(dev.get("nodes").await.0, 200, "the key opens");

    let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("no text: {ready:#}")).to_owned();
    let chain = &ready["chain"];
    let certificate = std::fs::read(text(&chain["certificate"])).unwrap();
    let btcd = reqwest::Client::builder()
        .tls_certs_only([reqwest::Certificate::from_pem(&certificate).unwrap()])
        .build()
        .unwrap();
    let ask = json!({ "jsonrpc": "1.0", "id": 1, "method": "getblockcount", "params": [] });
    let ask = btcd.post(format!("https://{}", text(&chain["rpc"]))).json(&ask);
    let answer = ask.basic_auth(text(&chain["user"]), Some(text(&chain["password"]))).send().await.unwrap();
    let answer: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
    assert!(answer["result"].as_u64().unwrap() >= 400, "{answer}");

    let treasury = &ready["treasury"];
    let pinned = PinnedCert::from_pem(&std::fs::read(text(&treasury["certificate"])).unwrap()).unwrap();
    let client = LndClient::new(&text(&treasury["address"]), &pinned).unwrap();
    let admin = Macaroon::parse(&std::fs::read(text(&treasury["macaroon"])).unwrap()).unwrap();
    let info = client.get_info(&admin).await.unwrap();
    assert_eq!(treasury["identity_pubkey"], info.identity_pubkey);
}

/// The line with URL and AUTH as it was printed, then all lines of the README's first payment, in a shell.
async fn what_is_printed_can_be_pasted(reaper: &Reaper, dev: &Dev, dir: &Path) {
    if std::process::Command::new("curl").arg("--version").output().is_err() {
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "there is no curl to paste what is printed into");
        eprintln!("there is no curl: what is printed is not pasted");
        return;
    }
    let told = std::fs::read_to_string(dir.join("dev.out")).unwrap();
    let section = README.split("\n## ").find(|section| section.starts_with("A first payment")).unwrap();
    let shown = section.lines().filter_map(|line| line.strip_prefix("    ")).filter(|line| !line.starts_with("URL="));
    let begin = told.lines().find(|line| line.starts_with("  URL=")).unwrap();
    let script = [begin].into_iter().chain(shown).collect::<Vec<_>>().join("\n");
    let out = dir.join("pasted.out");
    let mut shell = reaper.spawn(Spawn::new("shell", "bash").arg("-ec").arg(script).log(&out)).await.unwrap();
    let exit = shell.exited().await;
    let answers = std::fs::read_to_string(&out).unwrap();
    assert_eq!(exit, Exit::Code(0), "{answers}");
    let answers: Vec<Value> = answers.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let [alice, bob, _invoice, paid, again, balance] = answers.as_slice() else { panic!("{answers:#?}") };
    assert!(alice["identity_pubkey"].is_string() && bob["identity_pubkey"].is_string(), "{alice:#} {bob:#}");
    assert_eq!(paid["payment"]["status"], "SUCCEEDED", "{paid:#}");
    assert_eq!(again, paid);
    // The payer knows of a payment a moment before it is final with the payee.
    assert!(balance["local_balance"]["sat"].is_string(), "{balance:#}");
    crate::harness::eventually("bob has what he was paid", Duration::from_secs(10), || async {
        let (_, balance) = dev.get("channelbalance?uuid=bob").await;
        (balance["local_balance"]["sat"] == "1000").then_some(())
    })
    .await;
}

/// The addresses at which the users' lnds were told to serve REST.
fn rest_of_the_nodes(dir: &Path) -> Vec<String> {
    let told = |folder: std::fs::DirEntry| {
        let conf = std::fs::read_to_string(folder.path().join("instance/lnd.conf")).unwrap();
        let listen = conf.lines().find_map(|line| line.strip_prefix("restlisten=").map(str::to_owned));
        listen.unwrap_or_else(|| panic!("no REST: {}", folder.path().display()))
    };
    dir.join("data/agent/nodes").read_dir().unwrap().map(|folder| told(folder.unwrap())).collect()
}

/// Whether an lnd's own REST answers there.
async fn rest_answers(address: &str) -> bool {
    let http = reqwest::Client::builder().danger_accept_invalid_certs(true).build().unwrap();
    let answer = match http.get(format!("https://{address}/v1/state")).send().await {
        Ok(answer) => answer,
        Err(error) if error.is_connect() => return false,
        Err(error) => panic!("{address}: {error:?}"),
    };
    let state: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
    assert_eq!(state["state"], "SERVER_ACTIVE");
    true
}

/// The channel of the first payment, with both who have it: after btcd, the treasury and the lnds were started again.
async fn channel_is_active_again(dev: &Dev) {
    for uuid in ["alice", "bob"] {
        let what = format!("{uuid}'s channel is active again");
        crate::harness::eventually(&what, Duration::from_secs(60), || async {
            let (status, listed) = dev.get(&format!("listchannels?uuid={uuid}")).await;
            if status != 200 {
                return None;
            }
            let [channel] = listed["channels"].as_array()?.as_slice() else { panic!("{listed:#}") };
            (channel["active"] == true).then_some(())
        })
        .await;
    }
}
