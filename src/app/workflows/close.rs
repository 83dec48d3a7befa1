//! `closechannel`: the channel point was frozen when the operation was accepted, and a channel closes once; so a repeat
//! finds the close that is under way. Done when pending on chain.
//!
//! Once lnd was asked for a cooperative close it goes on by itself, across restarts and reconnections, without showing so
//! until both sides have agreed to it. So a failure is definite only where this process knows that it was the first to ask;
//! else the operation waits for what becomes of it, and can be forced.

use super::super::feed::{Changed, next_change_of};
use super::super::refuse;
use super::super::step::{Advance, Ctx, Settle};
use super::{Reached, SOON, peers, reach};
use crate::error::{Error, Result};
use crate::lnd::macaroon::Grant;
use crate::lnd::proto::lnrpc::{CloseChannelRequest, ClosedChannelsRequest, ListChannelsRequest};
use crate::lnd::{LndError, LndErrorKind};
use crate::model::amount::Sat;
use crate::model::operation::Operation;
use crate::model::problem::{Code, Refusal};
use crate::model::work::Work;
use crate::model::work::close::{Close, CloseStep};
use crate::store::repo;
use bitcoin::{OutPoint, Txid};
use serde_json::json;
use std::time::Duration;

/// How long a peer that is away is called before a close of its channel fails, or is looked at again.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long lnd gets to go on by itself with a close that it may have been asked for: another request beside that would
/// break the negotiation off.
const RESUMPTION: Duration = Duration::from_secs(3);

/// How long a request is listened to: to ask again sooner would only disturb a negotiation that hangs.
const HANGING: Duration = Duration::from_secs(600);

pub(super) async fn advance(ctx: &Ctx, operation: &Operation, work: &Close) -> Result<Advance> {
    let reached = reach(ctx, operation).await?;
    match (look(&reached, work).await?, work.step) {
        (Seen::Published(txid), _) => done(&reached, work, txid).await,
        (Seen::Gone, _) => {
            let message = "there is no such channel, or it is not confirmed yet";
            Ok(Advance::failed(Refusal::new(Code::ChannelNotFound, message)))
        }
        (Seen::Negotiating, _) if !work.force => Ok(Advance::again("the close is being negotiated", SOON)),
        (Seen::Open { active }, CloseStep::Connect) if !work.force => {
            connect(ctx, operation, &reached, work, active).await
        }
        (Seen::Open { .. } | Seen::Negotiating, CloseStep::Connect) => Ok(to_close(work, work.asked)),
        (Seen::Open { .. } | Seen::Negotiating, CloseStep::Close) => close(ctx, operation, &reached, work).await,
    }
}

/// How far the close of a channel is.
enum Seen {
    Open {
        active: bool,
    },
    /// Asked for; its transaction is not published yet.
    Negotiating,
    /// By this transaction, pending or confirmed.
    Published(String),
    Gone,
}

impl Seen {
    fn closing(txid: String) -> Self {
        if txid.is_empty() { Self::Negotiating } else { Self::Published(txid) }
    }
}

async fn look(reached: &Reached, work: &Close) -> Result<Seen> {
    let Reached { lnd, read, .. } = reached;
    let open = lnd.list_channels(read, ListChannelsRequest::default()).await?.channels;
    if let Some(channel) = open.into_iter().find(|c| c.channel_point == work.channel_point) {
        return Ok(Seen::Open { active: channel.active });
    }
    // In the order in which a channel passes through them, so that it cannot slip by.
    let pending = lnd.pending_closes(read).await?;
    if let Some(this) = pending.into_iter().find(|c| c.channel_point == work.channel_point) {
        return Ok(Seen::closing(this.closing_txid));
    }
    let closed = lnd.closed_channels(read, ClosedChannelsRequest::default()).await?.channels;
    let this = closed.into_iter().find(|c| c.channel_point == work.channel_point);
    Ok(this.map_or(Seen::Gone, |c| Seen::closing(c.closing_tx_hash)))
}

fn to_close(work: &Close, asked: bool) -> Advance {
    let work = Close { step: CloseStep::Close, asked, ..work.clone() };
    Advance::next(Work::Close(work), "closing the channel")
}

