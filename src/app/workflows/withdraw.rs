//! `withdraw`: on-chain, exactly once.

use super::super::service::fee_too_high;
use super::super::step::{Advance, Ctx, Settle};
use super::onchain::{self, Send, Sent};
use super::reach;
use crate::error::Result;
use crate::lnd::macaroon::Grant;
use crate::model::amount::Sat;
use crate::model::operation::Operation;
use crate::model::problem::{Code, Refusal};
use crate::model::work::Work;
use crate::model::work::onchain::{SendStep, Withdraw, WithdrawAmount};
use serde_json::json;
use std::collections::BTreeMap;

pub(super) async fn advance(ctx: &Ctx, operation: &Operation, work: &Withdraw) -> Result<Advance> {
    let reached = reach(ctx, operation).await?;
    let macaroon = ctx.spending_macaroon(&reached.node.value, Grant::Withdraw)?;
    let sat_per_vbyte = match work.step {
        SendStep::Fund => ctx.parts.fee_rate(&reached.lnd, &reached.read).await?,
        // Decided and signed.
        SendStep::Finalize { .. } | SendStep::Publish { .. } => 0,
    };
    let amount = match work.amount {
        WithdrawAmount::Sat(amount) => amount,
        WithdrawAmount::All if work.step == SendStep::Fund => {
            onchain::release_leases(&reached.lnd, &macaroon, &operation.id).await?;
            match onchain::all_less_fee(&reached.lnd, &reached.read, sat_per_vbyte).await? {
                // What has come since it was accepted was not set aside.
                Some(amount) => amount.min(work.at_most_sat),
                None => return Ok(too_little("there is nothing confirmed that is worth its fee")),
            }
        }
        WithdrawAmount::All => Sat(0),
    };
    let outputs = BTreeMap::from([(work.address.clone(), amount.0)]);
    let send = Send { id: &operation.id, outputs, sat_per_vbyte };
    match onchain::advance(&reached.lnd, &macaroon, &reached.read, &send, &work.step).await? {
        Sent::Next(SendStep::Finalize { fee_sat, .. }) if fee_sat > work.max_fee_sat => {
            onchain::release_leases(&reached.lnd, &macaroon, &operation.id).await?;
            Ok(Advance::failed(fee_too_high(fee_sat, work.max_fee_sat)))
        }
        Sent::Next(step) => Ok(Advance::next(Work::Withdraw(Withdraw { step, ..work.clone() }), "sending")),
        Sent::Published { txid, fee_sat } => {
            let sent = sent_amount(&work.step, &work.address, ctx).unwrap_or(amount);
            let result = json!({ "txid": txid, "address": work.address, "amount_sat": sent, "fee_sat": fee_sat });
            Ok(Advance::Done { result, settle: Settle::Spent(sent.saturating_add(fee_sat)), writes: Vec::new() })
        }
        Sent::TooLittle(_) => Ok(too_little("the wallet has not enough confirmed money")),
        Sent::Rejected(message) if work.step == SendStep::Fund => {
            let refusal = Refusal::new(Code::LndRefused, "lnd refused the transaction").with("lnd_message", message);
            Ok(Advance::failed(refusal))
        }
        Sent::Rejected(message) => {
            tracing::error!(id = %operation.id, message, "a signed withdrawal was rejected");
            let message = "the signed transaction was rejected by the network; it may not be made again by itself";
            Ok(Advance::Park { refusal: Refusal::new(Code::Parked, message) })
        }
    }
}

fn too_little(message: &str) -> Advance {
    Advance::failed(Refusal::new(Code::InsufficientFunds, message))
}

/// What the stored transaction pays to the address: with `all` it is known only there.
fn sent_amount(step: &SendStep, address: &str, ctx: &Ctx) -> Option<Sat> {
    let SendStep::Publish { raw_tx, .. } = step else { return None };
    let tx: bitcoin::Transaction = bitcoin::consensus::encode::deserialize_hex(raw_tx).ok()?;
    let script = crate::model::onchain_address::script_of(address, ctx.parts.settings.network)?;
    let paid: u64 = tx.output.iter().filter(|o| o.script_pubkey == script).map(|o| o.value.to_sat()).sum();
    Some(Sat(paid))
}
