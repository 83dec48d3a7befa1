//! The part of `[compute]` that makes a host of a bare machine: the programs it loads, and what its firewall lets through.

use super::chain::{ChainBackend, ChainSection};
use super::compute::Ec2Section;
use super::serving::AgentsSection;
use super::setting::{Raw, Setting};
use super::source::{Found, Section};
use super::updates::UpdatesSection;
use crate::compute::user_data::{self, Believed, Joining};
use crate::lndserver::conf::Ports;
use crate::lndserver::config::PORT_BASE;
use crate::model::machine::Place;
use crate::model::provision::{Arch, LndLimits, Net, Program, ProgramName, Provision, Reach, is_link_local};
use std::collections::BTreeSet;
use std::net::SocketAddr;

/// What makes a bare machine a host.
#[derive(Debug, Clone)]
pub struct BootSettings {
    /// The programs that it loads.
    pub programs: Vec<Program>,
    /// The networks that the hosts are in.
    pub fleet: Vec<Net>,
    /// What lnds may reach besides masters, the chain backend and each other, although it is not public.
    pub reach: Vec<Reach>,
    /// What each lnd may use.
    pub limits: LndLimits,
}

macro_rules! from_str {
    ($($type:ty),*) => {$(
        impl Setting for $type {
            fn parse(raw: Raw) -> Result<Self, String> {
                String::parse(raw)?.parse().map_err(str::to_owned)
            }
        }
    )*};
}
from_str!(Program, Net, Reach);

impl BootSettings {
    /// Without programs there is nothing else to say.
    pub(super) fn read(s: &mut Section<'_>) -> Option<Self> {
        let given = s.is_given("programs");
        let programs = s.optional("programs");
        for key in ["fleet_networks", "also_reach", "lnd_memory_mib", "lnd_cpu_percent"] {
            if !given && s.is_given(key) {
                s.refuse(key, "is for hosts that are made of bare machines: `programs` is missing".to_owned());
            }
        }
        let fleet = if given { s.required("fleet_networks") } else { s.optional("fleet_networks") };
        let reach = s.or("also_reach", Vec::new());
        let limits = LndLimits { memory_mib: s.optional("lnd_memory_mib"), cpu_percent: s.optional("lnd_cpu_percent") };
        Some(Self { programs: programs?, fleet: fleet?, reach, limits })
    }

    /// What makes no sense together, or with the places.
    pub(super) fn validate(&self, places: &[Place], found: &mut Found) {
        for arch in Arch::ALL {
            let needed = places.iter().find(|place| Arch::of_instance_type(&place.instance_type) == arch);
            for name in ProgramName::ALL {
                let (file, arch_name) = (name.file(), arch.name());
                let count = self.programs.iter().filter(|program| (program.name, program.arch) == (name, arch)).count();
                if let (Some(place), 0) = (needed, count) {
                    let message = format!("has no {file} for {arch_name}, which {} needs", place.instance_type);
                    found.push(("compute.programs", message));
                }
                if count > 1 {
                    found.push(("compute.programs", format!("has more than one {file} for {arch_name}")));
                }
            }
        }
        if self.fleet.is_empty() {
            found.push((
                "compute.fleet_networks",
                "must name the networks of the hosts, such as 10.0.1.0/24".to_owned(),
            ));
        }
        // Making or unlocking a wallet takes 256 MiB, and lnd itself 100.
        if self.limits.memory_mib.is_some_and(|mib| !(512..=1 << 24).contains(&mib)) {
            found.push(("compute.lnd_memory_mib", "must be from 512".to_owned()));
        }
        if self.limits.cpu_percent.is_some_and(|percent| !(10..=100_000).contains(&percent)) {
            found.push(("compute.lnd_cpu_percent", "must be from 10".to_owned()));
        }
        let link_local = "has link-local addresses, which no lnd may reach";
        if self.fleet.iter().any(|net| is_link_local(*net)) {
            found.push(("compute.fleet_networks", link_local.to_owned()));
        }
        if self.reach.iter().any(|reach| is_link_local(reach.net)) {
            found.push(("compute.also_reach", link_local.to_owned()));
        }
    }
}

/// Where the chain backend is, as it is written.
fn backends(chain: &ChainSection) -> Vec<String> {
    let mut all = Vec::new();
    match &chain.backend {
        ChainBackend::Btcd { rpc, .. } => all.push(rpc.host.clone()),
        ChainBackend::Bitcoind { rpc, zmq } => {
            all.push(rpc.host.clone());
            let zmq = zmq.iter().flat_map(|zmq| [&zmq.block, &zmq.tx]);
            all.extend(zmq.map(|address| address.trim_start_matches("tcp://").to_owned()));
        }
        ChainBackend::Neutrino { peers, .. } => all.extend(peers.iter().cloned()),
    }
    all
}

fn by_address(all: &[String]) -> BTreeSet<SocketAddr> {
    all.iter().filter_map(|service| service.parse().ok()).collect()
}

impl Ec2Section {
    /// What new machines are made hosts of.
    #[must_use]
    pub fn provision(&self, agents: &AgentsSection, chain: &ChainSection) -> Option<Provision> {
        let boot = self.boot.as_ref()?;
        let ports = (0..self.rules.nodes_per_host).filter_map(|slot| Ports::of_slot(PORT_BASE, slot));
        Some(Provision {
            programs: boot.programs.clone(),
            masters: by_address(&agents.dialled()),
            backends: by_address(&backends(chain)),
            reach: boot.reach.clone(),
            fleet: boot.fleet.clone(),
            lnd_ports: (PORT_BASE, ports.clone().map(|ports| ports.rest).max().unwrap_or(PORT_BASE)),
            peer_ports: ports.map(|ports| ports.p2p).collect(),
            limits: boot.limits,
        })
    }

    /// What does not go with where masters and the chain backend are.
    pub(super) fn validate_with(
        &self,
        agents: &AgentsSection,
        chain: &ChainSection,
        updates: Option<&UpdatesSection>,
        found: &mut Found,
    ) {
        let Some(provision) = self.provision(agents, chain) else { return };
        // The firewall knows addresses only. Neutrino's peers may be public.
        let must_be_known = !matches!(chain.backend, ChainBackend::Neutrino { .. });
        let by_name = |service: &String| service.parse::<SocketAddr>().is_err();
        let backends = if must_be_known { backends(chain) } else { Vec::new() };
        if let Some(name) =
            agents.dialled().into_iter().chain(backends).find(by_name).filter(|_| provision.reach.is_empty())
        {
            let message = format!("is missing: {name} is a name, and the hosts' firewall must know its network");
            found.push(("compute.also_reach", message));
        }
        let keys = updates.map(|updates| updates.trusted_keys.iter().map(ToString::to_string).collect::<Vec<_>>());
        let (deployment, lowest) = ("12345678901234567890123456789012", i64::MAX.unsigned_abs());
        let releases = keys.as_ref().map(|keys| Believed { keys, deployment, lowest });
        let (masters, ca_fingerprint) = (&agents.dialled(), &"0".repeat(64));
        let template = user_data::template(&Joining { masters, ca_fingerprint, releases }, Some(&provision));
        if !user_data::fits(&template) {
            let message = format!(
                "the hosts' user data would have {} bytes, more than EC2 takes: fewer nodes_per_host, networks, masters \
                 or shorter URLs are needed",
                template.len()
            );
            found.push(("compute.programs", message));
        }
    }
}
