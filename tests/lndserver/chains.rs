//! Every network with every chain backend: what a master makes of its configuration is taken by the real lnd, which then
//! dials the backend as it was told. No chain is behind these: a backend of this test's own sees who comes, and how.

use super::world::{Machine, World, until};
use scale_lnd::config::Config;
use scale_lnd::lnd::{LndClient, NewWallet, PinnedCert};
use scale_lnd::lndserver::client::Order;
use scale_lnd::lndserver::proto::{self, NodeSpec};
use scale_lnd::model::Network;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(180);
const ALL: [Network; 5] = [Network::Simnet, Network::Regtest, Network::Testnet4, Network::Signet, Network::Mainnet];
/// The challenge of a signet of one's own.
const CHALLENGE: &str = "5121029a3bc0f1d2e4758694a0b1c2d3e4f5061728394a5b6c7d8e9fa0b1c2d3e4f551ae";

/// An agent with a slot for each of them.
async fn machine(world: &World) -> Machine {
    let (host, token) = world.fleet.invite_host(8).await.unwrap();
    let machine = world.boot(&host, &token).await;
    world.joined(&host).await;
    machine
}

/// What a master tells of every lnd, with this configuration.
fn told(world: &World, network: Network, chain: &str) -> NodeSpec {
    let dir = world.dir.path();
    let write = |name: &str, text: &str| std::fs::write(dir.join(name), text).unwrap();
    write("rpc.cert", &rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap().cert.pem());
    write("rpc-password", "hush");
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(dir.join("rpc-password"), std::fs::Permissions::from_mode(0o600)).unwrap();
    write(
        "master.toml",
        &format!(
            r#"
[deployment]
name = "chains"
network = "{network}"
mainnet_acknowledged = "i understand that this is real money"
[store]
path = "unused.db"
[seal]
key_file = "unused.key"
[http]
tls_cert = "unused.crt"
tls_key = "unused.key"
[limits]
nodes = 1
creates_per_hour = 1
funding_sat_per_day = 1
outgoing_sat_per_day = 1
[chain]
{chain}
"#
        ),
    );
    let config = Config::load(Some(&dir.join("master.toml")), [], &[]).unwrap();
    scale_lnd::master::node_spec(&config).unwrap()
}

/// Starts an lnd as it was told and makes its wallet; gives its folder. Its log and its wallet are then where the agent looks for them, and
/// the backup with them.
async fn start(world: &World, machine: &Machine, slot: u16, told: NodeSpec) -> PathBuf {
    let node = world.place(&machine.host, slot).await;
    let host = world.host(&machine.host).await;
    let network = told.network.clone();
    let spec = NodeSpec { node_id: node.to_string(), slot: slot.into(), ..told };
    let endpoint = world.agents.ensure_node(Order { host: &host, epoch: 1 }, spec).await.unwrap();
    // Its RPC answers only after all of the configuration was read and found to be right.
    world.pid(machine, &node).await;

    let pinned = PinnedCert::from_pem(endpoint.certificate_pem.as_bytes()).unwrap();
    let client = LndClient::new(&SocketAddr::new(endpoint.address, endpoint.rpc_port).to_string(), &pinned).unwrap();
    let mnemonic = client.gen_seed(&[7; 16]).await.unwrap();
    let wallet = NewWallet { password: b"a password", mnemonic: &mnemonic, macaroon_root_key: &[7; 32] };
    // The answer comes, or not, depending on what lnd finds at its backend.
    let _made_or_lost = client.init_wallet(&wallet).await;
    let lnd = machine.data.join("nodes").join(node.as_str()).join("instance/lnd");
    for file in [format!("data/chain/bitcoin/{network}/wallet.db"), format!("logs/bitcoin/{network}/lnd.log")] {
        until(&file, async || lnd.join(&file).is_file().then_some(())).await;
    }
    lnd
}

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn conf(lnd: &std::path::Path) -> String {
    std::fs::read_to_string(lnd.parent().unwrap().join("lnd.conf")).unwrap()
}

