//! Ports on loopback for programs that are about to be started, so that several local systems can start side by side.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    ops::Range,
    os::fd::OwnedFd,
};

use rand::RngExt;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use super::error::DevError;

/// Ports for single listeners: below those that the system gives to outgoing connections, so that none of these takes
/// one before it is used, and apart from [`SLOT_PORTS`].
const SINGLE_PORTS: Range<u16> = 10_000..15_000;
/// Ports for the lnds of an agent, in blocks of [`SLOT_BLOCK`].
const SLOT_PORTS: Range<u16> = 15_000..20_000;
/// How many lnds an agent may have.
pub const SLOTS: u16 = 100;
/// Three ports for each lnd, and one more that is claimed for all of them.
const SLOT_BLOCK: u16 = 320;
const CLAIM: u16 = SLOT_BLOCK - 1;

/// A port that nobody else chooses as long as this lives.
///
/// It is a socket that is bound and does not listen. Linux lets another socket with SO_REUSEADDR, which every server
/// sets, bind the same port and listen on it; whoever looks for a free port without SO_REUSEADDR finds it taken.
#[derive(Debug)]
pub struct PortClaim {
    pub port: u16,
    _socket: OwnedFd,
}

impl PortClaim {
    /// Claims a port that nobody has claimed or listens on.
    fn of(port: u16) -> Option<Self> {
        Self::bind(port, false)
    }

    /// Claims a port that nobody listens on. Connections of an earlier listener may still be fading out.
    fn again(port: u16) -> Option<Self> {
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map(drop).ok()?;
        Self::bind(port, true)
    }

    fn bind(port: u16, shared: bool) -> Option<Self> {
        let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None);
        let socket = socket.ok()?;
        sockopt::set_socket_reuseaddr(&socket, shared).ok()?;
        rustix::net::bind(&socket, &SocketAddr::from((Ipv4Addr::LOCALHOST, port))).ok()?;
        sockopt::set_socket_reuseaddr(&socket, true).ok()?;
        Some(Self { port, _socket: socket })
    }
}

/// A port on loopback: `wanted` if nobody listens on that, else any that is free.
pub fn claim_port(wanted: Option<u16>) -> Result<PortClaim, DevError> {
    const TRIES: usize = 200;
    let mut rng = rand::rng();
    let again = wanted.and_then(|port| PortClaim::of(port).or_else(|| PortClaim::again(port)));
    let mut random = std::iter::repeat_with(|| rng.random_range(SINGLE_PORTS)).take(TRIES);
    let found = again.or_else(|| random.find_map(PortClaim::of));
    found.ok_or_else(|| DevError::Unusable("no free port on 127.0.0.1".to_owned()))
}

/// A block of ports for the lnds of one agent, no other's on this machine as long as this lives.
#[derive(Debug)]
pub struct SlotPorts {
    /// The first of them.
    pub base: u16,
    _claim: PortClaim,
}

impl SlotPorts {
    /// The block that begins at `wanted`, where nobody has claimed that, else any that nobody uses a port of.
    pub fn claim(wanted: Option<u16>) -> Result<Self, DevError> {
        let blocks = SLOT_PORTS.len() / usize::from(SLOT_BLOCK);
        let first = rand::rng().random_range(0..blocks);
        let nth = |n: usize| SLOT_PORTS.start + u16::try_from(n).unwrap_or(0) * SLOT_BLOCK;
        let others = (0..blocks).map(|n| nth((first + n) % blocks));
        let claim = |base: u16| Some(Self { base, _claim: PortClaim::of(base + CLAIM)? });
        let wanted = wanted.filter(|base| SLOT_PORTS.contains(base)).and_then(claim);
        let all_free = |ports: &Self| (ports.base..ports.base + CLAIM).all(|port| PortClaim::of(port).is_some());
        let found = wanted.or_else(|| others.filter_map(claim).find(all_free));
        found.ok_or_else(|| DevError::Unusable("no free block of ports on 127.0.0.1".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claimed_port_is_for_the_program_it_was_claimed_for() {
        let claim = claim_port(None).unwrap();
        assert!(PortClaim::of(claim.port).is_none());
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, claim.port)).unwrap();
        assert_ne!(claim_port(Some(claim.port)).unwrap().port, claim.port, "it is listened on");
        drop(server);
        assert!(TcpListener::bind((Ipv4Addr::LOCALHOST, claim.port)).is_ok(), "the program is started again");
        let port = claim.port;
        drop(claim);
        assert_eq!(claim_port(Some(port)).unwrap().port, port);
    }

    #[test]
    fn a_block_of_ports_has_one_owner() {
        let first = SlotPorts::claim(None).unwrap();
        let base = first.base;
        assert_ne!(SlotPorts::claim(Some(base)).unwrap().base, base);
        drop(first);
        assert_eq!(SlotPorts::claim(Some(base)).unwrap().base, base);
    }
}
