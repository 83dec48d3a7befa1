//! A host whose instance is gone gets another one, with its data volume: the same wallets and channels go on there.

use super::moto::{data_volume, tag};
use super::{Cloud, Compute, DEADLINE, LIMIT};
use crate::harness::command::Done;
use crate::harness::{self, eventually};
use aws_sdk_ec2::types::Instance;
use scale_lnd::model::work::recover::RecoverStep;
use scale_lnd::model::work::resume::Resume;
use serde_json::{Value, json};
use std::time::Duration;

/// What masters call to launch and to recover; each must be allowed by their role (`templates.rs`).
pub const ACTIONS: [&str; 4] = ["RunInstances", "DescribeInstances", "DescribeVolumes", "AttachVolume"];

impl Cloud {
    /// The only instance of a user's host that is not terminated.
    async fn instance_of(&self, uuid: &str) -> Instance {
        let mut living = self.account.tagged("Name", &format!("lnd-{uuid}")).await;
        assert_eq!(living.len(), 1, "one instance for {uuid}: {living:#?}");
        living.remove(0)
    }

    /// Asks for the recovery of the host that this instance is, or was.
    pub(super) async fn recover(&self, instance: &Instance, more: &[&str]) -> Done {
        let host = tag(instance, "scale-lnd-host");
        self.d.try_config_cli(&[&["host", "recover", &host], more].concat()).await
    }

    /// The same, as soon as the masters have seen what became of the instance. Returns the operation.
    pub(super) async fn recovery(&self, instance: &Instance) -> String {
        let begun = eventually("the recovery is accepted", LIMIT, || async {
            let done = self.recover(instance, &[]).await;
            (done.code == Some(0)).then_some(done.out)
        });
        operation(&begun.await)
    }

    pub(super) async fn operation(&self, id: &str) -> Value {
        serde_json::from_str(&self.d.config_cli(&["operation", "show", id]).await).unwrap()
    }

    async fn succeeds(&self, operation: &str) {
        eventually("the recovery succeeds", LIMIT, || async {
            let shown = self.operation(operation).await;
            assert!(["running", "succeeded"].contains(&shown["state"]["state"].as_str().unwrap()), "{shown:#}");
            (shown["state"]["state"] == "succeeded").then_some(())
        })
        .await;
    }

    async fn pubkey(&self, uuid: &str) -> Value {
        let info = self.d.api().get("getinfo", &[("uuid", uuid)]).await.ok();
        info["identity_pubkey"].clone()
    }

    async fn pays(&self, payer: &str, payee: &str, amount: u64, open: &str) {
        let payreq = self.d.api().invoice(payee, amount).await;
        let body = json!({ "uuid": payer, "payreq": payreq, "open": open, "wait": 50 });
        let paid = self.d.api().post("pay", body).await;
        self.d.api().finished(paid).await.ok();
    }

    /// The user's host is another instance now, the only one, with the volume that the old one had.
    async fn is_replaced(&self, uuid: &str, old: &Instance) {
        let new = self.instance_of(uuid).await;
        assert_ne!(new.instance_id(), old.instance_id());
        assert_eq!(tag(&new, "scale-lnd-host"), tag(old, "scale-lnd-host"));
        assert_eq!(tag(&new, "scale-lnd-generation"), "2");
        assert_eq!(new.subnet_id(), old.subnet_id(), "in the volume's zone");
        assert_eq!(data_volume(&new), data_volume(old));
        let volumes = self.account.volumes("scale-lnd-host", &tag(old, "scale-lnd-host")).await;
        assert_eq!(volumes, [data_volume(old).unwrap()], "it has got none of its own");
    }
}

/// The operation that the verb has named.
fn operation(printed: &str) -> String {
    printed.split(' ').nth(1).unwrap().to_owned()
}

#[test]
fn a_host_whose_instance_is_gone_goes_on_with_its_channels() {
    harness::run(DEADLINE, async {
        let cloud = Cloud::start(Compute { initial_funding_sat: 1_000_000, ..Compute::default() }).await;
        let (alice, bob) = (cloud.create_later("alice"), cloud.create_later("bob"));
        alice.await.unwrap();
        bob.await.unwrap();
        cloud.d.api().confirmed("alice", 1_000_000).await;
        cloud.pays("alice", "bob", 60_000, "auto").await;
        let (pubkey, old) = (cloud.pubkey("alice").await, cloud.instance_of("alice").await);

        let refused = cloud.recover(&old, &[]).await;
        assert_eq!(refused.code, Some(1), "{}", refused.out);
        assert!(refused.err.contains(old.instance_id().unwrap()) && refused.err.contains("running"), "{}", refused.err);
        assert_eq!(cloud.account.living().await.len(), 2, "nothing has happened");

        cloud.account.terminate(old.instance_id().unwrap()).await;
        let operation = cloud.recovery(&old).await;
        // Asked twice, it is the same.
        let again = cloud.recover(&old, &[]).await;
        assert!(again.out.contains(&operation) || again.code == Some(1), "{} {}", again.out, again.err);
        cloud.succeeds(&operation).await;
        cloud.works("alice").await;
        cloud.is_replaced("alice", &old).await;
        assert_eq!(cloud.pubkey("alice").await, pubkey, "the same wallet");
        eventually("the channel is active", LIMIT, || async {
            let listed = cloud.d.api().get("listchannels", &[("uuid", "alice")]).await;
            let active = |channel: &Value| channel["active"] == true;
            listed.body["channels"].as_array()?.iter().any(active).then_some(())
        })
        .await;
        cloud.pays("alice", "bob", 5_000, "never").await;
        assert_eq!(cloud.proxy.actions(), ACTIONS.map(str::to_owned).into());
        cloud.stop().await;
    });
}

