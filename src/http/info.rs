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
    let answer = lnd.client.get_info(&lnd.macaroon).await;
    ok(&lnd.done(answer).await?)
}

pub(super) async fn walletbalance(call: Call, params: User) -> Result<Response, Refusal> {
    let lnd = call.lnd(&params.uuid, Grant::Balances).await?;
    let answer = lnd.client.wallet_balance(&lnd.macaroon).await;
    ok(&lnd.done(answer).await?)
}

pub(super) async fn channelbalance(call: Call, params: User) -> Result<Response, Refusal> {
    let lnd = call.lnd(&params.uuid, Grant::Balances).await?;
    let answer = lnd.client.channel_balance(&lnd.macaroon).await;
    ok(&lnd.done(answer).await?)
}
