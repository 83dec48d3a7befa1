//! Another certificate authority in place of the deployment's, while masters and hosts serve.
//!
//! Four steps, each one commit of the authority's document, so that whoever comes next goes on where the last one was
//! interrupted. Between two of them everybody who is there must have followed, masters first, so that what hosts get from
//! then on is of that step:
//!
//! 1. another is made and announced: everybody believes both;
//! 2. the new one issues: everybody gets a certificate of it;
//! 3. masters believe the former no more and its key is deleted: hosts forget it, too;
//! 4. the change is over.

use super::masters::{self, LOOK_EVERY};
use crate::app::fleet::{Fleet, authority};
use crate::app::keys::Keys;
use crate::backoff::Backoff;
use crate::clock::SharedClock;
use crate::error::{Error, StoreError};
use crate::fault;
use crate::lndserver::client::Agents;
use crate::lndserver::proto::{Authorities, SetAuthoritiesRequest, SetAuthoritiesResponse};
use crate::model::authority::{Authority, Roll};
use crate::model::deployment::Deployment;
use crate::model::host::Host;
use crate::model::node::Heartbeat;
use crate::model::{HostId, MasterId};
use crate::pki::{CaCert, Fingerprint, PkiError};
use crate::store::repo::{self, Versioned};
use crate::store::{Store, Write};
use futures::StreamExt;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long until hosts are asked again: that one comes back is no event here.
const ASK_AGAIN: Backoff = Backoff { first: Duration::from_millis(500), longest: Duration::from_secs(15) };
/// Hosts that are asked at once.
const AT_ONCE: usize = 32;

/// Why the authority was not changed, or not entirely. What was done stays done: the command goes on there.
#[derive(Debug, thiserror::Error)]
pub enum RollError {
    /// The Store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The authorities' keys.
    #[error(transparent)]
    Fleet(#[from] Error),
    /// The certificates.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// What would be sealed now might not open any more.
    #[error("the sealing key is being changed: type this again")]
    SealingKey,
    /// Somebody has not followed.
    #[error("the change of the authority is held up, and everything goes on as it is: {0}; then type this again")]
    HeldUp(Waiting),
}

/// Who is waited for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Masters that have not taken up the step.
    pub masters: Vec<MasterId>,
    /// Hosts that have not, and why.
    pub hosts: Vec<(HostId, String)>,
    /// Hosts that were invited before, and may still join by that.
    pub invited: Vec<HostId>,
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.masters.is_empty() && self.hosts.is_empty() && self.invited.is_empty()
    }
}

impl std::fmt::Display for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut parts = Vec::new();
        if !self.masters.is_empty() {
            let masters: Vec<_> = self.masters.iter().map(MasterId::as_str).collect();
            parts.push(format!("these masters must follow, or end: {}", masters.join(", ")));
        }
        if !self.hosts.is_empty() {
            let hosts: Vec<_> = self.hosts.iter().map(|(host, why)| format!("{host} ({why})")).collect();
            let hosts = hosts.join(", ");
            parts.push(format!("these hosts must follow, or be revoked (`scale-lnd host revoke`): {hosts}"));
        }
        if !self.invited.is_empty() {
            let invited: Vec<_> = self.invited.iter().map(HostId::as_str).collect();
            let invited = invited.join(", ");
            parts.push(format!("these hosts' invitations must be used, expire, or be revoked: {invited}"));
        }
        f.write_str(&parts.join("; "))
    }
}

/// What is going on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RollSaid {
    /// There is another authority.
    Announced(Fingerprint),
    /// These have not followed yet.
    Waiting(Waiting),
    /// It issues from now on.
    Issues(Fingerprint),
    /// Masters do not believe the former any more, and its key is deleted.
    Dropped,
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rolled {
    /// The authority that everybody believes now, and no other.
    pub authority: Fingerprint,
    /// Whether it was begun before: another one may follow.
    pub was_begun: bool,
}

/// A change of the authority.
#[derive(Debug)]
pub struct Rolling<'a> {
    /// The deployment's Store, which was opened before.
    pub store: Arc<dyn Store>,
    /// What seals the authorities' keys.
    pub keys: &'a Keys,
    /// The time.
    pub clock: SharedClock,
    /// How long a step waits for who has not followed.
    pub patience: Duration,
}

