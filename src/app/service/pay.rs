//! Accepts `pay`: everything that can be refused is refused here, before any effect. One (node, payment hash): one
//! payment.

use super::super::refuse;
use super::super::workflows::{coins, refuse_too_late};
use super::accept::{Accepted, Proposal};
use super::{Idempotency, PayRequest, ReadyNode, Service};
use crate::lnd::proto::lnrpc::ListChannelsRequest;
use crate::lnd::proto::lnrpc::payment::PaymentStatus;
use crate::model::amount::Sat;
use crate::model::ids::{AppId, Uuid};
use crate::model::invoice::Invoice;
use crate::model::limits::Reservation;
use crate::model::node::{Node, PaymentPointer};
use crate::model::operation::{Operation, Owner, State};
use crate::model::problem::{Code, Refusal};
use crate::model::work::Work;
use crate::model::work::pay::{OpenPolicy, Pay, PayStep, PayTerms};
use crate::model::work::plan::{self, Wallet};
use crate::store::repo::{self, Versioned};

impl Service {
    /// Pays an invoice, or joins or tells of the payment there is.
    pub async fn pay(
        &self,
        app: &AppId,
        uuid: &Uuid,
        request: PayRequest,
        idempotency: Option<Idempotency>,
    ) -> Result<Operation, Refusal> {
        let node = self.node_of(app, uuid).await?.value;
        let terms = self.terms(&node, &request)?;
        let pointer_id = PaymentPointer::id_of(&node.id, &terms.payment_hash);
        let (terms, pointer_id, idempotency) = (&terms, &pointer_id, idempotency.as_ref());
        self.until_accepted(idempotency, move || async move {
            let pointer =
                repo::get::<PaymentPointer>(&*self.parts.store, pointer_id).await.map_err(|e| refuse::store(&e))?;
            match self.joined_payment(pointer.as_ref(), terms).await? {
                Some(joined) => self.join(joined, idempotency).await,
                None => {
                    let node = self.ready_node(self.node_of(app, uuid).await?).await?;
                    self.refuse_before_any_effect(&node, terms, pointer.is_some()).await?;
                    self.try_pay(&node, terms, pointer, idempotency).await
                }
            }
        })
        .await
    }

    /// What is asked, completed and checked against the payment request.
    fn terms(&self, node: &Node, request: &PayRequest) -> Result<PayTerms, Refusal> {
        let invoice = Invoice::parse(&request.payreq, self.parts.settings.network)?;
        let amount_msat = invoice.amount(request.pay_amt)?;
        if node.identity_pubkey.as_deref() == Some(invoice.payee.as_str()) {
            return Err(Refusal::parameter(Code::PayreqOwnInvoice, "payreq", "this invoice is the node's own"));
        }
        let max_fee_sat = request.max_fee.unwrap_or_else(|| Sat(amount_msat.to_sat_ceil().0 / 100).max(Sat(10)));
        Ok(PayTerms {
            payreq: request.payreq.clone(),
            payment_hash: invoice.payment_hash,
            amount_msat,
            amount_is_ours: invoice.amount_msat.is_none_or(|amount| amount.0 == 0),
            max_fee_sat,
            expires_at: invoice.expires_at,
            open: request.open,
            capacity_sat: request.amt,
            max_open_fee_sat: request.max_open_fee,
            peer: request.pubkey.clone().unwrap_or_else(|| invoice.payee.clone()),
            payee: invoice.payee,
            peer_address: request.host.clone(),
        })
    }

    /// The payment that there is for this hash; `None` where there is none or it has definitely failed.
    async fn joined_payment(
        &self,
        pointer: Option<&Versioned<PaymentPointer>>,
        terms: &PayTerms,
    ) -> Result<Option<Operation>, Refusal> {
        let Some(pointer) = pointer else { return Ok(None) };
        let operation = self.operation(&pointer.value.operation).await?;
        let lost = || Refusal::new(Code::Internal, "the operation of this payment is gone");
        let operation = operation.ok_or_else(lost)?.value;
        if matches!(operation.state, State::Failed { .. }) {
            return Ok(None);
        }
        match &operation.work {
            Work::Pay(pay) if pay.terms.is_same_as(terms) => Ok(Some(operation)),
            _ => {
                let message = "this invoice is being paid, or was paid, with other parameters";
                Err(Refusal::new(Code::PaymentConflict, message).with("operation", operation.id.as_str()))
            }
        }
    }

