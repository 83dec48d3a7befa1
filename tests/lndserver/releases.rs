//! Releases on a host: what is signed, for it, and as it says, is installed and can be run; nothing else ever is.

use super::world::{Machine, World, spec, timed, until};
use crate::harness::Files;
use flate2::Compression;
use flate2::write::GzEncoder;
use scale_lnd::error::AgentError;
use scale_lnd::lndserver::client::Order;
use scale_lnd::lndserver::proto::NodeSpec;
use scale_lnd::model::NodeId;
use scale_lnd::model::release::Sha256 as Digest;
use scale_lnd::release::signing::{self, NewKey, Protection};
use std::path::PathBuf;

/// A manifest of this serial, with the file as the lnd for this machine.
pub fn manifest(files: &Files, serial: u64, version: &str, name: &str, digest: &Digest) -> String {
    let machine = if std::env::consts::ARCH == "x86_64" { "x86_64" } else { "arm64" };
    format!(
        "format = 1\ndeployment = \"test\"\nnetwork = \"simnet\"\nserial = {serial}\nexpires_at = 2099-01-01T00:00:00Z\n\
         [lnd]\nversion = \"{version}\"\nupdate_from = [\"0.1.0\"]\n\
         [lnd.artifacts.{machine}]\nurl = \"{}\"\nsha256 = \"{digest}\"\n",
        files.url(name)
    )
}

pub fn signed(manifest: &str, key: &NewKey) -> String {
    signing::sign(manifest.as_bytes(), &key.secret, &Protection::None, "test").unwrap().0
}

async fn install(world: &World, machine: &Machine, manifest: &str, key: &NewKey) -> Result<Option<Digest>, AgentError> {
    let host = world.host(&machine.host).await;
    world.agents.install_release(&host, manifest, &signed(manifest, key)).await
}

fn own_lnd() -> PathBuf {
    PathBuf::from(std::env::var("SCALE_LND_NODE_BIN").unwrap()).join("lnd")
}

