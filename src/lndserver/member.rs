//! The agent as a member of its deployment: its key, its certificate, and how it gets them.

use super::authorities::{self, Known, NotTaken};
use super::config::AgentConfig;
use super::files::{self, DataDir};
use super::host::Identity;
use super::masters::{DialError, Masters};
use super::proto::fleet_client::FleetClient;
use super::proto::{Authorities, EnrolRequest, EnrolResponse, RenewRequest};
use crate::backoff::Backoff;
use crate::model::HostId;
use crate::pki::{self, CaCert, Credentials, Pins, PkiError, Trust};
use secrecy::ExposeSecret;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use time::OffsetDateTime;
use tokio::sync::Mutex;
use tonic::{Code, Status};
use zeroize::Zeroizing;

const KEY: &str = "key.pem";
const CERT: &str = "cert.pem";
const HOST: &str = "host.json";
/// How long a master may take for a certificate.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
/// How long a renewal that failed waits.
const TRY_AGAIN: Duration = Duration::from_secs(10);

/// Why the agent is not a member.
#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    /// It needs the operator's word and has none.
    #[error("this host is not enrolled (or its certificate has expired), and no join token is given")]
    NoToken,
    /// A master said no.
    #[error("enrolment refused: {0}")]
    Refused(String),
    /// The token is for another host than this folder belongs to.
    #[error("this folder belongs to host {0}, and the join token to another")]
    OtherHost(HostId),
    /// The folder belongs to another deployment.
    #[error("this folder belongs to a host of another deployment")]
    OtherDeployment,
    /// The files.
    #[error("the agent's own files")]
    Io(#[from] io::Error),
    /// The certificates.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// Whom it is told to believe.
    #[error(transparent)]
    NotTaken(#[from] NotTaken),
    /// The masters' addresses.
    #[error(transparent)]
    Dial(#[from] DialError),
}

/// A host with a certificate.
#[derive(Debug, Clone)]
pub struct Member {
    /// Who it is.
    pub identity: Identity,
    /// What it shows.
    pub own: Credentials,
    /// Whom it believes.
    pub trust: Trust,
    /// Held by who changes what of it is on disk.
    writing: Arc<Mutex<()>>,
}

/// Who this host is, if it was ever enrolled. Its lnds run, whatever became of its certificate.
pub fn identity(data: &DataDir) -> Result<Option<Identity>, MemberError> {
    match files::read_optional(&data.own(HOST))? {
        Some(bytes) => Ok(Some(serde_json::from_slice(&bytes).map_err(io::Error::from)?)),
        None => Ok(None),
    }
}

/// Whether this folder is of an earlier machine of the host, whose data volume was attached to this one: the join token says
/// so, by a later generation. Nothing that the folder has to show is good any more, and nothing in it may be started before
/// a master has let this machine join.
pub fn is_superseded(config: &AgentConfig, data: &DataDir) -> Result<bool, MemberError> {
    let (Some(known), Some(token)) = (identity(data)?, &config.join_token) else { return Ok(false) };
    let mut parts = token.expose_secret().split('.');
    let (host, generation) = (parts.next(), parts.next().and_then(|generation| generation.parse::<u64>().ok()));
    // A token of an operator's has no generation, and no third part.
    let is_later = parts.next().is_some() && generation.is_some_and(|generation| generation > known.generation);
    Ok(host == Some(known.host.as_str()) && is_later)
}

impl Member {
    /// Loads the certificate, or gets one with the join token, however long the masters cannot be reached. `at` is where
    /// masters reach this agent.
    pub async fn join(config: &AgentConfig, data: &DataDir, at: SocketAddr) -> Result<Self, MemberError> {
        let configured: Pins = config.ca_fingerprint.parse()?;
        let is_superseded = is_superseded(config, data)?;
        if is_superseded {
            // First: with a certificate and the new generation the folder would look as if it had joined.
            remove(&data.own(CERT))?;
        } else if let Some(member) = Self::load(data, &configured)?
            && member.own.own().validity.contains(OffsetDateTime::now_utc())
        {
            return Ok(member);
        }
        let token = config.join_token.as_ref().ok_or(MemberError::NoToken)?;
        if let Some(Identity { host, .. }) = identity(data)?
            && token.expose_secret().split('.').next() != Some(host.as_str())
        {
            return Err(MemberError::OtherHost(host));
        }
        let request = EnrolRequest {
            join_token: token.expose_secret().to_owned(),
            csr_pem: pki::make_csr_for(&key(data)?)?,
            address: at.ip().to_string(),
            agent_port: at.port().into(),
        };
        // What another machine has left on the disk is older than what this one was started with.
        let known = if is_superseded { None } else { Known::load(data)? };
        let pins = authorities::pins(&configured, known.as_ref());
        let masters = Masters::with_tls(config.masters.clone(), pki::for_enrolment(pins.clone())?);
        let answer = enrol(&masters, request).await?;
        keep(data, &pins, &answer)?;
        let member = Self::load(data, &pins)?.ok_or(MemberError::Pki(PkiError::Certificate))?;
        tracing::info!(host.id = %member.identity.host, "this host has joined");
        Ok(member)
    }

    fn load(data: &DataDir, configured: &Pins) -> Result<Option<Self>, MemberError> {
        let Some(identity) = identity(data)? else { return Ok(None) };
        let (Some(known), Some(cert)) = (Known::load(data)?, files::read_optional(&data.own(CERT))?) else {
            return Ok(None);
        };
        let cert = String::from_utf8(cert).map_err(|_| PkiError::Certificate)?;
        let Some(ca) = CaCert::issuer_of(&known.believed, &cert)? else { return Ok(None) };
        let own = Credentials::from_pem(&cert, &key(data)?, ca)?;
        if !known.is_of(configured) {
            let is_good = own.own().validity.contains(OffsetDateTime::now_utc());
            // One that was out for long may come back to a deployment whose authority is another by now.
            return if is_good { Err(MemberError::OtherDeployment) } else { Ok(None) };
        }
        Ok(Some(Self { identity, own, trust: Trust::in_all(known.believed)?, writing: Arc::default() }))
    }

    /// Believes these authorities from now on, unless it knows of newer ones.
    pub async fn believe(&self, data: &DataDir, told: &Authorities) -> Result<(), MemberError> {
        let _writing = self.writing.lock().await;
        let Some(known) = Known::load(data)? else { return Ok(()) };
        if told.step < known.step {
            return Err(NotTaken::Overtaken.into());
        }
        let fresh = match known.believed.first() {
            Some(ca) if !told.certificates_pem.is_empty() => Known::told(Some(told), ca, Some(&known))?,
            _ => return Ok(()),
        };
        if !fresh.believes(self.own.issuer()) {
            return Err(NotTaken::OwnCertificate.into());
        }
        self.take_up(data, fresh)
    }

    fn take_up(&self, data: &DataDir, fresh: Known) -> Result<(), MemberError> {
        fresh.keep(data)?;
        if self.trust.cas() != fresh.believed {
            tracing::info!(fresh.step, authorities = ?fresh.believed, "these authorities are believed from now on");
        }
        Ok(self.trust.believe(fresh.believed)?)
    }

    /// Sees to it that the certificate is by the first of these authorities.
    pub async fn renew_by(&self, data: &DataDir, masters: &Masters, told: &Authorities) -> Result<(), MemberError> {
        let first = told.certificates_pem.first().ok_or(PkiError::Nobody)?;
        if self.own.issuer() == CaCert::from_pem(first)?.fingerprint() {
            Ok(())
        } else {
            self.renew(data, masters).await
        }
    }

    /// Renews the certificate at two thirds of its life, as long as this is polled.
    pub async fn keep_fresh(&self, data: &DataDir, masters: &Masters) {
        loop {
            let validity = self.own.own().validity;
            tokio::time::sleep(validity.next_look(OffsetDateTime::now_utc())).await;
            let now = OffsetDateTime::now_utc();
            if now < validity.renew_at() {
                continue;
            }
            let renewed = if now <= validity.not_after {
                self.renew(data, masters).await.map_err(|e| e.to_string())
            } else {
                Err("it has expired; this host needs a new invitation".to_owned())
            };
            match renewed {
                Ok(()) => tracing::info!("renewed this host's certificate"),
                Err(reason) => {
                    tracing::warn!(reason, "this host's certificate is not renewed");
                    tokio::time::sleep(TRY_AGAIN).await;
                }
            }
        }
    }

    async fn renew(&self, data: &DataDir, masters: &Masters) -> Result<(), MemberError> {
        let _writing = self.writing.lock().await;
        let key = key(data)?;
        let (_, channel) = masters.next()?;
        let request = RenewRequest { csr_pem: pki::make_csr_for(&key)? };
        let answer = within(FleetClient::new(channel).renew(request)).await;
        let answer = answer.map_err(|status| MemberError::Refused(status.message().to_owned()))?;
        let known = Known::load(data)?.ok_or(PkiError::Nobody)?;
        let told = answer.authorities.filter(|told| told.step > known.step && !told.certificates_pem.is_empty());
        let fresh = match (&told, known.believed.first()) {
            (Some(_), Some(ca)) => Known::told(told.as_ref(), ca, Some(&known))?,
            _ => known.clone(),
        };
        let cert = answer.certificate_pem;
        // Checked before it is kept.
        let ca = CaCert::issuer_of(&fresh.believed, &cert)?.ok_or(PkiError::Certificate)?.clone();
        Credentials::from_pem(&cert, &key, &ca)?;
        // Whatever is on disk if this ends in between: the certificate is by one of those that are believed.
        if !known.believes(ca.fingerprint()) {
            self.take_up(data, fresh.clone())?;
        }
        files::write_private(&data.own(CERT), cert.as_bytes())?;
        self.own.replace(&cert, &key, &ca)?;
        if told.is_some() { self.take_up(data, fresh) } else { Ok(()) }
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => path.parent().map_or(Ok(()), files::sync_dir),
    }
}

/// The host's key, for its whole life.
fn key(data: &DataDir) -> Result<Zeroizing<String>, MemberError> {
    match fs::read_to_string(data.own(KEY)) {
        Ok(key) => Ok(Zeroizing::new(key)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let (key, _) = pki::make_csr()?;
            files::write_private(&data.own(KEY), key.as_bytes())?;
            Ok(key)
        }
        Err(e) => Err(e.into()),
    }
}

/// Asks one master after the other until one says yes, or no for good.
async fn enrol(masters: &Masters, request: EnrolRequest) -> Result<EnrolResponse, MemberError> {
    for failures in 0.. {
        let (address, channel) = masters.next()?;
        match within(FleetClient::new(channel).enrol(request.clone())).await {
            Ok(answer) => return Ok(answer),
            Err(status) if is_final(status.code()) => return Err(MemberError::Refused(status.message().to_owned())),
            Err(status) => tracing::warn!(master = address, status = status.message(), "cannot enrol yet"),
        }
        tokio::time::sleep(Backoff::CONNECT.pause(failures, rand::random())).await;
    }
    Err(DialError::None.into())
}

async fn within<T>(call: impl Future<Output = Result<tonic::Response<T>, Status>>) -> Result<T, Status> {
    let answer = tokio::time::timeout(ANSWER_WITHIN, call).await;
    answer.map_err(|_| Status::deadline_exceeded("the master did not answer"))?.map(tonic::Response::into_inner)
}

fn is_final(code: Code) -> bool {
    matches!(code, Code::PermissionDenied | Code::InvalidArgument | Code::FailedPrecondition | Code::Unimplemented)
}

/// Writes down what a master said; the certificate last, since with it everything is there.
fn keep(data: &DataDir, pins: &Pins, answer: &EnrolResponse) -> Result<(), MemberError> {
    let ca = CaCert::from_pem(&answer.ca_pem)?;
    if !pins.contains(ca.fingerprint()) {
        return Err(PkiError::Fingerprint.into());
    }
    let known = Known::told(answer.authorities.as_ref(), &ca, Known::load(data)?.as_ref())?;
    let issuer = CaCert::issuer_of(&known.believed, &answer.certificate_pem)?.ok_or(PkiError::Certificate)?;
    let host = HostId::parse(&answer.host_id).ok_or(MemberError::Pki(PkiError::Certificate))?;
    let identity = Identity { host, generation: answer.generation };
    let own = Credentials::from_pem(&answer.certificate_pem, &key(data)?, issuer)?.own();
    if own.identity != (pki::Identity::Agent { host_id: identity.host.to_string() }) {
        return Err(MemberError::Pki(PkiError::Certificate));
    }
    known.keep(data)?;
    files::write_private(&data.own(HOST), &serde_json::to_vec(&identity).map_err(io::Error::from)?)?;
    Ok(files::write_private(&data.own(CERT), answer.certificate_pem.as_bytes())?)
}
