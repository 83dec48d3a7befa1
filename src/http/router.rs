//! Every route on one screen.

use super::dispatch::{Dispatcher, Target};
use super::route::Answer::{Lnd, LndPage, Own};
use super::route::Effect::{Changes, Looks, Operates};
use super::route::Methods::{Get, GetAndPost, Post};
use super::route::Route;
use super::{
    channels, docs, health, hosts, info, invoices, nodes, onchain, openapi, operations, payments, peers, rollouts,
    updates,
};
use crate::model::app::Scope;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{RawPathParams, Request};
use axum::routing::{any, get};
use std::sync::Arc;

const READ: &[Scope] = &[Scope::Read];
const INVOICE: &[Scope] = &[Scope::Invoice];
const PAY: &[Scope] = &[Scope::Pay];
const MANAGE: &[Scope] = &[Scope::Manage];
const OPERATOR: &[Scope] = &[Scope::Operator];
const READ_OR_OPERATOR: &[Scope] = &[Scope::Read, Scope::Operator];

/// The calls below `/lnd/v1/`.
#[rustfmt::skip]
pub(super) fn routes() -> Vec<Route> {
    vec![
        // The node of a user.
        Route::new("create", GetAndPost, Operates, MANAGE, Own("Node created"), nodes::create)
            .about("Gives a user a node, or joins or returns the one there is."),
        Route::new("node", GetAndPost, Looks, READ, Own("Node"), nodes::node)
            .about("Tells the state of a user's node, whatever it is."),
        Route::new("nodes", GetAndPost, Looks, READ, Own("Nodes"), nodes::nodes)
            .about("Lists the app's nodes."),
        Route::new("delete", Post, Operates, MANAGE, Own("Node deleted"), nodes::delete)
            .about("Takes a node out of service for good, once nothing is left in it to lose."),
        // What lnd says of itself.
        Route::new("getinfo", GetAndPost, Looks, READ, Lnd("lnrpc.GetInfoResponse"), info::getinfo)
            .about("lnd's GetInfo."),
        Route::new("walletbalance", GetAndPost, Looks, READ, Lnd("lnrpc.WalletBalanceResponse"), info::walletbalance)
            .about("lnd's WalletBalance: the money on-chain."),
        Route::new("channelbalance", GetAndPost, Looks, READ, Lnd("lnrpc.ChannelBalanceResponse"), info::channelbalance)
            .about("lnd's ChannelBalance: the money in channels."),
        // Channels and peers.
        Route::new("listchannels", GetAndPost, Looks, READ, Lnd("lnrpc.ListChannelsResponse"), channels::listchannels)
            .about("lnd's ListChannels."),
        Route::new("closechannel", GetAndPost, Operates, MANAGE, Own("Close"), channels::closechannel)
            .about("Closes a channel; done when the closing transaction is pending on chain."),
        Route::new("listpeers", GetAndPost, Looks, READ, Lnd("lnrpc.ListPeersResponse"), peers::listpeers)
            .about("lnd's ListPeers."),
        Route::new("addpeer", GetAndPost, Changes, MANAGE, Lnd("lnrpc.ConnectPeerResponse"), peers::addpeer)
            .about("Connects to a peer; being connected already is success."),
        Route::new("deletepeer", GetAndPost, Changes, MANAGE, Lnd("lnrpc.DisconnectPeerResponse"), peers::deletepeer)
            .about("Disconnects from a peer."),
        // Invoices and payments.
        Route::new("invoice", GetAndPost, Changes, INVOICE, Lnd("lnrpc.AddInvoiceResponse"), invoices::invoice)
            .about("Makes an invoice."),
        Route::new("decodepayreq", GetAndPost, Looks, READ, Lnd("lnrpc.PayReq"), invoices::decodepayreq)
            .about("lnd's DecodePayReq."),
        Route::new("lookupinvoice", GetAndPost, Looks, READ, Lnd("lnrpc.Invoice"), invoices::lookupinvoice)
            .about("lnd's LookupInvoice; r_preimage is empty until the invoice is settled, for a key without scope invoice."),
        Route::new("listinvoices", GetAndPost, Looks, READ, LndPage("lnrpc.ListInvoiceResponse"), invoices::listinvoices)
            .about("lnd's ListInvoices, oldest first; r_preimage as in lookupinvoice."),
        Route::new("pay", GetAndPost, Operates, PAY, Own("Payment"), payments::pay)
            .about("Pays an invoice, over a new channel where there is no other way."),
        Route::new("listpayments", GetAndPost, Looks, READ, LndPage("lnrpc.ListPaymentsResponse"), payments::listpayments)
            .about("lnd's ListPayments, oldest first."),
        // On-chain.
        Route::new("newaddress", GetAndPost, Changes, INVOICE, Lnd("lnrpc.NewAddressResponse"), onchain::newaddress)
            .about("lnd's NewAddress: an address to send on-chain money to."),
        Route::new("transactions", GetAndPost, Looks, READ, LndPage("lnrpc.TransactionDetails"), onchain::transactions)
            .about("lnd's GetTransactions."),
        Route::new("withdraw", Post, Operates, PAY, Own("Withdrawal"), onchain::withdraw)
            .about("Sends money on-chain; done when the transaction is published."),
        // Operations.
        Route::new("operations", GetAndPost, Looks, READ_OR_OPERATOR, Own("Operations"), operations::list)
            .about("Lists operations, newest first."),
        Route::new("operations/{id}", Get, Looks, READ_OR_OPERATOR, Own("Operation"), operations::show)
            .about("Tells how far an operation is; with Accept: text/event-stream, tells every change."),
        Route::new("operations/{id}/retry", Post, Changes, OPERATOR, Own("Operation"), operations::retry)
            .about("Frees a parked operation."),
        // The deployment.
        Route::new("hosts", GetAndPost, Looks, OPERATOR, Own("Hosts"), hosts::list)
            .about("Lists the hosts."),
        Route::new("update", Get, Looks, OPERATOR, Own("Updates"), updates::show)
            .about("Tells which release is wanted, how far it is, who looks for one, and the last deliveries of GitHub's webhook."),
        Route::new("rollouts", Get, Looks, OPERATOR, Own("Rollouts"), rollouts::list)
            .about("Lists rollouts, newest first."),
        Route::new("rollouts/{id}", Get, Looks, OPERATOR, Own("Rollout"), rollouts::show)
            .about("Tells how far a release is; with Accept: text/event-stream, tells every change."),
        Route::new("rollouts/{id}/nodes", Get, Looks, OPERATOR, Own("Rollout nodes"), rollouts::nodes)
            .about("Tells of every node that has not the release why not."),
        Route::new("rollouts/{id}/pause", Post, Changes, OPERATOR, Own("Rollout"), rollouts::pause)
            .about("Begins nothing new until it is resumed."),
        Route::new("rollouts/{id}/resume", Post, Changes, OPERATOR, Own("Rollout"), rollouts::resume)
            .about("Lets a paused rollout go on."),
        Route::new("rollouts/{id}/abort", Post, Changes, OPERATOR, Own("Rollout"), rollouts::abort)
            .about("Never begins anything new; what has the release keeps it."),
        Route::new("rollouts/{id}/retry", Post, Changes, OPERATOR, Own("Rollout"), rollouts::retry)
            .about("Tries again, one after the other, what has failed."),
    ]
}

