//! `recover`: another machine for a host whose machine is gone, with the data volume that it has left behind. An operation of
//! the deployment's own, under the host's claim, by an operator's word.
//!
//! Two lnds with the same channels lose money, and so does an old copy of one. So nothing begins before EC2 has said that the
//! old machine is over and that the volume is attached to nothing; and it is that volume, never a snapshot of it.

use super::launch::LaunchStep;
use crate::model::OperationId;
use crate::model::machine::{DataVolume, Frozen, Instance, InstanceId, MachineState, Volume, VolumeState};
use serde::{Deserialize, Serialize};

/// A recovery under way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recover {
    /// Whether the old machine may be terminated, if it is not yet.
    pub terminate: bool,
    /// The step.
    pub step: RecoverStep,
}

/// The steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case")]
pub enum RecoverStep {
    /// Ask EC2 what has become of the old machine and its volume. Nothing was changed so far, or the machine that was to
    /// replace it has ended, too.
    Confirm {
        /// How many of those, one after the other.
        #[serde(default)]
        ended_before: u32,
    },
    /// Terminate the old machine, as the operator has said.
    End {
        /// Which.
        instance: InstanceId,
    },
    /// The old one is over: start another, as for a new host, but without a data volume of its own.
    Replace {
        /// The data volume. It was attached to nothing.
        volume: DataVolume,
        /// How far that is: from freezing to finding.
        launch: LaunchStep,
    },
    /// It was started: attach the volume to it.
    Attach {
        /// The volume.
        volume: DataVolume,
        /// What was asked for.
        frozen: Frozen,
        /// What came of it.
        instance: InstanceId,
    },
    /// Wait until its agent joins.
    AwaitJoin {
        /// What was asked for.
        frozen: Frozen,
        /// What came of it.
        instance: InstanceId,
    },
    /// It has joined: wait until each of its nodes was started there, which is an operation of the node's.
    AwaitLnds {
        /// The machine.
        instance: InstanceId,
        /// Those operations.
        operations: Vec<OperationId>,
    },
}

impl RecoverStep {
    /// The first.
    #[must_use]
    pub fn first() -> Self {
        Self::Confirm { ended_before: 0 }
    }

    /// The names of all.
    pub const NAMES: [&'static str; 8] =
        ["confirm", "end", "freeze", "run", "find", "attach", "await_join", "await_lnds"];

    /// The name in the API.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Confirm { .. } => "confirm",
            Self::End { .. } => "end",
            Self::Replace { launch, .. } => launch.name(),
            Self::Attach { .. } => "attach",
            Self::AwaitJoin { .. } => "await_join",
            Self::AwaitLnds { .. } => "await_lnds",
        }
    }

    fn volume(&self) -> Option<&DataVolume> {
        match self {
            Self::Replace { volume, .. } | Self::Attach { volume, .. } => Some(volume),
            Self::Confirm { .. } | Self::End { .. } | Self::AwaitJoin { .. } | Self::AwaitLnds { .. } => None,
        }
    }

    fn launched(&self) -> Option<(&Frozen, &InstanceId)> {
        match self {
            Self::Attach { frozen, instance, .. } | Self::AwaitJoin { frozen, instance } => Some((frozen, instance)),
            Self::Confirm { .. } | Self::End { .. } | Self::Replace { .. } | Self::AwaitLnds { .. } => None,
        }
    }

    /// A machine is started only after [`Self::Confirm`], and what was frozen stays.
    pub(super) fn may_become(&self, next: &Self) -> bool {
        let order = match (self, next) {
            (Self::Confirm { .. }, Self::End { .. })
            | (Self::End { .. } | Self::Attach { .. } | Self::AwaitJoin { .. }, Self::Confirm { .. })
            | (Self::Attach { .. }, Self::AwaitJoin { .. }) => true,
            (Self::Confirm { .. }, Self::Replace { launch, .. }) => matches!(launch, LaunchStep::Freeze { .. }),
            (Self::Replace { launch: now, .. }, Self::Replace { launch: next, .. }) => now.may_become(next),
            (
                Self::Replace {
                    launch: LaunchStep::Run { frozen: asked_for } | LaunchStep::Find { frozen: asked_for, .. },
                    ..
                },
                Self::Attach { frozen, .. },
            ) => asked_for == frozen,
            (Self::AwaitJoin { instance: now, .. }, Self::AwaitLnds { instance: next, .. }) => now == next,
            _ => false,
        };
        let same_volume = self.volume().zip(next.volume()).is_none_or(|(now, next)| now == next);
        let same_machine = self.launched().zip(next.launched()).is_none_or(|(now, next)| now == next);
        order && same_volume && same_machine
    }
}

/// What EC2's word about the old machine and its volume means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The old machine is over and the volume is free: proven.
    Proven,
    /// Not yet, but on its way there.
    Wait(String),
    /// The old machine is not over, and may be terminated.
    Terminate,
    /// The old machine is not over, and nobody has said that it may be terminated; or that must not be done.
    Refuse(String),
    /// A person has to look.
    Park(String),
}

/// Judges. `seen` is the old machine, `None`: EC2 knows none of that name, as it does some time after the end of one.
#[must_use]
pub fn judge(
    old: &InstanceId,
    seen: Option<&Instance>,
    wanted: &DataVolume,
    volume: Option<&Volume>,
    terminate: bool,
) -> Verdict {
    let id = &wanted.id;
    let Some(volume) = volume else {
        return Verdict::Park(format!(
            "the data volume {id} does not exist any more: what was on it is lost, and no snapshot of it may be used, whose \
             channels are old. What is left of the host's nodes is their seeds and static channel backups, in the Store"
        ));
    };
    if let Some(instance) = seen.filter(|instance| !instance.is_over) {
        return not_over(instance, &wanted.id, terminate);
    }
    match &volume.state {
        VolumeState::Free => Verdict::Proven,
        VolumeState::On { instance, .. } if instance == old => {
            Verdict::Wait(format!("instance {old} is over; its volume {id} is not free yet"))
        }
        VolumeState::On { instance, .. } => Verdict::Park(format!(
            "the data volume {id} is attached to instance {instance}: an lnd may run there. Look what that is; once the \
             volume is attached to nothing, retry"
        )),
        VolumeState::Other(state) => Verdict::Wait(format!("the data volume {id} is {state}")),
    }
}

fn not_over(instance: &Instance, volume: &crate::model::machine::VolumeId, terminate: bool) -> Verdict {
    let id = &instance.id;
    let is_lost = instance.disks.iter().any(|disk| disk.volume.id == *volume && !disk.stays);
    let how = match instance.state {
        MachineState::Terminated => return Verdict::Wait(format!("instance {id} is shutting down")),
        MachineState::Stopped => "stopped: start it again and its lnds come back by themselves",
        MachineState::Pending | MachineState::Running => "running: its lnds may be, too",
    };
    if is_lost {
        return Verdict::Refuse(format!(
            "instance {id} is not terminated, and its data volume {volume} would be deleted with it: take its \
             DeleteOnTermination away first"
        ));
    }
    if terminate {
        return Verdict::Terminate;
    }
    Verdict::Refuse(format!("instance {id} is {how}. With --terminate it is terminated first"))
}

#[cfg(test)]
#[path = "recover_tests.rs"]
mod tests;
