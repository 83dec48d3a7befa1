//! Accepts `create` and `delete`. One (app, uuid), at most one node, for ever.

use super::super::refuse;
use super::accept::{Accepted, Proposal};
use super::{Idempotency, Service};
use crate::model::amount::Sat;
use crate::model::ids::{AppId, NodeId, Uuid};
use crate::model::limits::Reservation;
use crate::model::node::{Funding, Node, NodeName, Phase};
use crate::model::operation::{Operation, Owner, State};
use crate::model::problem::{Code, Refusal};
use crate::model::work::Work;
use crate::model::work::create::{Create, CreateStep};
use crate::model::work::delete::{Delete, DeleteStep};
use crate::store::repo::{self, Versioned};
use crate::store::{IndexEntry, Write};

impl Service {
    /// Gives a user a node, or tells of the one there is. A create that failed before there was a wallet may be tried again.
    pub async fn create(
        &self,
        app: &AppId,
        uuid: &Uuid,
        idempotency: Option<Idempotency>,
    ) -> Result<Operation, Refusal> {
        let idempotency = idempotency.as_ref();
        self.until_accepted(idempotency, move || async move {
            let existing = self.find_node(app, uuid).await?;
            match self.joins(existing.as_ref()).await? {
                Some(joined) => self.join(joined, idempotency).await,
                None => self.try_create(app, uuid, existing, idempotency).await,
            }
        })
        .await
    }

    /// The operation of a node that exists or is being made; `None` where one is to be made.
    async fn joins(&self, existing: Option<&Versioned<Node>>) -> Result<Option<Operation>, Refusal> {
        let Some(Versioned { value: node, .. }) = existing else { return Ok(None) };
        match node.phase {
            Phase::Creating | Phase::Ready => {
                let operation = self.operation(&node.create_operation).await?;
                let lost = || Refusal::new(Code::Internal, "the operation that made the node is gone");
                Ok(Some(operation.ok_or_else(lost)?.value))
            }
            Phase::Failed => Ok(None),
            Phase::Deleting | Phase::Deleted => {
                let message = "this user's node was deleted; a uuid is never given a second wallet";
                Err(Refusal::new(Code::NodeDeleted, message))
            }
        }
    }

    async fn try_create(
        &self,
        app: &AppId,
        uuid: &Uuid,
        existing: Option<Versioned<Node>>,
        idempotency: Option<&Idempotency>,
    ) -> Result<Accepted, Refusal> {
        let now = self.parts.clock.now();
        let initial_funding_sat =
            if self.parts.treasury.is_some() { self.parts.settings.initial_funding_sat } else { Sat(0) };
        let id = self.new_id();
        let (node, writes) = match existing {
            Some(Versioned { value, version }) => {
                let node = Node { phase: Phase::Creating, create_operation: id.clone(), ..value };
                let write = repo::update(&node, version).map_err(|e| refuse::store(&e))?;
                (node, vec![write])
            }
            None => self.new_node(app, uuid, id.clone()).map_err(|e| refuse::store(&e))?,
        };
        let proposal = Proposal {
            owner: Owner { app: app.clone(), uuid: uuid.clone() },
            node: node.id,
            work: Work::Create(Create { initial_funding_sat, step: CreateStep::Place }),
            reservation: Some(Reservation {
                nodes: 1,
                creates: 1,
                funding_sat: initial_funding_sat,
                ..Reservation::at(now)
            }),
        };
        self.accept(id, proposal, idempotency, writes).await
    }

    fn new_node(
        &self,
        app: &AppId,
        uuid: &Uuid,
        create_operation: crate::model::OperationId,
    ) -> crate::store::Result<(Node, Vec<Write>)> {
        let id = NodeId::random(&mut rand::rng());
        let name = NodeName { app: app.clone(), uuid: uuid.clone(), node: id.clone() };
        let node = Node {
            id,
            app: app.clone(),
            uuid: uuid.clone(),
            phase: Phase::Creating,
            create_operation,
            placement: None,
            endpoint: None,
            secrets: None,
            wallet_may_exist: false,
            identity_pubkey: None,
            deposit_address: None,
            funding: Funding::None,
            lnd: None,
            created_at: self.parts.clock.now(),
        };
        let writes = vec![repo::create(&name)?, repo::create(&node)?];
        Ok((node, writes))
    }

    /// Takes a node out of service once nothing is left to lose.
    pub async fn delete(
        &self,
        app: &AppId,
        uuid: &Uuid,
        idempotency: Option<Idempotency>,
    ) -> Result<Operation, Refusal> {
        let idempotency = idempotency.as_ref();
        self.until_accepted(idempotency, move || async move {
            let node = self.node_of(app, uuid).await?;
            if matches!(node.value.phase, Phase::Deleting | Phase::Deleted) {
                let deletion = self.deletion_of(&node.value.id).await?;
                return self.join(deletion, idempotency).await;
            }
            let mut node = self.ready_node(node).await?.node;
            if self.has_running_work(&node.value.id).await? {
                let message = "operations of this node are still running";
                return Err(Refusal::new(Code::NodeNotEmpty, message));
            }
            node.value.phase = Phase::Deleting;
            let writes = vec![repo::update(&node.value, node.version).map_err(|e| refuse::store(&e))?];
            let proposal = Proposal {
                owner: Owner { app: app.clone(), uuid: uuid.clone() },
                node: node.value.id,
                work: Work::Delete(Delete { step: DeleteStep::Check }),
                reservation: None,
            };
            self.accept(self.new_id(), proposal, idempotency, writes).await
        })
        .await
    }

    /// Whether any operation of the node is unfinished.
    pub(super) async fn has_running_work(&self, node: &NodeId) -> Result<bool, Refusal> {
        let index = IndexEntry { name: "running", value: node.to_string() };
        let (found, _) = repo::list::<Operation>(&*self.parts.store, Some(index), None, 1, false)
            .await
            .map_err(|e| refuse::store(&e))?;
        Ok(!found.is_empty())
    }

    /// The newest delete of a node.
    async fn deletion_of(&self, node: &NodeId) -> Result<Operation, Refusal> {
        let index = IndexEntry { name: "node", value: node.to_string() };
        let (newest, _) = repo::list::<Operation>(&*self.parts.store, Some(index), None, 50, true)
            .await
            .map_err(|e| refuse::store(&e))?;
        let delete = newest
            .into_iter()
            .map(|o| o.value)
            .find(|o| matches!(o.work, Work::Delete(_)) && !matches!(o.state, State::Failed { .. }));
        delete.ok_or_else(super::unknown_user)
    }
}
