//! What a node says of itself: `getinfo`, `walletbalance`, `channelbalance`.

use super::call::{Call, ok};
use super::params::params;
use crate::lnd::macaroon::Grant;
use crate::model::ids::Uuid;
use crate::model::problem::Refusal;
use axum::response::Response;

params! {
    /// Whose node.
    pub struct User {
        /// The user.
        uuid: Uuid,
    }
}

pub(super) async fn getinfo(call: Call, params: User) -> Result<Response, Refusal> {
    let lnd = call.lnd(&params.uuid, Grant::GetInfo).await?;
    ok(&*lnd.get_info().await?)
}

pub(super) async fn walletbalance(call: Call, params: User) -> Result<Response, Refusal> {
    let lnd = call.lnd(&params.uuid, Grant::Balances).await?;
    ok(&*lnd.wallet_balance().await?)
}

pub(super) async fn channelbalance(call: Call, params: User) -> Result<Response, Refusal> {
    let lnd = call.lnd(&params.uuid, Grant::Balances).await?;
    ok(&*lnd.channel_balance().await?)
}
