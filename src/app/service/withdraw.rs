//! Accepts `withdraw`. It has no natural key: two of the same are two withdrawals, unless an Idempotency-Key says
//! otherwise.

use super::super::refuse;
use super::super::workflows::coins;
use super::accept::{Accepted, Proposal};
use super::{Idempotency, ReadyNode, Service, WithdrawRequest};
use crate::model::amount::Sat;
use crate::model::ids::{AppId, Uuid};
use crate::model::limits::Reservation;
use crate::model::onchain_address::script_of;
use crate::model::operation::{Operation, Owner};
use crate::model::problem::{Code, Refusal};
use crate::model::work::Work;
use crate::model::work::onchain::{SendStep, Withdraw, WithdrawAmount};

impl Service {
    /// Sends on-chain money out of a node.
    pub async fn withdraw(
        &self,
        app: &AppId,
        uuid: &Uuid,
        request: WithdrawRequest,
        idempotency: Option<Idempotency>,
    ) -> Result<Operation, Refusal> {
        let network = self.parts.settings.network;
        if script_of(&request.address, network).is_none() {
            let message = format!("this is not an address of {network}");
            return Err(Refusal::parameter(Code::InvalidParameters, "address", message));
        }
        let (request, idempotency) = (&request, idempotency.as_ref());
        self.until_accepted(idempotency, move || async move {
            let node = self.ready_node(self.node_of(app, uuid).await?).await?;
            let affordable = self.affordable(&node, request).await?;
            self.try_withdraw(&node, request, affordable, idempotency).await
        })
        .await
    }

    async fn try_withdraw(
        &self,
        node: &ReadyNode,
        request: &WithdrawRequest,
        Affordable { amount, max_fee_sat }: Affordable,
        idempotency: Option<&Idempotency>,
    ) -> Result<Accepted, Refusal> {
        let as_looked_at = node.is_unchanged();
        let node = &node.node.value;
        let proposal = Proposal {
            owner: Owner { app: node.app.clone(), uuid: node.uuid.clone() },
            node: node.id.clone(),
            work: Work::Withdraw(Withdraw {
                address: request.address.clone(),
                amount: request.amount,
                at_most_sat: amount,
                max_fee_sat,
                step: SendStep::Fund,
            }),
            reservation: Some(Reservation {
                outgoing_sat: amount.saturating_add(max_fee_sat),
                ..Reservation::at(self.parts.clock.now())
            }),
        };
        self.accept(self.new_id(), proposal, idempotency, vec![as_looked_at]).await
    }

    /// What is asked for, if the wallet has that much confirmed and the least it can cost is within the bound; `All`: what
    /// is confirmed now.
    async fn affordable(&self, node: &ReadyNode, request: &WithdrawRequest) -> Result<Affordable, Refusal> {
        let ReadyNode { lnd, read, .. } = node;
        let balance = lnd.wallet_balance(read).await.map_err(|e| refuse::lnd(&e))?;
        let confirmed = Sat::from_lnd(balance.confirmed_balance);
        let amount = match request.amount {
            WithdrawAmount::Sat(amount) => amount,
            WithdrawAmount::All => confirmed,
        };
        let max_fee_sat = request.max_fee.unwrap_or_else(|| Sat(amount.0 / 100).max(Sat(2_000)));
        let sat_per_vbyte = self.parts.fee_rate(lnd, read).await.map_err(|e| refuse::any(&e))?;
        let coins = coins(lnd, read).await.map_err(|e| refuse::any(&e))?;
        match request.amount.least_fee(&coins, sat_per_vbyte) {
            Some(least) if least > max_fee_sat => Err(fee_too_high(least, max_fee_sat)),
            Some(_) => Ok(Affordable { amount, max_fee_sat }),
            None => {
                let refusal = Refusal::new(Code::InsufficientFunds, "the wallet has not enough confirmed money")
                    .with("wallet_confirmed_sat", confirmed.0)
                    .with("wallet_unconfirmed_sat", balance.unconfirmed_balance)
                    .with("needed_sat", amount.0);
                Err(refusal)
            }
        }
    }
}

/// What can be withdrawn.
struct Affordable {
    amount: Sat,
    max_fee_sat: Sat,
}

/// The bound on the fee cannot be kept.
pub(in crate::app) fn fee_too_high(needed: Sat, max_fee: Sat) -> Refusal {
    Refusal::new(Code::FeeTooHigh, "the transaction costs more than max_fee")
        .with("needed_sat", needed.0)
        .with("max_fee_sat", max_fee.0)
}
