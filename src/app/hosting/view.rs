//! What is decided on, kept in memory: hosts, their machines, and the creates that wait for a slot.

use super::super::Parts;
use crate::error::{Error, Result};
use crate::model::host::Host;
use crate::model::machine::Machine;
use crate::model::operation::{Operation, State};
use crate::model::work::Work;
use crate::model::work::create::CreateStep;
use crate::model::{HostId, NodeId, OperationId};
use crate::store::repo::{self, Entity, Versioned};
use crate::store::{Change, Document, IndexEntry, Version, Write};
use std::collections::{BTreeMap, HashMap};

#[derive(Debug, Default)]
pub(super) struct View {
    hosts: HashMap<HostId, Versioned<Host>>,
    machines: HashMap<HostId, Versioned<Machine>>,
    /// In the order in which they came.
    waiting: BTreeMap<OperationId, (NodeId, Version)>,
}

impl View {
    /// Reads all of it. What cannot be read is left alone, and told.
    pub(super) async fn read(parts: &Parts) -> Result<Self> {
        let store = &*parts.store;
        let skipped = |error| tracing::error!(%error, "is not counted among the hosts");
        let mut view = Self::default();
        for host in repo::list_all_readable::<Host>(store, None, skipped).await? {
            view.put_host(host);
        }
        for machine in repo::list_all_readable::<Machine>(store, None, skipped).await? {
            view.put_machine(machine);
        }
        let running = IndexEntry { name: "state", value: State::Running.name().to_owned() };
        for operation in repo::list_all_readable::<Operation>(store, Some(running), skipped).await? {
            view.put_operation(&operation);
        }
        Ok(view)
    }

    /// Takes note of a change. False: everything is to be read anew.
    pub(super) fn apply(&mut self, change: &Change) -> Result<bool> {
        let Change::Put(document) = change else { return Ok(!matches!(change, Change::Resync)) };
        match document.key.collection {
            Host::COLLECTION => self.put_host(decoded(document)?),
            Machine::COLLECTION => self.put_machine(decoded(document)?),
            Operation::COLLECTION => self.put_operation(&decoded(document)?),
            _ => {}
        }
        Ok(true)
    }

    /// Older news, of what was written here already, do not count.
    pub(super) fn put_host(&mut self, host: Versioned<Host>) {
        let known = self.hosts.get(&host.value.id);
        if known.is_none_or(|known| known.version <= host.version) {
            self.hosts.insert(host.value.id.clone(), host);
        }
    }

    pub(super) fn put_machine(&mut self, machine: Versioned<Machine>) {
        let known = self.machines.get(&machine.value.host);
        if known.is_none_or(|known| known.version <= machine.version) {
            self.machines.insert(machine.value.host.clone(), machine);
        }
    }

    fn put_operation(&mut self, operation: &Versioned<Operation>) {
        let Operation { id, node, work, .. } = &operation.value;
        match (work, node) {
            (Work::Create(create), Some(node)) if create.step == CreateStep::Place && operation.value.is_running() => {
                self.waiting.insert(id.clone(), (node.clone(), operation.version));
            }
            _ => {
                self.waiting.remove(id);
            }
        }
    }

    pub(super) fn hosts(&self) -> impl Iterator<Item = &Host> {
        self.hosts.values().map(|host| &host.value)
    }

    pub(super) fn host(&self, id: &HostId) -> Option<&Versioned<Host>> {
        self.hosts.get(id)
    }

    pub(super) fn machines(&self) -> impl Iterator<Item = &Versioned<Machine>> {
        self.machines.values()
    }

    pub(super) fn machine(&self, id: &HostId) -> Option<&Versioned<Machine>> {
        self.machines.get(id)
    }

    /// Who waits for a slot, in the order in which they came.
    pub(super) fn waiting(&self) -> Vec<NodeId> {
        self.waiting.values().map(|(node, _)| node.clone()).collect()
    }

    /// The condition that this node still waits as it is known here.
    pub(super) fn still_waits(&self, node: &NodeId) -> Option<Write> {
        let (id, (_, version)) = self.waiting.iter().find(|(_, (waiting, _))| waiting == node)?;
        Some(repo::check::<Operation>(id.as_str(), *version))
    }
}

fn decoded<T: Entity>(document: &Document) -> Result<Versioned<T>> {
    repo::decode(document.clone()).map_err(Error::from)
}
