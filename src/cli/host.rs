//! `scale-lnd host`: invite machines into the fleet, look at them, take them out.

use super::admin::{self, Admin, ListArgs, shown};
use super::{ConfigArgs, Failure, Output};
use crate::app::fleet::{Fleet, JoinToken, Recovery};
use crate::clock::SystemClock;
use crate::model::HostId;
use crate::model::host::{Enrolment, Host};
use crate::model::machine::Machine;
use crate::store::repo;
use clap::Subcommand;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;

/// Verbs about hosts.
#[derive(Debug, Subcommand)]
pub enum HostCommand {
    /// Make a host and print what its agent needs to join; the join token is shown this once and good for an hour
    Invite {
        /// How many lnds it takes
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
        slots: u16,
        /// A new join token for this host instead, which must use it with its old key
        #[arg(long, value_parser = host_id, conflicts_with = "slots")]
        again: Option<HostId>,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// List hosts
    List(ListArgs),
    /// Give a host whose EC2 instance is gone another one, with its data volume: the same wallets and channels go on there
    Recover {
        #[arg(value_parser = host_id)]
        id: HostId,
        /// Terminate the old instance first, if EC2 does not say that it is terminated already
        #[arg(long)]
        terminate: bool,
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Make a host's certificate void. Its lnds go on running; nothing can be ordered there any more
    Revoke {
        #[arg(value_parser = host_id)]
        id: HostId,
        #[command(flatten)]
        config: ConfigArgs,
    },
}

fn host_id(text: &str) -> Result<HostId, String> {
    HostId::parse(text).ok_or_else(|| "is not the id of a host (see `host list`)".to_owned())
}

/// Runs the verb.
pub async fn run(command: HostCommand) -> Result<(), Failure> {
    match command {
        HostCommand::Invite { slots, again, json, config } => invite(slots, again, json, &config).await,
        HostCommand::List(args) => list(&args).await,
        HostCommand::Recover { id, terminate, config } => recover(&id, terminate, &config).await,
        HostCommand::Revoke { id, config } => revoke(&id, &config).await,
    }
}

async fn fleet(admin: &Admin) -> Result<Fleet, Failure> {
    let life = time::Duration::days(admin.config.agents.certificate_days.into());
    Ok(Fleet::open(Arc::clone(&admin.store), Arc::new(SystemClock), &admin.keys, life).await?)
}

async fn invite(slots: u16, again: Option<HostId>, json: bool, config: &ConfigArgs) -> Result<(), Failure> {
    let admin = admin::open(config).await?;
    let fleet = fleet(&admin).await?;
    let (id, token) = match again {
        None => fleet.invite_host(slots).await?,
        Some(id) => {
            let token = fleet.reinvite_host(&id).await?;
            let token = token.ok_or_else(|| {
                Failure::Failed(format!("there is no host {id}, it is revoked, or its machine is being started"))
            })?;
            (id, token)
        }
    };
    let fingerprint = fleet.pins()?.to_string();
    print!("{}", invitation(&id, &token, &admin.config.agents.dialled(), &fingerprint, json));
    Ok(())
}

fn invitation(id: &HostId, token: &JoinToken, masters: &[String], fingerprint: &str, json: bool) -> String {
    if json {
        let all = json!({
            "host_id": id, "join_token": token.expose(), "masters": masters, "ca_fingerprint": fingerprint,
        });
        return format!("{all:#}\n");
    }
    let token = token.expose();
    format!(
        "# Configuration of the agent of host {id}:\n\
         [agent]\n\
         masters = {masters:?}\n\
         ca_fingerprint = \"{fingerprint}\"\n\
         # and for its first start, in the environment (or in a file: join_token_file):\n\
         # SCALE_LND_AGENT_JOIN_TOKEN={token}\n"
    )
}

async fn list(args: &ListArgs) -> Result<(), Failure> {
    let Admin { store, .. } = admin::open(&args.config).await?;
    let columns = &[
        "host",
        "state",
        "address",
        "slots",
        "used",
        "agent",
        "lnd",
        "disk_free_gib",
        "instance",
        "data_volume",
        "created_at",
    ];
    let mut output = Output::new(columns);
    let machines = repo::list_all::<Machine>(&*store, None).await?.into_iter().map(|machine| machine.value);
    let machines: HashMap<HostId, Machine> = machines.map(|machine| (machine.host.clone(), machine)).collect();
    for host in repo::list_all::<Host>(&*store, None).await? {
        let host = host.value;
        let state = match &host.enrolment {
            Enrolment::Invited(_) => "invited",
            Enrolment::Enrolled { .. } => "enrolled",
            Enrolment::Revoked => "revoked",
        };
        let (report, machine) = (host.report.as_ref(), machines.get(&host.id));
        output.row([
            json!(host.id),
            json!(state),
            json!(host.address),
            json!(host.capacity),
            json!(host.slots.len()),
            json!(report.map(|report| &report.agent_version)),
            json!(report.map(|report| &report.lnd_version)),
            report.map_or(Value::Null, |report| json!(report.disk_free_bytes >> 30)),
            json!(machine.map(|machine| &machine.instance)),
            json!(machine.and_then(|machine| machine.data_volume.as_ref()).map(|volume| &volume.id)),
            shown(host.created_at),
        ]);
    }
    output.print(args.json);
    Ok(())
}

async fn recover(id: &HostId, terminate: bool, config: &ConfigArgs) -> Result<(), Failure> {
    let admin = admin::open(config).await?;
    let recovery = fleet(&admin).await?.recover_host(id, terminate).await;
    let (operation, says) = match recovery.map_err(|error| Failure::Failed(error.to_string()))? {
        Recovery::Begun(operation) => (operation, "recovers"),
        Recovery::UnderWay(operation) => (operation, "already recovers"),
    };
    println!("operation {operation} {says} host {id}; see `scale-lnd operation show {operation}`");
    Ok(())
}

async fn revoke(id: &HostId, config: &ConfigArgs) -> Result<(), Failure> {
    let admin = admin::open(config).await?;
    if !fleet(&admin).await?.revoke_host(id).await? {
        return Err(Failure::Failed(format!("there is no host {id}")));
    }
    println!("host {id} is revoked");
    Ok(())
}
