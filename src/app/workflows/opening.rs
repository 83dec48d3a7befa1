//! Opens the channel that a payment needs, exactly once. What makes a repeat safe: the inputs are frozen in the step, the
//! channel carries the operation's id as its memo, and before lnd is asked a second time the absence of a channel is
//! proven (design: money.md, "Fencing"; lnd goes on opening after its client is gone).

use super::super::Parts;
use super::super::refuse;
use super::super::step::{Advance, Ctx};
use super::pay::{at, failed};
use super::{Reached, SOON, peers, reach};
use crate::error::{Error, Result};
use crate::lnd::LndErrorKind;
use crate::lnd::client::LndClient;
use crate::lnd::macaroon::{Grant, Macaroon};
use crate::lnd::proto::lnrpc::{
    AddressType, ClosedChannelsRequest, ListChannelsRequest, ListPeersRequest, OpenChannelRequest,
};
use crate::model::OperationId;
use crate::model::amount::Sat;
use crate::model::operation::Operation;
use crate::model::problem::{Code, Refusal};
use crate::model::work::Work;
use crate::model::work::pay::{Opened, Opening, Pay, PayStep, PayTerms};
use crate::model::work::plan::{self, Coin, OpeningPlan, Wallet};
use crate::store::IndexEntry;
use crate::store::repo;
use std::time::Duration;
use time::OffsetDateTime;

/// How long a step waits for a channel before it shows itself again.
const PATIENCE: Duration = Duration::from_secs(10);
/// For how long a peer is asked again that puts the opening off: longer than an lnd takes for a new block, or to catch up
/// after a restart.
const PEER_PATIENCE: time::Duration = time::Duration::minutes(1);

/// Decides on the channel: who, how large, of which coins. Waits for its turn, for a channel that is being opened anyway,
/// and for money that will suffice once confirmed.
pub(super) async fn plan(ctx: &Ctx, operation: &Operation, work: &Pay) -> Result<Advance> {
    if let Err(refusal) = refuse_too_late(&ctx.parts, &work.terms) {
        return Ok(failed(work, refusal));
    }
    if !ctx.locks.take_turn(&operation.id) || another_opens(ctx, operation).await? {
        ctx.locks.end_turn(&operation.id);
        return Ok(Advance::again("another channel of this node is being opened", SOON));
    }
    let reached = reach(ctx, operation).await?;
    let Reached { lnd, read, .. } = &reached;
    match pending_with_peer(lnd, read, work).await? {
        Pending::None => {}
        Pending::Carries(channel_point) => {
            ctx.locks.end_turn(&operation.id);
            return Ok(Advance::next(at(work, PayStep::AwaitChannel { channel_point }), "a channel is being opened"));
        }
        Pending::TooSmall => {
            ctx.locks.end_turn(&operation.id);
            return Ok(Advance::again("waiting for a channel with the peer to be confirmed", SOON));
        }
    }
    let Some(peer_address) = peer_address(ctx, lnd, read, work).await? else {
        let refusal = Refusal::new(Code::PeerAddressUnknown, "the payee's address is not known: say it with host");
        return Ok(failed(work, refusal));
    };
    let sat_per_vbyte = ctx.parts.fee_rate(lnd, read).await?;
    match plan::plan(&work.terms, &wallet(lnd, read).await?, sat_per_vbyte) {
        Err(refusal) => Ok(failed(work, refusal)),
        Ok(OpeningPlan::Wait) => {
            // Others whose money is there need not wait for this one's.
            ctx.locks.end_turn(&operation.id);
            Ok(Advance::again("waiting for money to be confirmed", Duration::from_millis(500)))
        }
        Ok(OpeningPlan::Open(funding)) => {
            let opening = Opening {
                peer: work.terms.peer.clone(),
                peer_address,
                capacity_sat: funding.capacity_sat,
                sat_per_vbyte,
                fee_sat: funding.fee_sat,
                outpoints: funding.outpoints,
            };
            Ok(Advance::next(at(work, PayStep::Connect { opening }), "connecting to the peer"))
        }
    }
}

