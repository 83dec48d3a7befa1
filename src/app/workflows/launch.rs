//! `launch`: a machine for a host. One at a time for each host, whatever fails or crashes; and none is terminated that may
//! hold a wallet. What it takes to have EC2 start one is done here for `recover`, too.

use super::super::feed::wait_for_change;
use super::super::hosting::Supply;
use super::super::step::{Advance, Ctx, Settle};
use crate::backoff::Backoff;
use crate::compute::user_data::{Believed, Joining};
use crate::compute::{ComputeError, user_data};
use crate::error::{Error, Result};
use crate::model::HostId;
use crate::model::host::{Enrolment, Host, Invitation};
use crate::model::machine::{
    self, DataVolume, Frozen, Instance, InstanceId, Machine, MachineState, Place, TAG_AUTHORITY, TAG_DEPLOYMENT,
    TAG_GENERATION, TAG_HOST,
};
use crate::model::node::Node;
use crate::model::operation::Operation;
use crate::model::problem::{Code, Refusal};
use crate::model::updates::Wanted;
use crate::model::work::Work;
use crate::model::work::launch::{Launch, LaunchStep};
use crate::model::work::recover::{Recover, RecoverStep};
use crate::store::repo::{self, Entity, Versioned};
use crate::store::{Document, Write};
use rand::RngExt;
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;
use time::OffsetDateTime;

/// How long after all places were full, or what was asked for was refused, it is asked for again.
const PAUSE: Duration = Duration::from_secs(20);
/// How long what only the operator can help with is left alone.
const DENIED_PAUSE: Duration = Duration::from_secs(10);
/// How long after another instance that has not joined.
const FAILING: Backoff = Backoff { first: Duration::from_secs(10), longest: Duration::from_secs(600) };
/// After no answer.
const AGAIN: Duration = Duration::from_secs(1);
/// How long is waited for an event before looking all the same.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(5);

pub(super) async fn advance(ctx: &Ctx, operation: &Operation, work: &Launch) -> Result<Advance> {
    let Some(supply) = &ctx.parts.supply else {
        return Ok(Advance::again("this master has no [compute] that starts machines", LOOK_EVERY));
    };
    let id = operation.host.as_ref().ok_or_else(|| Error::Invariant("a launch without a host".to_owned()))?;
    let launching = Launching { ctx, supply, id, purpose: Purpose::New };
    launching.advance(operation, &work.step).await
}

/// What a machine is started for.
#[derive(Clone, Copy)]
pub(super) enum Purpose<'a> {
    /// A host that never had one that joined.
    New,
    /// One whose machine is over, and whose data volume waits for another.
    Recover {
        /// The recovery.
        work: &'a Recover,
        /// That volume.
        volume: &'a DataVolume,
        /// Where the machine was: what is in this subnet is in the volume's zone.
        subnet: &'a str,
    },
}

pub(super) struct Launching<'a> {
    pub(super) ctx: &'a Ctx,
    pub(super) supply: &'a Supply,
    pub(super) id: &'a HostId,
    pub(super) purpose: Purpose<'a>,
}

