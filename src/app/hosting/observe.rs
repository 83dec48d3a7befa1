//! The look at the machines: one for the deployment, page by page, apart from everybody's calls. What has changed is written
//! down; what belongs to nobody is told, and left alone, unless it is proven that no wallet can be on it.

use super::super::Parts;
use super::super::claim::ClaimGuard;
use super::Supply;
use super::view::View;
use crate::error::Result;
use crate::model::host::{Enrolment, Host};
use crate::model::machine::{Instance, InstanceId, Machine, MachineState, VolumeId};
use crate::model::node::Node;
use crate::store::Write;
use crate::store::repo::{self, Versioned};
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use time::OffsetDateTime;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// A machine that was started before this and is not seen this often is terminated and forgotten.
const FORGOTTEN_AFTER: time::Duration = time::Duration::minutes(10);
const UNSEEN_TIMES: u32 = 3;

/// Looks now and then, for as long as it is there.
#[derive(Debug)]
pub(super) struct Observer {
    seen: mpsc::Receiver<Vec<Instance>>,
    unseen: HashMap<InstanceId, u32>,
    told: HashSet<InstanceId>,
    _looking: JoinSet<()>,
}

impl Observer {
    pub(super) fn new(supply: &Supply) -> Self {
        let (tell, seen) = mpsc::channel(1);
        let (compute, every) = (Arc::clone(&supply.compute), supply.observe_every);
        let mut looking = JoinSet::new();
        looking.spawn(async move {
            loop {
                match compute.all().await {
                    Ok(all) => {
                        if tell.send(all).await.is_err() {
                            return;
                        }
                    }
                    Err(error) => tracing::warn!(%error, "the deployment's instances cannot be described"),
                }
                tokio::time::sleep(every).await;
            }
        });
        Self { seen, unseen: HashMap::new(), told: HashSet::new(), _looking: looking }
    }

    /// What was seen next.
    pub(super) async fn next(&mut self) -> Vec<Instance> {
        match self.seen.recv().await {
            Some(seen) => seen,
            None => std::future::pending().await,
        }
    }

    /// The machines that are not as they were known.
    pub(super) fn changed(&mut self, view: &View, seen: &[Instance], now: OffsetDateTime) -> Vec<Versioned<Machine>> {
        let known = view.machines().filter(|machine| machine.value.state != MachineState::Terminated);
        known.filter_map(|machine| self.change_of(machine, seen, now)).collect()
    }

    fn change_of(
        &mut self,
        known: &Versioned<Machine>,
        seen: &[Instance],
        now: OffsetDateTime,
    ) -> Option<Versioned<Machine>> {
        let mut machine = known.clone();
        let id = &known.value.instance;
        match seen.iter().find(|instance| instance.id == *id) {
            Some(instance) => {
                self.unseen.remove(id);
                machine.value.state = instance.state;
                machine.value.ended_because = instance.ended_because.clone();
                machine.value.address = instance.address.or(known.value.address);
                // Once known it stays: EC2 does not name the volumes of one that is terminated, and nobody else's are ours.
                machine.value.data_volume = known.value.data_volume.clone().or_else(|| instance.data_volume());
            }
            // EC2 forgets what was terminated; right after the start it may not know it yet.
            None if now - known.value.launched_at > FORGOTTEN_AFTER => {
                let times = self.unseen.entry(id.clone()).or_default();
                *times += 1;
                if *times >= UNSEEN_TIMES {
                    machine.value.state = MachineState::Terminated;
                }
            }
            None => {}
        }
        (machine.value != known.value).then_some(machine)
    }

    /// Tells, once, of instances that carry this deployment's tags and are no host's machine.
    pub(super) fn report_orphans(&mut self, view: &View, seen: &[Instance], deployment: &str) {
        for instance in seen.iter().filter(|instance| is_orphan(view, instance)) {
            if !is_without_wallet(view, instance, deployment) && self.told.insert(instance.id.clone()) {
                let (id, host) = (&instance.id, &instance.host);
                tracing::error!(instance = %id, ?host, "ALARM: an instance of this deployment is no host's; left alone");
            }
        }
    }
}

fn is_orphan(view: &View, instance: &Instance) -> bool {
    if instance.state == MachineState::Terminated {
        return false;
    }
    let Some(id) = &instance.host else { return true };
    let is_known = view.machine(id).is_some_and(|machine| machine.value.instance == instance.id);
    // One that is being started is not written down yet.
    let starting = view.host(id).is_some_and(|host| {
        instance.generation == Some(host.value.generation) && matches!(host.value.enrolment, Enrolment::Invited(_))
    });
    !is_known && !starting
}

