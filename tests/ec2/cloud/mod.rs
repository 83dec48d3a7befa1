//! What stands for EC2: moto's EC2, in front of it a proxy that adds what moto lacks, and a hypervisor that boots the real
//! lndserver from the real user data; and a deployment that makes its own hosts there.

pub mod hypervisor;
pub mod moto;
pub mod proxy;

use crate::harness::{Deployment, Setup, eventually};
use aws_sdk_ec2::types::Instance;
use hypervisor::Hypervisor;
use moto::{Account, Moto};
use proxy::Proxy;
use serde_json::{Value, json};
use std::time::Duration;

/// How long what is waited for may take.
pub const LIMIT: Duration = Duration::from_secs(90);

/// How a test's `[compute]` differs from the usual.
pub struct Compute {
    pub template: Option<&'static str>,
    pub spare_slots: u32,
    pub max_hosts: u32,
    pub nodes_per_host: u32,
    pub join_within_seconds: u64,
    pub credentials: bool,
    pub initial_funding_sat: u64,
    /// What the masters have in their environment beside.
    pub env: Vec<(&'static str, String)>,
    /// Where a Firestore emulator is that keeps the store; `None`: SQLite.
    pub firestore: Option<String>,
    /// More lines for the masters' configuration file.
    pub more: String,
}

impl Default for Compute {
    fn default() -> Self {
        Self {
            template: None,
            spare_slots: 0,
            max_hosts: 20,
            nodes_per_host: 1,
            join_within_seconds: 90,
            credentials: true,
            initial_funding_sat: 0,
            env: Vec::new(),
            firestore: None,
            more: String::new(),
        }
    }
}

/// A deployment without a host of its own, and all that stands for EC2.
pub struct Cloud {
    pub account: Account,
    pub proxy: Proxy,
    pub machines: Hypervisor,
    pub d: Deployment,
}

impl Cloud {
    pub async fn start(compute: Compute) -> Self {
        Self::start_in(Account::new().await, compute).await
    }

    pub async fn start_in(account: Account, compute: Compute) -> Self {
        let machines = Hypervisor::start(crate::harness::world::world().await, &account);
        let proxy = Proxy::start(&Moto::shared().await.url).await;
        let d = deployment(&account, &proxy, &compute).await;
        Self { account, proxy, machines, d }
    }

    pub async fn stop(self) {
        self.d.stop().await;
        self.machines.stop().await;
    }

    /// The operations that start machines, newest first.
    pub async fn launches(&self) -> Vec<Value> {
        let listed = self.d.config_cli(&["operation", "list", "--json"]).await;
        let listed: Vec<Value> = serde_json::from_str(&listed).unwrap();
        let mut launches = Vec::new();
        for id in listed.iter().filter(|operation| operation["id"].is_string()).map(|o| o["id"].as_str().unwrap()) {
            let shown: Value = serde_json::from_str(&self.d.config_cli(&["operation", "show", id]).await).unwrap();
            if shown["work"]["kind"] == "launch" {
                launches.push(shown);
            }
        }
        launches
    }

    /// Waits until the only launch says this.
    pub async fn launch_says(&self, text: &str) {
        eventually(&format!("the launch says {text:?}"), LIMIT, || async {
            let launches = self.launches().await;
            let says = |launch: &Value| launch["progress"].as_str().is_some_and(|progress| progress.contains(text));
            launches.iter().any(says).then_some(())
        })
        .await;
    }

    /// Waits until there is one launch and it is in this state.
    pub async fn launch_is(&self, state: &str) {
        eventually(&format!("the launch is {state}"), LIMIT, || async {
            let launches = self.launches().await;
            (launches.len() == 1 && launches[0]["state"]["state"] == state).then_some(())
        })
        .await;
    }

    /// Creates a user in the background, which takes as long as it takes.
    pub fn create_later(&self, uuid: &str) -> tokio::task::JoinHandle<Value> {
        let (api, uuid) = (self.d.api(), uuid.to_owned());
        tokio::spawn(async move {
            let answer = api.post("create", json!({ "uuid": uuid, "wait": 50 })).await;
            api.finished(answer).await.ok()
        })
    }

    /// The only instance that is not terminated.
    pub async fn only_instance(&self) -> Instance {
        let mut living = self.account.living().await;
        assert_eq!(living.len(), 1, "one instance: {living:#?}");
        living.remove(0)
    }

    /// A user's lnd answers.
    pub async fn works(&self, uuid: &str) {
        let api = self.d.api();
        eventually(&format!("the lnd of {uuid} answers"), LIMIT, || async {
            let answer = api.get("getinfo", &[("uuid", uuid)]).await;
            (answer.status == 200).then_some(())
        })
        .await;
    }
}

pub async fn deployment(account: &Account, proxy: &Proxy, compute: &Compute) -> Deployment {
    let Compute { template, spare_slots, max_hosts, nodes_per_host, join_within_seconds, credentials, .. } = compute;
    let (initial_funding_sat, more_env) = (compute.initial_funding_sat, &compute.env);
    let more = format!(
        r#"
[compute]
kind = "ec2"
region = "{region}"
endpoint_url = "{url}"
launch_template = "{template}"
launch_template_version = 1
places = ["{first}:t3.small", "{second}:t3.medium"]
spare_slots = {spare_slots}
max_hosts = {max_hosts}
nodes_per_host = {nodes_per_host}
join_within_seconds = {join_within_seconds}
observe_every_seconds = 1
fleet_networks = ["127.0.0.0/8"]
programs = [
  "scale-lnd:x86_64:{sha256}:https://downloads.example/scale-lnd",
  "lnd:x86_64:{sha256}:https://downloads.example/lnd.tar.gz",
]
{more}
"#,
        more = compute.more,
        sha256 = "0".repeat(64),
        region = account.region,
        url = proxy.url,
        template = template.unwrap_or(&account.template),
        first = account.subnets[0],
        second = account.subnets[1],
    );
    // Nothing of this machine's own.
    let none = ["AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"].map(|name| (name, "/nonexistent"));
    let given = [("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test")];
    let given = given.into_iter().filter(|_| *credentials);
    let env = none.into_iter().chain([("AWS_EC2_METADATA_DISABLED", "true")]).chain(given);
    let env = env.map(|(name, value)| (name, value.to_owned())).chain(more_env.iter().cloned()).collect();
    let firestore = compute.firestore.clone();
    Deployment::start(Setup { slots: 0, initial_funding_sat, env, more, firestore, ..Setup::default() }).await
}
