//! Invoices: `invoice`, `decodepayreq`, `lookupinvoice`, `listinvoices`.

use super::auth::Caller;
use super::call::{Call, ok};
use super::idempotency;
use super::page::{LndPage, next_index};
use super::params::params;
use super::values::{Amount, Expiry, IndexCursor, Limit, Memo, PaymentHash, Payreq};
use crate::app::directory::NodeHandle;
use crate::app::refuse;
use crate::lnd::macaroon::Grant;
use crate::lnd::proto::lnrpc;
use crate::lnd::{LndError, LndErrorKind};
use crate::model;
use crate::model::app::Scope;
use crate::model::ids::Uuid;
use crate::model::problem::{Code, Refusal};
use axum::response::Response;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use std::sync::Arc;

params! {
    /// The invoice to make.
    pub struct InvoiceParams {
        /// The user who is to be paid.
        uuid: Uuid,
        /// How much, satoshi.
        amt: Amount,
        /// What it is for; the payer sees it.
        memo: Option<Memo>,
        /// Seconds until it expires; a day unless told otherwise.
        expiry: Option<Expiry>,
    }
}

params! {
    /// The payment request to read.
    pub struct DecodeParams {
        /// The user whose node is to read it.
        uuid: Uuid,
        /// The payment request (BOLT 11).
        payreq: Payreq,
    }
}

params! {
    /// The invoice to look up.
    pub struct LookupParams {
        /// The user who made it.
        uuid: Uuid,
        /// Its payment hash, hexadecimal.
        payment_hash: PaymentHash,
    }
}

params! {
    /// A page of one of lnd's lists.
    pub struct PageParams {
        /// The user.
        uuid: Uuid,
        /// How many at most.
        limit: Option<Limit>,
        /// `next_cursor` of the page before.
        cursor: Option<IndexCursor>,
    }
}

/// Makes an invoice. With an Idempotency-Key its preimage is derived from a secret of the node and that key: a repeat, even
/// after a crash between lnd's answer and ours, finds the same invoice.
pub(super) async fn invoice(call: Call, params: InvoiceParams) -> Result<Response, Refusal> {
    let node = call.node(&params.uuid).await?;
    let preimage = match &call.idempotency {
        Some(key) => Some(preimage(&node, &key.id)?),
        None => None,
    };
    idempotency::once(&call, add(node, params, preimage)).await
}

async fn add(
    node: Arc<NodeHandle>,
    params: InvoiceParams,
    preimage: Option<[u8; 32]>,
) -> Result<lnrpc::AddInvoiceResponse, Refusal> {
    let invoice = lnrpc::Invoice {
        memo: params.memo.map(|memo| memo.0).unwrap_or_default(),
        value: params.amt.0.0.cast_signed(),
        expiry: params.expiry.map_or(0, |expiry| expiry.0),
        // The users' channels are private: without hop hints nobody would find the way.
        private: true,
        r_preimage: preimage.map(Vec::from).unwrap_or_default(),
        ..Default::default()
    };
    let lnd = node.lnd(Grant::Invoice).await?;
    let answer = lnd.client.add_invoice(&lnd.macaroon, invoice.clone()).await;
    match (answer, preimage) {
        (Err(LndError { kind: LndErrorKind::InvoiceExists, .. }), Some(preimage)) => {
            lnd.answered();
            drop(lnd);
            existing(&node, &invoice, preimage).await
        }
        (answer, _) => lnd.done(answer).await,
    }
}

/// The invoice that an earlier try with the same key has made.
async fn existing(
    node: &Arc<NodeHandle>,
    wanted: &lnrpc::Invoice,
    preimage: [u8; 32],
) -> Result<lnrpc::AddInvoiceResponse, Refusal> {
    let lnd = node.lnd(Grant::Read).await?;
    let found = lnd.client.lookup_invoice(&lnd.macaroon, Sha256::digest(preimage).into()).await;
    let found = lnd.done(found).await?.ok_or_else(refuse::internal)?;
    if found.value != wanted.value || found.memo != wanted.memo {
        return Err(Refusal::new(Code::IdempotencyKeyReused, "this Idempotency-Key was used with another request"));
    }
    Ok(lnrpc::AddInvoiceResponse {
        r_hash: found.r_hash,
        payment_request: found.payment_request,
        add_index: found.add_index,
        payment_addr: found.payment_addr,
    })
}

