//! Looks at a node through its lnd, for what has to be the same under another one.

use crate::error::Result;
use crate::lnd::client::LndClient;
use crate::lnd::macaroon::Macaroon;
use crate::lnd::proto::lnrpc::pending_channels_response::PendingChannel;
use crate::lnd::proto::lnrpc::{self, ClosedChannelsRequest, Initiator, ListChannelsRequest, PendingChannelsResponse};
use crate::model::node_look::{Channel, Look};

pub(super) async fn look(lnd: &LndClient, read: &Macaroon) -> Result<Look> {
    let info = lnd.get_info(read).await?;
    let open = lnd.list_channels(read, ListChannelsRequest::default()).await?.channels;
    let pending = lnd.pending_channels(read).await?;
    let closed = lnd.closed_channels(read, ClosedChannelsRequest::default()).await?.channels;
    let balance = lnd.wallet_balance(read).await?;
    let mut other_points: Vec<String> = pending_points(&pending);
    other_points.extend(closed.into_iter().map(|closed| closed.channel_point));
    Ok(Look {
        version: info.version,
        pubkey: info.identity_pubkey,
        is_synced: info.synced_to_chain,
        wallet_sat: balance.total_balance,
        coming_sat: coming(&pending),
        channels: open.into_iter().map(channel).collect(),
        other_points,
    })
}

fn channel(open: lnrpc::Channel) -> Channel {
    let fee = if open.initiator { open.commit_fee } else { 0 };
    let outgoing = open.pending_htlcs.iter().filter(|htlc| !htlc.incoming).map(|htlc| htlc.amount);
    Channel {
        own_sat: open.local_balance + fee,
        outgoing_sat: outgoing.sum(),
        point: open.channel_point,
        peer: open.remote_pubkey,
        is_active: open.active,
    }
}

fn pending_points(pending: &PendingChannelsResponse) -> Vec<String> {
    let opening = pending.pending_open_channels.iter().map(|open| &open.channel);
    let waiting = pending.waiting_close_channels.iter().map(|close| &close.channel);
    let forced = pending.pending_force_closing_channels.iter().map(|close| &close.channel);
    let all = opening.chain(waiting).chain(forced).flatten();
    all.map(|channel| channel.channel_point.clone()).collect()
}

/// What will be in a channel or in the wallet once the chain has it.
fn coming(pending: &PendingChannelsResponse) -> i64 {
    let is_ours = |channel: &PendingChannel| channel.initiator == i32::from(Initiator::Local);
    let opening = pending.pending_open_channels.iter().filter_map(|open| {
        let channel = open.channel.as_ref()?;
        Some(channel.local_balance + if is_ours(channel) { open.commit_fee } else { 0 })
    });
    opening.sum::<i64>() + pending.total_limbo_balance
}
