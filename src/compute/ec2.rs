//! Compute by EC2: instances from a launch template.
//!
//! The SDK tries nothing again by itself: what is asked again, and when, is written in the Store (`app/workflows/launch.rs`),
//! and how often all together, here.

mod errors;

use super::user_data;
use super::{Compute, ComputeError, JoinToken};
use crate::model::HostId;
use crate::model::machine::{
    DataVolume, Disk, Frozen, Instance, InstanceId, MachineState, Place, TAG_AUTHORITY, TAG_DEPLOYMENT, TAG_GENERATION,
    TAG_HOST, Volume, VolumeId, VolumeState,
};
use async_trait::async_trait;
use aws_config::BehaviorVersion;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_ec2::Client;
use aws_sdk_ec2::config::Region;
use aws_sdk_ec2::types::{
    BlockDeviceMapping, Filter, Instance as Described, InstanceBlockDeviceMapping, InstanceStateName, InstanceType,
    LaunchTemplateSpecification, ResourceType, Tag, TagSpecification, Volume as DescribedVolume, VolumeAttachmentState,
    VolumeState as DescribedState,
};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use errors::failed;
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use rand::RngExt;
use secrecy::ExposeSecret;
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

const CONNECT_WITHIN: Duration = Duration::from_secs(5);
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// Instances that are described in one answer.
const PAGE: i32 = 500;
/// An account's RunInstances: 5 at once and 2 a second, over all who ask.
const RUNS_PER_SECOND: NonZeroU32 = NonZeroU32::MIN.saturating_add(1);
const RUNS_AT_ONCE: NonZeroU32 = NonZeroU32::MIN.saturating_add(4);
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Where EC2 is, and whose machines these are.
#[derive(Debug, Clone)]
pub struct Ec2Options {
    /// The region, such as `eu-central-1`.
    pub region: String,
    /// Where EC2's API is, where not at AWS's usual address. None: as AWS's own tools find it (`AWS_ENDPOINT_URL_EC2`).
    pub endpoint_url: Option<String>,
    /// The deployment's name.
    pub deployment: String,
    /// The fingerprint of its first authority.
    pub authority: String,
}

