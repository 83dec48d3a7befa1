//! Exactly one of everything, whatever happened on the way.

use crate::gates::store;
use crate::harness::{Deployment, eventually};
use scale_lnd::app::keys::field;
use scale_lnd::dev::reaper::Signal;
use scale_lnd::model::node::Node;
use serde_json::Value;
use std::time::Duration;

fn number(value: &Value) -> u64 {
    value.as_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("no number: {value}"))
}

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value[name].as_array().map_or(&[], Vec::as_slice)
}

/// One node: one lnd, one wallet that answers to its sealed secrets, one funding.
pub async fn one_node(d: &Deployment, uuid: &str, point: &str) {
    let api = d.api();
    let info = eventually(&format!("{uuid} answers after {point}"), Duration::from_secs(30), || async {
        let answer = api.get("getinfo", &[("uuid", uuid)]).await;
        (answer.status == 200).then_some(answer.body)
    })
    .await;
    assert!(info["identity_pubkey"].is_string(), "{info:#}");
    // A second funding would be there as soon as the first: both wait for the same block.
    api.confirmed(uuid, 1).await;
    let transactions = api.get("transactions", &[("uuid", uuid)]).await.ok();
    assert_eq!(list(&transactions, "transactions").len(), 1, "one funding after {point}: {transactions:#}");
    assert_eq!(number(&api.get("walletbalance", &[("uuid", uuid)]).await.ok()["total_balance"]), 1_000_000, "{point}");
    no_orphan(d, point).await;
    assert_eq!(creates(d, uuid).await, 1, "one operation after {point}");
}

/// One lnd a folder, and no folder more than users.
pub async fn no_orphan(d: &Deployment, point: &str) {
    let folders = std::fs::read_dir(d.path("host").join("nodes")).unwrap().count();
    assert_eq!(d.lnd_pids().await.len(), folders, "one lnd a folder after {point}");
    let nodes = d.api().get("nodes", &[("limit", "100")]).await.ok();
    assert_eq!(list(&nodes, "nodes").len(), folders, "one folder a user after {point}");
}

async fn creates(d: &Deployment, uuid: &str) -> usize {
    let operations = d.api().get("operations", &[("limit", "100")]).await.ok();
    let of_user = list(&operations, "operations").iter().filter(|o| o["uuid"] == uuid && o["kind"] == "create");
    of_user.count()
}

/// One payment: the invoice is settled for its amount, and the payer has paid it once.
pub async fn one_payment(d: &Deployment, payer: &str, payee: &str, payreq: &str, point: &str) {
    let api = d.api();
    let decoded = api.get("decodepayreq", &[("uuid", payer), ("payreq", payreq)]).await.ok();
    let hash = decoded["payment_hash"].as_str().unwrap();
    let invoice = api.get("lookupinvoice", &[("uuid", payee), ("payment_hash", hash)]).await.ok();
    assert_eq!(invoice["state"], "SETTLED", "{point}: {invoice:#}");
    assert_eq!(invoice["amt_paid_sat"], invoice["value"], "{point}");
    let payments = api.get("listpayments", &[("uuid", payer), ("limit", "100")]).await.ok();
    let of_hash: Vec<&Value> = list(&payments, "payments").iter().filter(|p| p["payment_hash"] == hash).collect();
    assert_eq!(of_hash.len(), 1, "{point}: {of_hash:#?}");
    assert_eq!(of_hash[0]["status"], "SUCCEEDED", "{point}");
    let settled = list(of_hash[0], "htlcs").iter().filter(|htlc| htlc["status"] == "SUCCEEDED").count();
    assert_eq!(settled, 1, "one HTLC paid it at {point}: {:#}", of_hash[0]);
}

/// The open channels of a user.
async fn channels(d: &Deployment, uuid: &str) -> Vec<Value> {
    let listed = d.api().get("listchannels", &[("uuid", uuid)]).await.ok();
    list(&listed, "channels").to_vec()
}

/// How many channels a user has opened so far: those that are there, and the transactions that have spent of the wallet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Openings {
    channels: usize,
    spending: usize,
}

impl Openings {
    pub async fn of(d: &Deployment, uuid: &str) -> Self {
        let transactions = d.api().get("transactions", &[("uuid", uuid), ("limit", "1000")]).await.ok();
        let all = list(&transactions, "transactions").iter();
        let spending = all.filter(|tx| tx["amount"].as_str().unwrap().starts_with('-')).count();
        Self { channels: channels(d, uuid).await.len(), spending }
    }

