//! Nodes: `create`, `delete`, `node`, `nodes`.

use super::call::{Call, ok};
use super::info::User;
use super::operations;
use super::page::PageParams;
use super::params::params;
use super::values::Wait;
use crate::app::directory::{NodeHandle, NodeState};
use crate::app::refuse;
use crate::lnd::LndError;
use crate::lnd::client::LndClient;
use crate::lnd::macaroon::{Grant, Macaroon};
use crate::lnd::proto::lnrpc;
use crate::model::amount::Sat;
use crate::model::ids::{NodeId, Uuid};
use crate::model::node::{Funding, Node, Phase};
use crate::model::problem::Refusal;
use crate::store::IndexEntry;
use crate::store::repo;
use axum::response::Response;
use futures::{StreamExt, TryStreamExt, stream};
use serde::Serialize;
use std::net::SocketAddr;
use std::sync::Arc;
use time::OffsetDateTime;

/// How many nodes of a page are looked up at a time.
const LOOKUPS: usize = 16;

params! {
    /// Whose node, and how long to wait for it.
    pub struct NodeParams {
        /// The user.
        uuid: Uuid,
        /// Seconds to wait for it.
        wait: Option<Wait>,
    }
}

/// A node as the API shows it.
#[derive(Debug, Serialize)]
struct View<'a> {
    uuid: &'a Uuid,
    state: &'static str,
    identity_pubkey: Option<&'a str>,
    p2p_address: Option<String>,
    deposit_address: Option<&'a str>,
    funding: &'a Funding,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
}

impl<'a> View<'a> {
    fn of(node: &'a Node, state: &'static str) -> Self {
        let address =
            |endpoint: &crate::model::node::Endpoint| SocketAddr::new(endpoint.address, endpoint.p2p_port).to_string();
        let is_gone = node.phase == Phase::Deleted;
        Self {
            uuid: &node.uuid,
            state,
            identity_pubkey: node.identity_pubkey.as_deref(),
            p2p_address: node.endpoint.as_ref().filter(|_| !is_gone).map(address),
            deposit_address: node.deposit_address.as_deref().filter(|_| !is_gone),
            funding: &node.funding,
            created_at: node.created_at,
        }
    }
}

/// The parts that only a running lnd can tell.
#[derive(Debug, Serialize)]
struct FullView<'a> {
    #[serde(flatten)]
    view: View<'a>,
    network: &'static str,
    versions: Versions,
    spendable_sat: Option<u64>,
    receivable_sat: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Versions {
    lnd: Option<String>,
    scale_lnd: &'static str,
}

pub(super) async fn create(call: Call, params: NodeParams) -> Result<Response, Refusal> {
    let (app, idempotency) = (call.caller.app()?, call.idempotency.clone());
    let operation = call.state.service.create(app, &params.uuid, idempotency).await?;
    operations::answer(&call, operation, params.wait).await
}

pub(super) async fn delete(call: Call, params: NodeParams) -> Result<Response, Refusal> {
    let (app, idempotency) = (call.caller.app()?, call.idempotency.clone());
    let operation = call.state.service.delete(app, &params.uuid, idempotency).await?;
    operations::answer(&call, operation, params.wait).await
}

/// The node's state, whatever it is: this call answers where others say 503.
pub(super) async fn node(call: Call, params: User) -> Result<Response, Refusal> {
    let handle = call.node(&params.uuid).await?;
    handle.refresh().await?;
    let funding = handle.state().node.funding.clone();
    let mut condition = handle.condition().await?;
    let mut live = Live::default();
    if condition == "ready" {
        match Live::ask(&handle, &funding).await {
            Ok(told) => live = told,
            Err(refusal) => {
                tracing::debug!(code = ?refusal.code, "a node that should answer does not");
                condition = "unreachable";
            }
        }
    }
    let state: Arc<NodeState> = handle.state();
    let view = View::of(&state.node, condition);
    ok(&FullView {
        view: View { funding: live.funding.as_ref().unwrap_or(view.funding), ..view },
        network: call.state.network.as_str(),
        versions: Versions { lnd: live.version, scale_lnd: env!("CARGO_PKG_VERSION") },
        spendable_sat: live.spendable_sat,
        receivable_sat: live.receivable_sat,
    })
}

