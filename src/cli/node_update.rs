//! `scale-lnd node update`: one node to the lnd of the release that the deployment wants.

use super::admin::{self, Admin, now};
use super::node::{Whose, find};
use super::{ConfigArgs, Failure};
use crate::app::rollouts;
use crate::error::StoreError;
use crate::model::OperationId;
use crate::model::operation::Operation;
use crate::model::updates::Wanted;
use crate::model::work::Work;
use crate::store::repo;
use crate::store::{IndexEntry, Store};

/// Whose node.
#[derive(Debug, clap::Args)]
pub struct UpdateArgs {
    #[command(flatten)]
    whose: Whose,
    #[command(flatten)]
    config: ConfigArgs,
}

/// Writes the operation, unless there is one that runs.
pub async fn run(args: &UpdateArgs) -> Result<(), Failure> {
    let Admin { store, .. } = admin::open(&args.config).await?;
    let node = find(&*store, &args.whose).await?;
    let wanted = repo::get::<Wanted>(&*store, Wanted::ID).await?;
    let none = || Failure::Failed("the deployment wants no release: see `scale-lnd release apply`".to_owned());
    let serial = wanted.ok_or_else(none)?.value.serial;
    if let Some(id) = under_way(&*store, node.id.as_str()).await? {
        println!("operation {id} updates this node already; see `scale-lnd operation show {id}`");
        return Ok(());
    }
    let operation = rollouts::upgrade(serial, node.id, now());
    store.commit(vec![repo::create(&operation)?]).await?;
    let id = &operation.id;
    println!("operation {id} updates this node to release {serial}; see `scale-lnd operation show {id}`");
    Ok(())
}

/// Two at the same time would do no harm: the second waits, and finds nothing left to do.
async fn under_way(store: &dyn Store, node: &str) -> Result<Option<OperationId>, StoreError> {
    let index = IndexEntry { name: "running", value: node.to_owned() };
    let running = repo::list_all::<Operation>(store, Some(index)).await?;
    Ok(running.into_iter().map(|running| running.value).find(|o| matches!(o.work, Work::Upgrade(_))).map(|o| o.id))
}
