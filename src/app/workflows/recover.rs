//! `recover`: another machine for a host whose machine is gone, with its data volume. Every step may be done again, by any
//! master: what it asks EC2 for it first looks for.
//!
//! | step         | done twice, or cut off                                                                               |
//! | ------------ | ---------------------------------------------------------------------------------------------------- |
//! | `confirm`    | only looks                                                                                           |
//! | `end`        | what is terminated is terminated                                                                     |
//! | `freeze` … `find` | as for `launch`: one instance for one generation                                                |
//! | `attach`     | attached already is done; EC2 gives a volume to one instance only                                    |
//! | `await_join` | the operations that start the nodes are written in the commit that ends it                           |
//! | `await_lnds` | only looks                                                                                           |

use super::super::feed::wait_for_change;
use super::super::hosting::Supply;
use super::super::step::{Advance, Ctx, Settle};
use super::launch::{LOOK_EVERY, Launching, Purpose, jittered, later, pause_after};
use crate::error::{Error, Result};
use crate::model::host::{Enrolment, Host, Invitation};
use crate::model::machine::{self, DataVolume, Frozen, InstanceId, Machine, MachineState, VolumeState};
use crate::model::node::{Node, Phase};
use crate::model::operation::{Operation, State};
use crate::model::problem::{Code, Refusal};
use crate::model::work::Work;
use crate::model::work::launch::LaunchStep;
use crate::model::work::recover::{Recover, RecoverStep, Verdict, judge};
use crate::model::work::resume::Resume;
use crate::model::{HostId, OperationId};
use crate::store::repo::{self, Entity, Versioned};
use crate::store::{Document, Write};
use serde_json::json;
use std::time::Duration;
use time::OffsetDateTime;

/// Between looks at what EC2 is at.
const SOON: Duration = Duration::from_secs(2);

pub(super) async fn advance(ctx: &Ctx, operation: &Operation, work: &Recover) -> Result<Advance> {
    let Some(supply) = &ctx.parts.supply else {
        return Ok(Advance::again("this master has no [compute] that starts machines", LOOK_EVERY));
    };
    let id = operation.host.as_ref().ok_or_else(|| Error::Invariant("a recovery without a host".to_owned()))?;
    let recovering = Recovering { ctx, supply, id, work };
    match &work.step {
        RecoverStep::Confirm { ended_before } => recovering.confirm(*ended_before).await,
        RecoverStep::End { instance } => recovering.end(instance).await,
        RecoverStep::Replace { volume, launch } => {
            let machine = recovering.machine().await?.value;
            let purpose = Purpose::Recover { work, volume, subnet: &machine.place.subnet };
            Launching { ctx, supply, id, purpose }.advance(operation, launch).await
        }
        RecoverStep::Attach { volume, frozen, instance } => recovering.attach(volume, frozen, instance).await,
        RecoverStep::AwaitJoin { frozen, instance } => recovering.await_join(frozen, instance).await,
        RecoverStep::AwaitLnds { instance, operations } => recovering.await_lnds(instance, operations).await,
    }
}

struct Recovering<'a> {
    ctx: &'a Ctx,
    supply: &'a Supply,
    id: &'a HostId,
    work: &'a Recover,
}

