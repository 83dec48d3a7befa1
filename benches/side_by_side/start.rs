//! How long a master takes to start, and how much memory, with a fleet of many nodes in its Store. Their documents are those of
//! a node that was really created, each under a name and with secrets of its own; their lnds are not there, so that this
//! master finds every one of them away, which is the worst case.

use super::harness::Deployment;
use super::report::{self, status_kib};
use futures::StreamExt;
use scale_lnd::app::keys::{Keys, field};
use scale_lnd::config::Config;
use scale_lnd::deployment::open_store;
use scale_lnd::model::ids::{NodeId, Uuid};
use scale_lnd::model::network::Network;
use scale_lnd::model::node::{BackupHead, Node, NodeName, Runtime, Secrets};
use scale_lnd::seal::Sealer;
use scale_lnd::store::repo::{self, Entity};
use scale_lnd::store::{Store, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How many nodes there are, at the first look and at the second, beside the few that are real. What a master needs for having
/// looked at many at all (its reading connections' caches of pages) it has by the first.
const NODES: [usize; 2] = [1_000, 10_000];
/// Commits at a time, with which the Store is filled.
const AT_A_TIME: usize = 4;
/// What is done after the start is done by then, or is waiting.
const AFTERWARDS: Duration = Duration::from_secs(20);

/// Ends the masters of `d`, measures one with the few nodes there are, adds some, and many, and measures others.
pub async fn with_many_nodes(d: &mut Deployment, store: &str) {
    report::progress(&format!("the start of a master with few nodes, {store}"));
    let few = start(d).await;
    let [some, many] = NODES;
    add(d, 0..some).await;
    let seen_some = start(d).await;
    add(d, some..many).await;
    let seen_many = start(d).await;
    println!("\nstart of a master, {store}: until /readyz says so, and resident memory");
    println!("| nodes  | ready, s | at ready, MiB | {} s later, MiB | at most, MiB |", AFTERWARDS.as_secs());
    println!("|--------|---------:|--------------:|----------------:|-------------:|");
    for (name, seen) in [("a few", &few), ("1,000", &seen_some), ("10,000", &seen_many)] {
        let [ready, later, most] = seen.kib.map(|kib| kib / 1024.0);
        println!("| {name:<6} | {:>8.2} | {ready:>13.1} | {later:>15.1} | {most:>12.1} |", seen.ready_s);
    }
    let each = |n: usize| (seen_many.kib[n] - seen_some.kib[n]) / 9_000.0;
    println!(
        "each of the last 9,000: {:.2} KiB at ready, {:.2} KiB later (goals: 2 s, 1.5 KB a node)",
        each(0),
        each(1)
    );
}

/// Adds nodes of these numbers to the Store that no master has now.
async fn add(d: &mut Deployment, numbers: std::ops::Range<usize>) {
    report::progress(&format!("{} nodes more", numbers.len()));
    d.end_masters().await;
    let store = open_store(&Config::load(Some(&d.config), [], &[]).unwrap()).await.unwrap();
    let keys = Keys::new(Arc::new(Sealer::from_file(&d.path("seal.key")).unwrap()), "test".to_owned(), Network::Simnet);
    let pattern = Pattern::read(&*store).await;
    let numbers: Vec<usize> = numbers.collect();
    let commits = numbers.chunks(10).map(|ten| ten.iter().flat_map(|n| pattern.another(&keys, *n)).collect());
    let all = futures::stream::iter(commits).for_each_concurrent(AT_A_TIME, |writes| async {
        store.commit(writes).await.unwrap();
    });
    all.await;
}

struct Seen {
    ready_s: f64,
    /// Resident when ready, and some time later; and the most it ever was.
    kib: [f64; 3],
}

async fn start(d: &mut Deployment) -> Seen {
    d.end_masters().await;
    let began = Instant::now();
    let index = d.spawn_master(&[]).await;
    let url = format!("{}/readyz", d.masters[index].url);
    let client = reqwest::Client::new();
    let ready = async {
        while !client.get(&url).send().await.is_ok_and(|answer| answer.status() == 200) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), ready).await.unwrap();
    let ready_s = began.elapsed().as_secs_f64();
    let pid = d.masters[index].process.pid;
    let at_ready = status_kib(pid, "VmRSS:");
    tokio::time::sleep(AFTERWARDS).await;
    Seen { ready_s, kib: [at_ready, status_kib(pid, "VmRSS:"), status_kib(pid, "VmHWM:")] }
}

/// The documents of a node.
struct Pattern {
    node: Node,
    runtime: Runtime,
    head: Option<BackupHead>,
}

impl Pattern {
    async fn read(store: &dyn Store) -> Self {
        let node = repo::list_all::<Node>(store, None).await.unwrap().remove(0).value;
        let runtime = repo::get::<Runtime>(store, node.id.as_str()).await.unwrap().unwrap().value;
        let head = repo::get::<BackupHead>(store, node.id.as_str()).await.unwrap().map(|head| head.value);
        Self { node, runtime, head }
    }

    fn another(&self, keys: &Keys, n: usize) -> Vec<Write> {
        let id = NodeId::random(&mut rand::rng());
        let secret = |name: &str, length: usize| keys.seal(id.as_str(), name, &vec![7; length]).unwrap();
        let secrets = Secrets {
            seed: secret(field::SEED, 150),
            wallet_password: secret(field::WALLET_PASSWORD, 32),
            macaroon_root_key: secret(field::MACAROON_ROOT_KEY, 32),
            invoice_key: secret(field::INVOICE_KEY, 32),
        };
        let mut node = Node {
            id: id.clone(),
            uuid: Uuid::parse(&format!("many{n}")).unwrap(),
            secrets: Some(secrets),
            identity_pubkey: Some(format!("02{n:064x}")),
            ..self.node.clone()
        };
        // Nobody listens there.
        node.endpoint.as_mut().unwrap().rpc_port = 1;
        let name = NodeName { app: node.app.clone(), uuid: node.uuid.clone(), node: id.clone() };
        let runtime = Runtime { node: id.clone(), ..self.runtime.clone() };
        let head = self.head.clone().map(|head| BackupHead { node: id, good: Some(head.newest), ..head });
        let mut writes = vec![create(&node), create(&name), create(&runtime)];
        writes.extend(head.iter().map(create));
        writes
    }
}

fn create<T: Entity>(value: &T) -> Write {
    repo::create(value).unwrap()
}
