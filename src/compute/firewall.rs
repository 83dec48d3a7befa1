//! The rules of nft on a host: where its agent and its lnds, each a user of its own, may connect to. They have no business with
//! the machine's own services, with what EC2 tells the machine on link-local addresses, or with the private network, but for
//! the agent's masters and lnds, and for the lnds' chain backend and the fleet's peers.
//!
//! What is made here is of numbers and addresses only, so it cannot mean anything else.

use crate::lndserver::config::SLOT_IDS;
use crate::model::provision::{Net, Provision, Reach};
use std::fmt::Write;

/// Where they are on the machine.
pub const PATH: &str = "/etc/scale-lnd/firewall.nft";

/// `nodes_per_host` is no more than this.
const MOST_SLOTS: u32 = 1000;

/// Addresses that are nobody's on the Internet, link-local ones apart: private networks and the machine itself.
const NOT_PUBLIC: &str = "0.0.0.0/8, 10.0.0.0/8, 100.64.0.0/10, 127.0.0.0/8, 172.16.0.0/12, 192.0.0.0/24, 192.168.0.0/16, \
                          198.18.0.0/15, 224.0.0.0/3";
/// IPv6's, with those that hold an IPv4 address.
const NOT_PUBLIC_IPV6: &str = "::/8, 64:ff9b::/32, 2002::/16, fc00::/7, fec0::/10, ff00::/8";

/// The rules, as one transaction: they replace those of an earlier boot. The users are boot.sh's. An `accept` ends all of it,
/// from whichever chain.
#[must_use]
pub fn rules(provision: &Provision) -> String {
    let peers = provision.peer_ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", ");
    let (first, last) = provision.lnd_ports;
    format!(
        "table inet scale_lnd
delete table inet scale_lnd
table inet scale_lnd {{
 set peers {{
  type inet_service
  elements = {{ {peers} }}
 }}
 chain output {{
  type filter hook output priority filter; policy accept;
  meta skuid 8082 jump agent
  meta skuid {slots}-{last_slot} jump lnds
 }}
 chain agent {{
  jump guard
  fib daddr type local ip daddr != 127.0.0.0/8 tcp dport {first}-{last} accept
{masters}{reach}  jump private
 }}
 chain lnds {{
  jump guard
  fib daddr type local ip daddr != 127.0.0.0/8 tcp dport @peers accept
{backends}{reach}{fleet}  jump private
 }}
 chain guard {{
  ct state established,related accept
  meta l4proto {{ tcp, udp }} th dport 53 jump names
  ip daddr 169.254.0.0/16 counter reject with icmpx admin-prohibited
  ip6 daddr fe80::/10 counter reject with icmpx admin-prohibited
  ip6 daddr fd00:ec2::/32 counter reject with icmpx admin-prohibited
 }}
 chain private {{
  ip daddr {{ {NOT_PUBLIC} }} counter reject with icmpx admin-prohibited
  ip6 daddr {{ {NOT_PUBLIC_IPV6} }} counter reject with icmpx admin-prohibited
 }}
 chain names {{
  ip daddr {{ 10.0.0.0/8, 100.64.0.0/10, 127.0.0.53, 169.254.169.253, 172.16.0.0/12, 192.168.0.0/16 }} accept
  ip6 daddr fd00:ec2::253 accept
 }}
}}
",
        slots = SLOT_IDS,
        last_slot = SLOT_IDS + MOST_SLOTS - 1,
        masters = allowed(provision.masters.iter().map(|at| Reach::from(*at))),
        backends = allowed(provision.backends.iter().map(|at| Reach::from(*at))),
        reach = allowed(provision.reach.iter().copied()),
        fleet = fleet(&provision.fleet),
    )
}

fn family(net: Net) -> &'static str {
    if net.is_ipv4() { "ip" } else { "ip6" }
}

fn allowed(all: impl Iterator<Item = Reach>) -> String {
    let mut lines = String::new();
    for Reach { net, ports: (first, last) } in all {
        // A String takes everything.
        let _ = writeln!(lines, "  {} daddr {net} tcp dport {first}-{last} accept", family(net));
    }
    lines
}

fn fleet(nets: &[Net]) -> String {
    let line = |net: &Net| format!("  {} daddr {net} tcp dport @peers accept\n", family(*net));
    nets.iter().map(line).collect()
}
