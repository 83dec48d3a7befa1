//! Machines: what EC2 has started for a host. The host is ours and stays; a machine comes, goes and is replaced.

use super::ids::{HostId, digest_id};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use time::{Duration, OffsetDateTime};

/// The tag that names the deployment.
pub const TAG_DEPLOYMENT: &str = "scale-lnd-deployment";
/// The tag that holds the fingerprint of the deployment's first authority: names may be the same, these are not.
pub const TAG_AUTHORITY: &str = "scale-lnd-authority";
/// The tag that names the host.
pub const TAG_HOST: &str = "scale-lnd-host";
/// The tag that holds the host's generation.
pub const TAG_GENERATION: &str = "scale-lnd-generation";

/// For so long after the last request that may have started a machine, not finding it proves nothing.
const UNSEEN_FOR: Duration = Duration::minutes(2);

/// EC2's name of an instance, such as `i-0123456789abcdef0`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct InstanceId(pub String);

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// EC2's name of an EBS volume, such as `vol-0123456789abcdef0`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct VolumeId(pub String);

impl fmt::Display for VolumeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The volume on which a host's lnds have their folders. It outlives its instance, and what is on it is nowhere else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataVolume {
    /// Its name.
    pub id: VolumeId,
    /// Which of its instance's devices it is, such as `/dev/sdf`.
    pub device: String,
}

/// Where a machine may be started: a subnet (which is in one zone) and an instance type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The subnet, such as `subnet-0123456789abcdef0`.
    pub subnet: String,
    /// The type, such as `t4g.small`.
    pub instance_type: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {}", self.instance_type, self.subnet)
    }
}

/// A version of a launch template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Template {
    /// Its id, such as `lt-0123456789abcdef0`.
    pub id: String,
    /// The version, by its number: what `$Latest` is may change between two requests.
    pub version: u64,
}

/// All that a machine is asked for with, frozen before the first request: a repeated request must be the same one, to the
/// byte, or EC2 takes it for another. The join token is not in it; it is derived anew for each request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frozen {
    /// The host.
    pub host: HostId,
    /// Its generation: one for each `Frozen`.
    pub generation: u64,
    /// The launch template.
    pub template: Template,
    /// Which of the configured places it is, from 0.
    pub place_number: usize,
    /// The place.
    pub place: Place,
    /// EC2 starts one instance for it, however often it is asked.
    pub client_token: String,
    /// The instance's and its volumes' tags.
    pub tags: BTreeMap<String, String>,
    /// The user data, with a mark where the join token goes.
    pub user_data: String,
    /// A device of the launch template that this machine is to have no disk at: it gets one that is there already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub without_device: Option<String>,
    /// The fingerprint of the authority from whose key the join token is derived. Empty: it was asked for when there was only
    /// one, ever.
    #[serde(default)]
    pub authority: String,
    /// How many machines before it, one after the other, have ended before they had joined.
    #[serde(default)]
    pub ended_before: u32,
    /// Until when the host may join. From then on this is asked for no more.
    #[serde(with = "time::serde::rfc3339")]
    pub join_until: OffsetDateTime,
}

impl Frozen {
    /// The token for a machine of this host, generation and place in this deployment. Zone and type are in it because EC2
    /// knows a token in one zone only, and with one set of parameters.
    #[must_use]
    pub fn client_token(deployment: &str, host: &HostId, generation: u64, place: &Place) -> String {
        let generation = generation.to_string();
        digest_id(&["launch", deployment, host.as_str(), &generation, &place.subnet, &place.instance_type])
    }
}

/// Whether a machine that nobody has seen by `now`, and was last asked for before `since`, was never started.
#[must_use]
pub fn was_never_started(since: OffsetDateTime, now: OffsetDateTime) -> bool {
    now - since > UNSEEN_FOR
}

/// How a machine is, by EC2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MachineState {
    /// It is being started.
    Pending,
    /// It runs.
    Running,
    /// It is stopped, or about to be; it may be started again, on the same disk.
    Stopped,
    /// It is terminated, or about to be. There is no way back.
    Terminated,
}

/// A volume as EC2 describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Its name.
    pub id: VolumeId,
    /// How it is.
    pub state: VolumeState,
}

/// Where a volume is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VolumeState {
    /// Attached to nothing.
    Free,
    /// An instance has it, or is about to, or about to give it back.
    On {
        /// Which.
        instance: InstanceId,
        /// Whether the instance has it now, and is to keep it.
        is_attached: bool,
    },
    /// Something else, in EC2's words.
    Other(String),
}

/// An EBS volume of an instance that is not the one it boots from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// Which.
    pub volume: DataVolume,
    /// Whether it stays when the instance is terminated.
    pub stays: bool,
}

/// An instance as EC2 describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Its name.
    pub id: InstanceId,
    /// How it is.
    pub state: MachineState,
    /// Whether it is terminated, and not merely about to be.
    pub is_over: bool,
    /// Why it has ended, in EC2's words (`StateReason`). None of one that runs.
    pub ended_because: Option<String>,
    /// Where it was started.
    pub place: Option<Place>,
    /// Its volumes but for the one it boots from. None of one that is terminated.
    pub disks: Vec<Disk>,
    /// Its private address.
    pub address: Option<IpAddr>,
    /// The host that it was started for, by its tags.
    pub host: Option<HostId>,
    /// The generation, by its tags.
    pub generation: Option<u64>,
    /// With which token it was asked for.
    pub client_token: Option<String>,
}

