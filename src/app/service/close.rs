//! Accepts `closechannel`: finds the channel, freezes its point and what closing it may cost. A channel closes once.

use super::super::refuse;
use super::accept::{Accepted, MOST_TRIES, Proposal, step_aside, too_many_at_once};
use super::{CloseRequest, Idempotency, ReadyNode, Service};
use crate::error::StoreError;
use crate::lnd::proto::lnrpc::{Channel, ListChannelsRequest};
use crate::model::amount::Sat;
use crate::model::ids::{AppId, OperationId, Uuid};
use crate::model::limits::Reservation;
use crate::model::node::ClosePointer;
use crate::model::operation::{Operation, Owner, State};
use crate::model::problem::{Code, Refusal};
use crate::model::work::Work;
use crate::model::work::close::{Close, CloseFee, CloseStep};
use crate::store::Write;
use crate::store::repo::{self, Versioned};
use tokio::sync::OnceCell;

impl Service {
    /// Closes a channel, or joins or tells of its close.
    pub async fn close(
        &self,
        app: &AppId,
        uuid: &Uuid,
        request: CloseRequest,
        idempotency: Option<Idempotency>,
    ) -> Result<Operation, Refusal> {
        // Decided once: what conflicts is the close of this channel.
        let channel = OnceCell::new();
        let (request, idempotency, channel) = (&request, idempotency.as_ref(), &channel);
        self.until_accepted(idempotency, move || async move {
            let (node, channel_point) = channel.get_or_try_init(|| self.channel_to_close(app, uuid, request)).await?;
            let pointer_id = ClosePointer::id_of(&node.node.value.id, channel_point);
            let pointer =
                repo::get::<ClosePointer>(&*self.parts.store, &pointer_id).await.map_err(|e| refuse::store(&e))?;
            match self.joined_close(pointer.as_ref(), request).await? {
                Some(joined) => self.join(joined, idempotency).await,
                None => {
                    let channel = open_channel(node, &request.pubkey, channel_point).await?;
                    let fee = self.close_fee(node, request, &channel).await?;
                    self.try_close(node, request, channel_point.clone(), fee, pointer, idempotency).await
                }
            }
        })
        .await
    }

    /// The node, and the point of the channel that is meant.
    async fn channel_to_close(
        &self,
        app: &AppId,
        uuid: &Uuid,
        request: &CloseRequest,
    ) -> Result<(ReadyNode, String), Refusal> {
        let node = self.ready_node(self.node_of(app, uuid).await?).await?;
        let channel_point = match &request.channel_point {
            Some(named) => named.clone(),
            None => only_channel(&node, &request.pubkey).await?,
        };
        Ok((node, channel_point))
    }

    async fn joined_close(
        &self,
        pointer: Option<&Versioned<ClosePointer>>,
        request: &CloseRequest,
    ) -> Result<Option<Operation>, Refusal> {
        let Some(pointer) = pointer else { return Ok(None) };
        let operation = self.operation(&pointer.value.operation).await?.ok_or_else(lost)?.value;
        match (&operation.state, &operation.work) {
            (State::Failed { .. }, _) => Ok(None),
            (State::Running, Work::Close(close)) if request.force && !close.force => {
                self.force_running(&operation.id, request).await.map(Some)
            }
            (_, Work::Close(close)) if is_same(close, request) => Ok(Some(operation)),
            _ => {
                let message = "this channel is being closed, or was closed, with other parameters";
                Err(Refusal::new(Code::CloseConflict, message).with("operation", operation.id.as_str()))
            }
        }
    }

    /// A cooperative close that does not come to an end is forced on request, and what that costs more is set aside in the
    /// same commit. Whoever works on it is told by the feed.
    async fn force_running(&self, id: &OperationId, request: &CloseRequest) -> Result<Operation, Refusal> {
        for attempt in 0..MOST_TRIES {
            let stored = self.operation(id).await?.ok_or_else(lost)?;
            let mut next = stored.value;
            let Work::Close(close) = &mut next.work else { return Err(lost()) };
            if close.force || next.state != State::Running {
                return Ok(next);
            }
            close.force = true;
            close.fee = close.fee.map(|fee| fee.turned_forced(request.max_fee)).transpose()?;
            let needed = close.fee.map(|fee| fee.reserved()).unwrap_or_default();
            next.updated_at = self.parts.clock.now();
            let mut writes = self.set_aside_more(&mut next, needed).await?;
            writes.push(repo::update(&next, stored.version).map_err(|e| refuse::store(&e))?);
            match self.parts.store.commit(writes).await {
                Ok(_) => return Ok(next),
                Err(StoreError::Conflict { .. }) => step_aside(attempt).await,
                Err(error) => return Err(refuse::store(&error)),
            }
        }
        Err(too_many_at_once())
    }

