//! moto's server, one for all tests, beneath a reaper of its own; and in it an account's part for each test: a region of its
//! own, with a network of loopback addresses and a launch template.

use crate::harness::world::{program, tail};
use crate::harness::{RUNTIME, eventually, ports};
use aws_sdk_ec2::Client;
use aws_sdk_ec2::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_ec2::types::{
    Filter, Instance, InstanceAttributeName, InstanceStateName, InstanceType, IpPermission,
    LaunchTemplateBlockDeviceMappingRequest, LaunchTemplateEbsBlockDeviceRequest, LaunchTemplateSpecification,
    RequestLaunchTemplateData, ResourceType, ResponseLaunchTemplateData, Tag, TagSpecification,
};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use scale_lnd::dev::reaper::{Options, Reaper, Spawn, Spawned};
use scale_lnd::model::HostId;
use scale_lnd::model::machine::{Frozen, Place, TAG_DEPLOYMENT, TAG_GENERATION, TAG_HOST};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use tokio::process::Command;
use tokio::sync::OnceCell;

/// Where the launch template has the data volume.
const DATA_DEVICE: &str = "/dev/sdf";
/// Each test has one of its own; those that `in_region` is given are none of these.
const REGIONS: [&str; 30] = [
    "us-east-1",
    "us-east-2",
    "us-west-1",
    "us-west-2",
    "eu-west-1",
    "eu-west-2",
    "eu-west-3",
    "eu-central-1",
    "eu-north-1",
    "ap-northeast-1",
    "ap-northeast-2",
    "ap-south-1",
    "ap-southeast-1",
    "ap-southeast-2",
    "ca-central-1",
    "sa-east-1",
    "ap-east-1",
    "ap-northeast-3",
    "ap-south-2",
    "ap-southeast-3",
    "ap-southeast-4",
    "ca-west-1",
    "eu-central-2",
    "me-central-1",
    "us-gov-west-1",
    "us-gov-east-1",
    "ap-southeast-5",
    "ap-southeast-7",
    "mx-central-1",
    "eu-south-2",
];

/// The server.
#[derive(Debug)]
pub struct Moto {
    pub url: String,
    _reaper: Reaper,
    _dir: TempDir,
}

impl Moto {
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<Moto> = OnceCell::const_new();
        // The reaper's connection must outlive the runtime of the test that asked first.
        SHARED.get_or_init(|| async { RUNTIME.spawn(Self::start()).await.unwrap() }).await
    }

    async fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("scale-lnd-moto-").tempdir().unwrap();
        let options = Options { grace: Duration::ZERO, ..Options::new(&program()) };
        let reaper = Reaper::start(&options, |_| {}).await.unwrap();
        let (port, log) = (ports::free(1), dir.path().join("moto.log"));
        let arguments = ["-m", "moto.server", "-H", "127.0.0.1", "-p"];
        let spawn = Spawn::new("moto", python().await);
        let spawn = arguments.iter().fold(spawn, |spawn, argument| spawn.arg(*argument));
        let process = reaper.spawn(spawn.arg(port.to_string()).log(&log)).await.unwrap();
        let url = format!("http://127.0.0.1:{port}");
        await_answer(&url, &process, &log).await;
        Self { url, _reaper: reaper, _dir: dir }
    }
}

async fn await_answer(url: &str, process: &Spawned, log: &Path) {
    eventually("moto answers", Duration::from_secs(60), || async {
        if let Some(exit) = process.exit() {
            panic!("moto ended ({exit:?}):\n{}", tail(log));
        }
        let answer = reqwest::get(format!("{url}/moto-api/data.json")).await.ok()?;
        answer.status().is_success().then_some(())
    })
    .await;
}

