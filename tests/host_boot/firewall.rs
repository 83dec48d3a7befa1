//! The rules, by nft and by the kernel: in a network of the test's own, where packets that are let through reach nobody.

use super::{DEADLINE, Files, passes, run, said, tool, user_data_for};
use crate::harness;
use std::path::Path;
use tokio::process::Command;

/// Makes the network, loads the rules for itself (it is the only user of its namespace) and tells for each `ADDRESS PORT` of
/// the arguments whether a connection is refused by them. One that is not either waits for an answer that never comes, or
/// finds nobody on this host.
const NETWORK: &str = r#"
set -euo pipefail
nft=$1 python=$2 rules=$3 user=$4
shift 4
ip link set lo up
ip link add here type veth peer name there
ip link set there up
ip link set here up
ip address add 10.0.1.9/32 dev here
ip route add 192.0.2.1 dev here
ip neighbour add 192.0.2.1 lladdr 02:00:00:00:00:01 dev here
ip route add default via 192.0.2.1 src 10.0.1.9
ip -6 address add 2001:db8:2::9/128 dev here nodad
ip -6 address add fe80::9/64 dev here nodad
ip -6 neighbour add fe80::1 lladdr 02:00:00:00:00:01 dev here
ip -6 route add default via fe80::1 dev here
sed "s/skuid $user /skuid 0 /" "$rules" | "$nft" -f -
NFT=$nft exec "$python" - "$@" <<'PYTHON'
import errno, os, socket, subprocess, sys, time

REFUSED = {errno.EHOSTUNREACH, errno.EACCES, errno.EPERM}

def start(target):
    address, port, _ = target.split()
    scope = ("here",) if address.startswith("fe80") else ()
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    where = socket.getaddrinfo("%".join((address,) + scope), int(port), family, socket.SOCK_STREAM)[0][4]
    opened = socket.socket(family)
    opened.setblocking(False)
    return opened, opened.connect_ex(where)

def state(opened, first):
    if first not in (0, errno.EINPROGRESS):
        return first
    return opened.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)

def is_counted(network):
    command = [os.environ["NFT"], "list", "chain", "inet", "scale_lnd", "guard"]
    rule = next(l for l in subprocess.check_output(command, text=True).splitlines() if f"{network} counter" in l)
    return "counter packets 0 " not in rule

targets = sys.argv[1:]
started = [start(target) for target in targets]
seen = [0] * len(targets)
until = time.monotonic() + 60
# A refusal is certain to come: one that is missing is waited for; those that are let through are looked at last.
while time.monotonic() < until:
    for number, (opened, first) in enumerate(started):
        # The kernel does not tell a socket what it says to a link-local address; the rule counts what it refused.
        if targets[number].startswith("fe80") and is_counted("fe80::/10"):
            seen[number] = errno.EPERM
        seen[number] = seen[number] or state(opened, first)
    missing = [t for t, error in zip(targets, seen) if t.endswith("refused") and error not in REFUSED]
    if not missing:
        break
    time.sleep(0.02)
for target, error in zip(targets, seen):
    print(target.rsplit(" ", 1)[0], "refused" if error in REFUSED else "passes")
PYTHON
"#;

#[test]
fn nft_takes_the_rules() {
    harness::run(DEADLINE, async {
        let nft = tool("nft").await;
        for nodes_per_host in [1, 200] {
            let files = Files::of(&user_data_for(&["t4g.small"], nodes_per_host));
            let arguments = [Path::new("-rn"), &nft, Path::new("-c"), Path::new("-f"), &files.path("firewall.nft")];
            passes("unshare", &arguments).await;
        }
    });
}

