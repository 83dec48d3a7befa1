//! Payments: `pay`, `listpayments`.

use super::call::{Call, ok};
use super::host::HostPort;
use super::operations;
use super::page::{LndPage, next_index};
use super::params::params;
use super::values::{Amount, FeeBound, IndexCursor, Limit, Payreq, Pubkey, Wait};
use crate::app::PayRequest;
use crate::lnd::macaroon::Grant;
use crate::lnd::proto::lnrpc;
use crate::model::ids::Uuid;
use crate::model::problem::Refusal;
use crate::model::work::pay::OpenPolicy;
use axum::response::Response;

params! {
    /// What to pay, and what it may cost.
    pub struct PayParams {
        /// The user who pays.
        uuid: Uuid,
        /// The payment request (BOLT 11).
        payreq: Payreq,
        /// The peer to open a channel with, should one be needed; the payee unless told otherwise.
        pubkey: Option<Pubkey>,
        /// Where that peer is, host:port; what the fleet or the graph knows unless told otherwise.
        host: Option<HostPort>,
        /// The capacity wished for such a channel, satoshi.
        amt: Option<Amount>,
        /// How much to pay, satoshi, where the payment request names no amount.
        pay_amt: Option<Amount>,
        /// The most that routing may cost, satoshi; 1% but at least 10 unless told otherwise.
        max_fee: Option<FeeBound>,
        /// Whether a channel may be opened.
        open: Option<OpenPolicy>,
        /// The most that opening it may cost on-chain, satoshi; 1% of its capacity but at least 2000 unless told
        /// otherwise.
        max_open_fee: Option<FeeBound>,
        /// Seconds to wait for it.
        wait: Option<Wait>,
    }
}

params! {
    /// A page of payments.
    pub struct ListParams {
        /// The user.
        uuid: Uuid,
        /// How many at most.
        limit: Option<Limit>,
        /// `next_cursor` of the page before.
        cursor: Option<IndexCursor>,
        /// Also those that failed or are under way.
        include_incomplete: Option<bool>,
    }
}

pub(super) async fn pay(call: Call, params: PayParams) -> Result<Response, Refusal> {
    let host = match &params.host {
        Some(host) => Some(call.address(&params.uuid, host).await?),
        None => None,
    };
    let request = PayRequest {
        payreq: params.payreq.0,
        pubkey: params.pubkey.map(|pubkey| pubkey.0),
        host,
        amt: params.amt.map(|amt| amt.0),
        pay_amt: params.pay_amt.map(|amt| amt.0),
        max_fee: params.max_fee.map(|fee| fee.0),
        open: params.open.unwrap_or_default(),
        max_open_fee: params.max_open_fee.map(|fee| fee.0),
    };
    let (app, idempotency) = (call.caller.app()?, call.idempotency.clone());
    let operation = call.state.service.pay(app, &params.uuid, request, idempotency).await?;
    operations::answer(&call, operation, params.wait).await
}

/// Oldest first, as lnd's own REST.
pub(super) async fn listpayments(call: Call, params: ListParams) -> Result<Response, Refusal> {
    let limit = u64::from(Limit::or_default(params.limit));
    let ask = lnrpc::ListPaymentsRequest {
        include_incomplete: params.include_incomplete.unwrap_or(false),
        index_offset: params.cursor.map_or(0, |cursor| cursor.0),
        max_payments: limit,
        ..Default::default()
    };
    let lnd = call.lnd(&params.uuid, Grant::Read).await?;
    let page = lnd.client.list_payments(&lnd.macaroon, ask).await;
    let page = lnd.done(page).await?;
    let next_cursor = next_index(page.payments.len(), limit, page.last_index_offset);
    ok(&LndPage { page, next_cursor })
}
