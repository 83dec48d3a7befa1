//! The hosts of the fleet: invitations, enrolment, certificates, and what their agents report.
//!
//! A host's certificate is good only as long as its serial number stands in the host's document, so revoking a host is one
//! write, and a host that was replaced speaks for nobody.

pub mod authority;
mod enrol;
mod join;
mod recover;
mod report;
#[cfg(test)]
mod tests;

use super::keys::Keys;
use crate::clock::SharedClock;
use crate::error::{Error, Result};
use crate::model::authority::Authority;
use crate::model::host::{Enrolment, Host, Invitation, Joined, token_digest};
use crate::model::node::Node;
use crate::model::{HostId, MasterId};
use crate::pki::{CaCert, Credentials, Identity, Pins, PkiError, Trust};
use crate::store::Store;
use crate::store::repo::{self, Versioned};
use arc_swap::ArcSwap;
use authority::Authorities;
use rand::Rng;
use secrecy::{ExposeSecret, SecretString};
use std::sync::Arc;
use time::{Duration, OffsetDateTime};
use tokio::sync::RwLock;
use zeroize::Zeroizing;

pub use enrol::{EnrolError, Enrolled};
pub use join::JoinKey;
pub use recover::{NotRecovered, Recovery};
pub use report::{Body, Report, ReportError};

/// How long a join token is good for.
const INVITATION: Duration = Duration::hours(1);

/// What a master needs for the hosts of its deployment.
#[derive(Debug)]
pub struct Fleet {
    store: Arc<dyn Store>,
    clock: SharedClock,
    authorities: ArcSwap<Authorities>,
    trust: Trust,
    /// Held to read while something is issued and stored.
    issuing: RwLock<()>,
    certificate_life: Duration,
}

/// What a new host is given: `<host>.<256 random bits, hexadecimal>`.
#[derive(Debug, Clone)]
pub struct JoinToken(SecretString);

impl JoinToken {
    fn new(host: &HostId, secret: &str) -> Self {
        Self(format!("{host}.{secret}").into())
    }

    /// The text, to be handed to the host's agent.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl Fleet {
    /// Opens the deployment's certificate authority, or makes it if there is none. `certificate_life` is for the
    /// certificates of masters and agents.
    pub async fn open(
        store: Arc<dyn Store>,
        clock: SharedClock,
        keys: &Keys,
        certificate_life: Duration,
    ) -> Result<Self> {
        let authority = authority::load_or_create(&*store, &clock, keys).await?;
        let authorities = Authorities::open(&authority, keys)?;
        let trust = Trust::in_all(authorities.believed.clone()).map_err(broken)?;
        let (authorities, issuing) = (ArcSwap::from_pointee(authorities), RwLock::new(()));
        Ok(Self { store, clock, authorities, trust, issuing, certificate_life })
    }

    /// Takes up what the Store says of authorities now. False: it was known. When this returns, nothing is issued any more,
    /// and nothing is about to be stored, that was decided by what was known before.
    pub async fn refresh(&self, keys: &Keys) -> Result<bool> {
        let found = repo::get::<Authority>(&*self.store, Authority::ID).await?;
        let found = found.ok_or_else(|| Error::Invariant("the deployment's authority is gone".to_owned()))?.value;
        let known = self.authorities.load();
        if known.step == found.step && known.issuing.cert().pem() == found.certificate_pem {
            return Ok(false);
        }
        let fresh = Authorities::open(&found, keys)?;
        self.trust.believe(fresh.believed.clone()).map_err(broken)?;
        self.authorities.store(Arc::new(fresh));
        drop(self.issuing.write().await);
        Ok(true)
    }

    /// The certificate of the authority that issues.
    #[must_use]
    pub fn ca(&self) -> CaCert {
        self.authorities.load().issuing.cert().clone()
    }

    /// The authorities that are believed, the one that issues first, and the step at which they are.
    #[must_use]
    pub fn believed(&self) -> (Vec<CaCert>, u64) {
        let known = self.authorities.load();
        (known.believed.clone(), known.step)
    }