#[tokio::test]
async fn btcd_on_every_network() {
    let work = async {
        let world = World::new().await;
        let machine = machine(&world).await;
        for (slot, network) in (0..).zip(ALL) {
            let (btcd, address) = listener().await;
            let chain = format!(
                "rpc_host = \"{address}\"\nrpc_user = \"user\"\nrpc_password_file = \"rpc-password\"\n\
                 rpc_cert_file = \"rpc.cert\""
            );
            let lnd = start(&world, &machine, slot, told(&world, network, &chain)).await;
            let (mut dialled, _) = btcd.accept().await.unwrap();
            assert_eq!(dialled.read_u8().await.unwrap(), 0x16, "it speaks TLS");
            let bootstraps = !conf(&lnd).contains("nobootstrap");
            assert_eq!(bootstraps, !network.is_playground(), "{network}");
        }
    };
    timeout(LIMIT, work).await.unwrap();
}

/// An HTTP request's head, and as much of its body as it says.
async fn request(stream: &mut TcpStream) -> String {
    let mut seen = Vec::new();
    loop {
        let mut part = [0; 4096];
        let read = stream.read(&mut part).await.unwrap();
        seen.extend_from_slice(&part[..read]);
        let text = String::from_utf8_lossy(&seen).to_ascii_lowercase();
        let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse::<usize>().ok());
        let body = text.split_once("\r\n\r\n").map(|(_, body)| body.len());
        if read == 0 || body.is_some() && body >= length {
            return String::from_utf8(seen).unwrap();
        }
    }
}

#[tokio::test]
async fn bitcoind_on_every_network_that_it_knows() {
    let work = async {
        let world = World::new().await;
        let machine = machine(&world).await;
        let zmq = "zmq_block = \"tcp://127.0.0.1:1\"\nzmq_tx = \"tcp://127.0.0.1:2\"\n";
        let own_signet = format!("signet_challenge = \"{CHALLENGE}\"\n");
        let cases = ALL[1..].iter().map(|network| (*network, "")).chain([
            (Network::Regtest, zmq),
            // lnd would refuse a bitcoind of a signet of one's own if it were told the challenge.
            (Network::Signet, own_signet.as_str()),
        ]);
        for (slot, (network, more)) in (0..).zip(cases) {
            let (bitcoind, address) = listener().await;
            let chain = format!(
                "backend = \"bitcoind\"\nrpc_host = \"{address}\"\nrpc_user = \"user\"\n\
                 rpc_password_file = \"rpc-password\"\n{more}"
            );
            let seen = tokio::spawn(async move {
                let (mut stream, _) = bitcoind.accept().await.unwrap();
                let seen = request(&mut stream).await;
                let answer = "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                stream.write_all(answer.as_bytes()).await.unwrap();
                seen
            });
            let lnd = start(&world, &machine, slot, told(&world, network, &chain)).await;
            let seen = seen.await.unwrap();
            // user:hush
            assert!(seen.starts_with("POST / ") && seen.contains("Authorization: Basic dXNlcjpodXNo\r\n"), "{seen}");
            assert!(seen.contains("\"method\":\"getblockhash\""), "{seen}");
            let conf = conf(&lnd);
            assert_eq!(conf.contains("rpcpolling"), more != zmq, "{conf}");
            assert_eq!(conf.contains("nobootstrap"), network.is_playground() || !more.is_empty(), "{conf}");
        }
    };
    timeout(LIMIT, work).await.unwrap();
}

/// Nothing is there.
const PEER: &str = "127.0.0.2";