/// An invoice that would expire before a channel for it is open.
pub(in crate::app) fn refuse_too_late(parts: &Parts, terms: &PayTerms) -> Result<(), Refusal> {
    if terms.expires_at - parts.clock.now() >= parts.settings.open_margin {
        return Ok(());
    }
    let message = "the invoice would expire before a channel for it is open";
    Err(Refusal::new(Code::InvoiceExpiresTooSoon, message))
}

/// Whether another operation of the node has decided on a channel, possibly in another process.
async fn another_opens(ctx: &Ctx, operation: &Operation) -> Result<bool> {
    let index = IndexEntry { name: "running", value: operation.subject().to_owned() };
    let running = repo::list_all::<Operation>(&*ctx.parts.store, Some(index)).await?;
    Ok(running.iter().any(|other| {
        let opens =
            matches!(&other.value.work, Work::Pay(Pay { step: PayStep::Connect { .. } | PayStep::Open { .. }, .. }));
        opens && other.value.id != operation.id
    }))
}

/// What is being opened with the peer already.
enum Pending {
    None,
    /// A channel, `txid:index`, that will carry the payment.
    Carries(String),
    /// Only what will not. An lnd takes one pending channel from a peer, unless configured otherwise, so asking is in vain.
    TooSmall,
}

async fn pending_with_peer(lnd: &LndClient, read: &Macaroon, work: &Pay) -> Result<Pending> {
    let needed = plan::needed_capacity(work.terms.amount_msat, work.terms.max_fee_sat);
    let pending = lnd.pending_channels(read).await?.pending_open_channels;
    let of_peer = pending.into_iter().filter_map(|p| p.channel).filter(|c| c.remote_node_pub == work.terms.peer);
    Ok(of_peer.fold(Pending::None, |found, channel| match found {
        Pending::Carries(_) => found,
        _ if Sat::from_lnd(channel.local_balance) >= needed => Pending::Carries(channel.channel_point),
        _ => Pending::TooSmall,
    }))
}

/// Where the peer is: as given, or as the fleet, lnd's connections or the graph know.
async fn peer_address(ctx: &Ctx, lnd: &LndClient, read: &Macaroon, work: &Pay) -> Result<Option<String>> {
    if let Some(given) = &work.terms.peer_address {
        return Ok(Some(given.clone()));
    }
    peers::known_address(&ctx.parts, lnd, read, &work.terms.peer).await
}

/// The coins that can be spent now, and what will be there.
async fn wallet(lnd: &LndClient, read: &Macaroon) -> Result<Wallet> {
    // In this order: money that a block confirms between the two counts twice for a moment, which at worst makes an opening
    // wait. The other way round it would not count at all, and the payment would fail for want of it.
    let balance = lnd.wallet_balance(read).await?;
    let confirmed = coins(lnd, read).await?;
    Ok(Wallet { confirmed, unconfirmed_sat: Sat::from_lnd(balance.unconfirmed_balance) })
}

/// The coins that can be spent now.
pub(in crate::app) async fn coins(lnd: &LndClient, read: &Macaroon) -> Result<Vec<Coin>> {
    let unspent = lnd.list_unspent(read, 1).await?;
    let coins = unspent
        .into_iter()
        .filter_map(|utxo| {
            let outpoint = utxo.outpoint.as_ref()?;
            Some(Coin {
                outpoint: format!("{}:{}", outpoint.txid_str, outpoint.output_index),
                value_sat: Sat(u64::try_from(utxo.amount_sat).ok()?),
                input_vsize_tenths: input_vsize_tenths(utxo.address_type()),
            })
        })
        .collect();
    Ok(coins)
}

