//! `closechannel`: the channel point was frozen when the operation was accepted, and a channel closes once; so a repeat
//! finds the close that is under way. Done when pending on chain.

use super::super::refuse;
use super::super::step::{Advance, Ctx, Settle};
use super::{Reached, SOON, reach};
use crate::error::{Error, Result};
use crate::lnd::LndErrorKind;
use crate::lnd::macaroon::Grant;
use crate::lnd::proto::lnrpc::{CloseChannelRequest, ClosedChannelsRequest, ListChannelsRequest};
use crate::model::operation::Operation;
use crate::model::problem::{Code, Refusal};
use crate::model::work::close::Close;
use serde_json::json;

pub(super) async fn advance(ctx: &Ctx, operation: &Operation, work: &Close) -> Result<Advance> {
    let reached = reach(ctx, operation).await?;
    if let Some(txid) = closing_txid(&reached, &work.channel_point).await? {
        return Ok(done(work, &txid));
    }
    let open = reached.lnd.list_channels(&reached.read, ListChannelsRequest::default()).await?;
    if !open.channels.iter().any(|c| c.channel_point == work.channel_point) {
        let message = "there is no such channel, or it is not confirmed yet";
        return Ok(Advance::failed(Refusal::new(Code::ChannelNotFound, message)));
    }
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
        Err(e) if e.kind == LndErrorKind::PeerOffline => {
            let message = "the peer is offline: only a forced close is possible now";
            Ok(Advance::failed(Refusal::new(Code::PeerUnreachable, message)))
        }
        Err(e) if matches!(e.kind, LndErrorKind::Refused | LndErrorKind::NotFound) => {
            // An earlier run of this step may have come through after all.
            match closing_txid(&reached, &work.channel_point).await? {
                Some(txid) => Ok(done(work, &txid)),
                None => {
                    let refusal = Refusal::new(Code::LndRefused, "lnd refused to close the channel");
                    Ok(Advance::failed(refusal.with("lnd_message", refuse::words(&e))))
                }
            }
        }
        Err(e) if e.kind == LndErrorKind::Unknown => Ok(Advance::again("looking whether the channel closes", SOON)),
        Err(e) => Err(e.into()),
    }
}

/// The transaction that closes, or has closed, the channel.
async fn closing_txid(reached: &Reached, channel_point: &str) -> Result<Option<String>> {
    let Reached { lnd, read, .. } = reached;
    let pending = lnd.pending_channels(read).await?;
    for waiting in pending.waiting_close_channels {
        let is_this = waiting.channel.as_ref().is_some_and(|c| c.channel_point == channel_point);
        if is_this && !waiting.closing_txid.is_empty() {
            return Ok(Some(waiting.closing_txid));
        }
    }
    for forced in pending.pending_force_closing_channels {
        if forced.channel.as_ref().is_some_and(|c| c.channel_point == channel_point) {
            return Ok(Some(forced.closing_txid));
        }
    }
    let closed = lnd.closed_channels(read, ClosedChannelsRequest::default()).await?;
    let this = closed.channels.into_iter().find(|c| c.channel_point == channel_point);
    Ok(this.map(|c| c.closing_tx_hash).filter(|txid| !txid.is_empty()))
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
