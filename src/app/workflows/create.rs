//! `create`: a slot, an lnd in it, a wallet with sealed secrets, and its first money.

use super::super::feed::wait_for_change;
use super::super::fleet::{Lost, is_on_revoked_host, lost_host, note_refusal};
use super::super::step::{Advance, Ctx, Settle};
use super::{choosing, create_wallet, funding};
use crate::error::{AgentError, Error, Result};
use crate::lndserver::client::Order;
use crate::model::host::Host;
use crate::model::hosting::missing;
use crate::model::node::{Endpoint, Funding, Node, Phase, Placement};
use crate::model::onchain_address::script_of;
use crate::model::operation::Operation;
use crate::model::problem::{Code, Refusal};
use crate::model::work::Work;
use crate::model::work::create::{Create, CreateStep, FundingRequest, FundingState};
use crate::pki::lnd_cert;
use crate::store::Document;
use crate::store::repo::{self, Entity, Versioned};
use serde_json::json;
use std::time::Duration;

pub(super) async fn advance(ctx: &Ctx, operation: &Operation, work: &Create) -> Result<Advance> {
    let node = ctx.node(operation.node.as_ref()).await?;
    if work.step != CreateStep::AwaitFunding
        && let Some(lost) = lost_host(&*ctx.parts.store, &node.value).await?
    {
        return leave_host(ctx, node, work, lost).await;
    }
    match work.step {
        CreateStep::Place => place(ctx, node, work).await,
        CreateStep::StartLnd => start_lnd(ctx, node, work).await,
        CreateStep::SealSecrets => create_wallet::seal_secrets(ctx, node, work).await,
        CreateStep::InitWallet => create_wallet::init_wallet(ctx, &node, work).await,
        CreateStep::ProveMacaroon => create_wallet::prove_macaroon(ctx, &node, work).await,
        CreateStep::AwaitActive => create_wallet::await_active(ctx, node, work).await,
        CreateStep::DepositAddress => deposit_address(ctx, node, operation, work).await,
        CreateStep::AwaitFunding => await_funding(ctx, node, operation, work).await,
    }
}

/// The same work at another step.
pub(super) fn at(work: &Create, step: CreateStep) -> Work {
    Work::Create(Create { step, ..work.clone() })
}

/// The next step, with the node as it is now.
pub(super) fn next_with(work: &Create, step: CreateStep, node: &Versioned<Node>, progress: &str) -> Result<Advance> {
    Ok(Advance::Next {
        work: at(work, step),
        progress: progress.to_owned(),
        writes: vec![repo::update(&node.value, node.version)?],
    })
}

/// Takes a slot: node and host say so in one commit, so that a slot is never given twice.
async fn place(ctx: &Ctx, mut node: Versioned<Node>, work: &Create) -> Result<Advance> {
    if node.value.placement.is_some() {
        return Ok(Advance::next(at(work, CreateStep::StartLnd), "starting lnd"));
    }
    // Subscribed before the look, so that the change that matters cannot fall between.
    let mut changes = ctx.parts.feed.subscribe();
    let (store, id) = (&*ctx.parts.store, &node.value.id);
    let hosts = repo::list_all::<Host>(store, None).await?;
    let usable: Vec<_> = hosts.iter().filter(|host| host.value.is_usable()).collect();
    let nobody = usable.is_empty();
    let Some((host, slot)) = choosing::choose(ctx, id, &usable).await else {
        let hosts = hosts.iter().map(|host| &host.value);
        return match &ctx.parts.supply {
            // Whoever sees to the hosts sees that somebody waits.
            Some(supply) if missing(supply.rules, std::slice::from_ref(id), hosts).without.is_empty() => {
                let of_host = |document: &Document| document.key.collection == Host::COLLECTION;
                wait_for_change(&mut changes, Duration::from_secs(5), of_host).await;
                Ok(Advance::again("waiting for a new host", Duration::ZERO))
            }
            None if nobody => Ok(Advance::again("waiting for a host to join", Duration::from_millis(500))),
            _ => give_up(node, None, Refusal::new(Code::NoCapacity, "no host has a free slot").retry_after(60)),
        };
    };
    let mut writes = Vec::new();
    // One that was made for this node and came later is free for others.
    for mut other in hosts.iter().filter(|other| other.value.id != host.value.id).cloned() {
        if other.value.release_from(id) {
            writes.push(repo::update(&other.value, other.version)?);
        }
    }
    let mut host = host.clone();
    host.value.release_from(id);
    host.value.slots.insert(slot, id.clone());
    node.value.placement = Some(Placement { host: host.value.id.clone(), slot });
    writes.extend([repo::update(&host.value, host.version)?, repo::update(&node.value, node.version)?]);
    Ok(Advance::Next { work: at(work, CreateStep::StartLnd), progress: "starting lnd".to_owned(), writes })
}

