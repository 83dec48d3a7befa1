//! Creates where the deployment makes its own hosts, on EC2: moto's, whose instances boot at once. From a spare slot against the
//! floor, turn by turn; how many a minute with and without spare slots; and what they ask of EC2 and of Firestore.

use super::cloud::{Cloud, Compute};
use super::creates;
use super::harness::asked::{COUNTED, asked};
use super::harness::emulator::Emulator;
use super::harness::eventually;
use super::report::{self, median};
use futures::future::join_all;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Creates at a time, where many are.
const AT_A_TIME: usize = 6;
/// Creates of which it is counted what they ask of Firestore.
const COUNTED_CREATES: usize = 4;
/// How long anything may take that is waited for.
const LIMIT: Duration = Duration::from_secs(240);

/// Measures and prints.
pub async fn compare(times: usize) {
    let at_once = u32::try_from(AT_A_TIME).unwrap();
    let spare = Cloud::start(Compute { spare_slots: at_once, max_hosts: 60, ..Compute::default() }).await;
    one_by_one(&spare, times).await;
    let none = Cloud::start(Compute { max_hosts: 60, ..Compute::default() }).await;
    println!("\n{AT_A_TIME} creates at once, each on an instance of its own");
    println!("| what                        | seconds | creates a minute |");
    println!("|-----------------------------|--------:|-----------------:|");
    rate("floor: lnds by hand", floors(&spare).await);
    rate("create, from spare slots", many(&spare, "spare").await);
    let before = none.proxy.counts();
    rate("create, without spare slots", many(&none, "none").await);
    println!(
        "\ncalls of EC2's for each of the creates without spare slots (those that describe go by time, not by creates)"
    );
    for (action, after) in none.proxy.counts().into_iter().collect::<BTreeMap<_, _>>() {
        let calls = after - before.get(&action).copied().unwrap_or(0);
        println!("  {action}: {:.2}", ratio(calls as u64, AT_A_TIME));
    }
    spare.stop().await;
    none.stop().await;
}

#[expect(clippy::cast_precision_loss, reason = "there are few")]
fn ratio(number: u64, of: usize) -> f64 {
    number as f64 / of as f64
}

fn rate(name: &str, took: Duration) {
    let seconds = took.as_secs_f64();
    println!("| {name:<27} | {seconds:>7.2} | {:>16.1} |", ratio(AT_A_TIME as u64, 1) * 60.0 / seconds);
}

/// So many empty slots wait.
async fn waiting(cloud: &Cloud, slots: usize) {
    eventually("the spare slots wait", LIMIT, || async {
        let listed: Value = serde_json::from_str(&cloud.d.config_cli(&["host", "list", "--json"]).await).unwrap();
        let hosts = listed.as_array().unwrap();
        let is_empty = |host: &&Value| host["state"] == "enrolled" && host["used"] == 0 && host["lnd"].is_string();
        (hosts.iter().filter(is_empty).count() >= slots).then_some(())
    })
    .await;
}

async fn create(cloud: &Cloud, uuid: String) -> Duration {
    let api = cloud.d.api();
    let started = Instant::now();
    let answer = api.post("create", json!({ "uuid": uuid, "wait": 50 })).await;
    api.finished(answer).await.ok();
    started.elapsed()
}

/// From a spare slot, against the same lnd by hand: to its end, and its wallet alone.
async fn one_by_one(cloud: &Cloud, times: usize) {
    let (mut floors, mut took) = (Vec::new(), Vec::new());
    for round in 0..times {
        report::progress(&format!("create from a spare slot, turn {} of {times}", round + 1));
        for turn in 0..2 {
            // Not while the next spare slot boots.
            waiting(cloud, AT_A_TIME).await;
            if (turn + round) % 2 == 0 {
                floors.push(creates::floor(cloud.d.world, &format!("spare-{round}")).await);
            } else {
                took.push(create(cloud, format!("alone{round}")).await.as_secs_f64());
            }
        }
    }
    println!("\ncreate from a spare slot, {times} times each, seconds");
    println!("| what                              | median | of the create |");
    println!("|-----------------------------------|-------:|--------------:|");
    let own = median(took.iter().copied());
    println!("| create, from a spare slot         | {own:>6.2} |               |");
    row("floor: lnd by hand, to its end", &took, floors.iter().map(|floor| floor.whole).collect());
    row("InitWallet to SERVER_ACTIVE alone", &took, floors.iter().map(|floor| floor.wallet).collect());
}

/// What the creates are held against; the ratio is taken turn by turn.
fn row(name: &str, took: &[f64], against: Vec<f64>) {
    let ratio = median(took.iter().zip(&against).map(|(own, part)| own / part));
    println!("| {name:<33} | {:>6.2} | {ratio:>12.2}x |", median(against.into_iter()));
}

async fn floors(cloud: &Cloud) -> Duration {
    waiting(cloud, AT_A_TIME).await;
    report::progress("many lnds by hand");
    let started = Instant::now();
    join_all((0..AT_A_TIME).map(async |n| creates::floor(cloud.d.world, &format!("many-{n}")).await)).await;
    started.elapsed()
}

async fn many(cloud: &Cloud, name: &str) -> Duration {
    report::progress(&format!("many creates, spare slots: {name}"));
    let started = Instant::now();
    join_all((0..AT_A_TIME).map(|n| create(cloud, format!("{name}{n}")))).await;
    started.elapsed()
}

/// Creates one after the other on Firestore's emulator, each with an instance of its own.
pub async fn count() {
    report::progress("creates on Firestore");
    let firestore = Some(Emulator::shared().await.url.clone());
    let cloud = Cloud::start(Compute { firestore, more: COUNTED.to_owned(), ..Compute::default() }).await;
    // What a master asks once, and the first of an app.
    create(&cloud, "first".to_owned()).await;
    let (_, before) = asked(&cloud.d, 0);
    for n in 0..COUNTED_CREATES {
        create(&cloud, format!("counted{n}")).await;
    }
    let (asked, _) = asked(&cloud.d, before);
    let each = |number: u64| ratio(number, COUNTED_CREATES);
    println!("\na create with an instance of its own, on Firestore, unfunded: documents (heartbeats apart)");
    println!(
        "  {:.1} written in {:.1} commits, {:.1} read",
        each(asked.writes),
        each(asked.commits),
        each(asked.reads)
    );
    cloud.stop().await;
}
