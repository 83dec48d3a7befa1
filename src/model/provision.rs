//! What a new machine is made a host of: the programs it loads, and the addresses that its lnds may reach although they are
//! not public. It ends in files that a shell and nft read (`compute/user_data.rs`): what these types let through means nothing
//! else there.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// What a processor understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Arch {
    /// Intel's and AMD's.
    X86_64,
    /// ARM's: Graviton.
    Arm64,
}

impl Arch {
    /// Both.
    pub const ALL: [Self; 2] = [Self::X86_64, Self::Arm64];

    /// EC2's name of it, which is also ours.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Arm64 => "arm64",
        }
    }

    /// What `uname -m` says.
    #[must_use]
    pub fn machine(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Arm64 => "aarch64",
        }
    }

    /// That of an instance type, by EC2's way of naming them: a `g` after the family's number is a Graviton.
    #[must_use]
    pub fn of_instance_type(name: &str) -> Self {
        let family = name.split('.').next().unwrap_or_default();
        let options =
            family.trim_start_matches(|c: char| !c.is_ascii_digit()).trim_start_matches(|c: char| c.is_ascii_digit());
        if family == "a1" || options.contains('g') { Self::Arm64 } else { Self::X86_64 }
    }
}

/// A program that a host needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProgramName {
    /// The agent.
    ScaleLnd,
    /// The lnd.
    Lnd,
}

impl ProgramName {
    /// Both.
    pub const ALL: [Self; 2] = [Self::ScaleLnd, Self::Lnd];

    /// The name of its file.
    #[must_use]
    pub fn file(self) -> &'static str {
        match self {
            Self::ScaleLnd => "scale-lnd",
            Self::Lnd => "lnd",
        }
    }
}

/// Where a program is loaded from: the file itself, or an archive (`.tar.gz`, `.tgz`) that has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// Which.
    pub name: ProgramName,
    /// For which processors.
    pub arch: Arch,
    /// SHA-256 of what is loaded, 64 hexadecimal digits in lower case.
    pub sha256: String,
    /// The URL, https.
    pub url: String,
}

impl FromStr for Program {
    type Err = &'static str;

    /// `lnd:arm64:SHA256:URL`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str =
            "must be NAME:ARCHITECTURE:SHA256:URL, such as \"lnd:arm64:9f86…:https://example.com/lnd.tar.gz\"";
        let mut parts = text.splitn(4, ':');
        let mut part = || parts.next().ok_or(FORM);
        let (name, arch, sha256, url) = (part()?, part()?, part()?, part()?);
        let name = ProgramName::ALL.into_iter().find(|known| known.file() == name);
        let arch = Arch::ALL.into_iter().find(|known| known.name() == arch);
        if sha256.len() != 64 || !sha256.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err("needs a SHA-256 of 64 hexadecimal digits");
        }
        if !is_https(url) {
            return Err(
                "needs a URL that begins with https:// and has nothing but letters, digits and -._~/:?&=%+ in it",
            );
        }
        Ok(Self {
            name: name.ok_or("must begin with scale-lnd: or lnd:")?,
            arch: arch.ok_or("needs x86_64 or arm64 after its name")?,
            sha256: sha256.to_ascii_lowercase(),
            url: url.to_owned(),
        })
    }
}

fn is_https(url: &str) -> bool {
    const LONGEST: usize = 1000;
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"-._~/:?&=%+".contains(&b);
    let host = |rest: &str| rest.starts_with(|c: char| c.is_ascii_alphanumeric());
    url.len() <= LONGEST && url.bytes().all(fits) && url.strip_prefix("https://").is_some_and(host)
}

/// A network of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Net {
    first: IpAddr,
    prefix: u8,
}

impl Net {
    /// The network of one address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        Self { first: address, prefix: if address.is_ipv4() { 32 } else { 128 } }
    }

    /// Whether its addresses are IPv4's.
    #[must_use]
    pub fn is_ipv4(self) -> bool {
        self.first.is_ipv4()
    }

    fn new(first: IpAddr, prefix: u8) -> Option<Self> {
        // A shorter one is a slip of the hand.
        let (least, most) = if first.is_ipv4() { (8, 32) } else { (16, 128) };
        let beyond = match first {
            IpAddr::V4(first) => u128::from(u32::from(first)) & ((1_u128 << (32 - prefix.min(32))) - 1),
            IpAddr::V6(first) => u128::from(first) & u128::MAX.checked_shr(prefix.into()).unwrap_or_default(),
        };
        ((least..=most).contains(&prefix) && beyond == 0).then_some(Self { first, prefix })
    }
}