    async fn refuse_before_any_effect(&self, node: &ReadyNode, terms: &PayTerms, tried: bool) -> Result<(), Refusal> {
        if terms.expires_at <= self.parts.clock.now() {
            let message = "the payment request has expired";
            return Err(Refusal::parameter(Code::PayreqExpired, "payreq", message));
        }
        let mut hash = [0u8; 32];
        if hex::decode_to_slice(&terms.payment_hash, &mut hash).is_ok() && !tried {
            let known = node.lnd.payment(&node.read, hash).await.map_err(|e| refuse::lnd(&e))?;
            if known.is_some_and(|p| p.status() == PaymentStatus::Succeeded) {
                let message = "this invoice was paid already, by somebody else than this system";
                return Err(Refusal::new(Code::AlreadyPaid, message));
            }
        }
        self.refuse_too_little(node, terms).await
    }

    /// Not enough money anywhere, even once everything is confirmed.
    async fn refuse_too_little(&self, node: &ReadyNode, terms: &PayTerms) -> Result<(), Refusal> {
        let ReadyNode { lnd, read, .. } = node;
        let channels = lnd.list_channels(read, ListChannelsRequest::default()).await.map_err(|e| refuse::lnd(&e))?;
        let balance = lnd.channel_balance(read).await.map_err(|e| refuse::lnd(&e))?;
        let in_channels: u64 = channels
            .channels
            .iter()
            .map(|c| {
                let reserve = c.local_constraints.as_ref().map_or(0, |l| l.chan_reserve_sat);
                Sat::from_lnd(c.local_balance).0.saturating_sub(reserve)
            })
            .sum();
        let pending = balance.pending_open_local_balance.map_or(0, |amount| amount.sat);
        let needed = terms.amount_msat.to_sat_ceil();
        if in_channels.saturating_add(pending) >= needed.0 {
            return Ok(());
        }
        let too_little = |needed: Sat, wallet: i64| {
            Refusal::new(Code::InsufficientFunds, "the node has not enough money for this payment")
                .with("needed_sat", needed.0)
                .with("channels_sat", in_channels)
                .with("channels_pending_sat", pending)
                .with("wallet_sat", wallet)
        };
        let wallet = lnd.wallet_balance(read).await.map_err(|e| refuse::lnd(&e))?;
        if terms.open == OpenPolicy::Never {
            return Err(too_little(needed, wallet.total_balance));
        }
        let needed = plan::capacity(terms);
        if Sat::from_lnd(wallet.total_balance) < needed {
            return Err(too_little(needed, wallet.total_balance));
        }
        self.refuse_opening(node, terms, Sat::from_lnd(wallet.unconfirmed_balance)).await
    }

    /// A channel that has to be opened, and cannot be as the terms want it.
    async fn refuse_opening(&self, node: &ReadyNode, terms: &PayTerms, unconfirmed_sat: Sat) -> Result<(), Refusal> {
        refuse_too_late(&self.parts, terms)?;
        // Others of this node may open channels just now, and whose coins are whose then shows when it is this one's turn.
        if self.has_running_work(&node.node.value.id).await? {
            return Ok(());
        }
        let ReadyNode { lnd, read, .. } = node;
        let sat_per_vbyte = self.parts.fee_rate(lnd, read).await.map_err(|e| refuse::any(&e))?;
        // Asked after the balance, as in `opening::wallet`.
        let confirmed = coins(lnd, read).await.map_err(|e| refuse::any(&e))?;
        plan::plan(terms, &Wallet { confirmed, unconfirmed_sat }, sat_per_vbyte).map(drop)
    }

    async fn try_pay(
        &self,
        node: &ReadyNode,
        terms: &PayTerms,
        pointer: Option<Versioned<PaymentPointer>>,
        idempotency: Option<&Idempotency>,
    ) -> Result<Accepted, Refusal> {
        let as_looked_at = node.is_unchanged();
        let node = &node.node.value;
        let id = self.new_id();
        let next =
            PaymentPointer { node: node.id.clone(), payment_hash: terms.payment_hash.clone(), operation: id.clone() };
        let write = match pointer {
            Some(pointer) => repo::update(&next, pointer.version),
            None => repo::create(&next),
        };
        let proposal = Proposal {
            owner: Owner { app: node.app.clone(), uuid: node.uuid.clone() },
            node: node.id.clone(),
            reservation: Some(Reservation {
                outgoing_sat: plan::worst_case(terms),
                ..Reservation::at(self.parts.clock.now())
            }),
            work: Work::Pay(Pay { terms: terms.clone(), opened: None, step: PayStep::Send }),
        };
        self.accept(id, proposal, idempotency, vec![as_looked_at, write.map_err(|e| refuse::store(&e))?]).await
    }
}
