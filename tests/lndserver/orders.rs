//! Which orders an agent obeys.

use super::world::{World, spec, timed};
use scale_lnd::error::AgentError;
use scale_lnd::lndserver::client::Order;
use scale_lnd::lndserver::proto::{BtcdBackend, node_spec};
use scale_lnd::model::NodeId;
use scale_lnd::model::host::Host;
use scale_lnd::model::node::{Process, WalletState};

#[tokio::test]
async fn an_older_order_and_one_for_another_machine_are_refused() {
    timed(async {
        let world = World::new().await;
        let mut machine = world.machine().await;
        let (node, _) = world.node(&machine, 0).await;
        let host = world.host(&machine.host).await;
        world.agents.stop_node(Order { host: &host, epoch: 5 }, &node).await.unwrap();

        world.kill(&mut machine).await;
        world.restart(&mut machine, &[]).await;
        world.status(&machine).await;
        let late = world.agents.ensure_node(Order { host: &host, epoch: 4 }, spec(&node, 0)).await;
        assert!(matches!(late, Err(AgentError::Fenced)), "{late:?}");
        assert!(machine.lnds_of(&node).is_empty());
        for generation in [host.generation - 1, host.generation + 1] {
            let other = Host { generation, ..host.clone() };
            let refused = world.agents.ensure_node(Order { host: &other, epoch: 9 }, spec(&node, 0)).await;
            assert!(matches!(refused, Err(AgentError::Refused(_))), "{refused:?}");
        }
        // A refused order of a higher epoch from elsewhere did not raise the fence; an accepted one does, without a node too.
        world.agents.ensure_node(Order { host: &host, epoch: 5 }, spec(&node, 0)).await.unwrap();
        let unknown = NodeId::random(&mut rand::rng());
        world.agents.stop_node(Order { host: &host, epoch: 7 }, &unknown).await.expect("what does not run is stopped");
        let late = world.agents.ensure_node(Order { host: &host, epoch: 6 }, spec(&unknown, 1)).await;
        assert!(matches!(late, Err(AgentError::Fenced)), "{late:?}");
    })
    .await;
}

#[tokio::test]
async fn a_restart_makes_another_process_of_what_is_meant_to_run() {
    timed(async {
        let world = World::new().await;
        let machine = world.machine().await;
        let (node, endpoint) = world.node(&machine, 0).await;
        let before = world.pid(&machine, &node).await;
        let host = world.host(&machine.host).await;
        let order = Order { host: &host, epoch: 2 };
        assert_eq!(world.agents.restart_node(order, &node).await.unwrap(), endpoint);
        let runtime =
            world.runtime(&node, |runtime| runtime.starts > 1 && runtime.wallet != WalletState::Unknown).await;
        assert_eq!((&runtime.process, runtime.starts), (&Process::Running, 2));
        let after = world.pid(&machine, &node).await;
        assert_ne!(after, before);

        let late = world.agents.restart_node(Order { epoch: 1, ..order }, &node).await;
        assert!(matches!(late, Err(AgentError::Fenced)), "{late:?}");
        assert_eq!(machine.lnds_of(&node), [after], "nothing was done");

        world.agents.stop_node(order, &node).await.unwrap();
        let refused = world.agents.restart_node(order, &node).await;
        assert!(matches!(refused, Err(AgentError::Refused(_))), "{refused:?}");
        assert!(machine.lnds_of(&node).is_empty());
        assert_eq!(world.runtime(&node, |runtime| runtime.process == Process::Stopped).await.starts, 2);
    })
    .await;
}

#[tokio::test]
async fn a_folder_is_set_aside_only_when_nothing_runs_there() {
    timed(async {
        let world = World::new().await;
        let machine = world.machine().await;
        let (node, before) = world.node(&machine, 0).await;
        let host = world.host(&machine.host).await;
        let order = Order { host: &host, epoch: 1 };
        std::fs::write(machine.chain(&node).join("wallet.db"), b"precious").unwrap();

        let refused = world.agents.remove_node(order, &node).await;
        assert!(matches!(refused, Err(AgentError::Refused(_))), "{refused:?}");
        world.agents.stop_node(order, &node).await.unwrap();
        world.agents.remove_node(order, &node).await.unwrap();
        world.agents.remove_node(order, &node).await.expect("twice is once");
        let aside: Vec<_> =
            std::fs::read_dir(machine.data.join("removed")).unwrap().map(|e| e.unwrap().path()).collect();
        let [aside] = aside.as_slice() else { panic!("{aside:?}") };
        let wallet = std::fs::read(aside.join("lnd/data/chain/bitcoin/simnet/wallet.db")).unwrap();
        assert_eq!(wallet, b"precious");

        // The slot is free for somebody else, and the same node begins anew with another key.
        let other = world.place(&machine.host, 0).await;
        world.agents.ensure_node(order, spec(&other, 0)).await.unwrap();
        let refused = world.agents.ensure_node(order, spec(&node, 0)).await;
        assert!(matches!(refused, Err(AgentError::Refused(_))), "the slot is taken: {refused:?}");
        let after = world.agents.ensure_node(order, spec(&node, 1)).await.unwrap();
        assert_ne!(after.certificate_pem, before.certificate_pem);
        assert!(!machine.chain(&node).join("wallet.db").exists());
    })
    .await;
}

