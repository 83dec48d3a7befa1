//! Looks at the branch every so often: what a lost webhook would have told is found all the same.

use super::{Parts, Source};
use crate::error::StoreError;
use crate::github::GitHubError;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// After a start there may be much else to do, and others may have started, too.
const FIRST: Duration = Duration::from_secs(2);

/// Looks until `stop`. Every master does.
pub async fn run(parts: Arc<Parts>, stop: CancellationToken) {
    let Some((_, source)) = parts.watched() else {
        stop.cancelled().await;
        return;
    };
    let mut pause = jittered(FIRST.min(source.poll_every));
    while stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_some() {
        let Some(looked) = stop.run_until_cancelled(look(&parts, source)).await else { return };
        pause = jittered(source.poll_every);
        match looked {
            Ok(()) => {}
            Err(NotLooked::GitHub(GitHubError::Limited { wait })) => pause = pause.max(wait),
            Err(error) => tracing::warn!(%error, "the watched branch cannot be looked at now"),
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum NotLooked {
    #[error(transparent)]
    GitHub(#[from] GitHubError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

async fn look(parts: &Parts, source: &Source) -> Result<(), NotLooked> {
    let commit = source.github.head(&source.watched.branch).await?;
    Ok(parts.look_at(&commit).await?)
}

/// Half as long to as long, so that masters do not ask at once.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(1.0 - rand::random::<f64>() / 2.0)
}
