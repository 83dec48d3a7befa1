//! Hosts that are not what they were: one that the operator took out, and one that lies. Creates are where a host could get
//! secrets and money that are not its own.

use super::{files_named, setup, store};
use crate::harness::{self, Answer, Api, Deployment, Pauses, Setup, eventually};
use scale_lnd::app::fleet::Fleet;
use scale_lnd::app::lnds::Lnds;
use scale_lnd::clock::SystemClock;
use scale_lnd::error::Error;
use scale_lnd::lnd::macaroon::Grant;
use scale_lnd::lndserver::client::{Agents, Order};
use scale_lnd::lndserver::proto::agent_server::{Agent, AgentServer};
use scale_lnd::lndserver::proto::{
    EnsureNodeRequest, EnsureNodeResponse, GetStatusRequest, GetStatusResponse, InstallReleaseRequest,
    InstallReleaseResponse, NoChain, NodeEndpoint, NodeSpec, RemoveNodeRequest, RemoveNodeResponse, RestartNodeRequest,
    RestartNodeResponse, SetAuthoritiesRequest, SetAuthoritiesResponse, StopNodeRequest, StopNodeResponse, node_spec,
};
use scale_lnd::model::host::Host;
use scale_lnd::model::node::{Endpoint, Node};
use scale_lnd::model::work::create::{FundingRequest, FundingState};
use scale_lnd::model::{MasterId, NodeId};
use scale_lnd::pki::Credentials;
use scale_lnd::store::repo::{self, Entity};
use scale_lnd::store::sqlite::SqliteStore;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

const DEADLINE: Duration = Duration::from_secs(240);
const A_WHILE: Duration = Duration::from_secs(60);

/// Asks for a node and does not wait for it.
async fn ask_for(api: &Api, uuid: &str) -> Answer {
    let accepted = api.post("create", json!({ "uuid": uuid, "wait": 0 })).await;
    assert_eq!(accepted.status, 202, "{}", accepted.text);
    accepted
}

/// The operation of an answer, once it is so.
async fn once(api: &Api, accepted: &Answer, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let path = format!("operations/{}", accepted.body["id"].as_str().unwrap());
    eventually(what, A_WHILE, || async {
        let operation = api.get(&path, &[]).await.ok();
        is_so(&operation).then_some(operation)
    })
    .await
}

/// Four creates are under way on a host when it is taken out, and its agent comes back with the certificate that was
/// good before. Nobody is given an order, a secret or money there; whoever has no wallet yet gets a node elsewhere.
#[test]
fn a_revoked_host_gets_no_orders_no_secrets_and_no_money() {
    harness::run(DEADLINE, async {
        let mut d = Deployment::start(setup()).await;
        let (funding, sealing, making) =
            ("create.await_funding.before", "create.seal_secrets.before", "create.init_wallet.before");
        let pauses = Pauses::at(&mut d, &[funding, sealing, making]).await;
        let api = d.api();
        let sealed = ask_for(&api, "sealed").await;
        pauses.reached(sealing).await;
        let made = ask_for(&api, "made").await;
        pauses.reached(making).await;
        let funded = ask_for(&api, "funded").await;
        pauses.reached(funding).await;
        d.kill_agent().await;
        let started = ask_for(&api, "started").await;
        once(&api, &started, "it waits for the agent", |op| op["step"] == "start_lnd").await;

        let hosts: Value = serde_json::from_str(&d.config_cli(&["host", "list", "--json"]).await).unwrap();
        d.config_cli(&["host", "revoke", hosts[0]["host"].as_str().unwrap()]).await;
        d.start_agent(&[]).await;
        for point in [funding, sealing, making] {
            pauses.go(point);
        }
        for (accepted, step) in [(&made, "init_wallet"), (&funded, "deposit_address")] {
            let parked = once(&api, accepted, "it is parked", |op| op["state"] == "parked").await;
            assert_eq!(parked["step"], step, "{parked:#}");
        }
        for accepted in [&started, &sealed] {
            once(&api, accepted, "it looks for another host", |op| op["step"] == "place").await;
        }
        d.another_host("-2", 4).await;
        for accepted in [started, sealed] {
            api.finished(accepted).await.ok();
        }

        let wallets = files_named(&d.path("host"), "wallet.db");
        let own = d.node_id("funded").await;
        assert!(wallets.iter().all(|path| path.display().to_string().contains(&own)), "{wallets:?}");
        assert!(!d.path("host/nodes").join(d.node_id("started").await).exists());
        let requests = store::all::<FundingRequest>(&store::open(&d).await).await;
        assert_eq!(requests.len(), 2, "of those on the new host: {requests:?}");
        assert!(requests.iter().all(|request| matches!(request.state, FundingState::Published { .. })));
        d.stop().await;
    });
}