#[tokio::test]
async fn a_port_that_is_taken_is_told_and_waited_for() {
    timed(async {
        let world = World::new().await;
        let machine = world.machine().await;
        let taken = std::net::TcpListener::bind((machine.address, 10_100)).unwrap();
        let node = world.place(&machine.host, 0).await;
        let host = world.host(&machine.host).await;
        let order = Order { host: &host, epoch: 1 };
        let failed = world.agents.ensure_node(order, spec(&node, 0)).await.expect_err("cannot start");
        let AgentError::Unknown(why) = failed else { panic!("{failed:?}") };
        assert!(why.to_string().contains("port 10100 cannot be used"), "{why}");
        drop(taken);
        world.agents.ensure_node(order, spec(&node, 0)).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn what_safety_rests_on_cannot_be_configured_away() {
    timed(async {
        let world = World::new().await;
        let machine = world.machine().await;
        let node = world.place(&machine.host, 0).await;
        let host = world.host(&machine.host).await;
        for option in ["no-macaroons", "rpclisten=0.0.0.0:1", "tlscertpath=/tmp/x", "NoMacaroons=true", "x=\n[a]"] {
            let mut spec = spec(&node, 0);
            spec.extra_args.push(option.to_owned());
            let refused = world.agents.ensure_node(Order { host: &host, epoch: 1 }, spec).await;
            assert!(matches!(refused, Err(AgentError::Refused(_))), "{option}: {refused:?}");
        }
        let mut foreign = spec(&node, 0);
        foreign.node_id = "../../etc".to_owned();
        let refused = world.agents.ensure_node(Order { host: &host, epoch: 1 }, foreign).await;
        assert!(matches!(refused, Err(AgentError::Refused(_))), "{refused:?}");
    })
    .await;
}

/// The password of the chain backend and the join token are where they must be, and nowhere else.
#[tokio::test]
async fn secrets_are_in_no_log_no_argument_and_no_environment_of_an_lnd() {
    timed(async {
        const PASSWORD: &str = "\"correct horse; battery#staple";
        let world = World::new().await;
        let machine = world.machine().await;
        let node = world.place(&machine.host, 0).await;
        let host = world.host(&machine.host).await;
        let mut spec = spec(&node, 0);
        spec.backend = Some(node_spec::Backend::Btcd(BtcdBackend {
            rpc_host: "127.0.0.1:1".to_owned(),
            rpc_user: "user".to_owned(),
            rpc_password: PASSWORD.to_owned(),
            certificate_pem: String::new(),
        }));
        assert!(!format!("{spec:?}").contains("battery"));
        world.agents.ensure_node(Order { host: &host, epoch: 1 }, spec).await.unwrap();
        let pid = world.pid(&machine, &node).await;
        let conf =
            std::fs::read_to_string(machine.data.join("nodes").join(node.as_str()).join("instance/lnd.conf")).unwrap();
        assert!(conf.contains("battery"), "{conf}");
        let seen = ["cmdline", "environ"].map(|file| std::fs::read(format!("/proc/{pid}/{file}")).unwrap());
        for text in seen.iter().map(|bytes| String::from_utf8_lossy(bytes)) {
            assert!(!text.contains("battery") && !text.contains("SCALE_LND"), "{text}");
        }
        let log = machine.log();
        assert!(log.contains("order") && !log.contains("battery"), "{log}");
        let token = std::fs::read(format!("/proc/{}/environ", machine.process.pid)).unwrap();
        let token = String::from_utf8_lossy(&token);
        let token = token.split('\0').find_map(|pair| pair.strip_prefix("SCALE_LND_AGENT_JOIN_TOKEN=")).unwrap();
        assert!(!log.contains(token.split_once('.').unwrap().1), "{log}");
    })
    .await;
}