const SIGNATURE: &str = "x-hub-signature-256";

/// GitHub's webhook has no API key: it has a signature of its own.
fn is_webhook(route: &Route, request: &Request) -> bool {
    route.path == "update" && request.method() == http::Method::POST
}

/// The whole of it, and what needs no key: health and the description.
pub(super) fn router(dispatcher: Arc<Dispatcher>) -> Router {
    let routes = routes();
    let description = Bytes::from(openapi::describe(&routes).to_string());
    let mut router = Router::new()
        .route("/healthz", get(health::healthz))
        .route(
            "/readyz",
            get({
                let dispatcher = Arc::clone(&dispatcher);
                move || health::readyz(dispatcher)
            }),
        )
        .route("/lnd/v1/openapi.json", get(move || docs::openapi(description)))
        .route("/lnd/v1/docs", get(docs::page));
    for route in routes {
        let path = format!("/lnd/v1/{}", route.path);
        let (route, dispatcher) = (Arc::new(route), Arc::clone(&dispatcher));
        router = router.route(
            &path,
            any(move |path: RawPathParams, request: Request| async move {
                let in_path = path.iter().next().map(|(_, value)| value.to_owned());
                let target = match &dispatcher.state().webhook {
                    Some(webhook) if is_webhook(&route, &request) => Target::Webhook(Arc::clone(webhook)),
                    // Who signs is told; of all others nobody learns what there is without a key.
                    None if is_webhook(&route, &request) && request.headers().contains_key(SIGNATURE) => {
                        Target::NoWebhook
                    }
                    _ => Target::Route(route, in_path),
                };
                dispatcher.handle(target, request).await
            }),
        );
    }
    router.fallback(move |request: Request| async move { dispatcher.handle(Target::Nowhere, request).await })
}
