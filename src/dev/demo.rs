//! `scale-lnd demo`: the whole story, on a system of its own or on a deployment that is there, told call by call, and true or
//! the command fails.

mod api;

use std::{env, fs, path::PathBuf, time::Duration};

use rand::{TryRng, rngs::SysRng};
use secrecy::SecretString;
use serde_json::Value;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use self::api::{Api, sat};
use super::{
    binaries::NodeBinaries,
    error::DevError,
    home::Home,
    progress::Progress,
    run::beneath_reaper,
    system::{Options, System},
    tool::own_program,
};

/// How long nodes and chain may take to show what was done.
const CHAIN_LIMIT: Duration = Duration::from_secs(60);
const ASK_EVERY: Duration = Duration::from_millis(250);

const FIRST_SAT: i64 = 50_000;
const SECOND_SAT: i64 = 20_000;
const CAPACITY: &str = "200000";

/// Has the key for a deployment that is there: what is among the arguments can be seen by everybody on the machine.
const KEY_VARIABLE: &str = "SCALE_LND_API_KEY";
/// Where money is worth nothing.
const NETWORKS: [&str; 2] = ["simnet", "regtest"];

/// The arguments of `demo`.
#[derive(Debug, Clone, clap::Args)]
pub struct DemoArgs {
    /// Keep the data folder even if all goes well
    #[arg(long)]
    keep: bool,
    /// Tell it on the deployment at this URL, on simnet or regtest, with two new users who keep their nodes; a key with all
    /// of an app's scopes is taken from SCALE_LND_API_KEY
    #[arg(long, value_name = "URL", conflicts_with = "keep")]
    at: Option<String>,
}

/// Tells the story. An error if any of it is not true.
pub async fn demo(args: DemoArgs, stop: CancellationToken) -> Result<(), DevError> {
    let progress = Progress::begin();
    let interrupted = || DevError::Unusable("the demo was interrupted".to_owned());
    match &args.at {
        Some(url) => stop.run_until_cancelled(there(url, progress)).await.ok_or_else(interrupted)??,
        None => here(args.keep, &stop, progress).await?,
    }
    progress.say(format_args!("all of it is true, after {:.1} s", progress.seconds()));
    Ok(())
}

/// On a deployment that is there.
async fn there(url: &str, progress: Progress) -> Result<(), DevError> {
    let no_key = |_| DevError::Unusable(format!("the API key is not in {KEY_VARIABLE}"));
    let key = env::var(KEY_VARIABLE).map(SecretString::from).map_err(no_key)?;
    let api = Api::new(url.trim_end_matches('/'), key, progress)?;
    let name = random_name()?;
    story(&api, &format!("alice-{name}"), &format!("bob-{name}")).await
}

/// On a system of its own.
async fn here(keep: bool, stop: &CancellationToken, progress: Progress) -> Result<(), DevError> {
    let options = Options { program: own_program()?, binaries: NodeBinaries::find()?, port: Some(0), lnd_rest: false };
    let data_dir = data_dir()?;
    let home = Home::open(&data_dir)?;
    let record = home.record();
    let told = beneath_reaper(&record, progress, async |reaper| {
        let work = async {
            let mut system = System::start(reaper, home, options, progress).await?;
            progress.say(format_args!("ready after {:.1} s\n", progress.seconds()));
            let api = Api::new(&system.url, system.keys.app.clone(), progress)?;
            tokio::select! {
                told = story(&api, "alice", "bob") => told,
                error = system.watch(reaper) => Err(error),
            }
        };
        tokio::select! {
            told = work => told,
            () = stop.cancelled() => Err(DevError::Unusable("the demo was interrupted".to_owned())),
        }
    });
    match told.await {
        Ok(()) if keep => progress.say(format_args!("kept: {}", data_dir.display())),
        Ok(()) => fs::remove_dir_all(&data_dir).map_err(DevError::file("remove", &data_dir))?,
        Err(error) => {
            progress.say(format_args!("not all of it is true; data and logs are in {}", data_dir.display()));
            return Err(error);
        }
    }
    Ok(())
}

fn data_dir() -> Result<PathBuf, DevError> {
    Ok(env::temp_dir().join(format!("scale-lnd-demo-{}", random_name()?)))
}

fn random_name() -> Result<String, DevError> {
    let mut name = [0; 6];
    SysRng.try_fill_bytes(&mut name).map_err(|error| DevError::Unusable(format!("no randomness: {error}")))?;
    Ok(hex::encode(name))
}