/// Whoever holds a revoked host now gets nothing, and a terminated one has nobody: without a wallet the node goes elsewhere,
/// and no order is given; once there may be one, a person has to look.
async fn leave_host(ctx: &Ctx, mut node: Versioned<Node>, work: &Create, lost: Lost) -> Result<Advance> {
    let mut host = host_of(ctx, &node.value).await?;
    if node.value.wallet_may_exist {
        let id = &host.value.id;
        return Ok(create_wallet::park(&match lost {
            Lost::Revoked => "the node's host was revoked, and the node may have a wallet there".to_owned(),
            Lost::Gone => format!(
                "the node's instance is terminated, and its data volume may have a wallet: `scale-lnd host recover {id}`, \
                 then retry this operation"
            ),
        }));
    }
    free_slot(&mut host.value, &mut node.value);
    Ok(Advance::Next {
        work: at(work, CreateStep::Place),
        progress: "looking for another host".to_owned(),
        writes: vec![repo::update(&host.value, host.version)?, repo::update(&node.value, node.version)?],
    })
}

pub(super) fn free_slot(host: &mut Host, node: &mut Node) {
    host.slots.retain(|_, holder| *holder != node.id);
    node.placement = None;
    node.endpoint = None;
}

/// The host that a placed node is on.
pub(super) async fn host_of(ctx: &Ctx, node: &Node) -> Result<Versioned<Host>> {
    let placement = node.placement.as_ref().ok_or_else(|| Error::Invariant("a node without a place".to_owned()))?;
    let host = repo::get::<Host>(&*ctx.parts.store, placement.host.as_str()).await?;
    host.ok_or_else(|| Error::Invariant(format!("host {} is not in the store", placement.host)))
}

async fn start_lnd(ctx: &Ctx, mut node: Versioned<Node>, work: &Create) -> Result<Advance> {
    let host = host_of(ctx, &node.value).await?;
    let order = Order { host: &host.value, epoch: ctx.claim.epoch() };
    let spec = ctx.parts.settings.spec_for(&node.value);
    match ctx.parts.agents.ensure_node(order, spec).await {
        Ok(endpoint) if !is_its_own(&endpoint, &node.value, &host.value) => {
            let (node, host) = (&node.value.id, &host.value.id);
            tracing::error!(%node, host.id = %host, "ALARM: a host passes off another lnd as a node's own");
            Ok(create_wallet::park("the host named an lnd that is not this node's"))
        }
        Ok(endpoint) => {
            node.value.endpoint = Some(endpoint);
            next_with(work, CreateStep::SealSecrets, &node, "making the wallet's secrets")
        }
        Err(AgentError::Refused(reason)) => {
            tracing::warn!(node = %node.value.id, host.id = %host.value.id, reason, "the host refused to start an lnd");
            let refusal = Refusal::new(Code::NoCapacity, "no lnd could be started").retry_after(60);
            // Before the slot is free again: an emptier host than this there may not be.
            let noted = note_refusal(&*ctx.parts.store, &host.value.id, ctx.parts.clock.now()).await?;
            clean_up(ctx, node, noted.unwrap_or(host), refusal).await
        }
        Err(AgentError::Revoked) => Ok(revoked_now()),
        Err(error) => Err(error.into()),
    }
}

/// Whether what a host's agent names can be this node's lnd: it is on that host, and its certificate, which was made for
/// this node by whoever holds its key, says so. The lnd of another host's node can be named, but it is not this.
pub(super) fn is_its_own(endpoint: &Endpoint, node: &Node, host: &Host) -> bool {
    let named = lnd_cert::names(&endpoint.certificate_pem, node.id.as_str());
    Some(endpoint.address) == host.address && named.unwrap_or(false)
}

/// A create that definitely failed before a wallet could exist: the folder is set aside, the slot freed, the limits given
/// back; the same user may be created again. A slot that the host does not clear is given to nobody.
async fn clean_up(ctx: &Ctx, node: Versioned<Node>, host: Versioned<Host>, refusal: Refusal) -> Result<Advance> {
    let (agents, id) = (&ctx.parts.agents, &node.value.id);
    let order = Order { host: &host.value, epoch: ctx.claim.epoch() };
    let cleared = async {
        agents.stop_node(order, id).await?;
        agents.remove_node(order, id).await
    };
    match cleared.await {
        Ok(()) => give_up(node, Some(host), refusal),
        Err(AgentError::Refused(reason)) => {
            tracing::error!(node = %id, host.id = %host.value.id, reason, "the host refused to clear a slot");
            Ok(create_wallet::park("the host refused to start an lnd, and then to clear its slot, which stays taken"))
        }
        Err(AgentError::Revoked) => Ok(revoked_now()),
        Err(error) => Err(error.into()),
    }
}