/// Virtual size of an input by the kind of its address, tenths of a vbyte (BIP 141, BIP 341: key path).
fn input_vsize_tenths(kind: AddressType) -> u64 {
    match kind {
        AddressType::TaprootPubkey | AddressType::UnusedTaprootPubkey => 580,
        AddressType::WitnessPubkeyHash | AddressType::UnusedWitnessPubkeyHash => 685,
        AddressType::NestedPubkeyHash | AddressType::UnusedNestedPubkeyHash => 915,
    }
}

pub(super) async fn connect(ctx: &Ctx, operation: &Operation, work: &Pay, opening: &Opening) -> Result<Advance> {
    let reached = reach(ctx, operation).await?;
    match dial(ctx, &reached, opening).await? {
        Ok(()) => {
            ctx.locks.take_turn(&operation.id);
            ctx.locks.note_untried(&operation.id);
            let opening = opening.clone();
            Ok(Advance::next(at(work, PayStep::Open { opening, put_off: None }), "opening a channel"))
        }
        Err(refusal) => Ok(failed(work, refusal)),
    }
}

async fn dial(ctx: &Ctx, reached: &Reached, opening: &Opening) -> Result<Result<(), Refusal>> {
    let macaroon = ctx.spending_macaroon(&reached.node.value, Grant::Peers)?;
    match reached.lnd.connect_peer(&macaroon, &opening.peer, &opening.peer_address, false).await {
        Ok(_) => Ok(Ok(())),
        Err(e) if e.kind == LndErrorKind::AlreadyConnected => Ok(Ok(())),
        Err(e) if matches!(e.kind, LndErrorKind::Refused | LndErrorKind::PeerOffline) => {
            Ok(Err(Refusal::new(Code::PeerUnreachable, "the peer cannot be reached")))
        }
        Err(e) => Err(e.into()),
    }
}

pub(super) async fn open(
    ctx: &Ctx,
    operation: &Operation,
    work: &Pay,
    opening: &Opening,
    put_off: Option<OffsetDateTime>,
) -> Result<Advance> {
    let reached = reach(ctx, operation).await?;
    if let Some(channel_point) = find_by_memo(&reached, &operation.id).await? {
        return Ok(opened(work, opening, channel_point));
    }
    if !ctx.locks.use_untried(&operation.id) {
        ctx.locks.take_turn(&operation.id);
        if let Some(channel_point) = prove_absent(ctx, &reached, &operation.id, &opening.peer).await? {
            return Ok(opened(work, opening, channel_point));
        }
        if let Err(refusal) = dial(ctx, &reached, opening).await? {
            return Ok(failed(work, refusal));
        }
    }
    if work.terms.expires_at <= ctx.parts.clock.now() {
        return Ok(failed(work, Refusal::new(Code::PayreqExpired, "the payment request has expired")));
    }
    let macaroon = ctx.spending_macaroon(&reached.node.value, Grant::OpenChannel)?;
    let error = match reached.lnd.open_channel(&macaroon, request(operation, opening)?).await {
        Ok(point) => return Ok(opened(work, opening, point.to_string())),
        Err(error) => error,
    };
    if !is_no_to_an_opening(error.kind) {
        return Err(error.into());
    }
    if let Some(channel_point) = prove_absent(ctx, &reached, &operation.id, &opening.peer).await? {
        return Ok(opened(work, opening, channel_point));
    }
    // lnd does not reconnect to a peer it was told to disconnect from, and there may be other channels with it.
    let dialled = dial(ctx, &reached, opening).await;
    if dialled.is_err() {
        tracing::debug!(id = %operation.id, "the peer of a refused opening is away");
    }
    match error.kind {
        LndErrorKind::InsufficientFunds => {
            if let Some(channel_point) = find_closed(&reached, opening).await? {
                return Ok(opened(work, opening, channel_point));
            }
            ctx.locks.end_turn(&operation.id);
            Ok(Advance::next(at(work, PayStep::PlanOpening), "planning anew: the coins have changed"))
        }
        LndErrorKind::PeerNotReady if put_off.is_none_or(|since| ctx.parts.clock.now() - since < PEER_PATIENCE) => {
            if matches!(dialled, Ok(Ok(()))) {
                // Its absence is proven already.
                ctx.locks.note_untried(&operation.id);
            }
            Ok(ask_again(ctx, work, opening, put_off))
        }
        _ => {
            let refusal = Refusal::new(Code::ChannelOpenFailed, "the channel could not be opened");
            Ok(failed(work, refusal.with("lnd_message", refuse::words(&error))))
        }
    }
}