    /// What a new agent may find its master by.
    pub fn pins(&self) -> Result<Pins> {
        pins(&self.authorities.load())
    }

    /// What this deployment's machines are marked with, for ever: the fingerprint of its first authority.
    #[must_use]
    pub fn identity(&self) -> String {
        self.authorities.load().identity.clone()
    }

    /// Whom to believe: this deployment's certificates. Which of its hosts are still good, the Store says.
    #[must_use]
    pub fn trust(&self) -> Trust {
        self.trust.clone()
    }

    /// By which certificates are judged.
    #[must_use]
    pub fn clock(&self) -> SharedClock {
        Arc::clone(&self.clock)
    }

    /// What makes the join tokens of hosts that the deployment makes for itself, now.
    pub fn launching(&self) -> Result<Launching> {
        let known = self.authorities.load();
        let authority = known.issuing.cert().fingerprint().to_string();
        let join_key = JoinKey::of(&known.issuing.key_pem())?;
        Ok(Launching { pins: pins(&known)?, authority, join_key })
    }

    /// What made those of hosts that were asked for while this authority issued ([`Launching::authority`]). `None`: it is no
    /// more, and so are they.
    pub fn join_key(&self, authority: &str) -> Result<Option<JoinKey>> {
        self.authorities.load().join_key(authority)
    }

    /// A certificate for a master itself.
    pub fn master_credentials(&self, master: &MasterId) -> Result<Credentials> {
        let (cert_pem, key_pem, ca) = self.issue_own(master)?;
        Credentials::from_pem(&cert_pem, &key_pem, &ca).map_err(broken)
    }

    /// Another certificate for a master, in place of its `own`.
    pub fn renew_own(&self, master: &MasterId, own: &Credentials) -> Result<()> {
        let (cert_pem, key_pem, ca) = self.issue_own(master)?;
        own.replace(&cert_pem, &key_pem, &ca).map_err(broken)
    }

    /// Renews a master's own certificate at two thirds of its life, as long as this is polled.
    pub async fn keep_fresh(&self, master: &MasterId, own: &Credentials) {
        loop {
            let validity = own.own().validity;
            tokio::time::sleep(validity.next_look(self.clock.now())).await;
            if self.clock.now() < validity.renew_at() {
                continue;
            }
            match self.renew_own(master, own) {
                Ok(()) => tracing::info!("renewed this master's certificate"),
                Err(error) => tracing::error!(%error, "this master's certificate cannot be renewed"),
            }
        }
    }

    fn issue_own(&self, master: &MasterId) -> Result<(String, Zeroizing<String>, CaCert)> {
        let identity = Identity::Master { id: master.to_string() };
        let ca = &self.authorities.load().issuing;
        let issued = ca.issue(&identity, self.certificate_life, self.clock.now(), &mut rand::rng());
        let (issued, key) = issued.map_err(broken)?;
        Ok((issued.cert_pem, key, ca.cert().clone()))
    }

    /// Makes a new host with `capacity` slots and a join token for its agent.
    pub async fn invite_host(&self, capacity: u16) -> Result<(HostId, JoinToken)> {
        let id = HostId::random(&mut rand::rng());
        let generation = 1;
        let (token, invitation) = self.invitation(&id, generation)?;
        let host = Host {
            id: id.clone(),
            generation,
            enrolment: Enrolment::Invited(invitation),
            joined: Joined::NotYet,
            address: None,
            agent_port: None,
            capacity,
            slots: Default::default(),
            compute: None,
            report: None,
            refused_at: None,
            created_at: self.clock.now(),
        };
        self.store.commit(vec![repo::create(&host)?]).await?;
        Ok((id, token))
    }

