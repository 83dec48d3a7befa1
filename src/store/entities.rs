//! Which document each part of the model is kept as, and what it can be found by.

use super::repo::{self, Entity};
use super::{Document, IndexEntry, Result};
use crate::error::StoreError;
use crate::model::app::{ApiKeyRecord, App};
use crate::model::authority::Authority;
use crate::model::deployment::Deployment;
use crate::model::host::Host;
use crate::model::limits::Usage;
use crate::model::machine::Machine;
use crate::model::node::{Backup, BackupHead, Claim, ClosePointer, Heartbeat, Node, NodeName, PaymentPointer, Runtime};
use crate::model::operation::{IdempotencyRecord, Operation};
use crate::model::rollout::Rollout;
use crate::model::updates::{Delivery, Looked, ReleaseRecord, Wanted};
use crate::model::work::create::FundingRequest;

macro_rules! collections {
    ($($entity:ty),+ $(,)?) => {
        /// Every collection there is: a store that follows each by itself must know them. (`deployment` has two kinds of
        /// document, and no index.)
        pub(crate) const COLLECTIONS: &[&str] = &[Authority::COLLECTION, $(<$entity>::COLLECTION),+];

        /// What a stored document can be found by, which no store gives back.
        ///
        /// # Errors
        /// [`StoreError::Corrupt`] for a document that this version does not know.
        pub(crate) fn index_of(document: &Document) -> Result<Vec<IndexEntry>> {
            match document.key.collection {
                Authority::COLLECTION => Ok(Vec::new()),
                $(<$entity>::COLLECTION => Ok(repo::decode_ref::<$entity>(document)?.value.index()),)+
                collection => Err(StoreError::Invalid { collection, reason: "it is none of the collections" }),
            }
        }
    };
}

collections!(
    App,
    ApiKeyRecord,
    Host,
    Machine,
    Usage,
    Node,
    NodeName,
    Runtime,
    Backup,
    BackupHead,
    ClosePointer,
    PaymentPointer,
    Claim,
    Heartbeat,
    Operation,
    IdempotencyRecord,
    FundingRequest,
    Delivery,
    Looked,
    ReleaseRecord,
    Rollout,
    Wanted,
);

fn entry(name: &'static str, value: impl Into<String>) -> IndexEntry {
    IndexEntry { name, value: value.into() }
}

impl Entity for App {
    const COLLECTION: &'static str = "apps";
    fn id(&self) -> String {
        self.id.to_string()
    }
}

impl Entity for ApiKeyRecord {
    const COLLECTION: &'static str = "api_keys";
    fn id(&self) -> String {
        self.id.to_string()
    }
}

impl Entity for Host {
    const COLLECTION: &'static str = "hosts";
    fn id(&self) -> String {
        self.id.to_string()
    }
}

impl Entity for Machine {
    const COLLECTION: &'static str = "machines";
    fn id(&self) -> String {
        self.host.to_string()
    }
}

impl Entity for Authority {
    const COLLECTION: &'static str = "deployment";
    /// 2: another may be taking over. A program that knows nothing of that would believe too few, and forget the other.
    const SCHEMA: u32 = 2;
    fn id(&self) -> String {
        Self::ID.to_owned()
    }
}

impl Entity for Deployment {
    const COLLECTION: &'static str = "deployment";
    /// 2: it may have wrapped keys. A program that knows nothing of them would lose them when it writes the document.
    const SCHEMA: u32 = 2;
    fn id(&self) -> String {
        Self::ID.to_owned()
    }
}

impl Entity for Usage {
    const COLLECTION: &'static str = "usage";
    /// 2: it may be one of several. A program that knows of one would count past the limits of all.
    const SCHEMA: u32 = 2;
    fn id(&self) -> String {
        Self::id_of(&self.subject, self.shard)
    }
}