    /// The writes that raise what is set aside for a running operation to `needed`, where it is less.
    async fn set_aside_more(&self, operation: &mut Operation, needed: Sat) -> Result<Vec<Write>, Refusal> {
        let held_sat = operation.reservation.unwrap_or_default().outgoing_sat;
        let Some(owner) = operation.owner.as_ref().filter(|_| held_sat < needed) else {
            return Ok(Vec::new());
        };
        let ask = Reservation { outgoing_sat: needed, ..Reservation::at(self.parts.clock.now()) };
        let (counted, writes) = self.reserve(owner, &ask, operation.reservation.as_ref()).await?;
        operation.reservation = Some(counted);
        Ok(writes)
    }

    /// What the close may cost this node: who has opened a channel pays for its end.
    async fn close_fee(
        &self,
        node: &ReadyNode,
        request: &CloseRequest,
        channel: &Channel,
    ) -> Result<Option<CloseFee>, Refusal> {
        if !channel.initiator {
            return Ok(None);
        }
        let (capacity, commit_fee) = (Sat::from_lnd(channel.capacity), Sat::from_lnd(channel.commit_fee));
        if request.force {
            return CloseFee::forced(capacity, commit_fee, request.max_fee).map(Some);
        }
        let sat_per_vbyte = self.parts.fee_rate(&node.lnd, &node.read).await.map_err(|e| refuse::any(&e))?;
        CloseFee::cooperative(capacity, commit_fee, request.max_fee, sat_per_vbyte).map(Some)
    }

    async fn try_close(
        &self,
        node: &ReadyNode,
        request: &CloseRequest,
        channel_point: String,
        fee: Option<CloseFee>,
        pointer: Option<Versioned<ClosePointer>>,
        idempotency: Option<&Idempotency>,
    ) -> Result<Accepted, Refusal> {
        let node = &node.node.value;
        let id = self.new_id();
        let next = ClosePointer { node: node.id.clone(), channel_point: channel_point.clone(), operation: id.clone() };
        let write = match pointer {
            Some(pointer) => repo::update(&next, pointer.version),
            None => repo::create(&next),
        };
        let proposal = Proposal {
            owner: Owner { app: node.app.clone(), uuid: node.uuid.clone() },
            node: node.id.clone(),
            work: Work::Close(Close {
                pubkey: request.pubkey.clone(),
                channel_point,
                force: request.force,
                fee,
                asked: false,
                step: CloseStep::Connect,
            }),
            reservation: fee
                .map(|fee| Reservation { outgoing_sat: fee.reserved(), ..Reservation::at(self.parts.clock.now()) }),
        };
        self.accept(id, proposal, idempotency, vec![write.map_err(|e| refuse::store(&e))?]).await
    }
}

/// Whether a running or finished close is what is asked for. A bound that is not named fits any.
fn is_same(close: &Close, request: &CloseRequest) -> bool {
    let same_bound = match (close.fee, request.max_fee) {
        (Some(fee), Some(asked)) if !close.force => fee.max_fee_sat == asked,
        _ => true,
    };
    close.pubkey == request.pubkey && close.force == request.force && same_bound
}

async fn channels_with(node: &ReadyNode, pubkey: &str) -> Result<Vec<Channel>, Refusal> {
    let all = node.lnd.list_channels(&node.read, ListChannelsRequest::default()).await.map_err(|e| refuse::lnd(&e))?;
    Ok(all.channels.into_iter().filter(|c| c.remote_pubkey == pubkey).collect())
}

async fn only_channel(node: &ReadyNode, pubkey: &str) -> Result<String, Refusal> {
    let mut open: Vec<String> = channels_with(node, pubkey).await?.into_iter().map(|c| c.channel_point).collect();
    match (open.pop(), open.is_empty()) {
        (Some(only), true) => Ok(only),
        (Some(one), false) => {
            open.push(one);
            open.sort();
            let message = "there are several channels with this peer: say which with channel_point";
            Err(Refusal::parameter(Code::SeveralChannels, "channel_point", message).with("channel_points", open))
        }
        (None, _) => closing_channel(node, pubkey).await,
    }
}

/// The one channel with the peer that is closing already: asking again is answered with its close.
async fn closing_channel(node: &ReadyNode, pubkey: &str) -> Result<String, Refusal> {
    let pending = node.lnd.pending_closes(&node.read).await.map_err(|e| refuse::lnd(&e))?;
    let mut closing: Vec<String> =
        pending.into_iter().filter(|c| c.remote_pubkey == pubkey).map(|c| c.channel_point).collect();
    match (closing.pop(), closing.is_empty()) {
        (Some(only), true) => Ok(only),
        _ => Err(no_channel()),
    }
}

async fn open_channel(node: &ReadyNode, pubkey: &str, channel_point: &str) -> Result<Channel, Refusal> {
    let open = channels_with(node, pubkey).await?;
    open.into_iter().find(|c| c.channel_point == channel_point).ok_or_else(no_channel)
}

fn no_channel() -> Refusal {
    Refusal::new(Code::ChannelNotFound, "there is no open channel with this peer, or none of this name")
}

fn lost() -> Refusal {
    Refusal::new(Code::Internal, "the operation of this close is gone")
}