    /// One more: it is open, nothing is being opened beside it, and it was paid for once.
    pub async fn one_more(self, d: &Deployment, uuid: &str, point: &str) {
        let balance = d.api().get("channelbalance", &[("uuid", uuid)]).await.ok();
        assert_eq!(balance["pending_open_local_balance"]["sat"], "0", "another one is on its way after {point}");
        let wanted = Self { channels: self.channels + 1, spending: self.spending + 1 };
        assert_eq!(Self::of(d, uuid).await, wanted, "one channel more after {point}");
    }

    /// None more is there, but one was paid for: it is closed already.
    pub async fn one_in_vain(self, d: &Deployment, uuid: &str, point: &str) {
        let wanted = Self { spending: self.spending + 1, ..self };
        assert_eq!(Self::of(d, uuid).await, wanted, "one opening after {point}");
    }
}

/// No secret is lost: all that is sealed for each of so many nodes opens, and each lnd, killed, is unlocked with it.
pub async fn no_secret_is_lost(d: &Deployment, users: usize) {
    let opened = store::of(d).await;
    let (keys, nodes) = (store::keys(d), store::all::<Node>(&*opened).await);
    assert_eq!(nodes.len(), users);
    for node in &nodes {
        for name in [field::SEED, field::WALLET_PASSWORD, field::MACAROON_ROOT_KEY, field::INVOICE_KEY] {
            let secret = keys.open_of(node, name).unwrap_or_else(|e| panic!("{name} of {}: {e}", node.uuid));
            assert!(secret.len() >= 16, "{name} of {}", node.uuid);
        }
    }
    // An lnd that starts is locked until somebody knows its password.
    let before = d.lnd_pids().await;
    assert_eq!(before.len(), users);
    for pid in &before {
        d.world.reaper.signal(*pid, Signal::KILL).await.unwrap();
    }
    eventually("all lnds have ended", Duration::from_secs(20), || async {
        d.lnd_pids().await.iter().all(|pid| !before.contains(pid)).then_some(())
    })
    .await;
    let api = d.api();
    for node in &nodes {
        let uuid = node.uuid.as_str();
        let info = eventually(&format!("{uuid} is unlocked"), Duration::from_secs(120), || async {
            let answer = api.get("getinfo", &[("uuid", uuid)]).await;
            (answer.status == 200).then_some(answer.body)
        })
        .await;
        assert_eq!(info["identity_pubkey"].as_str(), node.identity_pubkey.as_deref(), "{uuid}");
    }
}

/// One close: the channel is gone, and one transaction has closed it.
pub async fn one_close(d: &Deployment, uuid: &str, channel_point: &str, point: &str) {
    let open = channels(d, uuid).await;
    assert!(open.iter().all(|c| c["channel_point"] != channel_point), "{point}: still open");
    let operations = d.api().get("operations", &[("limit", "100")]).await.ok();
    let closes: Vec<&Value> = list(&operations, "operations")
        .iter()
        .filter(|o| o["kind"] == "closechannel" && o["result"]["channel_point"] == channel_point)
        .collect();
    assert_eq!(closes.len(), 1, "{point}: {closes:#?}");
    // A channel is closed by spending its funding output, which can happen once; it is this transaction that did.
    let txid = closes[0]["result"]["closing_txid"].clone();
    eventually(
        &format!("the closing transaction {txid} is in the wallet after {point}"),
        Duration::from_secs(30),
        || {
            let (api, txid) = (d.api(), txid.clone());
            async move {
                let transactions = api.get("transactions", &[("uuid", uuid), ("limit", "200")]).await.ok();
                let closing = list(&transactions, "transactions").iter().find(|tx| tx["tx_hash"] == txid)?;
                let spends = list(closing, "previous_outpoints").iter().any(|o| o["outpoint"] == channel_point);
                spends.then_some(())
            }
        },
    )
    .await;
}

/// One withdrawal: one transaction that takes this amount (and its fee) out of the wallet.
pub async fn one_withdrawal(d: &Deployment, uuid: &str, amount: u64, point: &str) {
    let transactions = d.api().get("transactions", &[("uuid", uuid)]).await.ok();
    let paid_out = list(&transactions, "transactions").iter().filter(|tx| {
        let outputs = tx["output_details"].as_array().map_or(&[][..], Vec::as_slice);
        outputs.iter().any(|o| o["amount"].as_str() == Some(&amount.to_string()) && o["is_our_address"] == false)
    });
    assert_eq!(paid_out.count(), 1, "{point}: {transactions:#}");
}