/// Whether an opening was refused, though lnd may go on with it all the same.
fn is_no_to_an_opening(kind: LndErrorKind) -> bool {
    use LndErrorKind::{InsufficientFunds, PeerNotReady, PeerOffline, Refused};
    matches!(kind, Refused | PeerOffline | PeerNotReady | InsufficientFunds)
}

/// The same opening once more, a little later.
fn ask_again(ctx: &Ctx, work: &Pay, opening: &Opening, put_off: Option<OffsetDateTime>) -> Advance {
    let progress = "the peer is not ready for a channel yet";
    if put_off.is_some() {
        return Advance::again(progress, Duration::from_secs(2));
    }
    let put_off = Some(ctx.parts.clock.now());
    Advance::next(at(work, PayStep::Open { opening: opening.clone(), put_off }), progress)
}

fn request(operation: &Operation, opening: &Opening) -> Result<OpenChannelRequest> {
    let broken = || Error::Invariant("a stored opening cannot be read".to_owned());
    let outpoints = opening.outpoints.iter().map(|o| o.parse::<bitcoin::OutPoint>().map(Into::into));
    Ok(OpenChannelRequest {
        node_pubkey: hex::decode(&opening.peer).map_err(|_| broken())?,
        local_funding_amount: i64::try_from(opening.capacity_sat.0).map_err(|_| broken())?,
        sat_per_vbyte: opening.sat_per_vbyte,
        private: true,
        min_confs: 1,
        memo: operation.id.to_string(),
        outpoints: outpoints.collect::<Result<_, _>>().map_err(|_| broken())?,
        ..Default::default()
    })
}

fn opened(work: &Pay, opening: &Opening, channel_point: String) -> Advance {
    let channel = Opened {
        channel_point: channel_point.clone(),
        capacity_sat: opening.capacity_sat,
        fee_sat: opening.fee_sat,
        peer: opening.peer.clone(),
    };
    let work = Pay { opened: Some(channel), step: PayStep::AwaitChannel { channel_point }, ..work.clone() };
    Advance::next(Work::Pay(work), "waiting for the channel to be confirmed")
}

/// The channel that carries the operation's memo, however far it is: the peer may close it before this step is repeated.
async fn find_by_memo(reached: &Reached, id: &OperationId) -> Result<Option<String>> {
    let Reached { lnd, read, .. } = reached;
    let pending = lnd.pending_channels(read).await?;
    let mut of_pending = pending.pending_open_channels.into_iter().filter_map(|p| p.channel);
    if let Some(channel) = of_pending.find(|c| c.memo == id.as_str()) {
        return Ok(Some(channel.channel_point));
    }
    let open = lnd.list_channels(read, ListChannelsRequest::default()).await?;
    if let Some(channel) = open.channels.into_iter().find(|c| c.memo == id.as_str()) {
        return Ok(Some(channel.channel_point));
    }
    let closing = lnd.pending_closes(read).await?;
    Ok(closing.into_iter().find(|c| c.memo == id.as_str()).map(|c| c.channel_point))
}