/// What an lnd says of itself is only as good as its host: it is not believed to be one that is known already.
#[test]
fn an_lnd_with_the_identity_of_another_node_is_not_taken_for_it() {
    harness::run(DEADLINE, async {
        let mut d = Deployment::start(Setup { initial_funding_sat: 0, ..setup() }).await;
        d.api().create("alice").await;
        let (told, asked) = ("create.await_active.before", "create.deposit_address.before");
        let pauses = Pauses::at(&mut d, &[told, asked]).await;
        let (api, opened) = (d.api(), store::open(&d).await);
        let bob = ask_for(&api, "bob").await;
        pauses.reached(told).await;
        let carol = ask_for(&api, "carol").await;
        pauses.reached(asked).await;

        let alice = store::node(&opened, "alice").await.id;
        let known = identity(&d, &store::node(&opened, "bob").await).await;
        change::<Node>(&opened, alice.as_str(), |node| node.identity_pubkey = Some(known.clone())).await;
        pauses.go(told);
        let parked = once(&api, &bob, "it is parked", |op| op["state"] == "parked").await;
        assert_eq!(parked["step"], "await_active", "{parked:#}");
        assert_eq!(store::node(&opened, "bob").await.identity_pubkey, None);

        let known = store::node(&opened, "carol").await.identity_pubkey.expect("it has told");
        change::<Node>(&opened, alice.as_str(), |node| node.identity_pubkey = Some(known.clone())).await;
        pauses.go(asked);
        let parked = once(&api, &carol, "it is parked", |op| op["state"] == "parked").await;
        assert_eq!(parked["step"], "deposit_address", "{parked:#}");
        d.stop().await;
    });
}

/// Who the lnd of a node is.
async fn identity(d: &Deployment, node: &Node) -> String {
    let read = store::keys(d).bake(node, Grant::Read, &[]).unwrap();
    let lnd = Lnds::default().client(node).unwrap();
    eventually("lnd tells who it is", A_WHILE, || async { lnd.get_info(&read).await.ok() }).await.identity_pubkey
}

async fn change<T: Entity + Clone>(opened: &SqliteStore, id: &str, change: impl Fn(&mut T) + Send + Sync) {
    let changed = repo::modify::<T, Error>(opened, id, |value| {
        change(value);
        Ok(true)
    });
    changed.await.unwrap().expect("it is there");
}

/// Whoever has taken over a host: its agent's certificate, at its agent's address, and answers of their own.
#[derive(Debug, Clone)]
struct Liar {
    /// What an order to start an lnd is answered with; `None`: it is refused.
    names: Arc<Mutex<Option<NodeEndpoint>>>,
    /// Whether a slot is cleared.
    clears: Arc<Mutex<bool>>,
}

impl Liar {
    /// Takes the place of the deployment's agent.
    async fn takes_over(d: &mut Deployment, host: &Host, fleet: &Fleet) -> Self {
        d.kill_agent().await;
        let read = |name| std::fs::read_to_string(d.path("host/agent").join(name)).unwrap();
        let own = Credentials::from_pem(&read("cert.pem"), &read("key.pem"), &fleet.ca()).unwrap();
        let at = (host.address.unwrap(), host.agent_port.unwrap());
        let listener = tokio::net::TcpListener::bind(at).await.unwrap();
        let incoming = fleet.trust().agent_server(&own).unwrap().incoming(listener);
        let liar = Self { names: Arc::default(), clears: Arc::default() };
        tokio::spawn(Server::builder().add_service(AgentServer::new(liar.clone())).serve_with_incoming(incoming));
        liar
    }
}

#[tonic::async_trait]
impl Agent for Liar {
    async fn ensure_node(&self, _: Request<EnsureNodeRequest>) -> Result<Response<EnsureNodeResponse>, Status> {
        let endpoint = self.names.lock().unwrap().clone();
        let refused = || Status::failed_precondition("slot 0 is taken by somebody");
        Ok(Response::new(EnsureNodeResponse { endpoint: Some(endpoint.ok_or_else(refused)?), status: None }))
    }

    async fn stop_node(&self, _: Request<StopNodeRequest>) -> Result<Response<StopNodeResponse>, Status> {
        Ok(Response::new(StopNodeResponse { status: None }))
    }

    async fn restart_node(&self, _: Request<RestartNodeRequest>) -> Result<Response<RestartNodeResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn remove_node(&self, _: Request<RemoveNodeRequest>) -> Result<Response<RemoveNodeResponse>, Status> {
        let clears = *self.clears.lock().unwrap();
        let done = Response::new(RemoveNodeResponse {});
        clears.then_some(done).ok_or_else(|| Status::failed_precondition("it runs; stop it first"))
    }