#[derive(Debug, Default)]
struct Live {
    version: Option<String>,
    spendable_sat: Option<u64>,
    receivable_sat: Option<u64>,
    /// Where lnd has seen a confirmation of it.
    funding: Option<Funding>,
}

impl Live {
    async fn ask(handle: &Arc<NodeHandle>, funding: &Funding) -> Result<Self, Refusal> {
        let lnd = handle.lnd(Grant::Read).await?;
        let channels = lnrpc::ListChannelsRequest { active_only: true, ..Default::default() };
        let answers = tokio::try_join!(
            lnd.client.get_info(&lnd.macaroon),
            lnd.client.list_channels(&lnd.macaroon, channels),
            confirmed(&lnd.client, &lnd.macaroon, funding),
        );
        let (info, channels, funding) = lnd.done(answers).await?;
        Ok(Self {
            funding,
            version: Some(info.version),
            spendable_sat: Some(channels.channels.iter().map(spendable).sum()),
            receivable_sat: Some(channels.channels.iter().map(receivable).sum()),
        })
    }
}

/// The funding as confirmed, where it was published and lnd knows a block with it.
async fn confirmed(lnd: &LndClient, macaroon: &Macaroon, funding: &Funding) -> Result<Option<Funding>, LndError> {
    let Funding::Published { amount_sat, txid } = funding else { return Ok(None) };
    let Ok(parsed) = txid.parse() else { return Ok(None) };
    let transaction = lnd.transaction(macaroon, parsed).await?;
    let is_confirmed = transaction.is_some_and(|transaction| transaction.num_confirmations > 0);
    Ok(is_confirmed.then(|| Funding::Confirmed { amount_sat: *amount_sat, txid: txid.clone() }))
}

/// What can leave over this channel at most: not the reserve that the peer demands of us.
fn spendable(channel: &lnrpc::Channel) -> u64 {
    above_reserve(channel.local_balance, channel.local_constraints.as_ref())
}

/// What can come in over it at most: not the reserve that we demand of the peer.
fn receivable(channel: &lnrpc::Channel) -> u64 {
    above_reserve(channel.remote_balance, channel.remote_constraints.as_ref())
}

fn above_reserve(balance_sat: i64, constraints: Option<&lnrpc::ChannelConstraints>) -> u64 {
    let reserve_sat = constraints.map_or(0, |constraints| constraints.chan_reserve_sat);
    Sat::from_lnd(balance_sat).0.saturating_sub(reserve_sat)
}

/// The app's nodes, deleted ones too, in no order that means anything.
pub(super) async fn nodes(call: Call, params: PageParams) -> Result<Response, Refusal> {
    #[derive(Serialize)]
    struct Page<'a> {
        nodes: Vec<View<'a>>,
        next_cursor: Option<String>,
    }
    let app = IndexEntry { name: "app", value: call.caller.app()?.to_string() };
    let (limit, after) = params.limit_and_after();
    let page = repo::list::<Node>(&*call.state.store, Some(app), after, limit, false).await;
    let (page, next_cursor) = page.map_err(|error| refuse::store(&error))?;
    // A create that failed before there was a wallet left nothing that could be called a node.
    let listed = page.into_iter().map(|node| node.value).filter(|node| node.phase != Phase::Failed);
    let listed: Vec<(Node, &'static str)> =
        stream::iter(listed).map(|node| condition_of(&call, node)).buffered(LOOKUPS).try_collect().await?;
    let nodes = listed.iter().map(|(node, state)| View::of(node, state)).collect();
    ok(&Page { nodes, next_cursor })
}

async fn condition_of(call: &Call, node: Node) -> Result<(Node, &'static str), Refusal> {
    let id: &NodeId = &node.id;
    let condition = match call.state.directory.by_id(id).await? {
        Some(handle) => handle.condition_as_reported(),
        None => "deleted",
    };
    Ok((node, condition))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserves_are_not_counted() {
        let constraints = |sat| Some(lnrpc::ChannelConstraints { chan_reserve_sat: sat, ..Default::default() });
        let channel = lnrpc::Channel {
            local_balance: 900,
            remote_balance: 100,
            local_constraints: constraints(50),
            remote_constraints: constraints(200),
            ..Default::default()
        };
        assert_eq!((spendable(&channel), receivable(&channel)), (850, 0));
        let odd = lnrpc::Channel { local_balance: -1, ..Default::default() };
        assert_eq!(spendable(&odd), 0);
    }
}
