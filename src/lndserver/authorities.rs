//! Whom this host believes: the deployment's certificate authorities, on disk.

use super::files::{self, DataDir};
use super::proto as v1;
use crate::pki::{CaCert, Fingerprint, Pins, PkiError};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;

const FILE: &str = "authorities.json";
/// Where programs that knew one authority only kept it.
const OLD_FILE: &str = "ca.pem";

/// The authorities, and which there were.
#[derive(Debug, Clone)]
pub(super) struct Known {
    /// That of the list: one of a lower step is out of date.
    pub(super) step: u64,
    /// In the order in which they were told.
    pub(super) believed: Vec<CaCert>,
    /// All that were ever believed: the agent's configuration may name an old one, which says whose this folder is and no
    /// more.
    pub(super) ever: Vec<Fingerprint>,
}

#[derive(Serialize, Deserialize)]
struct OnDisk {
    step: u64,
    believed: Vec<String>,
    ever: Vec<String>,
}

/// Why a list of authorities is not taken up.
#[derive(Debug, thiserror::Error)]
pub enum NotTaken {
    /// A newer one was told before.
    #[error("a newer list of authorities is known here")]
    Overtaken,
    /// It does not name the one that has certified this host, so that nobody would believe the host.
    #[error("this host's own certificate is by an authority that would not be believed any more")]
    OwnCertificate,
    /// It is not a list of authorities.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The file.
    #[error("the authorities cannot be kept")]
    Io(#[from] io::Error),
}

impl Known {
    /// None where this host was never enrolled.
    pub(super) fn load(data: &DataDir) -> Result<Option<Self>, NotTaken> {
        if let Some(bytes) = files::read_optional(&data.own(FILE))? {
            let OnDisk { step, believed, ever } = serde_json::from_slice(&bytes).map_err(io::Error::from)?;
            let ever = ever.iter().map(|one| one.parse()).collect::<Result<_, _>>()?;
            return Ok(Some(Self { step, believed: certificates(&believed)?, ever }));
        }
        match fs::read_to_string(data.own(OLD_FILE)) {
            Ok(pem) => {
                let ca = CaCert::from_pem(&pem)?;
                Ok(Some(Self { step: 0, ever: vec![ca.fingerprint()], believed: vec![ca] }))
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// What a master told, `ca` where it is one that tells no list. What was ever believed `before` stays known.
    pub(super) fn told(told: Option<&v1::Authorities>, ca: &CaCert, before: Option<&Self>) -> Result<Self, PkiError> {
        let (step, believed) = match told {
            Some(told) if !told.certificates_pem.is_empty() => (told.step, certificates(&told.certificates_pem)?),
            _ => (before.map_or(0, |before| before.step), vec![ca.clone()]),
        };
        let mut ever = before.map_or_else(Vec::new, |before| before.ever.clone());
        ever.extend(believed.iter().map(CaCert::fingerprint));
        ever.sort_unstable_by_key(ToString::to_string);
        ever.dedup();
        Ok(Self { step, believed, ever })
    }

    /// Writes it down.
    pub(super) fn keep(&self, data: &DataDir) -> io::Result<()> {
        let on_disk = OnDisk {
            step: self.step,
            believed: self.believed.iter().map(CaCert::pem).collect(),
            ever: self.ever.iter().map(ToString::to_string).collect(),
        };
        files::write_private(&data.own(FILE), &serde_json::to_vec(&on_disk)?)
    }

    /// Whether an agent with this configuration belongs to the same deployment.
    pub(super) fn is_of(&self, configured: &Pins) -> bool {
        self.ever.iter().any(|ever| configured.contains(*ever))
    }

    pub(super) fn believes(&self, fingerprint: Fingerprint) -> bool {
        self.believed.iter().any(|ca| ca.fingerprint() == fingerprint)
    }
}

/// What a master is recognised by: what is configured, except for what is known to be out of date, and what is believed.
pub(super) fn pins(configured: &Pins, known: Option<&Known>) -> Pins {
    let Some(known) = known.filter(|known| known.is_of(configured)) else { return configured.clone() };
    let fresh = configured.all().iter().copied().filter(|pin| !known.ever.contains(pin));
    let pins = fresh.chain(known.believed.iter().map(CaCert::fingerprint)).collect();
    Pins::new(pins).unwrap_or_else(|| configured.clone())
}

fn certificates(pems: &[String]) -> Result<Vec<CaCert>, PkiError> {
    pems.iter().map(|pem| CaCert::from_pem(pem)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::Ca;
    use time::OffsetDateTime;

    fn ca() -> CaCert {
        Ca::create("d", OffsetDateTime::now_utc(), &mut rand::rng()).unwrap().cert().clone()
    }

    fn told(step: u64, cas: &[&CaCert]) -> v1::Authorities {
        v1::Authorities { step, certificates_pem: cas.iter().map(|ca| ca.pem()).collect() }
    }

    #[test]
    fn what_is_configured_is_not_believed_once_it_is_out_of_date() {
        let [first, second, third] = [ca(), ca(), ca()];
        let only = |ca: &CaCert| Pins::from(ca.fingerprint());
        let known = Known::told(Some(&told(2, &[&second, &first])), &second, None).unwrap();
        assert!(known.is_of(&only(&first)) && known.is_of(&only(&second)) && !known.is_of(&only(&third)));
        assert!(pins(&only(&first), Some(&known)).contains(first.fingerprint()));

        let known = Known::told(Some(&told(3, &[&second])), &second, Some(&known)).unwrap();
        assert!(known.is_of(&only(&first)), "it says whose the folder is");
        assert_eq!(pins(&only(&first), Some(&known)), only(&second));
        let both: Pins = format!("{},{}", first.fingerprint(), third.fingerprint()).parse().unwrap();
        assert_eq!(pins(&both, Some(&known)).all(), [third.fingerprint(), second.fingerprint()], "the operator's word");
        assert_eq!(pins(&only(&third), Some(&known)), only(&third), "another deployment, or out for long");
    }

    #[test]
    fn what_an_older_program_kept_is_read_and_a_list_kept_instead() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataDir::open(folder.path()).unwrap();
        assert!(Known::load(&data).unwrap().is_none());
        let [first, second] = [ca(), ca()];
        files::write_private(&data.own(OLD_FILE), first.pem().as_bytes()).unwrap();
        let old = Known::load(&data).unwrap().unwrap();
        assert_eq!((old.step, &old.believed), (0, &vec![first.clone()]));
        Known::told(Some(&told(4, &[&second])), &second, Some(&old)).unwrap().keep(&data).unwrap();
        let read = Known::load(&data).unwrap().unwrap();
        assert_eq!((read.step, &read.believed, read.ever.len()), (4, &vec![second], 2));
        assert!(!read.believes(first.fingerprint()));
        let kept = Known::told(None, &first, Some(&read)).unwrap();
        assert_eq!((kept.step, kept.believed), (4, vec![first]), "by a master that tells no list");
    }
}