    /// Makes another join token for a host. One that was enrolled before must use it with its old key, and stays the same
    /// host. `None`: there is no such host, it was revoked, or its machine is being
    /// started.
    pub async fn reinvite_host(&self, id: &HostId) -> Result<Option<JoinToken>> {
        let mut token = None;
        repo::modify::<Host, Error>(&*self.store, id.as_str(), |host| {
            let (fresh, invitation) = self.invitation(&host.id, host.generation)?;
            match &mut host.enrolment {
                Enrolment::Revoked => return Ok(false),
                // The token of one that is made for us is part of what its machine was started with.
                Enrolment::Invited(_) if host.compute.is_some() => return Ok(false),
                Enrolment::Invited(old) => *old = invitation,
                Enrolment::Enrolled { reinvitation, .. } => *reinvitation = Some(invitation),
            }
            token = Some(fresh);
            Ok(true)
        })
        .await?;
        Ok(token)
    }

    /// Takes a host out, for good: from now on its certificate is void, and it gets no orders, secrets or money. Its lnds go
    /// on. False: there is no such host.
    pub async fn revoke_host(&self, id: &HostId) -> Result<bool> {
        let revoked = repo::modify::<Host, Error>(&*self.store, id.as_str(), |host| {
            host.enrolment = Enrolment::Revoked;
            Ok(true)
        })
        .await?;
        Ok(revoked.is_some())
    }

    fn invitation(&self, host: &HostId, generation: u64) -> Result<(JoinToken, Invitation)> {
        let mut bytes = Zeroizing::new([0u8; 32]);
        rand::rng().fill_bytes(bytes.as_mut_slice());
        let secret = Zeroizing::new(hex::encode(bytes.as_slice()));
        let token_sha256 = token_digest(host, generation, &secret);
        let expires_at = self.clock.now() + INVITATION;
        let invitation = Invitation { token_sha256, expires_at, authorities: named(&self.pins()?) };
        Ok((JoinToken::new(host, &secret), invitation))
    }
}

/// What goes into the request for a machine.
#[derive(Debug)]
pub struct Launching {
    /// What its agent may find its master by.
    pub pins: Pins,
    /// The fingerprint of the authority that issues.
    pub authority: String,
    /// Of that authority.
    pub join_key: JoinKey,
}

fn pins(known: &Authorities) -> Result<Pins> {
    let pins = Pins::new(known.believed.iter().map(CaCert::fingerprint).collect());
    pins.ok_or_else(|| Error::Invariant("a deployment without an authority".to_owned()))
}

fn named(pins: &Pins) -> Vec<String> {
    pins.all().iter().map(ToString::to_string).collect()
}

/// Why a host takes no orders any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::app) enum Lost {
    /// The operator took it out: whoever that is now gets no secret and no money.
    Revoked,
    /// Its machine is terminated.
    Gone,
}

/// Whether this node's host is lost to it.
pub(in crate::app) async fn lost_host(store: &dyn Store, node: &Node) -> Result<Option<Lost>> {
    let Some(placement) = &node.placement else { return Ok(None) };
    let host = repo::get::<Host>(store, placement.host.as_str()).await?;
    Ok(host.and_then(|host| match host.value {
        host if host.is_revoked() => Some(Lost::Revoked),
        host if host.is_gone() => Some(Lost::Gone),
        _ => None,
    }))
}

/// Whether this node's lnd is on a host that was revoked.
pub(in crate::app) async fn is_on_revoked_host(store: &dyn Store, node: &Node) -> Result<bool> {
    Ok(lost_host(store, node).await? == Some(Lost::Revoked))
}

/// Notes that a host refuses to start lnds, so that nodes go elsewhere for a while. The host as it is now; `None`: there is no
/// such host.
pub(in crate::app) async fn note_refusal(
    store: &dyn Store,
    host: &HostId,
    now: OffsetDateTime,
) -> Result<Option<Versioned<Host>>> {
    repo::modify::<Host, Error>(store, host.as_str(), |host| Ok(host.refused(now))).await
}

/// A failure of our own certificates.
fn broken(error: PkiError) -> Error {
    Error::Invariant(format!("the deployment's certificates: {error}"))
}