/// One step, and what is needed to bring it to the hosts.
struct Step {
    authority: Authority,
    fingerprint: Fingerprint,
    told: Authorities,
    agents: Agents,
}

impl Rolling<'_> {
    /// Changes the authority, or finishes a change that was begun. Two at the same time do it together.
    ///
    /// # Errors
    /// See [`RollError`].
    pub async fn run(&self, mut say: impl FnMut(RollSaid)) -> Result<Rolled, RollError> {
        let (mut was_begun, mut begun) = (true, false);
        // Only this process shows what it issues, and not for long.
        let life = time::Duration::days(1);
        let fleet = Fleet::open(Arc::clone(&self.store), Arc::clone(&self.clock), self.keys, life).await?;
        let id = MasterId::random(&mut rand::rng());
        loop {
            fleet.refresh(self.keys).await?;
            let found = repo::get::<Authority>(&*self.store, Authority::ID).await?;
            let Versioned { value: authority, version } =
                found.ok_or_else(|| Error::Invariant("the deployment's authority is gone".to_owned()))?;
            let fingerprint = CaCert::from_pem(&authority.certificate_pem)?.fingerprint();
            let is_first_look = !std::mem::replace(&mut begun, true);
            let (point, next, then, check) = match &authority.roll {
                // Another has ended what both were at.
                None if !is_first_look => return Ok(Rolled { authority: fingerprint, was_begun }),
                None => {
                    let (next, made, check) = self.announcing(authority, fingerprint).await?;
                    ("authority.announce", next, RollSaid::Announced(made), Some(check))
                }
                Some(roll) => {
                    let (point, then) = match roll {
                        Roll::Announced { next } => {
                            let next = CaCert::from_pem(&next.certificate_pem)?.fingerprint();
                            ("authority.issue", Some(RollSaid::Issues(next)))
                        }
                        Roll::Issuing { .. } => ("authority.retire", Some(RollSaid::Dropped)),
                        Roll::Retiring => ("authority.end", None),
                    };
                    let agents = Agents::new(fleet.trust(), fleet.master_credentials(&id)?);
                    let certificates_pem = authority.believed().into_iter().map(str::to_owned).collect();
                    let told = Authorities { step: authority.step, certificates_pem };
                    let step = Step { authority, fingerprint, told, agents };
                    self.until_followed(&step, &mut say).await?;
                    let next = step.authority.advanced();
                    match then {
                        Some(then) => (point, next, then, None),
                        None if self.commit(vec![repo::update(&next, version)?], point).await? => {
                            return Ok(Rolled { authority: fingerprint, was_begun });
                        }
                        None => continue,
                    }
                }
            };
            was_begun &= check.is_none();
            let writes = std::iter::once(repo::update(&next, version)?).chain(check).collect();
            if self.commit(writes, point).await? {
                say(then);
            }
        }
    }

    /// What is sealed here is sealed again by whoever changes the sealing key, unless that was done just before.
    async fn announcing(
        &self,
        authority: Authority,
        own: Fingerprint,
    ) -> Result<(Authority, Fingerprint, Write), RollError> {
        let deployment = repo::get::<Deployment>(&*self.store, Deployment::ID).await?;
        let deployment = deployment.filter(|deployment| deployment.value.sealing() == self.keys.sealing());
        let deployment = deployment.ok_or(RollError::SealingKey)?;
        let (next, made) = authority::make(self.keys, self.clock.now())?;
        let check = repo::check::<Deployment>(Deployment::ID, deployment.version);
        Ok((authority.announcing(next, own.to_string()), made, check))
    }

    /// False: something has changed meanwhile, and what is next must be found anew.
    async fn commit(&self, writes: Vec<Write>, point: &str) -> Result<bool, StoreError> {
        fault::point(&format!("{point}.before")).await;
        match self.store.commit(writes).await {
            Ok(_) => {
                fault::point(&format!("{point}.after")).await;
                Ok(true)
            }
            Err(error) if error.is_conflict() => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn until_followed(&self, step: &Step, say: &mut impl FnMut(RollSaid)) -> Result<(), RollError> {
        let (observer, begin) = (masters::observer(), Instant::now());
        let (mut said, mut followed, mut pauses) = (Waiting::default(), HashSet::new(), ASK_AGAIN.pauses());
        loop {
            let masters = masters::lacking(&*self.store, &observer, |heartbeat| step.is_told_by(heartbeat)).await?;
            let mut waiting = Waiting { masters, ..Waiting::default() };
            let mut pause = LOOK_EVERY;
            if waiting.masters.is_empty() {
                self.ask_hosts(step, &mut followed, &mut waiting).await?;
                pause = pauses.take();
            }
            if waiting.is_empty() || !self.is_still_at(step).await? {
                return Ok(());
            }
            if begin.elapsed() >= self.patience {
                return Err(RollError::HeldUp(waiting));
            }
            if waiting != said {
                say(RollSaid::Waiting(waiting.clone()));
                said = waiting;
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// False: another, who is at the same, was faster.
    async fn is_still_at(&self, step: &Step) -> Result<bool, StoreError> {
        let found = repo::get::<Authority>(&*self.store, Authority::ID).await?;
        Ok(found.is_some_and(|found| found.value.step == step.authority.step))
    }

    /// Tells it to hosts that have not `followed`. One whose certificate has expired needs a new invitation in any case, and
    /// hears of it then.
    async fn ask_hosts(
        &self,
        step: &Step,
        followed: &mut HashSet<HostId>,
        waiting: &mut Waiting,
    ) -> Result<(), RollError> {
        let now = self.clock.now();
        let hosts = repo::list_all::<Host>(&*self.store, None).await?.into_iter().map(|found| found.value);
        let mut to_be_told = Vec::new();
        for host in hosts {
            if step.waits_for_invitation(&host, now) {
                waiting.invited.push(host.id.clone());
            }
            if host.is_certified(now) && !followed.contains(&host.id) {
                to_be_told.push(host);
            }
        }
        let answers = futures::stream::iter(&to_be_told).map(|host| async move { (&host.id, step.tell(host).await) });
        let mut answers = answers.buffer_unordered(AT_ONCE);
        while let Some((host, answer)) = answers.next().await {
            match answer {
                Ok(()) => drop(followed.insert(host.clone())),
                Err(why) => waiting.hosts.push((host.clone(), why)),
            }
        }
        waiting.hosts.sort();
        Ok(())
    }
}

impl Step {
    fn is_issuing(&self) -> bool {
        matches!(self.authority.roll, Some(Roll::Issuing { .. }))
    }

    fn is_told_by(&self, heartbeat: &Heartbeat) -> bool {
        let issued_by_it = |shown: &str| shown == self.fingerprint.to_string();
        let told = heartbeat.authorities.as_ref();
        told.is_some_and(|told| told.step >= self.authority.step && issued_by_it(&told.shown))
    }

    /// Whether somebody may still come with an invitation that is of no use after this step, or could be forged by whoever
    /// has the former authority's key.
    fn waits_for_invitation(&self, host: &Host, now: time::OffsetDateTime) -> bool {
        let Some(invitation) = host.open_invitation(now) else { return false };
        match &self.authority.roll {
            Some(Roll::Announced { next }) => {
                let next = CaCert::from_pem(&next.certificate_pem).map(|next| next.fingerprint().to_string());
                !next.is_ok_and(|next| invitation.authorities.contains(&next))
            }
            Some(Roll::Issuing { .. }) => {
                host.compute.is_some() && invitation.authorities.first() != Some(&self.fingerprint.to_string())
            }
            Some(Roll::Retiring) | None => false,
        }
    }

    /// Why the host has not followed, in words.
    async fn tell(&self, host: &Host) -> Result<(), String> {
        let request = SetAuthoritiesRequest { authorities: Some(self.told.clone()), renew: self.is_issuing() };
        let SetAuthoritiesResponse { believed, shown } =
            self.agents.set_authorities(host, request).await.map_err(|error| error.to_string())?;
        let wanted = self.told.certificates_pem.iter().map(|pem| CaCert::from_pem(pem).map(|ca| ca.fingerprint()));
        let wanted: Result<HashSet<_>, _> = wanted.map(|one| one.map(|one| one.to_string())).collect();
        if !wanted.is_ok_and(|wanted| wanted == believed.into_iter().collect()) {
            return Err("it believes others".to_owned());
        }
        if self.is_issuing() && shown != self.fingerprint.to_string() {
            return Err("it has no certificate of the new authority yet".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "roll_tests.rs"]
mod tests;