impl Launching<'_> {
    pub(super) async fn advance(&self, operation: &Operation, step: &LaunchStep) -> Result<Advance> {
        match step {
            LaunchStep::Freeze { .. } => self.freeze(step, operation).await,
            LaunchStep::Run { frozen } => self.run(frozen).await,
            LaunchStep::Find { frozen, since } => self.find(frozen, *since).await,
            LaunchStep::AwaitJoin { frozen, instance } => self.await_join(frozen, instance).await,
            LaunchStep::Retire { frozen, instance } => self.retire(frozen, instance).await,
        }
    }

    /// The next step, in the work that this is part of.
    fn next(&self, step: LaunchStep, progress: impl Into<String>, writes: Vec<Write>) -> Advance {
        let work = match self.purpose {
            Purpose::New => Work::Launch(Launch { step }),
            Purpose::Recover { work, volume, .. } => {
                let step = RecoverStep::Replace { volume: volume.clone(), launch: step };
                Work::Recover(Recover { step, ..work.clone() })
            }
        };
        Advance::Next { work, progress: progress.into(), writes }
    }

    /// Where to start it. A volume cannot leave its zone.
    fn places(&self) -> Vec<Place> {
        let Purpose::Recover { subnet, .. } = self.purpose else { return self.supply.places.clone() };
        let (there, elsewhere): (Vec<_>, Vec<_>) = self.supply.places.iter().partition(|place| place.subnet == subnet);
        let mut places = Vec::new();
        for other in there.into_iter().chain(elsewhere) {
            let place = Place { subnet: subnet.to_owned(), instance_type: other.instance_type.clone() };
            if !places.contains(&place) {
                places.push(place);
            }
        }
        places
    }

    fn now(&self) -> OffsetDateTime {
        self.ctx.parts.clock.now()
    }

    pub(super) async fn host(&self) -> Result<Versioned<Host>> {
        let host = repo::get::<Host>(&*self.ctx.parts.store, self.id.as_str()).await?;
        host.ok_or_else(|| Error::Invariant(format!("host {} is not in the store", self.id)))
    }

    /// Nothing is started: the next generation, with an invitation that is good until it must have joined.
    async fn freeze(&self, step: &LaunchStep, operation: &Operation) -> Result<Advance> {
        let LaunchStep::Freeze { place_number, not_before, ended_before } = *step else {
            return Err(Error::Invariant("a launch that is past its beginning".to_owned()));
        };
        let (now, mut host) = (self.now(), self.host().await?);
        if host.value.is_revoked() {
            return self.give_up(host);
        }
        if matches!((&host.value.enrolment, self.purpose), (Enrolment::Enrolled { .. }, Purpose::New)) {
            // There is a machine, whatever EC2 says, and there may be wallets on it.
            let message = "the host has joined, but by EC2's word its instance was never started: look which it is";
            return Ok(Advance::Park { refusal: Refusal::new(Code::Parked, message) });
        }
        if let Some(wait) = not_before.map(|at| at - now).filter(|wait| wait.is_positive()) {
            let wait = Duration::try_from(wait).unwrap_or(PAUSE).min(LOOK_EVERY);
            return Ok(Advance::again(operation.progress.clone(), wait));
        }
        let (supply, places) = (self.supply, self.places());
        let (number, place) = match places.get(place_number) {
            Some(place) => (place_number, place),
            None => (0, places.first().ok_or_else(|| Error::Invariant("no place to launch in".to_owned()))?),
        };
        let without_device = match self.purpose {
            Purpose::New => None,
            Purpose::Recover { volume, .. } => Some(volume.device.clone()),
        };
        let generation = host.value.generation + 1;
        let join_until = now + supply.join_within;
        let launching = supply.fleet.launching()?;
        let frozen = Frozen {
            host: self.id.clone(),
            generation,
            template: supply.template.clone(),
            place_number: number,
            place: place.clone(),
            client_token: Frozen::client_token(&supply.deployment, self.id, generation, place),
            tags: self.tags(&host.value, generation).await?,
            user_data: self.user_data(&launching.pins.to_string()).await?,
            authority: launching.authority,
            without_device,
            ended_before,
            join_until,
        };
        host.value.generation = generation;
        let invitation = launching.join_key.invitation(self.id, generation, join_until, &launching.pins)?;
        // From here on the certificate of whatever was this host before is void, and no order goes there.
        host.value.enrolment = Enrolment::Invited(invitation);
        if let Some(hosting) = &mut host.value.compute {
            hosting.gone = false;
        }
        let progress = format!("asking EC2 for a {place}");
        Ok(self.next(LaunchStep::Run { frozen }, progress, vec![repo::update(&host.value, host.version)?]))
    }

    /// With the lowest release that it is to take: one that is older than what is wanted now is nobody's to give it.
    async fn user_data(&self, ca_fingerprint: &str) -> Result<String> {
        let supply = self.supply;
        let wanted = repo::get::<Wanted>(&*self.ctx.parts.store, Wanted::ID).await?;
        let lowest = wanted.map_or(1, |wanted| wanted.value.serial);
        let (keys, deployment) = (&supply.release_keys, supply.deployment.as_str());
        let releases = (!keys.is_empty()).then_some(Believed { keys, deployment, lowest });
        let joining = Joining { masters: &supply.masters, ca_fingerprint, releases };
        Ok(user_data::template(&joining, supply.provision.as_ref()))
    }

    async fn tags(&self, host: &Host, generation: u64) -> Result<BTreeMap<String, String>> {
        let whose = host.wanted_for().or_else(|| host.slots.values().next());
        let name = match whose.filter(|_| host.capacity == 1) {
            Some(node) => repo::get::<Node>(&*self.ctx.parts.store, node.as_str()).await?.map(|node| node.value.uuid),
            None => None,
        };
        let name = name.map_or_else(|| format!("lndserver-{}", self.id), |uuid| format!("lnd-{}", uuid.as_str()));
        let tags = [
            (TAG_DEPLOYMENT, self.supply.deployment.clone()),
            (TAG_AUTHORITY, self.supply.authority.clone()),
            (TAG_HOST, self.id.to_string()),
            (TAG_GENERATION, generation.to_string()),
            ("Name", name),
        ];
        Ok(tags.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
    }

    /// The operator took it out before it had a machine.
    fn give_up(&self, mut host: Versioned<Host>) -> Result<Advance> {
        if matches!(self.purpose, Purpose::Recover { .. }) {
            return Ok(Advance::failed(Refusal::new(
                Code::NoCapacity,
                "the host was revoked; it gets no other machine",
            )));
        }
        if let Some(hosting) = &mut host.value.compute {
            (hosting.gone, hosting.wanted_for) = (true, None);
        }
        Ok(Advance::Failed {
            refusal: Refusal::new(Code::NoCapacity, "the host was revoked; it has no machine"),
            spent_sat: crate::model::Sat(0),
            writes: vec![repo::update(&host.value, host.version)?],
        })
    }

    /// The same request until the answer is definite; a repeated one is answered with the same instance.
    async fn run(&self, frozen: &Frozen) -> Result<Advance> {
        let join_key = self.supply.fleet.join_key(&frozen.authority)?;
        // One that comes now could not join. Was it asked for before? To ask again might start it.
        let (Some(join_key), true) = (join_key, self.now() < frozen.join_until) else {
            let step = LaunchStep::Find { frozen: frozen.clone(), since: self.now() };
            return Ok(self.next(step, "no definite answer came in time; looking for an instance", Vec::new()));
        };
        let token = join_key.token(self.id, frozen.generation)?;
        self.ctx.claim.check()?;
        match self.supply.compute.run(frozen, &token).await {
            Ok(instance) => self.started(frozen, &instance).await,
            Err(ComputeError::Mismatch) => {
                tracing::error!(host.id = %self.id, "EC2 knows another request by this token; looking for its instance");
                let step = LaunchStep::Find { frozen: frozen.clone(), since: self.now() };
                Ok(self.next(step, ComputeError::Mismatch.to_string(), Vec::new()))
            }
            Err(error) => Ok(self.not_started(frozen, error)),
        }
    }

    fn not_started(&self, frozen: &Frozen, error: ComputeError) -> Advance {
        let (host, place) = (self.id, &frozen.place);
        let asking_anew = |place_number, pause: Option<Duration>| {
            let not_before = pause.map(|pause| self.now() + jittered(pause));
            LaunchStep::Freeze { place_number, not_before, ended_before: frozen.ended_before }
        };
        match error {
            ComputeError::Throttled { after } => Advance::again("EC2 asks for fewer requests; waiting", after),
            ComputeError::Unknown(_) => {
                tracing::warn!(%error, host.id = %host, "asking EC2 again");
                Advance::again(format!("{error}; asking again"), jittered(AGAIN))
            }
            ComputeError::Denied(_) => {
                tracing::error!(%error, host.id = %host, "EC2 needs the operator");
                Advance::again(format!("{error}; asked again until it does"), jittered(DENIED_PAUSE))
            }
            ComputeError::NoCapacity(_) | ComputeError::Quota(_) => {
                let following = frozen.place_number + 1;
                let last = following >= self.places().len();
                tracing::warn!(%error, host.id = %host, %place, last, "no instance here; the next place is asked");
                let what_then = if last { "all places are asked again later" } else { "the next place is asked" };
                let (place_number, pause) = if last { (0, Some(PAUSE)) } else { (following, None) };
                self.next(asking_anew(place_number, pause), format!("{place}: {error}; {what_then}"), Vec::new())
            }
            ComputeError::Refused(_) => {
                tracing::error!(%error, host.id = %host, %place, "EC2 needs the operator: see [compute]");
                let progress = format!("{place}: {error}; see [compute]; asked again later");
                self.next(asking_anew(0, Some(PAUSE)), progress, Vec::new())
            }
            ComputeError::Spent | ComputeError::Mismatch => {
                self.next(asking_anew(frozen.place_number, None), format!("{error}; starting another"), Vec::new())
            }
        }
    }

    async fn started(&self, frozen: &Frozen, instance: &Instance) -> Result<Advance> {
        tracing::info!(host.id = %self.id, instance = %instance.id, generation = frozen.generation, "instance started");
        let machine = Machine {
            host: self.id.clone(),
            generation: frozen.generation,
            instance: instance.id.clone(),
            place: frozen.place.clone(),
            state: instance.state,
            address: instance.address,
            ended_because: instance.ended_because.clone(),
            data_volume: match self.purpose {
                Purpose::New => instance.data_volume(),
                Purpose::Recover { volume, .. } => Some(volume.clone()),
            },
            launched_at: self.now(),
        };
        let write = match repo::get::<Machine>(&*self.ctx.parts.store, self.id.as_str()).await? {
            Some(old) => repo::update(&machine, old.version)?,
            None => repo::create(&machine)?,
        };
        let (frozen, instance) = (frozen.clone(), instance.id.clone());
        let progress = format!("instance {instance} boots");
        let work = match self.purpose {
            Purpose::New => Work::Launch(Launch { step: LaunchStep::AwaitJoin { frozen, instance } }),
            Purpose::Recover { work, volume, .. } => {
                let step = RecoverStep::Attach { volume: volume.clone(), frozen, instance };
                Work::Recover(Recover { step, ..work.clone() })
            }
        };
        Ok(Advance::Next { work, progress, writes: vec![write] })
    }

    /// Nobody asks for it any more; if there is one, it is seen sooner or later.
    async fn find(&self, frozen: &Frozen, since: OffsetDateTime) -> Result<Advance> {
        match self.supply.compute.find(self.id, frozen.generation).await {
            Ok(Some(instance)) => self.started(frozen, &instance).await,
            Ok(None) if machine::was_never_started(since, self.now()) => {
                let (place_number, ended_before) = (frozen.place_number, frozen.ended_before);
                let step = LaunchStep::Freeze { place_number, not_before: None, ended_before };
                Ok(self.next(step, "no instance was started", Vec::new()))
            }
            Ok(None) => Ok(Advance::again("looking for an instance", LOOK_EVERY)),
            Err(error) => Ok(later(&error, self.id)),
        }
    }

    async fn await_join(&self, frozen: &Frozen, instance: &InstanceId) -> Result<Advance> {
        // Subscribed before the look, so that the change that matters cannot fall between.
        let mut changes = self.ctx.parts.feed.subscribe();
        let host = self.host().await?;
        let joined_once = host.value.address.is_some() || !host.value.slots.is_empty();
        match &host.value.enrolment {
            Enrolment::Enrolled { .. } => {
                let result = json!({ "host": self.id, "instance": instance, "generation": frozen.generation });
                Ok(Advance::Done { result, settle: Settle::Keep, writes: Vec::new() })
            }
            Enrolment::Revoked if joined_once => {
                let message = format!("the host was revoked after it had joined; instance {instance} is left as it is");
                Ok(Advance::failed(Refusal::new(Code::NoCapacity, message)))
            }
            Enrolment::Revoked => self.take_back(host, frozen, instance, "the host was revoked"),
            Enrolment::Invited(_) if self.now() > frozen.join_until => {
                self.take_back(host, frozen, instance, "it has not joined in time")
            }
            Enrolment::Invited(_) => {
                if let Some(machine) = self.terminated(instance).await? {
                    let reason =
                        machine::ended("it was terminated before it had joined", machine.ended_because.as_deref());
                    return self.take_back(host, frozen, instance, &reason);
                }
                let left = Duration::try_from(frozen.join_until - self.now()).unwrap_or_default();
                let at_most = (left + Duration::from_millis(10)).min(LOOK_EVERY);
                let of_it = |document: &Document| {
                    [Host::COLLECTION, Machine::COLLECTION].contains(&document.key.collection)
                        && document.key.id == self.id.as_str()
                };
                wait_for_change(&mut changes, at_most, of_it).await;
                Ok(Advance::again(format!("instance {instance} boots"), Duration::ZERO))
            }
        }
    }

    /// The host's machine, if it is this one and was seen terminated.
    async fn terminated(&self, instance: &InstanceId) -> Result<Option<Machine>> {
        let machine = repo::get::<Machine>(&*self.ctx.parts.store, self.id.as_str()).await?;
        let is_it = |machine: &Machine| machine.instance == *instance && machine.state == MachineState::Terminated;
        Ok(machine.map(|machine| machine.value).filter(is_it))
    }

    /// From this commit on it cannot join any more, and it never had: only then is it terminated.
    fn take_back(
        &self,
        mut host: Versioned<Host>,
        frozen: &Frozen,
        instance: &InstanceId,
        reason: &str,
    ) -> Result<Advance> {
        if !host.value.slots.is_empty() {
            return Err(Error::Invariant(format!("host {} never joined, and has nodes", self.id)));
        }
        if let Enrolment::Invited(Invitation { token_sha256, .. }) = &mut host.value.enrolment {
            token_sha256.clear();
        }
        tracing::warn!(host.id = %self.id, %instance, reason, "the instance is terminated; nothing is on it");
        let step = LaunchStep::Retire { frozen: frozen.clone(), instance: instance.clone() };
        let progress = format!("instance {instance} is terminated: {reason}");
        Ok(self.next(step, progress, vec![repo::update(&host.value, host.version)?]))
    }

    async fn retire(&self, frozen: &Frozen, instance: &InstanceId) -> Result<Advance> {
        self.ctx.claim.check()?;
        if let Err(error) = self.supply.compute.terminate(instance).await {
            return Ok(later(&error, self.id));
        }
        let ended_before = frozen.ended_before.saturating_add(1);
        let Some(pause) = pause_after(ended_before) else {
            let step = LaunchStep::Freeze { place_number: 0, not_before: None, ended_before };
            return Ok(self.next(step, format!("instance {instance} is terminated"), Vec::new()));
        };
        let is_terminated = format!("instance {instance} is terminated");
        let because = self.terminated(instance).await?.and_then(|machine| machine.ended_because);
        let is_terminated = machine::ended(&is_terminated, because.as_deref());
        let pause = jittered(pause);
        let seconds = pause.as_secs();
        tracing::error!(host.id = %self.id, %instance, ended_before, seconds, "no instance of this host joins; see its console output");
        let step = LaunchStep::Freeze { place_number: 0, not_before: Some(self.now() + pause), ended_before };
        let progress = format!(
            "{is_terminated}, like the one before it; see also its console output at EC2; \
             the next one is started in {seconds} s"
        );
        Ok(self.next(step, progress, Vec::new()))
    }
}

/// How long the next instance waits after so many have ended before they had joined. The first may have been an accident;
/// what makes each of them end (an image that does not boot, a key that does not open its volumes) costs money each time.
pub(super) fn pause_after(ended_before: u32) -> Option<Duration> {
    Some(FAILING.pause(ended_before.checked_sub(2)?, 1.0))
}

/// What is harmless to repeat, and has no other way.
pub(super) fn later(error: &ComputeError, host: &HostId) -> Advance {
    tracing::warn!(%error, host.id = %host, "EC2 is asked again");
    Advance::again(format!("{error}; asked again"), jittered(LOOK_EVERY))
}

pub(super) fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(rand::rng().random_range(0.5..1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pauses_between_instances_that_do_not_join_grow_up_to_ten_minutes() {
        let pauses = [0, 1, 2, 3, 7, 8, 60, u32::MAX].map(|ended| pause_after(ended).map(|pause| pause.as_secs()));
        assert_eq!(pauses, [None, None, Some(10), Some(20), Some(320), Some(600), Some(600), Some(600)]);
    }
}