/// Orphans on which no wallet ever was, nor can be.
pub(super) fn without_wallets<'a>(view: &View, seen: &'a [Instance], deployment: &str) -> Vec<&'a Instance> {
    let all = seen.iter().filter(|instance| is_orphan(view, instance));
    all.filter(|instance| is_without_wallet(view, instance, deployment)).collect()
}

/// Whether it is proven that no wallet was ever on this machine:
///
/// - we have started it, for the host and the generation that its tags name: tags alone may have been copied, and then the
///   machine is whatever somebody has made of it;
/// - no machine of that generation ever was that host, or can become it ([`Host::was_never`]);
/// - none of its disks is known as some host's data volume: nobody has attached wallets to it by hand.
///
/// Where any of this is not known, it is not proven. A blank data volume that it leaves behind stays.
fn is_without_wallet(view: &View, instance: &Instance, deployment: &str) -> bool {
    let (Some(host), Some(generation)) = (&instance.host, instance.generation) else { return false };
    let known = view.machines().filter_map(|machine| machine.value.data_volume.as_ref());
    let known: HashSet<&VolumeId> = known.map(|volume| &volume.id).collect();
    instance.is_ours_by_token(deployment)
        && view.host(host).is_some_and(|host| host.value.was_never(generation))
        && !instance.disks.iter().any(|disk| known.contains(&disk.volume.id))
}

/// Terminates it; if that fails, the next look finds it again.
pub(super) async fn remove(supply: &Supply, orphan: &Instance) {
    let (instance, host, generation) = (&orphan.id, &orphan.host, orphan.generation);
    match supply.compute.terminate(instance).await {
        Ok(()) => {
            tracing::warn!(%instance, ?host, generation, "an instance that is no host's is terminated: it never joined");
        }
        Err(error) => tracing::warn!(%error, %instance, "an instance that is no host's cannot be terminated"),
    }
}

/// Writes down what has become of a machine, and what that means for its host and the nodes there.
pub(super) async fn write_down(
    parts: &Parts,
    guard: &ClaimGuard,
    view: &mut View,
    machine: Versioned<Machine>,
) -> Result<()> {
    let mut writes = vec![repo::update(&machine.value, machine.version)?, guard.condition()];
    let host = view.host(&machine.value.host).filter(|host| host.value.generation == machine.value.generation);
    if let Some(host) = host.cloned() {
        writes.extend(meaning_for_host(parts, host, &machine.value).await?);
    }
    match parts.store.commit(writes).await {
        Ok(versions) => {
            let version = versions.first().copied().unwrap_or(machine.version);
            view.put_machine(Versioned { value: machine.value, version });
            Ok(())
        }
        // It has changed meanwhile; the next look tells.
        Err(error) if error.is_conflict() && guard.is_stored(&*parts.store).await? => Ok(()),
        Err(error) => Err(error.into()),
    }
}

async fn meaning_for_host(parts: &Parts, mut host: Versioned<Host>, machine: &Machine) -> Result<Vec<Write>> {
    let (id, instance) = (host.value.id.clone(), &machine.instance);
    if matches!(host.value.enrolment, Enrolment::Invited(_)) {
        // Its launch sees to it.
        return Ok(Vec::new());
    }
    match (machine.state, machine.address, &mut host.value.compute) {
        (MachineState::Terminated, _, Some(hosting)) if !hosting.gone => {
            hosting.gone = true;
            let (nodes, why) = (host.value.slots.len(), machine.ended_because.as_deref().unwrap_or("not told"));
            tracing::error!(host.id = %id, %instance, nodes, why, "ALARM: a host's instance is terminated");
            Ok(vec![repo::update(&host.value, host.version)?])
        }
        (MachineState::Running, Some(address), _) => moved(parts, host, address).await,
        _ => Ok(Vec::new()),
    }
}

/// The host, and its nodes with it, are at another address. Whoever else is there now shows none of their certificates.
async fn moved(parts: &Parts, mut host: Versioned<Host>, address: IpAddr) -> Result<Vec<Write>> {
    let mut writes = Vec::new();
    for id in host.value.slots.values() {
        let Some(mut node) = repo::get::<Node>(&*parts.store, id.as_str()).await? else { continue };
        if let Some(endpoint) = node.value.endpoint.as_mut().filter(|endpoint| endpoint.address != address) {
            endpoint.address = address;
            writes.push(repo::update(&node.value, node.version)?);
        }
    }
    if host.value.address != Some(address) {
        tracing::info!(host.id = %host.value.id, %address, "the host has another address");
        host.value.address = Some(address);
        writes.push(repo::update(&host.value, host.version)?);
    }
    Ok(writes)
}
