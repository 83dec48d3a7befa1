//! `closechannel`: the channel point was frozen when the operation was accepted, and a channel closes once; so a repeat
//! finds the close that is under way. Done when pending on chain.

use super::super::refuse;
use super::super::step::{Advance, Ctx, Settle};
use super::{Reached, SOON, reach};
use crate::error::{Error, Result};
use crate::lnd::LndErrorKind;
use crate::lnd::macaroon::Grant;
use crate::lnd::proto::lnrpc::pending_channels_response::PendingChannel;
use crate::lnd::proto::lnrpc::{CloseChannelRequest, ClosedChannelsRequest, ListChannelsRequest};
use crate::model::operation::Operation;
use crate::model::problem::{Code, Refusal};
use crate::model::work::close::Close;
use serde_json::json;

pub(super) async fn advance(ctx: &Ctx, operation: &Operation, work: &Close) -> Result<Advance> {
    let reached = reach(ctx, operation).await?;
    match closing(&reached, &work.channel_point).await? {
        Closing::Published(txid) => return Ok(done(work, &txid)),
        Closing::Negotiating => return Ok(Advance::again("the close is being negotiated", SOON)),
        Closing::Not => {}
    }
    let open = reached.lnd.list_channels(&reached.read, ListChannelsRequest::default()).await?;
    let Some(channel) = open.channels.into_iter().find(|c| c.channel_point == work.channel_point) else {
        let message = "there is no such channel, or it is not confirmed yet";
        return Ok(Advance::failed(Refusal::new(Code::ChannelNotFound, message)));
    };
    let point: bitcoin::OutPoint =
        work.channel_point.parse().map_err(|_| Error::Invariant("a stored channel point is not one".to_owned()))?;
    let macaroon = ctx.spending_macaroon(&reached.node.value, Grant::CloseChannel)?;
    let sat_per_vbyte = if work.force { 0 } else { ctx.parts.fee_rate(&reached.lnd, &reached.read).await? };
    let ask = CloseChannelRequest {
        channel_point: Some(point.into()),
        force: work.force,
        sat_per_vbyte,
        // Payments under way are waited for instead of being an error.
        no_wait: !work.force,
        ..Default::default()
    };
    match reached.lnd.close_channel(&macaroon, ask).await {
        Ok(txid) => Ok(done(work, &txid.to_string())),
        // lnd says the same while a close is already running, as one that an earlier run of this step has asked for.
        Err(e) if e.kind == LndErrorKind::PeerOffline && channel.active => {
            Ok(Advance::again("looking whether the channel closes", SOON))
        }
        Err(e) if e.kind == LndErrorKind::PeerOffline => {
            let message = "the peer is offline: only a forced close is possible now";
            Ok(Advance::failed(Refusal::new(Code::PeerUnreachable, message)))
        }
        Err(e) if matches!(e.kind, LndErrorKind::Refused | LndErrorKind::NotFound) => {
            // An earlier run of this step may have come through after all.
            match closing(&reached, &work.channel_point).await? {
                Closing::Published(txid) => Ok(done(work, &txid)),
                Closing::Negotiating => Ok(Advance::again("the close is being negotiated", SOON)),
                Closing::Not => {
                    let refusal = Refusal::new(Code::LndRefused, "lnd refused to close the channel");
                    Ok(Advance::failed(refusal.with("lnd_message", refuse::words(&e))))
                }
            }
        }
        Err(e) if e.kind == LndErrorKind::Unknown => Ok(Advance::again("looking whether the channel closes", SOON)),
        Err(e) => Err(e.into()),
    }
}

/// How far the close of a channel is.
enum Closing {
    Not,
    /// Asked for; its transaction is not published yet.
    Negotiating,
    /// By this transaction, pending or confirmed.
    Published(String),
}

impl Closing {
    fn of(txid: String) -> Self {
        if txid.is_empty() { Self::Negotiating } else { Self::Published(txid) }
    }
}

async fn closing(reached: &Reached, channel_point: &str) -> Result<Closing> {
    let Reached { lnd, read, .. } = reached;
    let is_this = |channel: Option<&PendingChannel>| channel.is_some_and(|c| c.channel_point == channel_point);
    let pending = lnd.pending_channels(read).await?;
    if let Some(this) = pending.waiting_close_channels.into_iter().find(|c| is_this(c.channel.as_ref())) {
        return Ok(Closing::of(this.closing_txid));
    }
    if let Some(this) = pending.pending_force_closing_channels.into_iter().find(|c| is_this(c.channel.as_ref())) {
        return Ok(Closing::of(this.closing_txid));
    }
    let closed = lnd.closed_channels(read, ClosedChannelsRequest::default()).await?;
    let this = closed.channels.into_iter().find(|c| c.channel_point == channel_point);
    Ok(this.map_or(Closing::Not, |c| Closing::of(c.closing_tx_hash)))
}

fn done(work: &Close, txid: &str) -> Advance {
    let result = json!({
        "channel_point": work.channel_point,
        "remote_pubkey": work.pubkey,
        "closing_txid": txid,
        "force": work.force,
    });
    Advance::Done { result, settle: Settle::Keep, writes: Vec::new() }
}