/// EC2.
#[derive(Debug)]
pub struct Ec2 {
    client: Client,
    ours: [(&'static str, String); 2],
    runs: DefaultDirectRateLimiter,
    pause: Mutex<Pause>,
}

/// What EC2 has asked us to wait.
#[derive(Debug, Default)]
struct Pause {
    until: Option<Instant>,
    longest: Duration,
}

impl Ec2 {
    /// Finds credentials where AWS's own tools do (environment, files, web identity, container, instance), when they are
    /// needed. Asks nobody yet.
    pub async fn open(options: Ec2Options) -> Self {
        let timeouts =
            TimeoutConfig::builder().connect_timeout(CONNECT_WITHIN).operation_timeout(ANSWER_WITHIN).build();
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .region(Region::new(options.region))
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts);
        if let Some(url) = options.endpoint_url {
            loader = loader.endpoint_url(url);
        }
        Self {
            client: Client::new(&loader.load().await),
            ours: [(TAG_DEPLOYMENT, options.deployment), (TAG_AUTHORITY, options.authority)],
            runs: RateLimiter::direct(Quota::per_second(RUNS_PER_SECOND).allow_burst(RUNS_AT_ONCE)),
            pause: Mutex::default(),
        }
    }

    /// A turn to ask for an instance, or how long until there may be one.
    fn turn(&self) -> Result<(), ComputeError> {
        let until = self.pause.lock().unwrap_or_else(PoisonError::into_inner).until;
        let pause = until.map(|until| until.saturating_duration_since(Instant::now()));
        let wait = match pause.filter(|pause| !pause.is_zero()) {
            Some(pause) => pause,
            None => match self.runs.check() {
                Ok(()) => return Ok(()),
                Err(early) => early.wait_time_from(DefaultClock::default().now()),
            },
        };
        // Those who wait for the same moment come one after the other.
        Err(ComputeError::Throttled { after: wait + wait.mul_f64(rand::rng().random_range(0.0..0.5)) })
    }

    /// Doubles the pause after every answer that asks for one; every other one ends it.
    fn learn<T>(&self, answer: Result<T, ComputeError>) -> Result<T, ComputeError> {
        let mut pause = self.pause.lock().unwrap_or_else(PoisonError::into_inner);
        if !matches!(answer, Err(ComputeError::Throttled { .. })) {
            *pause = Pause::default();
            return answer;
        }
        pause.longest = (pause.longest * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        let after = pause.longest.mul_f64(rand::rng().random_range(0.5..1.0));
        pause.until = Some(Instant::now() + after);
        Err(ComputeError::Throttled { after })
    }

    async fn describe(&self, more: Vec<(&'static str, String)>) -> Result<Vec<Instance>, ComputeError> {
        let filters: Vec<Filter> =
            self.ours.iter().cloned().chain(more).map(|(tag, value)| of_tag(tag, value)).collect();
        let mut all = Vec::new();
        let mut next = None;
        loop {
            let request = self.client.describe_instances().set_filters(Some(filters.clone())).max_results(PAGE);
            let page = request.set_next_token(next).send().await.map_err(|error| failed(&error))?;
            all.extend(page.reservations().iter().flat_map(|reservation| reservation.instances()).filter_map(instance));
            next = page.next_token().filter(|token| !token.is_empty()).map(str::to_owned);
            if next.is_none() {
                return Ok(all);
            }
        }
    }
}

fn of_tag(tag: &str, value: String) -> Filter {
    Filter::builder().name(format!("tag:{tag}")).values(value).build()
}

#[async_trait]
impl Compute for Ec2 {
    async fn run(&self, frozen: &Frozen, join_token: &JoinToken) -> Result<Instance, ComputeError> {
        self.turn()?;
        let user_data = user_data::with_token(&frozen.user_data, join_token.expose_secret());
        if user_data.len() > user_data::MOST_BYTES {
            return Err(ComputeError::Refused(
                "the user data is too long: too many masters in agents.advertise".into(),
            ));
        }
        let template = LaunchTemplateSpecification::builder()
            .launch_template_id(&frozen.template.id)
            .version(frozen.template.version.to_string());
        let tags: Vec<Tag> =
            frozen.tags.iter().map(|(key, value)| Tag::builder().key(key).value(value).build()).collect();
        let tagged = |what: ResourceType| TagSpecification::builder().resource_type(what).set_tags(Some(tags.clone()));
        let request = self
            .client
            .run_instances()
            .launch_template(template.build())
            .subnet_id(&frozen.place.subnet)
            .instance_type(InstanceType::from(frozen.place.instance_type.as_str()))
            .min_count(1)
            .max_count(1)
            .client_token(&frozen.client_token)
            .user_data(BASE64_STANDARD.encode(user_data))
            .tag_specifications(tagged(ResourceType::Instance).build())
            .tag_specifications(tagged(ResourceType::Volume).build());
        let request = match &frozen.without_device {
            Some(device) => {
                let nothing = BlockDeviceMapping::builder().device_name(device).no_device("");
                request.block_device_mappings(nothing.build())
            }
            None => request,
        };
        let answer = self.learn(request.send().await.map_err(|error| failed(&error)))?;
        let started = answer.instances().iter().find_map(instance);
        started.ok_or_else(|| ComputeError::Unknown("an answer without an instance".to_owned()))
    }

    async fn find(&self, host: &HostId, generation: u64) -> Result<Option<Instance>, ComputeError> {
        let tags = vec![(TAG_HOST, host.to_string()), (TAG_GENERATION, generation.to_string())];
        Ok(self.describe(tags).await?.into_iter().next())
    }

    async fn terminate(&self, instance: &InstanceId) -> Result<(), ComputeError> {
        match self.client.terminate_instances().instance_ids(&instance.0).send().await {
            Ok(_) => Ok(()),
            // One that was terminated is forgotten after an hour.
            Err(error) if errors::code(&error) == Some("InvalidInstanceID.NotFound") => Ok(()),
            Err(error) => Err(failed(&error)),
        }
    }

    async fn instance(&self, id: &InstanceId) -> Result<Option<Instance>, ComputeError> {
        match self.client.describe_instances().instance_ids(&id.0).send().await {
            Ok(answer) => {
                let mut all = answer.reservations().iter().flat_map(|reservation| reservation.instances());
                let Some(described) = all.next() else { return Ok(None) };
                let unreadable = || ComputeError::Unknown(format!("instance {id} is in a state that is not known"));
                instance(described).map(Some).ok_or_else(unreadable)
            }
            Err(error) if errors::code(&error) == Some("InvalidInstanceID.NotFound") => Ok(None),
            Err(error) => Err(failed(&error)),
        }
    }

    async fn volume(&self, id: &VolumeId) -> Result<Option<Volume>, ComputeError> {
        match self.client.describe_volumes().volume_ids(&id.0).send().await {
            Ok(answer) => Ok(answer.volumes().first().and_then(|described| volume(id, described))),
            Err(error) if errors::code(&error) == Some("InvalidVolume.NotFound") => Ok(None),
            Err(error) => Err(failed(&error)),
        }
    }

    async fn attach(&self, volume: &DataVolume, instance: &InstanceId) -> Result<(), ComputeError> {
        let request = self.client.attach_volume().volume_id(&volume.id.0).instance_id(&instance.0);
        request.device(&volume.device).send().await.map_err(|error| failed(&error)).map(drop)
    }

    async fn all(&self) -> Result<Vec<Instance>, ComputeError> {
        self.describe(Vec::new()).await
    }
}

/// One that is being deleted is none any more.
fn volume(id: &VolumeId, described: &DescribedVolume) -> Option<Volume> {
    let state = match (described.attachments().first(), described.state()) {
        (_, Some(DescribedState::Deleting | DescribedState::Deleted)) => return None,
        (Some(attachment), _) => match attachment.instance_id() {
            Some(instance) => VolumeState::On {
                instance: InstanceId(instance.to_owned()),
                is_attached: attachment.state() == Some(&VolumeAttachmentState::Attached),
            },
            None => VolumeState::Other("attached to what EC2 does not name".to_owned()),
        },
        (None, Some(DescribedState::Available)) => VolumeState::Free,
        (None, state) => VolumeState::Other(state.map_or("in no state", DescribedState::as_str).to_owned()),
    };
    Some(Volume { id: id.clone(), state })
}

fn disk(described: &InstanceBlockDeviceMapping) -> Option<Disk> {
    let ebs = described.ebs()?;
    let (id, device) = (VolumeId(ebs.volume_id()?.to_owned()), described.device_name()?.to_owned());
    Some(Disk { volume: DataVolume { id, device }, stays: ebs.delete_on_termination() == Some(false) })
}

/// One without an id or a state is none.
fn instance(described: &Described) -> Option<Instance> {
    let tag = |key: &str| described.tags().iter().find(|tag| tag.key() == Some(key))?.value();
    let state = match described.state()?.name()? {
        InstanceStateName::Pending => MachineState::Pending,
        InstanceStateName::Running => MachineState::Running,
        InstanceStateName::Stopped | InstanceStateName::Stopping => MachineState::Stopped,
        InstanceStateName::ShuttingDown | InstanceStateName::Terminated => MachineState::Terminated,
        _ => return None,
    };
    let reason = described.state_reason().filter(|_| state == MachineState::Terminated);
    let place = match (described.subnet_id(), described.instance_type()) {
        (Some(subnet), Some(instance_type)) => {
            Some(Place { subnet: subnet.to_owned(), instance_type: instance_type.as_str().to_owned() })
        }
        _ => None,
    };
    let boots_from = described.root_device_name();
    let disks = described.block_device_mappings().iter().filter(|disk| disk.device_name() != boots_from);
    Some(Instance {
        id: InstanceId(described.instance_id()?.to_owned()),
        state,
        is_over: described.state()?.name()? == &InstanceStateName::Terminated,
        // "Client.InvalidKMSKey.InvalidState: …", for one.
        ended_because: reason
            .and_then(|reason| reason.message().or(reason.code()))
            .filter(|because| !because.is_empty())
            .map(str::to_owned),
        place,
        disks: disks.filter_map(disk).collect(),
        address: described.private_ip_address().and_then(|address| address.parse().ok()),
        host: tag(TAG_HOST).and_then(HostId::parse),
        generation: tag(TAG_GENERATION).and_then(|generation| generation.parse().ok()),
        client_token: described.client_token().filter(|token| !token.is_empty()).map(str::to_owned),
    })
}