    async fn set_authorities(
        &self,
        _: Request<SetAuthoritiesRequest>,
    ) -> Result<Response<SetAuthoritiesResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn install_release(
        &self,
        _: Request<InstallReleaseRequest>,
    ) -> Result<Response<InstallReleaseResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn get_status(&self, _: Request<GetStatusRequest>) -> Result<Response<GetStatusResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}

/// A host, once its agent has told how it is.
async fn joined(opened: &SqliteStore, host: &str) -> Host {
    eventually("the host joins", A_WHILE, || async {
        repo::get::<Host>(opened, host).await.unwrap().map(|host| host.value).filter(|host| host.report.is_some())
    })
    .await
}

/// An lnd without a wallet, in the last slot of another host, which is full with it.
async fn strangers_lnd(fleet: &Fleet, opened: &SqliteStore, host: &str) -> Endpoint {
    let node = NodeId::random(&mut rand::rng());
    change::<Host>(opened, host, |host| host.slots = [(0, node.clone())].into()).await;
    let host = repo::get::<Host>(opened, host).await.unwrap().unwrap().value;
    let spec = NodeSpec {
        node_id: node.to_string(),
        network: "simnet".to_owned(),
        backend: Some(node_spec::Backend::None(NoChain {})),
        ..NodeSpec::default()
    };
    let own = fleet.master_credentials(&MasterId::random(&mut rand::rng())).unwrap();
    let agents = Agents::new(fleet.trust(), own);
    agents.ensure_node(Order { host: &host, epoch: 1 }, spec).await.unwrap()
}

/// A host that was taken over names the lnd of another host as the one of its own node: no wallet is made there. And when
/// it refuses everything, a user is told to come back, and a slot that it does not clear is given to nobody.
#[test]
fn a_host_that_lies_or_refuses_costs_a_slot_at_most() {
    harness::run(DEADLINE, async {
        let mut d = Deployment::start(Setup { initial_funding_sat: 0, slots: 2, ..setup() }).await;
        let opened = Arc::new(store::open(&d).await);
        let host = store::all::<Host>(&*opened).await.remove(0).id;
        let host = joined(&opened, host.as_str()).await;
        let other = d.another_host("-2", 1).await;
        joined(&opened, &other).await;
        let life = time::Duration::days(1);
        let fleet = Fleet::open(opened.clone(), Arc::new(SystemClock), &store::keys(&d), life).await.unwrap();
        let strangers = strangers_lnd(&fleet, &opened, &other).await;
        let (liar, api) = (Liar::takes_over(&mut d, &host, &fleet).await, d.api());
        let taken = async || repo::get::<Host>(&*opened, host.id.as_str()).await.unwrap().unwrap().value.slots.len();

        *liar.names.lock().unwrap() = Some(NodeEndpoint {
            address: strangers.address.to_string(),
            rpc_port: strangers.rpc_port.into(),
            p2p_port: strangers.p2p_port.into(),
            rest_port: 0,
            certificate_pem: strangers.certificate_pem,
        });
        let alice = ask_for(&api, "alice").await;
        let parked = once(&api, &alice, "it has ended", |op| op["state"] != "running").await;
        assert_eq!((&parked["state"], &parked["step"]), (&json!("parked"), &json!("start_lnd")), "{parked:#}");
        assert!(files_named(&d.path("host-2"), "wallet.db").is_empty());
        assert_eq!(taken().await, 1, "until a person has looked");

        *liar.names.lock().unwrap() = None;
        *liar.clears.lock().unwrap() = true;
        let refused = api.post("create", json!({ "uuid": "bob", "wait": 50 })).await;
        assert_eq!(refused.problem(503), "no_capacity");
        assert!(refused.header("retry-after").is_some(), "{:?}", refused.headers);
        assert_eq!(taken().await, 1, "it was cleared and is free");

        *liar.clears.lock().unwrap() = false;
        let bob = ask_for(&api, "bob").await;
        let parked = once(&api, &bob, "it has ended", |op| op["state"] != "running").await;
        assert_eq!((&parked["state"], &parked["step"]), (&json!("parked"), &json!("start_lnd")), "{parked:#}");
        assert_eq!(taken().await, 2, "nobody else is put there");
        let refused = api.post("create", json!({ "uuid": "carol", "wait": 50 })).await;
        assert_eq!(refused.problem(503), "no_capacity");
        d.stop().await;
    });
}