/// A SOCKS proxy: of who comes through it it sees the first four bytes; names it does not resolve.
async fn proxy() -> (tokio::sync::mpsc::UnboundedReceiver<[u8; 4]>, SocketAddr) {
    let (listener, address) = listener().await;
    let (sender, seen) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let sender = sender.clone();
            tokio::spawn(async move {
                let mut greeting = [0; 2];
                stream.read_exact(&mut greeting).await?;
                let mut methods = vec![0; greeting[1].into()];
                stream.read_exact(&mut methods).await?;
                stream.write_all(&[5, 0]).await?;
                let mut asked = [0; 5];
                stream.read_exact(&mut asked).await?;
                let by_name = asked[3] == 3;
                let mut rest = vec![0; if by_name { usize::from(asked[4]) } else { 3 } + 2];
                stream.read_exact(&mut rest).await?;
                // 1: connect. All else is a look-up of a name; only that of the peer, which is an address, is answered.
                let is_peer = by_name && rest.starts_with(PEER.as_bytes());
                let code = if asked[1] == 1 || is_peer { 0 } else { 4 };
                stream.write_all(&[5, code, 0, 1, 127, 0, 0, 2, 0, 0]).await?;
                let mut magic = [0; 4];
                stream.read_exact(&mut magic).await?;
                let _told_before = sender.send(magic);
                std::io::Result::Ok(())
            });
        }
    });
    (seen, address)
}

/// The first bytes of everything that is said in a signet: of the hash of its challenge.
fn magic_of(challenge: &str) -> [u8; 4] {
    use sha2::{Digest, Sha256};
    let script = hex::decode(challenge).unwrap();
    let block = [&[u8::try_from(script.len()).unwrap()], script.as_slice()].concat();
    Sha256::digest(Sha256::digest(block))[..4].try_into().unwrap()
}

#[tokio::test]
async fn neutrino_on_every_network() {
    let work = async {
        let world = World::new().await;
        let machine = machine(&world).await;
        let own_signet = format!("signet_challenge = \"{CHALLENGE}\"\nsignet_seed_nodes = [\"localhost\"]\n");
        // As bitcoin's nodes have them.
        let cases = [
            (Network::Simnet, "", [0x16, 0x1c, 0x14, 0x12]),
            (Network::Regtest, "", [0xfa, 0xbf, 0xb5, 0xda]),
            (Network::Testnet4, "other_peers = true\n", [0x1c, 0x16, 0x3f, 0x28]),
            (Network::Signet, "", [0x0a, 0x03, 0xcf, 0x40]),
            (Network::Signet, own_signet.as_str(), magic_of(CHALLENGE)),
            (Network::Mainnet, "", [0xf9, 0xbe, 0xb4, 0xd9]),
        ];
        for (slot, (network, more, magic)) in (0..).zip(cases) {
            let (mut seen, address) = proxy().await;
            let chain = format!(
                "backend = \"neutrino\"\npeers = [\"{PEER}:18444\"]\nfee_url = \"http://127.0.0.1:1/\"\n{more}"
            );
            let mut spec = told(&world, network, &chain);
            // neutrino asks for the names of public nodes even where it has peers: through the proxy nothing leaves.
            let through_proxy =
                ["tor.active=true".to_owned(), format!("tor.socks={address}"), format!("tor.dns={address}")];
            spec.extra_args.extend(through_proxy);
            start(&world, &machine, slot, spec).await;
            let said = until("a peer is greeted", async || seen.try_recv().ok()).await;
            assert_eq!(said, magic, "{network} {more}");
        }
    };
    timeout(LIMIT, work).await.unwrap();
}

/// That the tests above can fail.
#[tokio::test]
async fn an_option_that_lnd_does_not_know_keeps_it_from_starting_and_is_named() {
    let work = async {
        let world = World::new().await;
        let machine = machine(&world).await;
        let node = world.place(&machine.host, 0).await;
        let host = world.host(&machine.host).await;
        let mut spec = super::world::spec(&node, 0);
        spec.extra_args.push("protocol.no-such-thing".to_owned());
        let _started_or_not = world.agents.ensure_node(Order { host: &host, epoch: 1 }, spec).await;
        let reason = until("it has failed", async || {
            let status = world.status(&machine).await;
            let found = status.nodes.into_iter().find(|status| status.node_id == node.as_str())?;
            match found.process?.state? {
                proto::process::State::Restarting(restarting) => Some(restarting.reason),
                _ => None,
            }
        });
        let reason = reason.await;
        assert!(reason.contains("no-such-thing"), "{reason}");
    };
    timeout(LIMIT, work).await.unwrap();
}