impl Entity for Node {
    const COLLECTION: &'static str = "nodes";
    fn id(&self) -> String {
        self.id.to_string()
    }
    /// `app`: every node of an app. `pubkey`: whose lnd a peer is.
    fn index(&self) -> Vec<IndexEntry> {
        let mut index = vec![entry("app", self.app.as_str())];
        index.extend(self.identity_pubkey.iter().map(|pubkey| entry("pubkey", pubkey)));
        index
    }
}

impl Entity for NodeName {
    const COLLECTION: &'static str = "node_names";
    fn id(&self) -> String {
        Self::id_of(&self.app, &self.uuid)
    }
}

impl Entity for Runtime {
    const COLLECTION: &'static str = "runtimes";
    fn id(&self) -> String {
        self.node.to_string()
    }
}

impl Entity for Backup {
    const COLLECTION: &'static str = "backups";
    fn id(&self) -> String {
        Self::id_of(&self.node, self.number)
    }
}

impl Entity for BackupHead {
    const COLLECTION: &'static str = "backup_heads";
    fn id(&self) -> String {
        self.node.to_string()
    }
}

impl Entity for ClosePointer {
    const COLLECTION: &'static str = "closes";
    fn id(&self) -> String {
        Self::id_of(&self.node, &self.channel_point)
    }
}

impl Entity for PaymentPointer {
    const COLLECTION: &'static str = "payments";
    fn id(&self) -> String {
        Self::id_of(&self.node, &self.payment_hash)
    }
}

impl Entity for Claim {
    const COLLECTION: &'static str = "claims";
    fn id(&self) -> String {
        self.subject.clone()
    }
}

impl Entity for Heartbeat {
    const COLLECTION: &'static str = "masters";
    fn id(&self) -> String {
        self.master.to_string()
    }
}

impl Entity for Operation {
    const COLLECTION: &'static str = "operations";
    /// 2: what is set aside for it is counted in one of several documents. A program that knows of one would give it back
    /// to the wrong one.
    const SCHEMA: u32 = 2;
    fn id(&self) -> String {
        self.id.to_string()
    }
    /// `running`: work for somebody. `app` and `node`: for listings. `state`: for operators.
    fn index(&self) -> Vec<IndexEntry> {
        let mut index = vec![entry("state", self.state.name())];
        index.extend(self.owner.iter().map(|owner| entry("app", owner.app.as_str())));
        index.extend(self.node.iter().map(|node| entry("node", node.as_str())));
        if self.is_running() {
            index.push(entry("running", self.subject()));
        }
        index
    }
}

impl Entity for IdempotencyRecord {
    const COLLECTION: &'static str = "idempotency";
    fn id(&self) -> String {
        self.id.clone()
    }
    /// `hour`: those that are forgotten by and by.
    fn index(&self) -> Vec<IndexEntry> {
        self.hour().map(|hour| entry(Self::HOUR, hour.to_string())).into_iter().collect()
    }
}

impl Entity for FundingRequest {
    const COLLECTION: &'static str = "funding_requests";
    fn id(&self) -> String {
        self.operation.to_string()
    }
    fn index(&self) -> Vec<IndexEntry> {
        vec![entry("state", self.state.name())]
    }
}

impl Entity for Delivery {
    const COLLECTION: &'static str = "deliveries";
    fn id(&self) -> String {
        self.id.as_str().to_owned()
    }
    /// `hour`: the latest, and those that are forgotten by and by.
    fn index(&self) -> Vec<IndexEntry> {
        vec![entry(Self::HOUR, IdempotencyRecord::hour_of(self.received_at).to_string())]
    }
}

impl Entity for Looked {
    const COLLECTION: &'static str = "looks";
    fn id(&self) -> String {
        Self::id_of(&self.source)
    }
}

impl Entity for ReleaseRecord {
    const COLLECTION: &'static str = "releases";
    fn id(&self) -> String {
        Self::id_of(self.serial)
    }
}

impl Entity for Rollout {
    const COLLECTION: &'static str = "rollouts";
    fn id(&self) -> String {
        Self::id_of(self.serial)
    }
}

impl Entity for Wanted {
    const COLLECTION: &'static str = "wanted";
    fn id(&self) -> String {
        Self::ID.to_owned()
    }
}
