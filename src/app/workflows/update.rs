//! `update`: looks at one place for a release, and wants what it finds. It only reads, until the one commit that ends it: done
//! twice, or cut off anywhere, it looks again.

use super::super::step::{Advance, Ctx, Settle};
use super::super::updates::{self, Found, Source, Updates};
use crate::error::Result;
use crate::github::GitHubError;
use crate::model::operation::Operation;
use crate::model::problem::{Code, Refusal};
use crate::model::updates::GitRef;
use crate::model::work::update::Update;
use crate::release::manifest::MOST_BYTES;
use crate::release::signature::SUFFIX;
use serde_json::json;
use std::time::Duration;

/// Where a master has no `[updates]`, or another repository, another may.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// For so long a commit that GitHub has told of may still be unknown to the part of it that is asked.
const KNOWN_LATE: time::Duration = time::Duration::seconds(30);
const SOON: Duration = Duration::from_secs(3);

pub(super) async fn advance(ctx: &Ctx, operation: &Operation, work: &Update) -> Result<Advance> {
    let Some((updates, source)) = ctx.parts.watched() else {
        return Ok(Advance::again("this master watches no repository", LOOK_EVERY));
    };
    let _turn = updates.turn.lock().await;
    let (manifest, signature) = match fetch(source, &work.source).await {
        Ok(found) => found,
        Err(error) => return Ok(later(ctx, operation, error)),
    };
    judge(ctx, updates, work, (&manifest, &signature)).await
}

async fn fetch(source: &Source, at: &GitRef) -> std::result::Result<(Vec<u8>, String), GitHubError> {
    let manifest = source.github.file(&source.manifest, at, MOST_BYTES).await?;
    let beside = format!("{}{SUFFIX}", source.manifest);
    let signature = source.github.file(&beside, at, MOST_BYTES).await?;
    Ok((manifest, String::from_utf8_lossy(&signature).into_owned()))
}

async fn judge(ctx: &Ctx, updates: &Updates, work: &Update, found: (&[u8], &str)) -> Result<Advance> {
    let parts = &ctx.parts;
    let at = Some(work.source.clone());
    let (manifest, found) = match updates::want(&*parts.store, updates.believed(), found, at, parts.clock.now()).await {
        Ok(found) => found,
        Err(why) => {
            let refusal = updates::refusal(why)?;
            tracing::warn!(source = %work.source, code = %refusal.code.as_str(), reason = %refusal.message, "no release");
            return Ok(Advance::failed(refusal));
        }
    };
    let serial = manifest.release.serial;
    let (is_new, writes) = match found {
        Found::Newer(writes) => (true, writes),
        Found::Wanted => (false, Vec::new()),
    };
    if is_new {
        tracing::info!(serial, source = %work.source, signed_by = %manifest.signed_by, "another release is wanted");
    }
    let versions = |program: Option<&crate::model::release::ProgramRelease>| program.map(|p| p.version.to_string());
    let release = json!({
        "serial": serial,
        "lnd": versions(manifest.release.lnd.as_ref()),
        "lndserver": versions(manifest.release.lndserver.as_ref()),
    });
    let rollout = format!("/lnd/v1/rollouts/{serial}");
    let result = json!({ "release": release, "is_new": is_new, "source": work.source, "rollout": rollout });
    Ok(Advance::Done { result, settle: Settle::Keep, writes })
}

/// What GitHub does not tell now it may tell later; what is not there is not.
fn later(ctx: &Ctx, operation: &Operation, error: GitHubError) -> Advance {
    let is_young = ctx.parts.clock.now() - operation.created_at < KNOWN_LATE;
    match error {
        GitHubError::NotFound { .. } if is_young => Advance::again(error.to_string(), SOON),
        GitHubError::NotFound { .. } => Advance::failed(Refusal::new(Code::ReleaseNotFound, error.to_string())),
        GitHubError::TooLarge { .. } => Advance::failed(Refusal::new(Code::ReleaseMalformed, error.to_string())),
        GitHubError::Limited { wait } => Advance::again(error.to_string(), wait),
        GitHubError::Refused { .. } => {
            tracing::warn!(%error, "releases cannot be read: look at updates.token");
            Advance::again(error.to_string(), LOOK_EVERY)
        }
        GitHubError::Status { .. } | GitHubError::Unreachable(_) | GitHubError::Strange => {
            tracing::info!(%error, "a release cannot be read now");
            Advance::again(error.to_string(), SOON)
        }
    }
}
