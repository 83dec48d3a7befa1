//! On-chain: `newaddress`, `transactions`, `withdraw`.

use super::call::{Call, ok};
use super::idempotency;
use super::info::User;
use super::invoices::PageParams;
use super::operations;
use super::page::LndPage;
use super::params::{self, params};
use super::values::{Address, Amount, FeeBound, Limit, Wait};
use crate::app::WithdrawRequest;
use crate::lnd::macaroon::Grant;
use crate::lnd::proto::lnrpc;
use crate::model::ids::Uuid;
use crate::model::problem::Refusal;
use crate::model::work::onchain::WithdrawAmount;
use axum::response::Response;

params! {
    /// What to send where.
    pub struct WithdrawParams {
        /// The user.
        uuid: Uuid,
        /// The address to send to.
        address: Address,
        /// How much, satoshi; or else `all`.
        amt: Option<Amount>,
        /// Everything that is confirmed, less the fee.
        all: Option<bool>,
        /// The most that may go to miners, satoshi; 1% but at least 2000 unless told otherwise.
        max_fee: Option<FeeBound>,
        /// Seconds to wait for it.
        wait: Option<Wait>,
    }
}

pub(super) async fn newaddress(call: Call, params: User) -> Result<Response, Refusal> {
    let node = call.node(&params.uuid).await?;
    let work = async move {
        let lnd = node.lnd(Grant::Address).await?;
        let answer = lnd.client.new_address(&lnd.macaroon, lnrpc::AddressType::WitnessPubkeyHash).await;
        lnd.done(answer).await
    };
    idempotency::once(&call, work).await
}

pub(super) async fn transactions(call: Call, params: PageParams) -> Result<Response, Refusal> {
    let limit = Limit::or_default(params.limit);
    let offset = params.cursor.map_or(0, |cursor| u32::try_from(cursor.0).unwrap_or(u32::MAX));
    let ask = lnrpc::GetTransactionsRequest {
        index_offset: offset,
        max_transactions: u32::from(limit),
        ..Default::default()
    };
    let lnd = call.lnd(&params.uuid, Grant::Read).await?;
    let page = lnd.client.transactions(&lnd.macaroon, ask).await;
    let page = lnd.done(page).await?;
    // Here lnd's offset is a count, not the index of the last one.
    let is_full = page.transactions.len() >= usize::from(limit);
    let next_cursor = is_full.then(|| offset.saturating_add(u32::from(limit)).to_string());
    ok(&LndPage { page, next_cursor })
}

pub(super) async fn withdraw(call: Call, params: WithdrawParams) -> Result<Response, Refusal> {
    let amount = match (params.amt, params.all.unwrap_or(false)) {
        (Some(amt), false) => WithdrawAmount::Sat(amt.0),
        (None, true) => WithdrawAmount::All,
        (Some(_), true) => return Err(params::fault("amt", "and all exclude each other")),
        (None, false) => return Err(params::fault("amt", "is missing; or else say all")),
    };
    let request = WithdrawRequest { address: params.address.0, amount, max_fee: params.max_fee.map(|fee| fee.0) };
    let (app, idempotency) = (call.caller.app()?, call.idempotency.clone());
    let operation = call.state.service.withdraw(app, &params.uuid, request, idempotency).await?;
    operations::answer(&call, operation, params.wait).await
}