fn archive(files: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for (path, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        builder.append_data(&mut header, path, text.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap().finish().unwrap()
}

/// What the host could run.
fn installed(machine: &Machine) -> Vec<String> {
    let folder = std::fs::read_dir(machine.data.join("releases")).unwrap();
    let names = folder.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name.starts_with("lnd-") && !name.ends_with(".json")).collect();
    names.sort();
    names
}

fn program(pid: u32) -> PathBuf {
    std::fs::read_link(format!("/proc/{pid}/exe")).unwrap()
}

fn with_lnd(node: &NodeId, lnd: Option<&Digest>) -> NodeSpec {
    NodeSpec { lnd_sha256: lnd.map(ToString::to_string).unwrap_or_default(), ..spec(node, 0) }
}

#[tokio::test]
async fn a_node_runs_the_lnd_of_a_release_from_its_next_start_on() {
    timed(async {
        let (world, files) = (World::new().await, Files::start().await);
        let mut machine = world.machine().await;
        let lnd = files.put("lnd", std::fs::read(own_lnd()).unwrap());
        let manifest = manifest(&files, 7, "0.21.2-beta", "lnd", &lnd);
        let (node, _) = world.node(&machine, 0).await;
        let before = world.pid(&machine, &node).await;

        let host = world.host(&machine.host).await;
        let order = Order { host: &host, epoch: 1 };
        let ensure = async |lnd: Option<&Digest>| world.agents.ensure_node(order, with_lnd(&node, lnd)).await;
        assert!(matches!(ensure(Some(&lnd)).await, Err(AgentError::Refused(why)) if why.contains("is installed here")));
        for _ in 0..2 {
            assert_eq!(install(&world, &machine, &manifest, &world.release_key).await.unwrap().as_ref(), Some(&lnd));
        }
        assert_eq!((files.loaded("lnd"), installed(&machine)), (1, vec![format!("lnd-{lnd}")]));

        ensure(Some(&lnd)).await.unwrap();
        assert_eq!(world.pid(&machine, &node).await, before, "what runs goes on");
        world.agents.stop_node(order, &node).await.unwrap();
        ensure(Some(&lnd)).await.unwrap();
        let after = world.pid(&machine, &node).await;
        assert_eq!(program(after), machine.data.join("releases").join(format!("lnd-{lnd}")));

        // The next agent finds it, and starts it again as it was told.
        world.kill(&mut machine).await;
        world.restart(&mut machine, &[]).await;
        assert_eq!(world.pid(&machine, &node).await, after);
        world.agents.restart_node(order, &node).await.unwrap();
        let again = until("another start", async || Some(world.pid(&machine, &node).await).filter(|pid| *pid != after));
        assert_eq!(program(again.await), machine.data.join("releases").join(format!("lnd-{lnd}")));

        world.agents.stop_node(order, &node).await.unwrap();
        ensure(None).await.unwrap();
        assert_eq!(program(world.pid(&machine, &node).await), own_lnd(), "and back");
    })
    .await;
}

#[tokio::test]
async fn what_is_not_to_be_believed_is_not_installed() {
    timed(async {
        let (world, files) = (World::new().await, Files::start().await);
        let machine = world.machine().await;
        let script = "#!/bin/sh\necho lnd version 0.21.2-beta commit=v0.21.2-beta\n";
        let good = files.put("lnd.tar.gz", archive(&[("lnd-linux/lnd", script), ("lnd-linux/lncli", "x")]));
        let none = files.put("none.tar.gz", archive(&[("lnd-linux/lncli", "x")]));
        let other = files.put("other", b"#!/bin/sh\necho lnd version 0.21.3-beta commit=\n".to_vec());
        let dead = files.put("dead", b"no program".to_vec());
        let named = |name: &str, digest: &Digest| manifest(&files, 7, "0.21.2-beta", name, digest);
        let whole = named("lnd.tar.gz", &good);
        let refused: [(String, &str); 6] = [
            (whole.replace("\"test\"", "\"other\""), "for the deployment \"other\""),
            (named("other", &good), "its SHA-256 is"),
            (named("other", &other), "says that it is 0.21.3-beta"),
            (named("none.tar.gz", &none), "has 0 files named lnd"),
            (whole.replace("[lnd]", "[lnd]\ncommit = \"v0.21.2-beta-1\""), "commit=v0.21.2-beta-1"),
            (whole.replace("serial", "cereal"), "line 4, column 1"),
        ];
        for (manifest, why) in &refused {
            let answer = install(&world, &machine, manifest, &world.release_key).await;
            assert!(matches!(&answer, Err(AgentError::Refused(said)) if said.contains(why)), "{why}: {answer:?}");
            assert_eq!(installed(&machine), Vec::<String>::new(), "{why}");
        }
        // A host that is not asked again would never have it: these may pass.
        for manifest in [named("gone", &good), named("dead", &dead)] {
            let answer = install(&world, &machine, &manifest, &world.release_key).await;
            assert!(matches!(answer, Err(AgentError::Unknown(_) | AgentError::Unreachable(_))), "{answer:?}");
            assert_eq!(installed(&machine), Vec::<String>::new());
        }
        let stranger = signing::generate(&Protection::None).unwrap();
        let answer = install(&world, &machine, &whole, &stranger).await;
        assert!(matches!(&answer, Err(AgentError::Refused(_))), "{answer:?}");
        assert_eq!((files.loaded("lnd.tar.gz"), installed(&machine).len()), (1, 0), "only for its other commit");

        assert_eq!(install(&world, &machine, &whole, &world.release_key).await.unwrap(), Some(good.clone()));
        assert_eq!(installed(&machine), [format!("lnd-{good}")]);
        // From now on nothing older, and what is of another network stays where it is.
        let older = whole.replace("serial = 7", "serial = 6");
        let answer = install(&world, &machine, &older, &world.release_key).await;
        assert!(matches!(&answer, Err(AgentError::Refused(said)) if said.contains("none below 7")), "{answer:?}");
        let node = world.place(&machine.host, 0).await;
        let host = world.host(&machine.host).await;
        let mainnet = NodeSpec { network: "mainnet".to_owned(), ..with_lnd(&node, Some(&good)) };
        let answer = world.agents.ensure_node(Order { host: &host, epoch: 1 }, mainnet).await;
        assert!(matches!(&answer, Err(AgentError::Refused(said)) if said.contains("for simnet")), "{answer:?}");
    })
    .await;
}

#[tokio::test]
async fn an_agent_that_is_killed_while_it_installs_does_it_again() {
    timed(async {
        let (world, files) = (World::new().await, Files::start().await);
        let mut machine = world.machine().await;
        let script = b"#!/bin/sh\necho lnd version 0.21.2-beta commit=\n";
        let lnd = files.put("lnd", script.to_vec());
        let manifest = manifest(&files, 7, "0.21.2-beta", "lnd", &lnd);
        for (point, left) in [("lndserver.install.loaded", 0), ("lndserver.install.kept", 1)] {
            world.kill(&mut machine).await;
            world.restart(&mut machine, &[("SCALE_LND_FAULT", &format!("{point}=kill"))]).await;
            world.status(&machine).await;
            install(&world, &machine, &manifest, &world.release_key).await.expect_err("the agent dies of it");
            machine.process.exited().await;
            assert_eq!(installed(&machine).len(), left, "{point}");
            world.restart(&mut machine, &[]).await;
            world.status(&machine).await;
            assert_eq!(install(&world, &machine, &manifest, &world.release_key).await.unwrap(), Some(lnd.clone()));
            std::fs::remove_file(machine.data.join("releases").join(format!("lnd-{lnd}"))).unwrap();
        }
        assert_eq!(files.loaded("lnd"), 3, "what is there is not loaded again");
    })
    .await;
}