impl Instance {
    /// The disk with the lnds' folders, as `deploy/host/boot.sh` finds it: the only one that it does not boot from. Where
    /// there are more, it is the only one that stays.
    #[must_use]
    pub fn data_disk(&self) -> Option<&Disk> {
        match self.disks.as_slice() {
            [only] => Some(only),
            several => {
                let mut staying = several.iter().filter(|disk| disk.stays);
                staying.next().filter(|_| staying.next().is_none())
            }
        }
    }

    /// The volume of [`Self::data_disk`].
    #[must_use]
    pub fn data_volume(&self) -> Option<DataVolume> {
        self.data_disk().map(|disk| disk.volume.clone())
    }

    /// Whether it was asked for by this deployment, for the host and generation that its tags name: only then is its
    /// ClientToken the one that was asked with. Tags can be copied by hand ("launch more like this"); that is no proof.
    #[must_use]
    pub fn is_ours_by_token(&self, deployment: &str) -> bool {
        match (&self.host, self.generation, &self.place, &self.client_token) {
            (Some(host), Some(generation), Some(place), Some(token)) => {
                Frozen::client_token(deployment, host, generation, place) == *token
            }
            _ => false,
        }
    }
}

/// The machine that is a host now, as it was last seen. Id = the host's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The host.
    pub host: HostId,
    /// The generation it is.
    pub generation: u64,
    /// EC2's name for it.
    pub instance: InstanceId,
    /// Where it was started.
    pub place: Place,
    /// How it is.
    pub state: MachineState,
    /// Its private address.
    pub address: Option<IpAddr>,
    /// The volume with its lnds' folders, once it was seen. It is the host's from then on, whatever instance has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_volume: Option<DataVolume>,
    /// Why it has ended, in EC2's words, once it has and where EC2 says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_because: Option<String>,
    /// When EC2 said that it was started.
    #[serde(with = "time::serde::rfc3339")]
    pub launched_at: OffsetDateTime,
}

/// What has ended, and why, where EC2 says so.
#[must_use]
pub fn ended(what: &str, because: Option<&str>) -> String {
    match because {
        Some(because) => format!("{what} ({because})"),
        None => what.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(name: &str, stays: bool) -> Disk {
        Disk { volume: DataVolume { id: VolumeId(format!("vol-{name}")), device: format!("/dev/{name}") }, stays }
    }

    fn instance(disks: Vec<Disk>) -> Instance {
        Instance {
            id: InstanceId("i-1".to_owned()),
            state: MachineState::Running,
            is_over: false,
            ended_because: None,
            place: Some(Place { subnet: "subnet-1".to_owned(), instance_type: "t4g.small".to_owned() }),
            disks,
            address: None,
            host: HostId::parse(&format!("h{:024}", 7)),
            generation: Some(1),
            client_token: None,
        }
    }

    #[test]
    fn the_data_volume_is_the_one_it_does_not_boot_from() {
        let of = |disks: &[(&str, bool)]| {
            let disks = disks.iter().map(|(name, stays)| disk(name, *stays)).collect();
            instance(disks).data_volume().map(|volume| volume.device)
        };
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[("sdf", true)]).as_deref(), Some("/dev/sdf"));
        assert_eq!(of(&[("sdf", false)]).as_deref(), Some("/dev/sdf"), "though the template is wrong");
        assert_eq!(of(&[("sdb", false), ("sdf", true)]).as_deref(), Some("/dev/sdf"));
        assert_eq!(of(&[("sdf", true), ("sdg", true)]), None);
        assert_eq!(of(&[("sdf", false), ("sdg", false)]), None);
    }

    #[test]
    fn a_machine_with_copied_tags_is_not_taken_for_ours() {
        let asked_for = |generation: u64| {
            let mut ours = instance(Vec::new());
            let (host, place) = (ours.host.clone().unwrap(), ours.place.clone().unwrap());
            ours.client_token = Some(Frozen::client_token("prod", &host, generation, &place));
            ours
        };
        assert!(asked_for(1).is_ours_by_token("prod"));
        assert!(!asked_for(1).is_ours_by_token("test") && !asked_for(2).is_ours_by_token("prod"));
        assert!(!instance(Vec::new()).is_ours_by_token("prod"));
        let elsewhere = Place { subnet: "subnet-2".to_owned(), instance_type: "t4g.small".to_owned() };
        assert!(!Instance { place: Some(elsewhere), ..asked_for(1) }.is_ours_by_token("prod"));
    }

    #[test]
    fn a_client_token_is_for_one_machine_only() {
        let [host, other] = [(); 2].map(|()| HostId::random(&mut rand::rng()));
        let place = Place { subnet: "subnet-1".to_owned(), instance_type: "t4g.small".to_owned() };
        let elsewhere = Place { subnet: "subnet-2".to_owned(), ..place.clone() };
        let larger = Place { instance_type: "t4g.large".to_owned(), ..place.clone() };
        let token = Frozen::client_token("prod", &host, 1, &place);
        assert_eq!(token, Frozen::client_token("prod", &host, 1, &place));
        assert!(token.len() <= 64, "EC2 takes no more");
        let others = [
            Frozen::client_token("test", &host, 1, &place),
            Frozen::client_token("prod", &other, 1, &place),
            Frozen::client_token("prod", &host, 2, &place),
            Frozen::client_token("prod", &host, 1, &elsewhere),
            Frozen::client_token("prod", &host, 1, &larger),
        ];
        assert!(others.iter().all(|other| *other != token));
    }
}