/// Until lnd was asked, a peer that is away is a definite failure; but not a peer that is only not back yet after a
/// restart.
async fn connect(ctx: &Ctx, operation: &Operation, reached: &Reached, work: &Close, active: bool) -> Result<Advance> {
    if active || peers::await_active(ctx, reached, &work.pubkey, &work.channel_point, PATIENCE).await? {
        // Noted before the commit: if that fails, the step is done again.
        ctx.locks.note_unasked_close(&operation.id);
        return Ok(to_close(work, true));
    }
    let message = "the peer is offline: only a forced close is possible now";
    Ok(Advance::failed(Refusal::new(Code::PeerUnreachable, message)))
}

async fn close(ctx: &Ctx, operation: &Operation, reached: &Reached, work: &Close) -> Result<Advance> {
    let hangs = work.asked && !ctx.locks.use_unasked_close(&operation.id);
    if work.force {
        return match ask(ctx, reached, work).await? {
            Ok(txid) => done(reached, work, txid.to_string()).await,
            Err(error) => force_refused(reached, work, hangs, error).await,
        };
    }
    if hangs && !matches!(resumed(ctx, operation, reached, work).await?, Seen::Open { active: true }) {
        return Ok(Advance::again("looking whether the channel closes", SOON));
    }
    tokio::select! {
        answer = ask(ctx, reached, work) => match answer? {
            Ok(txid) => done(reached, work, txid.to_string()).await,
            Err(error) => refused(ctx, operation, reached, work, hangs, error).await,
        },
        // lnd says nothing while the peer says nothing, and no more once the peer was away for a moment.
        outcome = forced_meanwhile(ctx, operation) => {
            outcome?;
            Ok(Advance::again("forcing the close", Duration::ZERO))
        }
        outcome = closing_meanwhile(ctx, reached, work) => {
            outcome?;
            Ok(Advance::again("the close is being negotiated", SOON))
        }
    }
}

/// Asks lnd to close. The outer error is trouble of our own, before anything was asked.
async fn ask(ctx: &Ctx, reached: &Reached, work: &Close) -> Result<std::result::Result<Txid, LndError>> {
    let point: OutPoint =
        work.channel_point.parse().map_err(|_| Error::Invariant("a stored channel point is not one".to_owned()))?;
    let mut request =
        CloseChannelRequest { channel_point: Some(point.into()), force: work.force, ..Default::default() };
    if !work.force {
        // Payments under way are waited for instead of being an error.
        request.no_wait = true;
        let now = ctx.parts.fee_rate(&reached.lnd, &reached.read).await?;
        let most = work.fee.map(|fee| fee.max_sat_per_vbyte);
        request.sat_per_vbyte = most.map_or(now, |most| now.min(most));
        request.max_fee_per_vbyte = most.unwrap_or(0);
    }
    let macaroon = ctx.spending_macaroon(&reached.node.value, Grant::CloseChannel)?;
    Ok(reached.lnd.within(HANGING).close_channel(&macaroon, request).await)
}

/// What lnd makes by itself of a close that it may have been asked for before, its peer called if that is away.
async fn resumed(ctx: &Ctx, operation: &Operation, reached: &Reached, work: &Close) -> Result<Seen> {
    tokio::select! {
        _ = peers::await_active(ctx, reached, &work.pubkey, &work.channel_point, PATIENCE) => {}
        outcome = forced_meanwhile(ctx, operation) => outcome?,
    }
    let deadline = tokio::time::Instant::now() + RESUMPTION;
    loop {
        let seen = look(reached, work).await?;
        if !matches!(seen, Seen::Open { .. }) || tokio::time::Instant::now() >= deadline {
            return Ok(seen);
        }
        tokio::time::sleep(SOON).await;
    }
}

/// Waits until the channel is seen closing, and calls a peer that has gone away.
async fn closing_meanwhile(ctx: &Ctx, reached: &Reached, work: &Close) -> Result<()> {
    loop {
        tokio::time::sleep(4 * SOON).await;
        match look(reached, work).await? {
            Seen::Open { active: true } => {}
            Seen::Open { active: false } => peers::call(ctx, reached, &work.pubkey, None, PATIENCE).await,
            Seen::Negotiating | Seen::Published(_) | Seen::Gone => return Ok(()),
        }
    }
}

