//! `[compute]`: where the machines for hosts come from. Without it, or with `kind = "manual"`, an operator brings them
//! (`scale-lnd host invite`).

use super::boot::BootSettings;
use super::setting::{Raw, Setting};
use super::source::{Found, Part, Section};
use crate::model::hosting::Rules;
use crate::model::machine::{Place, Template};
use std::time::Duration;

/// `[compute]`.
#[derive(Debug, Clone)]
pub enum ComputeSection {
    /// An operator invites machines.
    Manual,
    /// The deployment starts EC2 instances by itself.
    Ec2(Box<Ec2Section>),
}

/// `[compute]` of the kind ec2.
#[derive(Debug, Clone)]
pub struct Ec2Section {
    /// The region, such as `eu-central-1`.
    pub region: String,
    /// Where EC2's API is, where not at AWS's usual address. None: as AWS's own tools find it.
    pub endpoint_url: Option<String>,
    /// The launch template. It names image, security groups, instance profile and disks; neither a subnet nor a type.
    pub template: Template,
    /// Where to start instances: the first place that has room.
    pub places: Vec<Place>,
    /// How many hosts there are to be.
    pub rules: Rules,
    /// How long after it was decided to start an instance its agent must have joined; else it is replaced.
    pub join_within: Duration,
    /// How often the instances are looked at.
    pub observe_every: Duration,
    /// What makes a bare machine a host. None: the image has all that.
    pub boot: Option<BootSettings>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ComputeKind {
    Manual,
    Ec2,
}

impl Setting for ComputeKind {
    fn parse(raw: Raw) -> Result<Self, String> {
        match String::parse(raw)?.as_str() {
            "manual" => Ok(Self::Manual),
            "ec2" => Ok(Self::Ec2),
            _ => Err("must be manual or ec2".to_owned()),
        }
    }
}

impl Setting for Place {
    fn parse(raw: Raw) -> Result<Self, String> {
        let text = String::parse(raw)?;
        let fits = |part: &str| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'))
        };
        match text.split_once(':') {
            Some((subnet, instance_type)) if subnet.starts_with("subnet-") && fits(subnet) && fits(instance_type) => {
                Ok(Self { subnet: subnet.to_owned(), instance_type: instance_type.to_owned() })
            }
            _ => Err("must be SUBNET:TYPE, such as \"subnet-0123456789abcdef0:t4g.small\"".to_owned()),
        }
    }
}

impl Part for ComputeSection {
    const NAME: &'static str = "compute";

    fn read(s: &mut Section<'_>) -> Option<Self> {
        if s.or("kind", ComputeKind::Manual) == ComputeKind::Manual {
            return Some(Self::Manual);
        }
        let (region, endpoint_url) = (s.required("region"), s.optional("endpoint_url"));
        let (id, version) = (s.required("launch_template"), s.required("launch_template_version"));
        let (places, max_hosts) = (s.required("places"), s.required("max_hosts"));
        let (nodes_per_host, spare_slots) = (s.or("nodes_per_host", 1), s.or("spare_slots", 0));
        let join_within = Duration::from_secs(s.or("join_within_seconds", 900));
        let observe_every = Duration::from_secs(s.or("observe_every_seconds", 30));
        let boot = BootSettings::read(s);
        Some(Self::Ec2(Box::new(Ec2Section {
            region: region?,
            endpoint_url,
            template: Template { id: id?, version: version? },
            places: places?,
            rules: Rules { nodes_per_host, spare_slots, max_hosts: max_hosts? },
            join_within,
            observe_every,
            boot,
        })))
    }

    fn validate(&self, found: &mut Found) {
        let Self::Ec2(ec2) = self else { return };
        let is_region = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if !ec2.region.bytes().all(is_region) {
            found.push(("compute.region", "must be a region, such as eu-central-1".to_owned()));
        }
        if let Some(url) = &ec2.endpoint_url
            && !url.starts_with("https://")
            && !url.starts_with("http://")
        {
            found.push(("compute.endpoint_url", "must begin with https:// or http://".to_owned()));
        }
        if !ec2.template.id.starts_with("lt-") {
            found.push(("compute.launch_template", "must be an id, such as lt-0123456789abcdef0".to_owned()));
        }
        if ec2.template.version == 0 {
            found.push(("compute.launch_template_version", "must be a number from 1".to_owned()));
        }
        if ec2.places.is_empty() {
            found.push(("compute.places", "must name one place or more, as SUBNET:TYPE".to_owned()));
        }
        if !(1..=1000).contains(&ec2.rules.nodes_per_host) {
            found.push(("compute.nodes_per_host", "must be from 1 to 1000".to_owned()));
        }
        if !(5..=3600).contains(&ec2.join_within.as_secs()) {
            found.push(("compute.join_within_seconds", "must be from 5 to 3600".to_owned()));
        }
        if let Some(boot) = &ec2.boot {
            boot.validate(&ec2.places, found);
        }
        if !(1..=3600).contains(&ec2.observe_every.as_secs()) {
            found.push(("compute.observe_every_seconds", "must be from 1 to 3600".to_owned()));
        }
    }
}