#[test]
fn lnds_reach_what_they_need_of_the_private_network_and_nothing_else() {
    harness::run(DEADLINE, async {
        let cases = [
            // The Internet.
            "192.88.99.1 9735 passes",
            "8.8.8.8 443 passes",
            "2001:db8:9::1 9735 passes",
            // Link-local addresses: EC2's own services, but names.
            "169.254.169.254 80 refused",
            "169.254.169.254 53 refused",
            "169.254.169.254 18443 refused",
            "169.254.1.1 9735 refused",
            "169.254.169.253 53 passes",
            "169.254.169.253 80 refused",
            "fe80::2 9735 refused",
            "fd00:ec2::254 80 refused",
            "fd00:ec2::253 53 passes",
            // Names.
            "10.0.0.2 53 passes",
            "127.0.0.53 53 passes",
            "127.0.0.1 53 refused",
            // The chain backend, at its ports, and not the masters.
            "10.0.0.4 8081 refused",
            "10.0.0.6 18443 passes",
            "10.0.0.6 28332 passes",
            "10.0.0.6 28333 passes",
            "10.0.0.6 22 refused",
            // What the operator named.
            "10.0.9.200 9735 passes",
            "10.0.9.200 9736 passes",
            "10.0.9.200 9737 refused",
            // Other hosts: their lnds as peers, not by gRPC, and not their agents.
            "10.0.1.7 10101 passes",
            "10.0.1.7 10104 passes",
            "10.0.1.7 10100 refused",
            "10.0.1.7 10107 refused",
            "10.0.1.7 8082 refused",
            "10.0.2.7 10101 refused",
            // This host: its lnds as peers, by its own address. Whoever is first at a new lnd's gRPC has its wallet.
            "10.0.1.9 10101 passes",
            "10.0.1.9 10104 passes",
            "10.0.1.9 10100 refused",
            "10.0.1.9 10103 refused",
            "10.0.1.9 10105 refused",
            "10.0.1.9 8082 refused",
            "10.0.1.9 22 refused",
            "127.0.0.1 10100 refused",
            "127.0.0.1 22 refused",
            "::1 22 refused",
            // Other private networks, and ways around.
            "10.9.9.9 9735 refused",
            "172.16.0.1 443 refused",
            "192.168.1.1 80 refused",
            "100.64.0.1 80 refused",
            "fd12::1 9735 refused",
            "64:ff9b::a00:6 22 refused",
            "::ffff:10.0.0.6 22 refused",
            "0.0.0.0 22 refused",
        ];
        holds("8100-9099", &cases).await;
    });
}

#[test]
fn the_agent_reaches_masters_and_its_own_lnds_and_no_one_elses() {
    harness::run(DEADLINE, async {
        let cases = [
            "8.8.8.8 443 passes",
            "169.254.169.254 80 refused",
            "fd00:ec2::254 80 refused",
            "10.0.0.2 53 passes",
            "127.0.0.1 53 refused",
            "10.0.0.4 8081 passes",
            "10.0.0.4 8080 refused",
            "2001:db8:1::5 8081 passes",
            "10.0.9.200 9735 passes",
            "10.0.0.6 18443 refused",
            "10.0.1.9 10100 passes",
            "10.0.1.9 10105 passes",
            "10.0.1.9 10106 refused",
            "10.0.1.9 22 refused",
            "10.0.1.7 10100 refused",
            "10.0.1.7 10101 refused",
            "10.0.1.7 8082 refused",
            "127.0.0.1 10100 refused",
            "10.9.9.9 9735 refused",
            "fd12::1 9735 refused",
        ];
        holds("8082", &cases).await;
    });
}

/// The rules of this user, each case an address, a port, and what becomes of a connection.
async fn holds(user: &str, cases: &[&str]) {
    let files = Files::of(&user_data_for(&["t4g.small"], 2));
    let mut command = Command::new("unshare");
    command.args(["-rn", "bash", "-c", NETWORK, "network"]);
    command.args([tool("nft").await, tool("python").await, files.path("firewall.nft")]).arg(user).args(cases);
    let output = run(&mut command).await;
    assert!(output.status.success(), "{}", said(&output));
    let seen = String::from_utf8(output.stdout).unwrap();
    assert_eq!(seen.lines().collect::<Vec<_>>(), cases);
}
