//! Channels: `listchannels`, `closechannel`. They are opened by `pay`.

use super::call::{Call, ok};
use super::info::User;
use super::operations;
use super::params::params;
use super::values::{ChannelPoint, FeeBound, Pubkey, Wait};
use crate::app::CloseRequest;
use crate::lnd::macaroon::Grant;
use crate::model::ids::Uuid;
use crate::model::problem::Refusal;
use axum::response::Response;

params! {
    /// Which channel to close, and how.
    pub struct CloseParams {
        /// The user.
        uuid: Uuid,
        /// The peer.
        pubkey: Pubkey,
        /// The channel; needed where there are several with this peer.
        channel_point: Option<ChannelPoint>,
        /// Close without the peer, which takes longer and costs more. Never done unless asked for.
        force: Option<bool>,
        /// The most that may go to miners, satoshi, where this node has opened the channel and so pays; unless told otherwise
        /// three times what the close costs at the current fee rate. A forced close costs what the commitment transaction
        /// says.
        max_fee: Option<FeeBound>,
        /// Seconds to wait for it.
        wait: Option<Wait>,
    }
}

pub(super) async fn listchannels(call: Call, params: User) -> Result<Response, Refusal> {
    let lnd = call.lnd(&params.uuid, Grant::Channels).await?;
    ok(&*lnd.list_channels().await?)
}

pub(super) async fn closechannel(call: Call, params: CloseParams) -> Result<Response, Refusal> {
    let request = CloseRequest {
        pubkey: params.pubkey.0,
        channel_point: params.channel_point.map(|point| point.0),
        force: params.force.unwrap_or(false),
        max_fee: params.max_fee.map(|fee| fee.0),
    };
    let (app, idempotency) = (call.caller.app()?, call.idempotency.clone());
    let operation = call.state.service.close(app, &params.uuid, request, idempotency).await?;
    operations::answer(&call, operation, params.wait).await
}