impl Recovering<'_> {
    fn now(&self) -> OffsetDateTime {
        self.ctx.parts.clock.now()
    }

    fn next(&self, step: RecoverStep, progress: impl Into<String>, writes: Vec<Write>) -> Advance {
        let work = Work::Recover(Recover { step, ..self.work.clone() });
        Advance::Next { work, progress: progress.into(), writes }
    }

    async fn machine(&self) -> Result<Versioned<Machine>> {
        let machine = repo::get::<Machine>(&*self.ctx.parts.store, self.id.as_str()).await?;
        machine.ok_or_else(|| Error::Invariant(format!("no machine of host {} is in the store", self.id)))
    }

    async fn host(&self) -> Result<Versioned<Host>> {
        let host = repo::get::<Host>(&*self.ctx.parts.store, self.id.as_str()).await?;
        host.ok_or_else(|| Error::Invariant(format!("host {} is not in the store", self.id)))
    }

    /// Two lnds with the same channels are never to be: that the old ones have ended is EC2's word, or it is not known.
    async fn confirm(&self, ended_before: u32) -> Result<Advance> {
        let machine = self.machine().await?.value;
        if self.host().await?.value.is_revoked() {
            return Ok(failed("the host was revoked; it gets no other machine"));
        }
        let Some(volume) = machine.data_volume else {
            return Ok(failed("the host's data volume is not known"));
        };
        let (compute, old) = (&self.supply.compute, &machine.instance);
        let seen = match compute.instance(old).await {
            Ok(seen) => seen,
            Err(error) => return Ok(later(&error, self.id)),
        };
        // After the instance: once that is over nothing gives the volume to it any more.
        let found = match compute.volume(&volume.id).await {
            Ok(found) => found,
            Err(error) => return Ok(later(&error, self.id)),
        };
        Ok(match judge(old, seen.as_ref(), &volume, found.as_ref(), self.work.terminate) {
            Verdict::Proven => {
                tracing::info!(host.id = %self.id, instance = %old, volume = %volume.id, "the host's machine is over");
                let mut progress = format!("instance {old} is over, and volume {} is free", volume.id);
                let pause = pause_after(ended_before).map(jittered);
                if let Some(pause) = pause {
                    let because = seen.as_ref().and_then(|seen| seen.ended_because.as_deref());
                    let seconds = pause.as_secs();
                    tracing::error!(host.id = %self.id, instance = %old, ended_before, seconds, "no instance of this host joins; see its console output");
                    progress = format!(
                        "{}, like the one before it; see also its console output at EC2; the next one is started in \
                         {seconds} s",
                        machine::ended(&format!("instance {old} has ended"), because)
                    );
                }
                let not_before = pause.map(|pause| self.now() + pause);
                let launch = LaunchStep::Freeze { place_number: 0, not_before, ended_before };
                self.next(RecoverStep::Replace { volume, launch }, progress, Vec::new())
            }
            Verdict::Wait(what) => Advance::again(what, jittered(SOON)),
            Verdict::Terminate => {
                let progress = format!("terminating instance {old}");
                self.next(RecoverStep::End { instance: old.clone() }, progress, Vec::new())
            }
            Verdict::Refuse(why) => failed(&why),
            Verdict::Park(why) => park(why),
        })
    }

    async fn end(&self, instance: &InstanceId) -> Result<Advance> {
        self.ctx.claim.check()?;
        if let Err(error) = self.supply.compute.terminate(instance).await {
            return Ok(later(&error, self.id));
        }
        tracing::warn!(host.id = %self.id, %instance, "terminated by the operator's word, to recover the host");
        Ok(self.next(RecoverStep::first(), format!("instance {instance} is shutting down"), Vec::new()))
    }

    async fn attach(&self, volume: &DataVolume, frozen: &Frozen, instance: &InstanceId) -> Result<Advance> {
        let compute = &self.supply.compute;
        let found = match compute.volume(&volume.id).await {
            Ok(Some(found)) => found.state,
            Ok(None) => return Ok(park(format!("the data volume {} does not exist any more", volume.id))),
            Err(error) => return Ok(later(&error, self.id)),
        };
        match found {
            VolumeState::On { instance: holder, is_attached } if holder == *instance => {
                if !is_attached {
                    return Ok(Advance::again(format!("volume {} is being attached", volume.id), jittered(SOON)));
                }
                let step = RecoverStep::AwaitJoin { frozen: frozen.clone(), instance: instance.clone() };
                let progress = format!("volume {} is attached to instance {instance}, which boots", volume.id);
                Ok(self.next(step, progress, Vec::new()))
            }
            VolumeState::On { instance: holder, .. } => Ok(park(format!(
                "the data volume {} is attached to instance {holder}: an lnd may run there. Look what that is; once the \
                 volume is attached to nothing, retry",
                volume.id
            ))),
            VolumeState::Other(state) => Ok(Advance::again(format!("volume {} is {state}", volume.id), jittered(SOON))),
            VolumeState::Free => self.give(volume, frozen, instance).await,
        }
    }

    /// EC2 takes it only once the machine runs.
    async fn give(&self, volume: &DataVolume, frozen: &Frozen, instance: &InstanceId) -> Result<Advance> {
        let seen = match self.supply.compute.instance(instance).await {
            Ok(seen) => seen,
            Err(error) => return Ok(later(&error, self.id)),
        };
        // Right after its start EC2 may not know it yet.
        let because = seen.as_ref().and_then(|seen| seen.ended_because.as_deref());
        match seen.as_ref().map(|seen| seen.state) {
            Some(MachineState::Terminated) => Ok(self.another(frozen, instance, because)),
            Some(MachineState::Running | MachineState::Stopped) => {
                self.ctx.claim.check()?;
                match self.supply.compute.attach(volume, instance).await {
                    Ok(()) => Ok(Advance::again(format!("volume {} is being attached", volume.id), Duration::ZERO)),
                    Err(error) => Ok(later(&error, self.id)),
                }
            }
            Some(MachineState::Pending) | None => {
                Ok(Advance::again(format!("instance {instance} is being started"), jittered(SOON)))
            }
        }
    }

    /// What was to replace the machine is over, too: it is the old one now.
    fn another(&self, frozen: &Frozen, instance: &InstanceId, because: Option<&str>) -> Advance {
        tracing::warn!(host.id = %self.id, %instance, "terminated before it had joined; another is started");
        let step = RecoverStep::Confirm { ended_before: frozen.ended_before.saturating_add(1) };
        let what = format!("instance {instance} was terminated before it had joined");
        self.next(step, machine::ended(&what, because), Vec::new())
    }

    async fn await_join(&self, frozen: &Frozen, instance: &InstanceId) -> Result<Advance> {
        // Subscribed before the look, so that the change that matters cannot fall between.
        let mut changes = self.ctx.parts.feed.subscribe();
        let (now, mut host, machine) = (self.now(), self.host().await?, self.machine().await?.value);
        if host.value.generation != frozen.generation {
            return Err(Error::Invariant(format!("host {} has another generation than its recovery", self.id)));
        }
        let is_over = machine.instance == *instance && machine.state == MachineState::Terminated;
        match &mut host.value.enrolment {
            Enrolment::Enrolled { .. } => self.start_lnds(&host.value, instance).await,
            Enrolment::Revoked => Ok(failed("the host was revoked; its instance and volume are left as they are")),
            Enrolment::Invited(_) if is_over => Ok(self.another(frozen, instance, machine.ended_because.as_deref())),
            // What was attached to it is not taken away again by itself: it may join as late as it likes.
            Enrolment::Invited(Invitation { expires_at, .. }) if now > *expires_at - self.supply.join_within / 2 => {
                *expires_at = now + self.supply.join_within;
                let step = self.work.step.clone();
                Ok(self.next(step, self.boots(frozen, instance), vec![repo::update(&host.value, host.version)?]))
            }
            Enrolment::Invited(_) => {
                let of_it = |document: &Document| {
                    [Host::COLLECTION, Machine::COLLECTION].contains(&document.key.collection)
                        && document.key.id == self.id.as_str()
                };
                wait_for_change(&mut changes, LOOK_EVERY, of_it).await;
                Ok(Advance::again(self.boots(frozen, instance), Duration::ZERO))
            }
        }
    }

    fn boots(&self, frozen: &Frozen, instance: &InstanceId) -> String {
        if self.now() <= frozen.join_until {
            return format!("instance {instance} boots");
        }
        format!(
            "instance {instance} has not joined in time: look at its console. `host recover --terminate` replaces it"
        )
    }

    /// Each node that was ever started there is started again, by an operation of its own, under its own claim.
    async fn start_lnds(&self, host: &Host, instance: &InstanceId) -> Result<Advance> {
        let (mut writes, mut operations) = (Vec::new(), Vec::new());
        for id in host.slots.values() {
            let node = repo::get::<Node>(&*self.ctx.parts.store, id.as_str()).await?.map(|node| node.value);
            let Some(node) = node.filter(|node| node.endpoint.is_some() && node.phase != Phase::Failed) else {
                continue;
            };
            let operation = self.resume(host, &node);
            writes.push(repo::create(&operation)?);
            operations.push(operation.id);
        }
        let progress = format!("the host has joined; {} of its nodes are started", operations.len());
        Ok(self.next(RecoverStep::AwaitLnds { instance: instance.clone(), operations }, progress, writes))
    }

    fn resume(&self, host: &Host, node: &Node) -> Operation {
        let now = self.now();
        Operation {
            id: OperationId::random(now, &mut rand::rng()),
            owner: None,
            node: Some(node.id.clone()),
            host: None,
            work: Work::Resume(Resume { host: host.id.clone(), generation: host.generation }),
            state: State::Running,
            progress: "accepted".to_owned(),
            reservation: None,
            created_at: now,
            updated_at: now,
        }
    }

    async fn await_lnds(&self, instance: &InstanceId, operations: &[OperationId]) -> Result<Advance> {
        let mut changes = self.ctx.parts.feed.subscribe();
        let host = self.host().await?.value;
        if host.is_gone() {
            return Ok(failed(&format!("instance {instance} was terminated: recover the host again")));
        }
        let (mut running, mut parked) = (0, Vec::new());
        for id in operations {
            let operation = repo::get::<Operation>(&*self.ctx.parts.store, id.as_str()).await?;
            match operation.map(|operation| operation.value.state) {
                Some(State::Running) => running += 1,
                Some(State::Parked { .. }) => parked.push(id.to_string()),
                Some(State::Succeeded { .. } | State::Failed { .. }) | None => {}
            }
        }
        let all = operations.len();
        if running > 0 {
            let of_it = |document: &Document| {
                let is_one = || operations.iter().any(|id| id.as_str() == document.key.id);
                document.key.collection == Host::COLLECTION && document.key.id == self.id.as_str()
                    || document.key.collection == Operation::COLLECTION && is_one()
            };
            wait_for_change(&mut changes, LOOK_EVERY, of_it).await;
            let progress = format!("the host has joined; {running} of its {all} nodes are still to be started");
            return Ok(Advance::again(progress, Duration::ZERO));
        }
        if !parked.is_empty() {
            let parked = parked.join(", ");
            return Ok(park(format!(
                "the host has joined, but nodes there are not started: see the operations {parked}"
            )));
        }
        tracing::info!(host.id = %self.id, %instance, nodes = all, "the host is recovered");
        let generation = host.generation;
        let result = json!({ "host": self.id, "instance": instance, "generation": generation, "nodes": all });
        Ok(Advance::Done { result, settle: Settle::Keep, writes: Vec::new() })
    }
}

fn failed(why: &str) -> Advance {
    Advance::failed(Refusal::new(Code::NoCapacity, why))
}

fn park(why: String) -> Advance {
    Advance::Park { refusal: Refusal::new(Code::Parked, why) }
}
