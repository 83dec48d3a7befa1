//! Invoices and payments.

use super::node::found;
use super::{LndClient, READ, Updates, WRITE, request};
use crate::lnd::LndError;
use crate::lnd::macaroon::Macaroon;
use crate::lnd::proto::lnrpc::{self, payment::PaymentStatus};
use crate::lnd::proto::routerrpc;

impl LndClient {
    /// With a preimage of the caller's a repeat is harmless: it ends as
    /// [`InvoiceExists`](crate::lnd::LndErrorKind::InvoiceExists).
    pub async fn add_invoice(
        &self,
        macaroon: &Macaroon,
        invoice: lnrpc::Invoice,
    ) -> Result<lnrpc::AddInvoiceResponse, LndError> {
        let request = request(macaroon, invoice)?;
        self.unary(WRITE, self.lightning().add_invoice(request)).await
    }

    pub async fn lookup_invoice(
        &self,
        macaroon: &Macaroon,
        payment_hash: [u8; 32],
    ) -> Result<Option<lnrpc::Invoice>, LndError> {
        let ask = lnrpc::PaymentHash { r_hash: payment_hash.to_vec(), ..Default::default() };
        let request = request(macaroon, ask)?;
        found(self.unary(READ, self.lightning().lookup_invoice(request)).await)
    }

    pub async fn list_invoices(
        &self,
        macaroon: &Macaroon,
        ask: lnrpc::ListInvoiceRequest,
    ) -> Result<lnrpc::ListInvoiceResponse, LndError> {
        let request = request(macaroon, ask)?;
        self.unary(READ, self.lightning().list_invoices(request)).await
    }

    pub async fn decode_pay_req(&self, macaroon: &Macaroon, pay_req: &str) -> Result<lnrpc::PayReq, LndError> {
        let request = request(macaroon, lnrpc::PayReqString { pay_req: pay_req.to_owned() })?;
        self.unary(READ, self.lightning().decode_pay_req(request)).await
    }

    pub async fn list_payments(
        &self,
        macaroon: &Macaroon,
        ask: lnrpc::ListPaymentsRequest,
    ) -> Result<lnrpc::ListPaymentsResponse, LndError> {
        let request = request(macaroon, ask)?;
        self.unary(READ, self.lightning().list_payments(request)).await
    }

    /// Starts a payment and follows it to its end, which [is final](lnrpc::Payment::is_final). It goes on when this is dropped.
    ///
    /// **An error here is not proof that nothing was paid:** look the hash up with [`LndClient::payment`] first.
    pub fn send_payment(
        &self,
        macaroon: &Macaroon,
        ask: routerrpc::SendPaymentRequest,
    ) -> Result<Updates<lnrpc::Payment>, LndError> {
        let request = request(macaroon, ask)?;
        let mut client = self.router();
        Ok(Updates::new(async move { client.send_payment_v2(request).await }))
    }

    /// Follows a payment that was started before, from its state now to its end.
    pub fn track_payment(
        &self,
        macaroon: &Macaroon,
        payment_hash: [u8; 32],
    ) -> Result<Updates<lnrpc::Payment>, LndError> {
        let ask = routerrpc::TrackPaymentRequest { payment_hash: payment_hash.to_vec(), no_inflight_updates: false };
        let request = request(macaroon, ask)?;
        let mut client = self.router();
        Ok(Updates::new(async move { client.track_payment_v2(request).await }))
    }

    /// The payment as it is now; `None` where this node never tried to pay the hash.
    pub async fn payment(
        &self,
        macaroon: &Macaroon,
        payment_hash: [u8; 32],
    ) -> Result<Option<lnrpc::Payment>, LndError> {
        let mut updates = self.track_payment(macaroon, payment_hash)?;
        let first = self
            .timed(READ, async {
                updates.next().await?.ok_or_else(|| LndError::unexpected("the node said nothing of the payment"))
            })
            .await;
        found(first)
    }
}

impl lnrpc::Payment {
    /// Whether it succeeded or failed for good; a failed one may be tried again as a new attempt.
    pub fn is_final(&self) -> bool {
        matches!(self.status(), PaymentStatus::Succeeded | PaymentStatus::Failed)
    }
}