/// The story of two users who have no nodes yet.
async fn story(api: &Api, alice: &str, bob: &str) -> Result<(), DevError> {
    api.chapter("Alice and Bob get an lnd each, side by side");
    let create = async |uuid| api.done("create", &[("uuid", uuid), ("wait", "50")]).await;
    let (alices_node, bobs_node) = tokio::join!(create(alice), create(bob));
    let (alices_node, bobs_node) = (alices_node?, bobs_node?);
    let bobs_key = text(&bobs_node, "identity_pubkey");
    api.check("they are two nodes", bobs_key.len() == 66 && bobs_key != text(&alices_node, "identity_pubkey"))?;
    let info = api.quiet("getinfo", &[("uuid", alice)]).await?;
    let network = text(&info["chains"][0], "network");
    if !NETWORKS.contains(&network) {
        return Err(DevError::Unusable(format!(
            "the story moves money, and is told on simnet and regtest, not {network}"
        )));
    }
    // Alice's has to be there, too: who pays needs confirmed money.
    until(api, alice, "walletbalance", funded).await?;
    let bobs_wallet = until(api, bob, "walletbalance", funded).await?;

    api.chapter("Bob makes an invoice, and Alice pays it: a channel opens by itself");
    let paid = pay(api, (alice, bob), FIRST_SAT, "the first", &[("amt", CAPACITY)]).await?;
    api.check("a channel was opened for it", paid["channel"]["peer"] == bobs_key)?;
    check_balances(api, (alice, bob), FIRST_SAT).await?;

    api.chapter("A second payment takes the same channel");
    let paid = pay(api, (alice, bob), SECOND_SAT, "the second", &[]).await?;
    api.check("no other channel was opened", paid["channel"].is_null())?;
    check_balances(api, (alice, bob), FIRST_SAT + SECOND_SAT).await?;

    api.chapter("Alice closes the channel");
    let closed = api.done("closechannel", &[("uuid", alice), ("pubkey", bobs_key), ("wait", "50")]).await?;
    api.check("the closing transaction is on its way", text(&closed, "closing_txid").len() == 64)?;
    let expected = sat(&bobs_wallet["confirmed_balance"]) + FIRST_SAT + SECOND_SAT;
    until(api, bob, "walletbalance", |wallet| (sat(&wallet["confirmed_balance"]) == expected).then_some(wallet))
        .await?;
    api.check(&format!("Bob's wallet has his {expected} sat"), true)?;

    withdraw(api, (alice, bob)).await
}

/// The wallet, once all that was given to it is confirmed.
fn funded(wallet: &Value) -> Option<&Value> {
    (sat(&wallet["confirmed_balance"]) > 0 && sat(&wallet["unconfirmed_balance"]) == 0).then_some(wallet)
}

/// Bob's money leaves for an address of Alice.
async fn withdraw(api: &Api, (alice, bob): (&str, &str)) -> Result<(), DevError> {
    api.chapter("Bob withdraws all of it to an address of Alice");
    let address = api.done("newaddress", &[("uuid", alice)]).await?;
    let address = text(&address, "address");
    let sent = api.post("withdraw", &[("uuid", bob), ("address", address), ("all", "true"), ("wait", "50")]).await?;
    let txid = text(&sent, "txid");
    api.check("it was sent", txid.len() == 64 && sat(&sent["amount_sat"]) > 0)?;
    let amount = sat(&sent["amount_sat"]);
    until(api, alice, "transactions", |list| arrival(list, txid, amount)).await?;
    api.check("it arrived", true)?;
    until(api, bob, "walletbalance", |wallet| (sat(&wallet["total_balance"]) == 0).then_some(wallet)).await?;
    api.check("nothing is left with Bob", true)
}

fn arrival<'a>(list: &'a Value, txid: &str, amount_sat: i64) -> Option<&'a Value> {
    let mut transactions = list["transactions"].as_array()?.iter();
    let found = transactions.find(|found| found["tx_hash"] == txid)?;
    (sat(&found["num_confirmations"]) > 0 && sat(&found["amount"]) == amount_sat).then_some(found)
}

async fn pay(
    api: &Api,
    (alice, bob): (&str, &str),
    amount_sat: i64,
    memo: &str,
    more: &[(&str, &str)],
) -> Result<Value, DevError> {
    let amount = amount_sat.to_string();
    let invoice = api.done("invoice", &[("uuid", bob), ("amt", &amount), ("memo", memo)]).await?;
    let payreq = text(&invoice, "payment_request");
    let ask = [&[("uuid", alice), ("payreq", payreq), ("wait", "50")], more].concat();
    let paid = api.done("pay", &ask).await?;
    let payment = &paid["payment"];
    let is_paid = payment["status"] == "SUCCEEDED" && sat(&payment["value_sat"]) == amount_sat;
    api.check(&format!("{amount_sat} sat are paid"), is_paid)?;
    Ok(paid)
}

/// Both sides agree about the one channel, as soon as the payment has settled in it.
async fn check_balances(api: &Api, (alice, bob): (&str, &str), bobs_sat: i64) -> Result<(), DevError> {
    for (user, side) in [(alice, "remote_balance"), (bob, "local_balance")] {
        until(api, user, "channelbalance", |balance| (sat(&balance[side]["sat"]) == bobs_sat).then_some(balance))
            .await?;
        api.check(&format!("{bobs_sat} sat of the channel are Bob's, says {user}'s lnd"), true)?;
        let channels = api.quiet("listchannels", &[("uuid", user)]).await?;
        let count = channels["channels"].as_array().map_or(0, Vec::len);
        api.check("there is one channel", count == 1)?;
    }
    Ok(())
}

/// Asks until the answer has what is looked for, and shows that.
async fn until(api: &Api, user: &str, call: &str, find: impl Fn(&Value) -> Option<&Value>) -> Result<Value, DevError> {
    let params = [("uuid", user)];
    api.say_get(call, &params);
    let asking = async {
        loop {
            let answer = api.quiet(call, &params).await?;
            if let Some(found) = find(&answer) {
                api.show(found);
                return Ok(found.clone());
            }
            sleep(ASK_EVERY).await;
        }
    };
    let waited = timeout(CHAIN_LIMIT, asking).await;
    waited.map_err(|_| DevError::TimedOut { what: format!("{user}'s {call}"), limit: CHAIN_LIMIT })?
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}