fn preimage(node: &NodeHandle, key: &str) -> Result<[u8; 32], Refusal> {
    let secret = node.invoice_key()?;
    let mut mac = Hmac::<Sha256>::new_from_slice(&secret).map_err(|_| refuse::internal())?;
    mac.update(key.as_bytes());
    Ok(mac.finalize().into_bytes().into())
}

pub(super) async fn decodepayreq(call: Call, params: DecodeParams) -> Result<Response, Refusal> {
    let lnd = call.lnd(&params.uuid, Grant::Read).await?;
    match lnd.client.decode_pay_req(&lnd.macaroon, &params.payreq.0).await {
        // The only thing that lnd can dislike here is what it was given. `pay` has a code for each reason; so has this.
        Err(LndError { kind: LndErrorKind::Refused, message }) => {
            lnd.answered();
            let malformed = Refusal::parameter(Code::PayreqMalformed, "payreq", message);
            Err(model::invoice::Invoice::parse(&params.payreq.0, call.state.network).err().unwrap_or(malformed))
        }
        answer => ok(&lnd.done(answer).await?),
    }
}

pub(super) async fn lookupinvoice(call: Call, params: LookupParams) -> Result<Response, Refusal> {
    let lnd = call.lnd(&params.uuid, Grant::Read).await?;
    let found = lnd.client.lookup_invoice(&lnd.macaroon, params.payment_hash.bytes()).await;
    let found = lnd.done(found).await?;
    let none = || Refusal::parameter(Code::LndNotFound, "payment_hash", "there is no such invoice");
    ok(&for_caller(&call.caller, found.ok_or_else(none)?))
}

/// The one thing in which an answer differs from lnd's: who may only look does not learn the preimage of an invoice that is
/// not paid. It would be the proof of a payment that nobody has made, and whoever forwards the payment could keep it.
fn for_caller(caller: &Caller, mut invoice: lnrpc::Invoice) -> lnrpc::Invoice {
    let is_settled = invoice.state() == lnrpc::invoice::InvoiceState::Settled;
    if !is_settled && caller.must_have(&[Scope::Invoice]).is_err() {
        invoice.r_preimage.clear();
    }
    invoice
}

/// Oldest first, as lnd's own REST.
pub(super) async fn listinvoices(call: Call, params: PageParams) -> Result<Response, Refusal> {
    let limit = u64::from(Limit::or_default(params.limit));
    let ask = lnrpc::ListInvoiceRequest {
        index_offset: params.cursor.map_or(0, |cursor| cursor.0),
        num_max_invoices: limit,
        ..Default::default()
    };
    let lnd = call.lnd(&params.uuid, Grant::Read).await?;
    let page = lnd.client.list_invoices(&lnd.macaroon, ask).await;
    let mut page = lnd.done(page).await?;
    page.invoices = page.invoices.into_iter().map(|invoice| for_caller(&call.caller, invoice)).collect();
    let next_cursor = next_index(page.invoices.len(), limit, page.last_index_offset);
    ok(&LndPage { page, next_cursor })
}

#[cfg(test)]
mod tests {
    use super::*;
    use lnrpc::invoice::InvoiceState;

    #[test]
    fn a_preimage_is_for_whoever_makes_invoices_until_it_is_spent() {
        let (reader, maker) = ([Scope::Read, Scope::Pay, Scope::Manage], [Scope::Read, Scope::Invoice]);
        let told = |scopes: &[Scope], state: InvoiceState| {
            let invoice =
                lnrpc::Invoice { r_preimage: vec![7; 32], state: state.into(), value: 5, ..Default::default() };
            let told = for_caller(&Caller::of(Some("shop"), scopes), invoice.clone());
            assert_eq!(
                lnrpc::Invoice { r_preimage: invoice.r_preimage.clone(), ..told.clone() },
                invoice,
                "all the rest"
            );
            told.r_preimage == invoice.r_preimage
        };
        for state in [InvoiceState::Open, InvoiceState::Accepted, InvoiceState::Canceled] {
            assert!(!told(&reader, state), "{state:?}");
            assert!(told(&maker, state), "{state:?}");
        }
        assert!(told(&reader, InvoiceState::Settled) && told(&maker, InvoiceState::Settled));
    }
}
