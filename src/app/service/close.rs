//! Accepts `closechannel`: finds the channel and freezes its point. A channel closes once.

use super::super::refuse;
use super::accept::{Accepted, MOST_TRIES, Proposal};
use super::{CloseRequest, Idempotency, ReadyNode, Service};
use crate::error::StoreError;
use crate::lnd::proto::lnrpc::ListChannelsRequest;
use crate::model::ids::{AppId, OperationId, Uuid};
use crate::model::node::ClosePointer;
use crate::model::operation::{Operation, Owner, State};
use crate::model::problem::{Code, Refusal};
use crate::model::work::Work;
use crate::model::work::close::{Close, CloseStep};
use crate::store::repo::{self, Versioned};

impl Service {
    /// Closes a channel, or joins or tells of its close.
    pub async fn close(
        &self,
        app: &AppId,
        uuid: &Uuid,
        request: CloseRequest,
        idempotency: Option<Idempotency>,
    ) -> Result<Operation, Refusal> {
        if let Some(operation) = self.replayed(idempotency.as_ref()).await? {
            return Ok(operation);
        }
        let node = self.ready_node(app, uuid).await?;
        let channel_point = match &request.channel_point {
            Some(named) => named.clone(),
            None => self.only_channel(&node, &request.pubkey).await?,
        };
        for attempt in 0..MOST_TRIES {
            if let Some(operation) = self.replayed(idempotency.as_ref()).await? {
                return Ok(operation);
            }
            let pointer_id = ClosePointer::id_of(&node.node.value.id, &channel_point);
            let pointer =
                repo::get::<ClosePointer>(&*self.parts.store, &pointer_id).await.map_err(|e| refuse::store(&e))?;
            if let Some(joined) = self.joined_close(pointer.as_ref(), &request).await? {
                return Ok(joined);
            }
            self.must_be_open(&node, &request.pubkey, &channel_point).await?;
            let tried = self.try_close(&node, &request, &channel_point, pointer, idempotency.as_ref()).await?;
            if let Accepted::New(operation) = tried {
                return Ok(*operation);
            }
            self.step_aside(attempt).await;
        }
        Err(Refusal::new(Code::Overloaded, "too many at once").retry_after(1))
    }

    async fn channels_with(&self, node: &ReadyNode, pubkey: &str) -> Result<Vec<String>, Refusal> {
        let all =
            node.lnd.list_channels(&node.read, ListChannelsRequest::default()).await.map_err(|e| refuse::lnd(&e))?;
        Ok(all.channels.into_iter().filter(|c| c.remote_pubkey == pubkey).map(|c| c.channel_point).collect())
    }

    async fn only_channel(&self, node: &ReadyNode, pubkey: &str) -> Result<String, Refusal> {
        let mut open = self.channels_with(node, pubkey).await?;
        match (open.pop(), open.is_empty()) {
            (Some(only), true) => Ok(only),
            (Some(one), false) => {
                open.push(one);
                open.sort();
                let message = "there are several channels with this peer: say which with channel_point";
                Err(Refusal::parameter(Code::SeveralChannels, "channel_point", message).with("channel_points", open))
            }
            (None, _) => self.closing_channel(node, pubkey).await,
        }
    }

    /// The one channel with the peer that is closing already: asking again is answered with its close.
    async fn closing_channel(&self, node: &ReadyNode, pubkey: &str) -> Result<String, Refusal> {
        let pending = node.lnd.pending_channels(&node.read).await.map_err(|e| refuse::lnd(&e))?;
        let waiting = pending.waiting_close_channels.into_iter().filter_map(|c| c.channel);
        let forced = pending.pending_force_closing_channels.into_iter().filter_map(|c| c.channel);
        let mut closing: Vec<String> =
            waiting.chain(forced).filter(|c| c.remote_node_pub == pubkey).map(|c| c.channel_point).collect();
        match (closing.pop(), closing.is_empty()) {
            (Some(only), true) => Ok(only),
            _ => Err(no_channel()),
        }
    }

    async fn must_be_open(&self, node: &ReadyNode, pubkey: &str, channel_point: &str) -> Result<(), Refusal> {
        let open = self.channels_with(node, pubkey).await?;
        if open.iter().any(|c| c == channel_point) { Ok(()) } else { Err(no_channel()) }
    }

    async fn joined_close(
        &self,
        pointer: Option<&Versioned<ClosePointer>>,
        request: &CloseRequest,
    ) -> Result<Option<Operation>, Refusal> {
        let Some(pointer) = pointer else { return Ok(None) };
        let operation = self.operation(&pointer.value.operation).await?;
        let lost = || Refusal::new(Code::Internal, "the operation of this close is gone");
        let operation = operation.ok_or_else(lost)?.value;
        match (&operation.state, &operation.work) {
            (State::Failed { .. }, _) => Ok(None),
            (State::Running, Work::Close(close)) if request.force && !close.force => {
                self.force_running(&operation.id).await.map(Some)
            }
            (_, Work::Close(close)) if close.pubkey == request.pubkey && close.force == request.force => {
                Ok(Some(operation))
            }
            _ => {
                let message = "this channel is being closed, or was closed, with other parameters";
                Err(Refusal::new(Code::CloseConflict, message).with("operation", operation.id.as_str()))
            }
        }
    }

    /// A cooperative close that does not come to an end is forced on request: whoever works on it finds the change at the
    /// next look.
    async fn force_running(&self, id: &OperationId) -> Result<Operation, Refusal> {
        let forced = repo::modify::<Operation, StoreError>(&*self.parts.store, id.as_str(), |operation| {
            match &mut operation.work {
                Work::Close(close) if operation.state == State::Running && !close.force => close.force = true,
                _ => return Ok(None),
            }
            Ok(Some(Vec::new()))
        });
        let lost = || Refusal::new(Code::Internal, "the operation of this close is gone");
        forced.await.map_err(|e| refuse::store(&e))?.map(|o| o.value).ok_or_else(lost)
    }

    async fn try_close(
        &self,
        node: &ReadyNode,
        request: &CloseRequest,
        channel_point: &str,
        pointer: Option<Versioned<ClosePointer>>,
        idempotency: Option<&Idempotency>,
    ) -> Result<Accepted, Refusal> {
        let node = &node.node.value;
        let id = self.new_id();
        let next =
            ClosePointer { node: node.id.clone(), channel_point: channel_point.to_owned(), operation: id.clone() };
        let write = match pointer {
            Some(pointer) => repo::update(&next, pointer.version),
            None => repo::create(&next),
        };
        let proposal = Proposal {
            owner: Owner { app: node.app.clone(), uuid: node.uuid.clone() },
            node: node.id.clone(),
            work: Work::Close(Close {
                pubkey: request.pubkey.clone(),
                channel_point: channel_point.to_owned(),
                force: request.force,
                step: CloseStep::Close,
            }),
            reservation: None,
        };
        self.accept(id, proposal, idempotency, vec![write.map_err(|e| refuse::store(&e))?]).await
    }
}

fn no_channel() -> Refusal {
    Refusal::new(Code::ChannelNotFound, "there is no open channel with this peer, or none of this name")
}