/// A Python with moto, as `make test` has found it, else as its script finds it.
pub async fn python() -> PathBuf {
    if let Some(python) = std::env::var_os("MOTO_PYTHON") {
        return PathBuf::from(python);
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/moto/ensure.sh");
    let found = Command::new(script).stdin(Stdio::null()).kill_on_drop(true).output().await.unwrap();
    assert!(found.status.success(), "{}", String::from_utf8_lossy(&found.stderr));
    PathBuf::from(String::from_utf8(found.stdout).unwrap().trim())
}

/// A test's part of the account.
#[derive(Debug, Clone)]
pub struct Account {
    pub region: String,
    pub template: String,
    /// In two zones.
    pub subnets: [String; 2],
    /// The first three parts of all addresses.
    pub network: String,
    pub image: String,
    ec2: Client,
}

impl Account {
    pub async fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let region = REGIONS.get(number).expect("as many regions as there are tests");
        Self::in_region(region, number).await
    }

    /// One in a region that no other test has, and with a number that none has, at most 254.
    pub async fn in_region(region: &str, number: usize) -> Self {
        let region = region.to_owned();
        let config = aws_sdk_ec2::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(region.clone()))
            .endpoint_url(&Moto::shared().await.url)
            .credentials_provider(Credentials::new("test", "test", None, None, "test"))
            .build();
        let ec2 = Client::from_conf(config);
        // Runs side by side on one machine, and the tests of each, have addresses of their own.
        let network = format!("127.{}.{}", 64 + std::process::id() % 128, 1 + number);
        let vpc = ec2.create_vpc().cidr_block(format!("{network}.0/24")).send().await.unwrap();
        let vpc = vpc.vpc().unwrap().vpc_id().unwrap().to_owned();
        let zones = ec2.describe_availability_zones().send().await.unwrap();
        let mut subnets = Vec::new();
        for (zone, part) in zones.availability_zones().iter().zip(["0/25", "128/25"]) {
            let subnet = ec2.create_subnet().vpc_id(&vpc).cidr_block(format!("{network}.{part}"));
            let subnet = subnet.availability_zone(zone.zone_name().unwrap()).send().await.unwrap();
            subnets.push(subnet.subnet().unwrap().subnet_id().unwrap().to_owned());
        }
        let images = ec2.describe_images().send().await.unwrap();
        let image = images.images()[0].image_id().unwrap().to_owned();
        let stays = LaunchTemplateEbsBlockDeviceRequest::builder().volume_size(1).delete_on_termination(false).build();
        let data_volume =
            LaunchTemplateBlockDeviceMappingRequest::builder().device_name(DATA_DEVICE).ebs(stays).build();
        let data = RequestLaunchTemplateData::builder().image_id(&image).instance_type(InstanceType::T3Micro);
        let data = data.block_device_mappings(data_volume).build();
        let template = ec2.create_launch_template().launch_template_name(&region).launch_template_data(data);
        let template = template.send().await.unwrap();
        let template = template.launch_template().unwrap().launch_template_id().unwrap().to_owned();
        Self { region, template, subnets: subnets.try_into().unwrap(), network, image, ec2 }
    }

    /// Who may come in by a security group.
    pub async fn ingress(&self, group: &str) -> Vec<IpPermission> {
        let described = self.ec2.describe_security_groups().group_ids(group).send().await.unwrap();
        described.security_groups()[0].ip_permissions().to_vec()
    }

    /// What a launch template says.
    pub async fn template_data(&self, id: &str) -> ResponseLaunchTemplateData {
        let versions = self.ec2.describe_launch_template_versions().launch_template_id(id).send().await.unwrap();
        versions.launch_template_versions()[0].launch_template_data().unwrap().clone()
    }

    /// All instances, terminated ones included.
    pub async fn instances(&self) -> Vec<Instance> {
        let described = self.ec2.describe_instances().send().await.unwrap();
        described.reservations().iter().flat_map(|reservation| reservation.instances().to_vec()).collect()
    }

    /// Those that are not terminated.
    pub async fn living(&self) -> Vec<Instance> {
        self.instances().await.into_iter().filter(|instance| !is_terminated(instance)).collect()
    }

    /// Those with this tag that are not terminated.
    pub async fn tagged(&self, tag: &str, value: &str) -> Vec<Instance> {
        let filter = Filter::builder().name(format!("tag:{tag}")).values(value).build();
        let described = self.ec2.describe_instances().filters(filter).send().await.unwrap();
        let all = described.reservations().iter().flat_map(|reservation| reservation.instances().to_vec());
        all.filter(|instance| !is_terminated(instance)).collect()
    }

    pub async fn user_data(&self, id: &str) -> String {
        let request = self.ec2.describe_instance_attribute().instance_id(id);
        let attribute = request.attribute(InstanceAttributeName::UserData).send().await.unwrap();
        let encoded = attribute.user_data().and_then(|data| data.value()).unwrap_or_default();
        String::from_utf8(BASE64_STANDARD.decode(encoded).unwrap()).unwrap()
    }

    /// Starts an instance as the masters of `like` would have for its host in this generation, with or without their token;
    /// or as somebody may who copies it. Returns its id.
    pub async fn run_like(&self, like: &Instance, generation: u64, with_token: bool) -> String {
        let place = Place {
            subnet: like.subnet_id().unwrap().to_owned(),
            instance_type: like.instance_type().unwrap().as_str().to_owned(),
        };
        let host = HostId::parse(&tag(like, TAG_HOST)).unwrap();
        let token = Frozen::client_token(&tag(like, TAG_DEPLOYMENT), &host, generation, &place);
        let tags = like.tags().iter().filter(|tag| tag.key() != Some(TAG_GENERATION)).cloned();
        let generation = Tag::builder().key(TAG_GENERATION).value(generation.to_string()).build();
        let tags = TagSpecification::builder()
            .resource_type(ResourceType::Instance)
            .set_tags(Some(tags.chain([generation]).collect()));
        let template = LaunchTemplateSpecification::builder().launch_template_id(&self.template).version("1").build();
        let request = self.ec2.run_instances().launch_template(template).min_count(1).max_count(1);
        let request = request.subnet_id(&place.subnet).instance_type(like.instance_type().unwrap().clone());
        let request = request.tag_specifications(tags.build()).set_client_token(with_token.then_some(token));
        request.send().await.unwrap().instances()[0].instance_id().unwrap().to_owned()
    }

    /// The volumes with this tag.
    pub async fn volumes(&self, tag: &str, value: &str) -> Vec<String> {
        let filter = Filter::builder().name(format!("tag:{tag}")).values(value).build();
        let described = self.ec2.describe_volumes().filters(filter).send().await.unwrap();
        described.volumes().iter().map(|volume| volume.volume_id().unwrap().to_owned()).collect()
    }

    pub async fn delete_volume(&self, id: &str) {
        self.ec2.delete_volume().volume_id(id).send().await.unwrap();
    }

    /// An instance that has nothing to do with any deployment.
    pub async fn run_foreign(&self, like: &Instance) -> String {
        let request = self.ec2.run_instances().image_id(&self.image).min_count(1).max_count(1);
        let request = request.subnet_id(like.subnet_id().unwrap()).instance_type(like.instance_type().unwrap().clone());
        request.send().await.unwrap().instances()[0].instance_id().unwrap().to_owned()
    }

    pub async fn attach(&self, volume: &str, instance: &str, device: &str) {
        let request = self.ec2.attach_volume().volume_id(volume).instance_id(instance);
        request.device(device).send().await.unwrap();
    }

    pub async fn detach(&self, volume: &str, instance: &str, device: &str) {
        let request = self.ec2.detach_volume().volume_id(volume).instance_id(instance);
        request.device(device).send().await.unwrap();
    }

    pub async fn stop(&self, id: &str) {
        self.ec2.stop_instances().instance_ids(id).send().await.unwrap();
    }

    pub async fn terminate(&self, id: &str) {
        self.ec2.terminate_instances().instance_ids(id).send().await.unwrap();
    }
}

pub fn is_terminated(instance: &Instance) -> bool {
    let state = instance.state().and_then(|state| state.name());
    matches!(state, Some(InstanceStateName::Terminated | InstanceStateName::ShuttingDown))
}

/// The volume with the lnds' folders, where the instance has one now.
pub fn data_volume(instance: &Instance) -> Option<String> {
    let mut disks = instance.block_device_mappings().iter();
    let disk = disks.find(|disk| disk.device_name() == Some(DATA_DEVICE))?;
    Some(disk.ebs()?.volume_id()?.to_owned())
}

/// The value of an instance's tag.
pub fn tag(instance: &Instance, key: &str) -> String {
    let tag = instance.tags().iter().find(|tag| tag.key() == Some(key));
    tag.and_then(|tag| tag.value()).unwrap_or_default().to_owned()
}
