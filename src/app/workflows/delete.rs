//! `delete`: only once nothing is left to lose. The sealed secrets stay in the tombstone, and the folder on the host is set
//! aside, never deleted.

use super::super::step::{Advance, Ctx, Settle};
use super::create::{free_slot, host_of};
use super::{Reached, reach};
use crate::error::{Error, Result};
use crate::lnd::proto::lnrpc::{GetTransactionsRequest, ListChannelsRequest};
use crate::lndserver::client::Order;
use crate::model::amount::Sat;
use crate::model::node::{Funding, Phase};
use crate::model::operation::Operation;
use crate::model::problem::{Code, Refusal};
use crate::model::work::Work;
use crate::model::work::delete::{Delete, DeleteStep};
use crate::store::repo;
use serde_json::json;
use std::collections::HashSet;

pub(super) async fn advance(ctx: &Ctx, operation: &Operation, work: &Delete) -> Result<Advance> {
    match work.step {
        DeleteStep::Check => check(ctx, operation).await,
        DeleteStep::Stop => stop(ctx, operation).await,
        DeleteStep::Release => release(ctx, operation).await,
    }
}

fn at(step: DeleteStep) -> Work {
    Work::Delete(Delete { step })
}

async fn check(ctx: &Ctx, operation: &Operation) -> Result<Advance> {
    let reached = reach(ctx, operation).await?;
    let lost = match on_its_way(&reached).await? {
        None => left_to_lose(&reached).await?,
        coming => coming,
    };
    match lost {
        None => Ok(Advance::next(at(DeleteStep::Stop), "stopping lnd")),
        Some(refusal) => {
            let mut node = reached.node;
            node.value.phase = Phase::Ready;
            let writes = vec![repo::update(&node.value, node.version)?];
            Ok(Advance::Failed { refusal, spent_sat: Sat(0), writes })
        }
    }
}

/// The treasury's money that the wallet has not seen yet (with neutrino it sees it only in a block), as a refusal.
async fn on_its_way(reached: &Reached) -> Result<Option<Refusal>> {
    let Funding::Published { amount_sat, txid } = &reached.node.value.funding else { return Ok(None) };
    let txid = txid.parse().map_err(|_| Error::Invariant("a stored txid is not one".to_owned()))?;
    if reached.lnd.transaction(&reached.read, txid).await?.is_some() {
        return Ok(None);
    }
    let refusal = Refusal::new(Code::NodeNotEmpty, "the treasury's money is on its way to this node");
    Ok(Some(refusal.with("funding_sat", amount_sat.0)))
}

/// What still is in the node, as a refusal.
async fn left_to_lose(reached: &Reached) -> Result<Option<Refusal>> {
    let Reached { lnd, read, .. } = reached;
    let balance = lnd.wallet_balance(read).await?;
    let open = lnd.list_channels(read, ListChannelsRequest::default()).await?.channels.len();
    let pending = lnd.pending_channels(read).await?;
    let closing = pending.pending_force_closing_channels.len() + pending.waiting_close_channels.len();
    let opening = pending.pending_open_channels.len();
    let money = Sat::from_lnd(balance.total_balance).0.saturating_add(locked(reached).await?);
    if money == 0 && open + closing + opening == 0 && pending.total_limbo_balance == 0 {
        return Ok(None);
    }
    let refusal = Refusal::new(Code::NodeNotEmpty, "there is something left in this node")
        .with("wallet_sat", money)
        .with("open_channels", open)
        .with("pending_open_channels", opening)
        .with("pending_close_channels", closing);
    Ok(Some(refusal))
}

/// Money under a lock, satoshi. lnd counts a coin as locked until its lock expires even if it was spent since, and does not
/// let go of such a lock; so what the wallet's own transactions have spent is left out.
async fn locked(reached: &Reached) -> Result<u64> {
    let leases = reached.lnd.list_leases(&reached.read).await?;
    let all = GetTransactionsRequest { end_height: -1, ..Default::default() };
    let transactions = reached.lnd.transactions(&reached.read, all).await?.transactions;
    let spent: HashSet<String> =
        transactions.into_iter().flat_map(|tx| tx.previous_outpoints).map(|previous| previous.outpoint).collect();
    let unspent = leases.into_iter().filter(|lease| {
        let outpoint = lease.outpoint.as_ref().map(|o| format!("{}:{}", o.txid_str, o.output_index));
        outpoint.is_none_or(|outpoint| !spent.contains(&outpoint))
    });
    Ok(unspent.map(|lease| lease.value).sum())
}

async fn stop(ctx: &Ctx, operation: &Operation) -> Result<Advance> {
    let node = ctx.node(operation.node.as_ref()).await?;
    let host = host_of(ctx, &node.value).await?;
    let order = Order { host: &host.value, epoch: ctx.claim.epoch() };
    ctx.parts.agents.stop_node(order, &node.value.id).await?;
    Ok(Advance::next(at(DeleteStep::Release), "freeing the slot"))
}

async fn release(ctx: &Ctx, operation: &Operation) -> Result<Advance> {
    let mut node = ctx.node(operation.node.as_ref()).await?;
    let mut host = host_of(ctx, &node.value).await?;
    let order = Order { host: &host.value, epoch: ctx.claim.epoch() };
    // Done already is `Ok`; a refusal means that the slot is not free.
    ctx.parts.agents.remove_node(order, &node.value.id).await?;
    free_slot(&mut host.value, &mut node.value);
    node.value.phase = Phase::Deleted;
    let writes = vec![repo::update(&host.value, host.version)?, repo::update(&node.value, node.version)?];
    let result = json!({ "uuid": node.value.uuid, "deleted": true });
    // It counts where its create was counted.
    let create = repo::get::<Operation>(&*ctx.parts.store, node.value.create_operation.as_str()).await?;
    let shard = create.and_then(|create| create.value.reservation).map_or(0, |counted| counted.shard);
    Ok(Advance::Done { result, settle: Settle::OneNodeLess { shard }, writes })
}