/// Waits until the stored operation says that the close is to be forced.
async fn forced_meanwhile(ctx: &Ctx, operation: &Operation) -> Result<()> {
    let mut changes = ctx.parts.feed.subscribe();
    let mut changed = Changed::LookAgain;
    loop {
        let current = match changed {
            Changed::To(told) => Some(*told),
            Changed::LookAgain => repo::get::<Operation>(&*ctx.parts.store, operation.id.as_str()).await?,
        };
        if current.is_some_and(|current| matches!(current.value.work, Work::Close(Close { force: true, .. }))) {
            return Ok(());
        }
        let Some(next) = next_change_of(&mut changes, &operation.id).await else { std::future::pending().await };
        changed = next;
    }
}

/// lnd does not close cooperatively. `hangs`: an earlier request may still come true.
async fn refused(
    ctx: &Ctx,
    operation: &Operation,
    reached: &Reached,
    work: &Close,
    hangs: bool,
    error: LndError,
) -> Result<Advance> {
    match error.kind {
        LndErrorKind::Unknown => Ok(Advance::again("looking whether the channel closes", SOON)),
        LndErrorKind::PeerOffline if !hangs => {
            let work = Close { step: CloseStep::Connect, asked: false, ..work.clone() };
            Ok(Advance::next(Work::Close(work), "calling the peer"))
        }
        LndErrorKind::PeerOffline => {
            Ok(Advance::again("the peer is away; the close goes on when it is back, unless it is forced", SOON))
        }
        LndErrorKind::Refused | LndErrorKind::NotFound => match look(reached, work).await? {
            Seen::Published(txid) => done(reached, work, txid).await,
            Seen::Negotiating => Ok(Advance::again("the close is being negotiated", SOON)),
            Seen::Open { .. } if hangs => {
                tracing::info!(id = %operation.id, %error, "lnd refused to be asked again for a close");
                Ok(Advance::again("looking whether the channel closes", PATIENCE))
            }
            Seen::Open { .. } | Seen::Gone => Ok(Advance::failed(lnd_refused(&error))),
        },
        _ => {
            // Nothing was asked: the next run is the first one still.
            if !hangs && error.kind.is_definite() {
                ctx.locks.note_unasked_close(&operation.id);
            }
            Err(error.into())
        }
    }
}

/// lnd does not force. A cooperative close that it was asked for before may still come true.
async fn force_refused(reached: &Reached, work: &Close, hangs: bool, error: LndError) -> Result<Advance> {
    let refused = matches!(error.kind, LndErrorKind::Refused | LndErrorKind::NotFound | LndErrorKind::PeerOffline);
    if !refused {
        return Err(error.into());
    }
    match look(reached, work).await? {
        Seen::Published(txid) => done(reached, work, txid).await,
        Seen::Open { .. } | Seen::Negotiating if hangs => Ok(Advance::Park { refusal: lnd_refused(&error) }),
        Seen::Open { .. } | Seen::Negotiating | Seen::Gone => Ok(Advance::failed(lnd_refused(&error))),
    }
}

fn lnd_refused(error: &LndError) -> Refusal {
    let refusal = Refusal::new(Code::LndRefused, "lnd refused to close the channel");
    refusal.with("lnd_message", refuse::words(error))
}

async fn done(reached: &Reached, work: &Close, txid: String) -> Result<Advance> {
    let fee_sat = cost(reached, work, &txid).await?;
    let result = json!({
        "channel_point": work.channel_point,
        "remote_pubkey": work.pubkey,
        "closing_txid": txid,
        "force": work.force,
        "fee_sat": fee_sat,
    });
    Ok(Advance::Done { result, settle: fee_sat.map_or(Settle::Keep, Settle::Spent), writes: Vec::new() })
}

/// What the closing transaction costs this node: nothing where the peer pays. `None` where neither lnd nor its wallet knows
/// the transaction: what was set aside then stays used.
async fn cost(reached: &Reached, work: &Close, txid: &str) -> Result<Option<Sat>> {
    let Reached { lnd, read, .. } = reached;
    let Some(fee) = work.fee else { return Ok(Some(Sat(0))) };
    let pending = lnd.pending_closes(read).await?.into_iter().find(|c| c.channel_point == work.channel_point);
    if let Some(paid) = pending.and_then(|close| fee.paid(txid, &close.closing_tx)) {
        return Ok(Some(paid));
    }
    let txid_parsed: Txid =
        txid.parse().map_err(|_| Error::Invariant("lnd named no closing transaction".to_owned()))?;
    let in_wallet = lnd.transaction(read, txid_parsed).await?;
    Ok(in_wallet.and_then(|tx| fee.paid(txid, &tx.raw_tx_hex)))
}
