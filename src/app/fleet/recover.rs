//! Accepts the recovery of a host: another machine for the data volume of one that is gone.

use super::Fleet;
use crate::error::{Error, StoreError};
use crate::model::host::Host;
use crate::model::machine::{InstanceId, Machine, MachineState};
use crate::model::operation::{Operation, State};
use crate::model::problem::{Code, Refusal};
use crate::model::work::Work;
use crate::model::work::recover::{Recover, RecoverStep};
use crate::model::{HostId, OperationId};
use crate::store::repo::{self, Versioned};
use crate::store::{IndexEntry, Write};

/// What became of the wish to recover a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recovery {
    /// This operation does it.
    Begun(OperationId),
    /// This one is at it already.
    UnderWay(OperationId),
}

/// Why a host is not recovered.
#[derive(Debug, thiserror::Error)]
pub enum NotRecovered {
    /// There is none.
    #[error("there is no such host")]
    NoHost,
    /// An operator has brought its machine.
    #[error("the deployment has not started this host's machine, so it cannot start another")]
    NotOurs,
    /// The operator took it out.
    #[error("the host is revoked")]
    Revoked,
    /// Its first machine has not joined yet; there is nothing to recover.
    #[error("the host's machine is being started; if it does not join it is replaced by itself")]
    Starting,
    /// Nobody has seen its data volume while its machine ran.
    #[error("the host's data volume is not known: it was never seen while the host's instance ran")]
    NoVolume,
    /// It was seen, not terminated, a moment ago.
    #[error(
        "instance {0} is {1}, when it was last looked at: wait until the next look (compute.observe_every_seconds), or \
         have it terminated first, with --terminate"
    )]
    NotOver(InstanceId, &'static str),
    /// The Store.
    #[error(transparent)]
    Failed(#[from] Error),
}

impl From<StoreError> for NotRecovered {
    fn from(error: StoreError) -> Self {
        Self::Failed(error.into())
    }
}

impl Fleet {
    /// Has a host's machine replaced; the operation asks EC2 itself what has become of the old one. There is one at a time for
    /// each host: one that runs is joined, and one that cannot go on, or waits in vain, is followed by another.
    pub async fn recover_host(&self, id: &HostId, terminate: bool) -> Result<Recovery, NotRecovered> {
        loop {
            let host = repo::get::<Host>(&*self.store, id.as_str()).await?.ok_or(NotRecovered::NoHost)?;
            let mut writes = Vec::new();
            if let Some(before) = self.newest(&host.value).await? {
                match self.follow(before, terminate)? {
                    Following::Joined(operation) => return Ok(Recovery::UnderWay(operation)),
                    Following::Ended(write) => writes.extend(write),
                }
            }
            self.check(&host.value, terminate).await?;
            let operation = self.recovery(id, terminate);
            let mut host = host;
            if let Some(hosting) = &mut host.value.compute {
                hosting.recovery = Some(operation.id.clone());
            }
            writes.extend([repo::create(&operation)?, repo::update(&host.value, host.version)?]);
            match self.store.commit(writes).await {
                Ok(_) => return Ok(Recovery::Begun(operation.id)),
                Err(error) if error.is_conflict() => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn newest(&self, host: &Host) -> Result<Option<Versioned<Operation>>, StoreError> {
        match host.compute.as_ref().and_then(|hosting| hosting.recovery.as_ref()) {
            Some(id) => repo::get::<Operation>(&*self.store, id.as_str()).await,
            None => Ok(None),
        }
    }

    /// While it waits for an agent it asks nothing of EC2, so that nobody is cut off in the middle of that.
    fn follow(&self, mut before: Versioned<Operation>, terminate: bool) -> Result<Following, StoreError> {
        let waits =
            matches!(&before.value.work, Work::Recover(work) if matches!(work.step, RecoverStep::AwaitJoin { .. }));
        match before.value.state {
            State::Succeeded { .. } | State::Failed { .. } => return Ok(Following::Ended(None)),
            State::Running if !(waits && terminate) => return Ok(Following::Joined(before.value.id)),
            State::Running | State::Parked { .. } => {}
        }
        let message = "the operator has begun another recovery";
        before.value.state = State::Failed { error: Refusal::new(Code::NoCapacity, message) };
        before.value.progress = message.to_owned();
        before.value.updated_at = self.clock.now();
        Ok(Following::Ended(Some(repo::update(&before.value, before.version)?)))
    }

    async fn check(&self, host: &Host, terminate: bool) -> Result<(), NotRecovered> {
        if host.compute.is_none() {
            return Err(NotRecovered::NotOurs);
        }
        if host.is_revoked() {
            return Err(NotRecovered::Revoked);
        }
        let running = IndexEntry { name: "running", value: host.id.to_string() };
        let launches = repo::list_all::<Operation>(&*self.store, Some(running)).await?;
        let machine = repo::get::<Machine>(&*self.store, host.id.as_str()).await?.map(|machine| machine.value);
        let Some(machine) = machine.filter(|_| !launches.iter().any(|o| matches!(o.value.work, Work::Launch(_))))
        else {
            return Err(NotRecovered::Starting);
        };
        if machine.data_volume.is_none() {
            return Err(NotRecovered::NoVolume);
        }
        let state = match machine.state {
            MachineState::Terminated => return Ok(()),
            MachineState::Pending => "being started",
            MachineState::Running => "running",
            MachineState::Stopped => "stopped",
        };
        if terminate { Ok(()) } else { Err(NotRecovered::NotOver(machine.instance, state)) }
    }

    fn recovery(&self, id: &HostId, terminate: bool) -> Operation {
        let now = self.clock.now();
        Operation {
            id: OperationId::random(now, &mut rand::rng()),
            owner: None,
            node: None,
            host: Some(id.clone()),
            work: Work::Recover(Recover { terminate, step: RecoverStep::first() }),
            state: State::Running,
            progress: "accepted".to_owned(),
            reservation: None,
            created_at: now,
            updated_at: now,
        }
    }
}

/// What the recovery before means for the next.
enum Following {
    /// It is the one.
    Joined(OperationId),
    /// It is over, or ends with this.
    Ended(Option<Write>),
}
