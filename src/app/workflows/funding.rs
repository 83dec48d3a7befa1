//! The treasury's transactions: creates that wait at the same time are funded by one of them.

use super::super::step::{Advance, Ctx, Settle};
use super::super::{feed, fleet};
use super::onchain::{self, Send, Sent};
use crate::error::{Error, Result};
use crate::lnd::macaroon::Caveat;
use crate::model::OperationId;
use crate::model::amount::Sat;
use crate::model::operation::{Operation, State, TREASURY};
use crate::model::problem::{Code, Refusal};
use crate::model::work::Work;
use crate::model::work::create::{FundingRequest, FundingState};
use crate::model::work::onchain::{FundingBatch, FundingOutput, SendStep};
use crate::store::repo::{self, Entity};
use crate::store::{Change, Document, IndexEntry, Write};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::Receiver;

/// Outputs of one transaction at most.
const MOST_OUTPUTS: usize = 100;
const LEAST_FEE_BOUND: Sat = Sat(20_000);

/// Makes one operation of all requests that wait, unless the treasury is at work: then those that come meanwhile share the
/// next one. Of several masters that try, one wins; the others find nothing left. Within one master they take turns, and
/// all but the first find the treasury at work.
pub(super) async fn batch_what_waits(ctx: &Ctx) -> Result<()> {
    let _turn = ctx.parts.funding_turn.lock().await;
    let store = &*ctx.parts.store;
    let busy = IndexEntry { name: "running", value: TREASURY.to_owned() };
    if !repo::list::<Operation>(store, Some(busy), None, 1, false).await?.0.is_empty() {
        return Ok(());
    }
    let waiting = IndexEntry { name: "state", value: FundingState::Waiting.name().to_owned() };
    let (requests, _) = repo::list::<FundingRequest>(store, Some(waiting), None, MOST_OUTPUTS, false).await?;
    let now = ctx.parts.clock.now();
    let id = OperationId::random(now, &mut rand::rng());
    let mut writes = Vec::new();
    let mut outputs = Vec::new();
    for mut request in requests {
        if is_on_revoked_host(ctx, &request.value).await? {
            continue;
        }
        request.value.state = FundingState::Batched { batch: id.clone() };
        writes.push(repo::update(&request.value, request.version)?);
        let FundingRequest { operation, node, address, amount_sat, .. } = request.value;
        outputs.push(FundingOutput { operation, node, address, amount_sat });
    }
    if outputs.is_empty() {
        return Ok(());
    }
    let operation = Operation {
        id,
        owner: None,
        node: None,
        host: None,
        work: Work::Funding(FundingBatch { outputs, step: SendStep::Fund }),
        state: State::Running,
        progress: "accepted".to_owned(),
        reservation: None,
        created_at: now,
        updated_at: now,
    };
    writes.push(repo::create(&operation)?);
    match store.commit(writes).await {
        Err(error) if !error.is_conflict() => Err(error.into()),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Its create takes such a request back; whoever looks first must not send.
async fn is_on_revoked_host(ctx: &Ctx, request: &FundingRequest) -> Result<bool> {
    let node = ctx.node(Some(&request.node)).await?;
    fleet::is_on_revoked_host(&*ctx.parts.store, &node.value).await
}

/// Waits until the funding request of `operation`, or an operation of the treasury, has changed.
pub(super) async fn wait_for_change(changes: &mut Receiver<Arc<Change>>, operation: &OperationId, at_most: Duration) {
    let relevant = |document: &Document| match document.key.collection {
        FundingRequest::COLLECTION => document.key.id == operation.as_str(),
        Operation::COLLECTION => is_end_of_the_treasurys(document),
        _ => false,
    };
    feed::wait_for_change(changes, at_most, relevant).await;
}

fn is_end_of_the_treasurys(document: &Document) -> bool {
    let operation = repo::decode_ref::<Operation>(document);
    operation.is_ok_and(|operation| operation.value.subject() == TREASURY && !operation.value.is_running())
}

pub(super) async fn advance(ctx: &Ctx, operation: &Operation, work: &FundingBatch) -> Result<Advance> {
    let treasury = ctx.parts.treasury.as_ref();
    let treasury = treasury.ok_or_else(|| Error::Invariant("there is no treasury".to_owned()))?;
    let macaroon = treasury.macaroon.with_caveat(Caveat::TimeBefore(ctx.claim.spend_until()?));
    let sat_per_vbyte = match work.step {
        SendStep::Fund => ctx.parts.fee_rate(&treasury.client, &treasury.macaroon).await?,
        // Decided and signed.
        SendStep::Finalize { .. } | SendStep::Publish { .. } => 0,
    };
    let mut outputs = BTreeMap::new();
    for output in &work.outputs {
        *outputs.entry(output.address.clone()).or_insert(0) += output.amount_sat.0;
    }
    let send = Send { id: &operation.id, outputs, sat_per_vbyte };
    match onchain::advance(&treasury.client, &macaroon, &treasury.macaroon, &send, &work.step).await? {
        Sent::Next(SendStep::Finalize { fee_sat, .. }) if fee_sat > fee_bound(work) => {
            onchain::release_leases(&treasury.client, &macaroon, &operation.id).await?;
            tracing::warn!(%fee_sat, bound = %fee_bound(work), "funding costs too much now; the treasury waits");
            Ok(Advance::again("the treasury waits for lower fees", Duration::from_secs(30)))
        }
        Sent::Next(step) => {
            Ok(Advance::next(Work::Funding(FundingBatch { step, ..work.clone() }), "the treasury is sending"))
        }
        Sent::Published { txid, fee_sat } => {
            let writes = mark_published(ctx, work, &txid).await?;
            let result = json!({ "txid": txid, "fee_sat": fee_sat });
            Ok(Advance::Done { result, settle: Settle::Keep, writes })
        }
        Sent::TooLittle(reason) => {
            tracing::warn!(reason, outputs = work.outputs.len(), "the treasury has not enough confirmed money");
            Ok(Advance::again("the treasury has not enough confirmed money", Duration::from_secs(2)))
        }
        Sent::Rejected(reason) => {
            tracing::error!(reason, "the treasury's transaction was rejected");
            Ok(Advance::Park { refusal: Refusal::new(Code::Parked, "the treasury's transaction was rejected") })
        }
    }
}

/// What a batch may cost: a tenth of what it sends, and never less than a small transaction at usual rates.
fn fee_bound(work: &FundingBatch) -> Sat {
    let total: u64 = work.outputs.iter().map(|output| output.amount_sat.0).sum();
    Sat(total / 10).max(LEAST_FEE_BOUND)
}

async fn mark_published(ctx: &Ctx, work: &FundingBatch, txid: &str) -> Result<Vec<Write>> {
    let mut writes = Vec::new();
    for output in &work.outputs {
        let request = repo::get::<FundingRequest>(&*ctx.parts.store, output.operation.as_str()).await?;
        let mut request = request.ok_or_else(|| Error::Invariant("a funding request is gone".to_owned()))?;
        request.value.state = FundingState::Published { txid: txid.to_owned() };
        writes.push(repo::update(&request.value, request.version)?);
    }
    Ok(writes)
}
