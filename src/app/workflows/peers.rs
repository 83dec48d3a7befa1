//! Where peers are, and calling them: for openings, and for closes whose peer is away.

use super::super::Parts;
use super::super::step::Ctx;
use super::Reached;
use crate::error::Result;
use crate::lnd::client::LndClient;
use crate::lnd::macaroon::{Grant, Macaroon};
use crate::lnd::proto::lnrpc::{ListChannelsRequest, ListPeersRequest};
use crate::model::node::Node;
use crate::store::IndexEntry;
use crate::store::repo;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::Instant;

/// The p2p address of a node of the fleet.
pub(in crate::app) async fn fleet_address(parts: &Parts, pubkey: &str) -> Result<Option<String>> {
    let index = IndexEntry { name: "pubkey", value: pubkey.to_owned() };
    let (found, _) = repo::list::<Node>(&*parts.store, Some(index), None, 1, false).await?;
    let endpoint = found.into_iter().next().and_then(|node| node.value.endpoint);
    Ok(endpoint.map(|e| SocketAddr::new(e.address, e.p2p_port).to_string()))
}

/// Where a peer is, as the fleet, lnd's connections or the graph know.
pub(super) async fn known_address(
    parts: &Parts,
    lnd: &LndClient,
    read: &Macaroon,
    pubkey: &str,
) -> Result<Option<String>> {
    if let Some(ours) = fleet_address(parts, pubkey).await? {
        return Ok(Some(ours));
    }
    let peers = lnd.list_peers(read, ListPeersRequest::default()).await?.peers;
    if let Some(connected) = peers.into_iter().find(|p| p.pub_key == pubkey && !p.inbound) {
        return Ok(Some(connected.address));
    }
    let known = lnd.node_info(read, pubkey).await?.and_then(|info| info.node);
    let addresses = known.map(|node| node.addresses).unwrap_or_default();
    let literal = addresses.into_iter().filter_map(|a| a.addr.parse::<SocketAddr>().ok());
    let mut allowed = literal.filter(|a| crate::model::address::allowed_peer(a.ip(), parts.settings.network));
    Ok(allowed.next().map(|a| a.to_string()))
}

/// Calls a peer at `address`, or where it is known to be. Whether that helped the next look at its channels tells.
pub(super) async fn call(ctx: &Ctx, reached: &Reached, pubkey: &str, address: Option<&str>, at_most: Duration) {
    let Reached { node, lnd, read } = reached;
    let Ok(macaroon) = ctx.spending_macaroon(&node.value, Grant::Peers) else { return };
    let address = match address {
        Some(given) => Some(given.to_owned()),
        None => known_address(&ctx.parts, lnd, read, pubkey).await.ok().flatten(),
    };
    let Some(address) = address else { return };
    if let Err(error) = lnd.within(at_most).connect_peer(&macaroon, pubkey, &address, false).await {
        tracing::debug!(%error, "a peer cannot be reached now");
    }
}

/// Whether the channel is active within `at_most`; its peer is called while it is not. After a restart of ours or theirs
/// that is a matter of a moment.
pub(super) async fn await_active(
    ctx: &Ctx,
    reached: &Reached,
    pubkey: &str,
    channel_point: &str,
    at_most: Duration,
) -> Result<bool> {
    let deadline = Instant::now() + at_most;
    // Subscribed before the look, so that the event that matters cannot fall between.
    let mut events = reached.lnd.channel_events(&reached.read)?;
    loop {
        let open = reached.lnd.list_channels(&reached.read, ListChannelsRequest::default()).await?.channels;
        let Some(channel) = open.into_iter().find(|c| c.channel_point == channel_point) else { return Ok(false) };
        if channel.active || Instant::now() >= deadline {
            return Ok(channel.active);
        }
        call(ctx, reached, pubkey, None, deadline.saturating_duration_since(Instant::now())).await;
        let a_while = (Instant::now() + Duration::from_secs(1)).min(deadline);
        let _whatever_happened_the_next_look_tells = tokio::time::timeout_at(a_while, events.next()).await;
    }
}
