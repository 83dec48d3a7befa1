//! Sending on-chain exactly once: fund under a lock of the operation, finalize, keep the raw transaction, publish. Until
//! the raw transaction is in the Store nothing has left, and after it every repeat publishes the same transaction.

use crate::app::refuse;
use crate::error::{Error, Result};
use crate::lnd::LndErrorKind;
use crate::lnd::client::LndClient;
use crate::lnd::macaroon::Macaroon;
use crate::lnd::proto::walletrpc::{FundPsbtRequest, TxTemplate, fund_psbt_request};
use crate::model::OperationId;
use crate::model::amount::Sat;
use crate::model::work::onchain::SendStep;
use crate::model::work::plan;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bitcoin::consensus::deserialize;
use bitcoin::{Psbt, Transaction, Txid};
use std::collections::BTreeMap;

/// How long the inputs stay locked: longer than any operation should take, short enough to be free again after one that
/// was abandoned.
const LOCK_SECONDS: u64 = 3600;

/// What is to be sent.
pub(super) struct Send<'a> {
    pub id: &'a OperationId,
    pub outputs: BTreeMap<String, u64>,
    pub sat_per_vbyte: u64,
}

/// What a step of a send came to.
pub(super) enum Sent {
    Next(SendStep),
    Published { txid: String, fee_sat: Sat },
    TooLittle(String),
    Rejected(String),
}

/// Does one step of a send. `macaroon` must end with the lease; `read` looks.
pub(super) async fn advance(
    lnd: &LndClient,
    macaroon: &Macaroon,
    read: &Macaroon,
    send: &Send<'_>,
    step: &SendStep,
) -> Result<Sent> {
    match step {
        SendStep::Fund => fund(lnd, macaroon, send).await,
        SendStep::Finalize { psbt, fee_sat } => {
            let packet =
                STANDARD.decode(psbt).map_err(|_| Error::Invariant("a stored PSBT is not base64".to_owned()))?;
            let answer = lnd.finalize_psbt(macaroon, packet).await?;
            let tx: Transaction = deserialize(&answer.raw_final_tx)
                .map_err(|_| Error::Invariant("lnd signed no transaction".to_owned()))?;
            let (raw_tx, txid) = (hex::encode(&answer.raw_final_tx), tx.compute_txid().to_string());
            Ok(Sent::Next(SendStep::Publish { raw_tx, txid, fee_sat: *fee_sat }))
        }
        SendStep::Publish { raw_tx, txid, fee_sat } => {
            publish(lnd, [macaroon, read], send.id, raw_tx, txid, *fee_sat).await
        }
    }
}

async fn fund(lnd: &LndClient, macaroon: &Macaroon, send: &Send<'_>) -> Result<Sent> {
    release_leases(lnd, macaroon, send.id).await?;
    let ask = FundPsbtRequest {
        template: Some(fund_psbt_request::Template::Raw(TxTemplate {
            inputs: Vec::new(),
            outputs: send.outputs.clone(),
        })),
        fees: Some(fund_psbt_request::Fees::SatPerVbyte(send.sat_per_vbyte)),
        min_confs: 1,
        custom_lock_id: send.id.lock_id().to_vec(),
        lock_expiration_seconds: LOCK_SECONDS,
        ..Default::default()
    };
    match lnd.fund_psbt(macaroon, ask).await {
        Ok(answer) => {
            let fee_sat = fee_of(&answer.funded_psbt)?;
            Ok(Sent::Next(SendStep::Finalize { psbt: STANDARD.encode(&answer.funded_psbt), fee_sat }))
        }
        Err(e) if e.kind == LndErrorKind::InsufficientFunds => Ok(Sent::TooLittle(refuse::words(&e))),
        Err(e) if e.kind == LndErrorKind::Refused => Ok(Sent::Rejected(refuse::words(&e))),
        Err(e) => Err(e.into()),
    }
}

/// Lets go of what an earlier run of the step, or an operation that failed, has locked.
pub(super) async fn release_leases(lnd: &LndClient, macaroon: &Macaroon, id: &OperationId) -> Result<()> {
    let lock = id.lock_id();
    for lease in lnd.list_leases(macaroon).await? {
        if lease.id == lock
            && let Some(outpoint) = lease.outpoint
        {
            match lnd.release_output(macaroon, lock.to_vec(), outpoint).await {
                // Spent, or let go, in between.
                Err(e) if e.kind == LndErrorKind::NotFound => {}
                other => other?,
            }
        }
    }
    Ok(())
}

fn fee_of(packet: &[u8]) -> Result<Sat> {
    let psbt = Psbt::deserialize(packet).map_err(|_| Error::Invariant("lnd made no PSBT".to_owned()))?;
    let fee = psbt.fee().map_err(|_| Error::Invariant("a PSBT that does not tell its fee".to_owned()))?;
    Ok(Sat(fee.to_sat()))
}

async fn publish(
    lnd: &LndClient,
    [macaroon, read]: [&Macaroon; 2],
    id: &OperationId,
    raw_tx: &str,
    txid: &str,
    fee_sat: Sat,
) -> Result<Sent> {
    let raw =
        hex::decode(raw_tx).map_err(|_| Error::Invariant("a stored transaction is not hexadecimal".to_owned()))?;
    match lnd.publish_transaction(macaroon, raw, id.as_str()).await {
        Ok(()) => Ok(Sent::Published { txid: txid.to_owned(), fee_sat }),
        Err(e) if e.kind == LndErrorKind::Refused => {
            // Refused, and yet known to the wallet: an earlier run of this step has published it.
            let parsed: Txid = txid.parse().map_err(|_| Error::Invariant("a stored txid is not one".to_owned()))?;
            match lnd.transaction(read, parsed).await {
                Ok(Some(_)) => Ok(Sent::Published { txid: txid.to_owned(), fee_sat }),
                Ok(None) => Ok(Sent::Rejected(refuse::words(&e))),
                Err(other) => Err(other.into()),
            }
        }
        Err(e) => Err(e.into()),
    }
}

/// All that is confirmed, less what a transaction with all of it as inputs and one output costs; `None` where nothing is
/// left. The reserve that lnd keeps for anchor channels stays.
pub(super) async fn all_less_fee(lnd: &LndClient, read: &Macaroon, sat_per_vbyte: u64) -> Result<Option<Sat>> {
    let coins = super::opening::coins(lnd, read).await?;
    let balance = lnd.wallet_balance(read).await?;
    let sum = Sat(coins.iter().map(|coin| coin.value_sat.0).sum());
    let reserved = Sat::from_lnd(balance.reserved_balance_anchor_chan);
    // The change output that lnd may plan for is counted too: what is too much goes there, never to miners.
    let inputs: Vec<u64> = coins.iter().map(|coin| coin.input_vsize_tenths).collect();
    let fee = plan::transaction_fee(&inputs, sat_per_vbyte);
    let left = sum.saturating_sub(reserved).saturating_sub(fee);
    Ok((left >= DUST).then_some(left))
}

/// Bitcoin Core's dust limit for the largest of the usual outputs, satoshi.
const DUST: Sat = Sat(546);