impl FromStr for Net {
    type Err = &'static str;

    /// `10.0.1.0/24`, or one address.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str = "must be a network, such as 10.0.1.0/24, with nothing after its prefix";
        let Some((first, prefix)) = text.split_once('/') else { return text.parse().map(Self::of).map_err(|_| FORM) };
        let (first, prefix) = (first.parse().map_err(|_| FORM)?, prefix.parse().map_err(|_| FORM)?);
        Self::new(first, prefix).ok_or(FORM)
    }
}

impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::of(self.first) {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}/{}", self.first, self.prefix)
        }
    }
}

/// Addresses and TCP ports that lnds may reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reach {
    /// The addresses.
    pub net: Net,
    /// The ports, the last one included.
    pub ports: (u16, u16),
}

impl FromStr for Reach {
    type Err = &'static str;

    /// `10.0.0.6:8333`, `10.0.1.0/24:9735-9740`, `[fd00::]/64:8333`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str = "must be a network and a port or two, such as 10.0.1.0/24:9735 or 10.0.0.6:28332-28333";
        let (net, ports) = text.rsplit_once(':').ok_or(FORM)?;
        let net = match net.strip_prefix('[').and_then(|net| net.split_once(']')) {
            Some((first, rest)) if first.contains(':') => format!("{first}{rest}"),
            _ if net.contains(':') => return Err(FORM),
            _ => net.to_owned(),
        };
        let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
        let ports: (u16, u16) = (first.parse().map_err(|_| FORM)?, last.parse().map_err(|_| FORM)?);
        if ports.0 == 0 || ports.0 > ports.1 {
            return Err(FORM);
        }
        Ok(Self { net: net.parse().map_err(|_| FORM)?, ports })
    }
}

impl From<SocketAddr> for Reach {
    fn from(address: SocketAddr) -> Self {
        Self { net: Net::of(address.ip()), ports: (address.port(), address.port()) }
    }
}

/// What a machine is made a host of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provision {
    /// The programs, for every kind of processor that is used.
    pub programs: Vec<Program>,
    /// Where masters are, as far as they are given by address: for agents.
    pub masters: BTreeSet<SocketAddr>,
    /// Where the chain backend is, likewise: for lnds.
    pub backends: BTreeSet<SocketAddr>,
    /// What lnds may reach besides.
    pub reach: Vec<Reach>,
    /// Where the hosts are, whose lnds are each other's peers.
    pub fleet: Vec<Net>,
    /// A host's lnds: all their ports are from the first to the last of these.
    pub lnd_ports: (u16, u16),
    /// Those for peers, one for each slot.
    pub peer_ports: Vec<u16>,
    /// What each of its lnds may use.
    pub limits: LndLimits,
}

/// What an lnd may use of its host, where that is not what its unit says by itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LndLimits {
    /// MiB of memory.
    pub memory_mib: Option<u32>,
    /// Of a processor; 200 are two.
    pub cpu_percent: Option<u32>,
}

/// Whether nothing that lnds do may ever go there: link-local addresses, where EC2 answers with what only the machine should
/// know.
#[must_use]
pub fn is_link_local(net: Net) -> bool {
    let overlaps = |first: IpAddr, prefix: u8| match (net.first, first) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            let shift = 32 - u32::from(net.prefix.min(prefix));
            u64::from(u32::from(a)) >> shift == u64::from(u32::from(b)) >> shift
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            let shift = 128 - u32::from(net.prefix.min(prefix));
            u128::from(a).checked_shr(shift) == u128::from(b).checked_shr(shift)
        }
        _ => false,
    };
    overlaps(Ipv4Addr::new(169, 254, 0, 0).into(), 16)
        || overlaps(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0).into(), 10)
        || overlaps(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0).into(), 32)
}

#[cfg(test)]
#[path = "provision_tests.rs"]
mod tests;