/// A channel with the peer that is closed for good, where memos are not shown, and was made of the frozen inputs.
async fn find_closed(reached: &Reached, opening: &Opening) -> Result<Option<String>> {
    let Reached { lnd, read, .. } = reached;
    let closed = lnd.closed_channels(read, ClosedChannelsRequest::default()).await?;
    for channel in closed.channels.into_iter().filter(|c| c.remote_pubkey == opening.peer) {
        let Ok(point) = channel.channel_point.parse::<bitcoin::OutPoint>() else { continue };
        let funding = lnd.transaction(read, point.txid).await?;
        let spent = funding.into_iter().flat_map(|tx| tx.previous_outpoints);
        if spent.into_iter().any(|spent| opening.outpoints.contains(&spent.outpoint)) {
            return Ok(Some(channel.channel_point));
        }
    }
    Ok(None)
}

/// Proves that an earlier request to open will not come true: disconnecting cancels the peer's reservations, and only then
/// an absent memo means an absent channel.
async fn prove_absent(ctx: &Ctx, reached: &Reached, id: &OperationId, peer: &str) -> Result<Option<String>> {
    let macaroon = ctx.spending_macaroon(&reached.node.value, Grant::Peers)?;
    match reached.lnd.disconnect_peer(&macaroon, peer).await {
        Ok(_) => {}
        // Not connected is what is wanted.
        Err(e) if matches!(e.kind, LndErrorKind::Refused | LndErrorKind::PeerOffline | LndErrorKind::NotFound) => {}
        Err(e) => return Err(e.into()),
    }
    for _ in 0..40 {
        let peers = reached.lnd.list_peers(&reached.read, ListPeersRequest::default()).await?.peers;
        if peers.iter().all(|p| p.pub_key != peer) {
            return find_by_memo(reached, id).await;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let unknown = crate::lnd::LndError::new(LndErrorKind::Unknown, "the peer does not leave");
    Err(unknown.into())
}

/// Until the channel is active. A channel that is open but idle means that the peer is away: it is called again.
pub(super) async fn await_channel(
    ctx: &Ctx,
    operation: &Operation,
    work: &Pay,
    channel_point: &str,
) -> Result<Advance> {
    ctx.locks.end_turn(&operation.id);
    let reached = reach(ctx, operation).await?;
    // Subscribed before the look, so that the event that matters cannot fall between.
    let mut events = reached.lnd.channel_events(&reached.read)?;
    let now = ctx.parts.clock.now();
    let listed = reached.lnd.list_channels(&reached.read, ListChannelsRequest::default()).await?;
    let channel = listed.channels.into_iter().find(|c| c.channel_point == channel_point);
    match channel {
        Some(channel) if channel.active => {
            let step = PayStep::SendOverNew { channel_point: channel_point.to_owned(), since: now };
            return Ok(Advance::next(at(work, step), "sending over the new channel"));
        }
        _ if work.terms.expires_at <= now => {
            let message = "the payment request expired before its channel was open";
            return Ok(failed(work, Refusal::new(Code::PayreqExpired, message)));
        }
        Some(_) => {
            let address = work.terms.peer_address.as_deref();
            peers::call(ctx, &reached, &work.terms.peer, address, PATIENCE).await;
        }
        None if is_closed(&reached, channel_point).await? => {
            return Ok(failed(
                work,
                Refusal::new(Code::ChannelOpenFailed, "the channel was closed before it was used"),
            ));
        }
        None => {}
    }
    let _whatever_happened_the_next_look_tells = tokio::time::timeout(PATIENCE, events.next()).await;
    Ok(Advance::again("waiting for the channel to be confirmed", Duration::ZERO))
}

async fn is_closed(reached: &Reached, channel_point: &str) -> Result<bool> {
    let Reached { lnd, read, .. } = reached;
    let closing = lnd.pending_closes(read).await?;
    if closing.iter().any(|c| c.channel_point == channel_point) {
        return Ok(true);
    }
    let closed = lnd.closed_channels(read, ClosedChannelsRequest::default()).await?;
    Ok(closed.channels.iter().any(|c| c.channel_point == channel_point))
}