/// Neither while the old instance is only stopped, which can be started again, nor while its volume is attached elsewhere,
/// where an lnd may run on it.
#[test]
fn nothing_is_started_beside_what_may_still_have_the_wallets() {
    harness::run(DEADLINE, async {
        let cloud = Cloud::start(Compute::default()).await;
        cloud.d.api().create("alice").await;
        cloud.works("alice").await;
        let (pubkey, old) = (cloud.pubkey("alice").await, cloud.instance_of("alice").await);
        let (id, volume) = (old.instance_id().unwrap(), data_volume(&old).unwrap());

        cloud.account.stop(id).await;
        eventually("it is seen that the instance is stopped", LIMIT, || async {
            let refused = cloud.recover(&old, &[]).await;
            assert_eq!(refused.code, Some(1), "{}", refused.out);
            refused.err.contains(&format!("instance {id} is stopped")).then_some(())
        })
        .await;
        assert_eq!(cloud.account.living().await.len(), 1, "nothing has happened");

        cloud.account.terminate(id).await;
        let foreign = cloud.account.run_foreign(&old).await;
        cloud.account.attach(&volume, &foreign, "/dev/sdz").await;
        let operation = cloud.recovery(&old).await;
        let parked = eventually("the recovery parks", LIMIT, || async {
            let shown = cloud.operation(&operation).await;
            (shown["state"]["state"] == "parked").then_some(shown)
        })
        .await;
        let says = parked["progress"].as_str().unwrap();
        assert!(says.contains(&foreign) && says.contains(&volume), "{says}");
        let living = cloud.account.living().await;
        assert_eq!(living.iter().map(|i| i.instance_id().unwrap()).collect::<Vec<_>>(), [foreign.as_str()]);

        cloud.account.detach(&volume, &foreign, "/dev/sdz").await;
        cloud.d.config_cli(&["operation", "retry", &operation]).await;
        cloud.succeeds(&operation).await;
        cloud.works("alice").await;
        cloud.is_replaced("alice", &old).await;
        assert_eq!(cloud.pubkey("alice").await, pubkey);
        cloud.stop().await;
    });
}

/// What makes each replacement end is not answered with ever more of them.
#[test]
fn where_each_replacement_ends_the_next_one_waits() {
    harness::run(DEADLINE, async {
        let cloud = Cloud::start(Compute::default()).await;
        cloud.d.api().create("alice").await;
        cloud.works("alice").await;
        let (pubkey, old) = (cloud.pubkey("alice").await, cloud.instance_of("alice").await);
        cloud.machines.wait(true);
        cloud.proxy.set(|faults| faults.ends = true);
        cloud.account.terminate(old.instance_id().unwrap()).await;
        let operation = cloud.recovery(&old).await;
        eventually("the recovery waits", LIMIT, || async {
            let shown = cloud.operation(&operation).await;
            let told = "has ended (Client.InvalidKMSKey.InvalidState: see its key), like the one before it";
            shown["progress"].as_str().unwrap().contains(told).then_some(())
        })
        .await;
        assert_eq!(cloud.proxy.calls("RunInstances"), 3, "the first of all, and two for it");
        cloud.proxy.set(|faults| faults.ends = false);
        cloud.machines.wait(false);
        cloud.succeeds(&operation).await;
        cloud.works("alice").await;
        assert_eq!(cloud.pubkey("alice").await, pubkey);
        assert_eq!(cloud.proxy.calls("RunInstances"), 4);
        cloud.stop().await;
    });
}

#[test]
fn kills_of_the_master_at_each_step_of_a_recovery_end_in_one_instance() {
    harness::run(Duration::from_secs(600), async {
        let mut cloud = Cloud::start(Compute::default()).await;
        cloud.d.api().create("alice").await;
        cloud.works("alice").await;
        let (pubkey, old) = (cloud.pubkey("alice").await, cloud.instance_of("alice").await);
        // It runs: the operator has it terminated.
        cloud.d.end_masters().await;
        let begun = cloud.recover(&old, &["--terminate"]).await;
        assert_eq!(begun.code, Some(0), "{}", begun.err);
        let operation = operation(&begun.out);
        let resume = format!("resume.{}", Resume::STEP);
        let points = [
            "recover.confirm.after",
            "recover.end.after",
            "recover.freeze.after",
            "recover.run.after",
            "recover.attach.before",
            "recover.attach.after",
            "recover.await_join.after",
            &format!("{resume}.after"),
            "recover.await_lnds.after",
        ];
        let unstruck = RecoverStep::NAMES.iter().filter(|step| !points.iter().any(|point| point.contains(*step)));
        assert_eq!(unstruck.collect::<Vec<_>>(), [&"find"], "which comes only where no answer does");
        for point in points {
            eprintln!("the master is killed at {point}");
            let doomed = cloud.d.spawn_master(&[("SCALE_LND_FAULT", &format!("{point}=kill"))]).await;
            cloud.d.master_died(doomed).await;
        }
        cloud.d.start_master(&[]).await;
        cloud.succeeds(&operation).await;
        cloud.works("alice").await;
        cloud.is_replaced("alice", &old).await;
        assert_eq!(cloud.account.instances().await.len(), 2, "the old one and the new one");
        assert_eq!(cloud.pubkey("alice").await, pubkey);
        cloud.stop().await;
    });
}