/// Between two looks at it; the next one says what that means.
fn revoked_now() -> Advance {
    Advance::again("the host was revoked", Duration::ZERO)
}

fn give_up(mut node: Versioned<Node>, host: Option<Versioned<Host>>, refusal: Refusal) -> Result<Advance> {
    let mut writes = Vec::new();
    if let Some(mut host) = host {
        free_slot(&mut host.value, &mut node.value);
        writes.push(repo::update(&host.value, host.version)?);
    }
    node.value.phase = Phase::Failed;
    writes.push(repo::update(&node.value, node.version)?);
    Ok(Advance::Failed { refusal, spent_sat: crate::model::Sat(0), writes })
}

/// Asks for an address and, where there is a treasury, asks it for money: one commit.
async fn deposit_address(
    ctx: &Ctx,
    mut node: Versioned<Node>,
    operation: &Operation,
    work: &Create,
) -> Result<Advance> {
    // Looked at before it was written, too; of two that came at the same time, each sees the other here.
    if create_wallet::is_anothers(&*ctx.parts.store, &node.value, node.value.identity_pubkey.as_deref()).await? {
        return Ok(create_wallet::park(create_wallet::ANOTHERS));
    }
    let address = create_wallet::new_address(ctx, &node.value).await?;
    if script_of(&address, ctx.parts.settings.network).is_none() {
        // It would stand in a transaction that pays others, too, and in the treasury's words about that.
        tracing::error!(node = %node.value.id, "ALARM: an lnd gave something else than an address of its network");
        return Ok(create_wallet::park("lnd gave something else than an address"));
    }
    node.value.deposit_address = Some(address.clone());
    let amount_sat = work.initial_funding_sat;
    if ctx.parts.treasury.is_none() || amount_sat.0 == 0 {
        return done(node, None);
    }
    let request = FundingRequest {
        operation: operation.id.clone(),
        node: node.value.id.clone(),
        address,
        amount_sat,
        state: FundingState::Waiting,
    };
    node.value.funding = Funding::Requested { amount_sat };
    Ok(Advance::Next {
        work: at(work, CreateStep::AwaitFunding),
        progress: "waiting for the treasury".to_owned(),
        writes: vec![repo::update(&node.value, node.version)?, repo::create(&request)?],
    })
}

/// Until the treasury has published. Whoever waits makes sure that somebody sends: creates that wait at the same time share
/// one transaction.
async fn await_funding(ctx: &Ctx, mut node: Versioned<Node>, operation: &Operation, work: &Create) -> Result<Advance> {
    // Subscribed before the look, so that the change that matters cannot fall between.
    let mut changes = ctx.parts.feed.subscribe();
    let request = repo::get::<FundingRequest>(&*ctx.parts.store, operation.id.as_str()).await?;
    let Versioned { value: request, version } =
        request.ok_or_else(|| Error::Invariant("a funding request is gone".to_owned()))?;
    match request.state {
        FundingState::Published { txid } => {
            let amount_sat = request.amount_sat;
            node.value.funding = Funding::Published { amount_sat, txid: txid.clone() };
            done(node, Some(txid))
        }
        FundingState::Waiting if is_on_revoked_host(&*ctx.parts.store, &node.value).await? => {
            node.value.funding = Funding::None;
            let writes = vec![
                repo::update(&node.value, node.version)?,
                repo::delete::<FundingRequest>(operation.id.as_str(), version),
            ];
            let work = at(work, CreateStep::DepositAddress);
            Ok(Advance::Next { work, progress: "the host was revoked".to_owned(), writes })
        }
        FundingState::Waiting => {
            funding::batch_what_waits(ctx).await?;
            funding::wait_for_change(&mut changes, &operation.id, Duration::from_secs(2)).await;
            Ok(Advance::again("waiting for the treasury", Duration::ZERO))
        }
        FundingState::Batched { .. } => {
            funding::wait_for_change(&mut changes, &operation.id, Duration::from_secs(5)).await;
            Ok(Advance::again("the treasury is sending", Duration::ZERO))
        }
    }
}

fn done(mut node: Versioned<Node>, txid: Option<String>) -> Result<Advance> {
    node.value.phase = Phase::Ready;
    let result = json!({
        "uuid": node.value.uuid,
        "identity_pubkey": node.value.identity_pubkey,
        "deposit_address": node.value.deposit_address,
        "funding_txid": txid,
    });
    Ok(Advance::Done { result, settle: Settle::Keep, writes: vec![repo::update(&node.value, node.version)?] })
}
