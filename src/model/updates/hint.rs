//! What an event of GitHub's says about releases. Of its payload only what is asked for is read; the rest may be anything.
//! <https://docs.github.com/en/webhooks/webhook-events-and-payloads>

use super::GitRef;
use serde::{Deserialize, Serialize};

/// The repository that is watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watched {
    /// `owner/name`. GitHub does not care for its case.
    pub repository: String,
    /// The branch.
    pub branch: String,
}

/// What an event says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hint {
    /// The webhook was just set up.
    Ping,
    /// There may be a release here.
    Look(GitRef),
    /// Nothing.
    Ignored(Ignored),
    /// The payload is none of this event.
    Malformed(&'static str),
}

/// Why an event says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ignored {
    /// It only says that the webhook is there.
    Ping,
    /// No event of this name says anything of releases.
    OtherEvent,
    /// It is another repository's.
    OtherRepository,
    /// It happened on another branch.
    OtherBranch,
    /// Of such an event only something else counts: a release that is published, a pull request that is merged.
    OtherAction,
    /// The branch was deleted.
    Deleted,
}

impl Ignored {
    /// For a person.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Ping => "the webhook is set up",
            Self::OtherEvent => "no event of this name says anything of releases",
            Self::OtherRepository => "it is another repository's",
            Self::OtherBranch => "it happened on another branch than the one that is watched",
            Self::OtherAction => "only a release that is published and a pull request that is merged count",
            Self::Deleted => "the branch was deleted",
        }
    }
}

#[derive(Deserialize)]
struct Repository {
    full_name: String,
}

#[derive(Deserialize)]
struct Any {
    repository: Option<Repository>,
}

#[derive(Deserialize)]
struct Push {
    #[serde(rename = "ref")]
    name: String,
    after: String,
    #[serde(default)]
    deleted: bool,
}

#[derive(Deserialize)]
struct Release {
    action: String,
    release: Published,
}

#[derive(Deserialize)]
struct Published {
    tag_name: String,
}

#[derive(Deserialize)]
struct PullRequest {
    action: String,
    pull_request: Pulled,
}

#[derive(Deserialize)]
struct Pulled {
    #[serde(default)]
    merged: bool,
    merge_commit_sha: Option<String>,
    base: Base,
}

#[derive(Deserialize)]
struct Base {
    #[serde(rename = "ref")]
    branch: String,
}

fn read<'a, T: Deserialize<'a>>(payload: &'a [u8]) -> Result<T, Hint> {
    serde_json::from_slice(payload).map_err(|_| Hint::Malformed("is not the JSON of such an event"))
}

/// What an event of this name with this payload (JSON) says.
#[must_use]
pub fn hint(event: &str, payload: &[u8], watched: &Watched) -> Hint {
    judge(event, payload, watched).unwrap_or_else(|hint| hint)
}

fn judge(event: &str, payload: &[u8], watched: &Watched) -> Result<Hint, Hint> {
    let ignored = |reason| Ok(Hint::Ignored(reason));
    if event == "ping" {
        return Ok(Hint::Ping);
    }
    if !matches!(event, "push" | "release" | "pull_request") {
        return ignored(Ignored::OtherEvent);
    }
    let Any { repository } = read(payload)?;
    let repository = repository.ok_or(Hint::Malformed("names no repository"))?;
    if !repository.full_name.eq_ignore_ascii_case(&watched.repository) {
        return ignored(Ignored::OtherRepository);
    }
    let place = |text: &str| GitRef::parse(text).map(Hint::Look).ok_or(Hint::Malformed("names no commit or tag"));
    match event {
        "push" => {
            let push: Push = read(payload)?;
            if push.name.strip_prefix("refs/heads/") != Some(&watched.branch) {
                return ignored(Ignored::OtherBranch);
            }
            if push.deleted { ignored(Ignored::Deleted) } else { place(&push.after) }
        }
        "release" => {
            let release: Release = read(payload)?;
            if release.action == "published" { place(&release.release.tag_name) } else { ignored(Ignored::OtherAction) }
        }
        _ => {
            let PullRequest { action, pull_request } = read(payload)?;
            if pull_request.base.branch != watched.branch {
                return ignored(Ignored::OtherBranch);
            }
            if action != "closed" || !pull_request.merged {
                return ignored(Ignored::OtherAction);
            }
            place(&pull_request.merge_commit_sha.unwrap_or_default())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const COMMIT: &str = "6113728f27ae82c7b1a177c8d03f9e96e0adf246";

    fn heard(event: &str, payload: &Value) -> Hint {
        let watched = Watched { repository: "acme/fleet".to_owned(), branch: "main".to_owned() };
        let mut payload = payload.clone();
        if payload.get("repository").is_none() {
            payload["repository"] = json!({ "id": 1, "full_name": "Acme/Fleet", "private": true });
        }
        hint(event, payload.to_string().as_bytes(), &watched)
    }

    fn look(at: &str) -> Hint {
        Hint::Look(GitRef::parse(at).unwrap())
    }

    #[test]
    fn a_push_to_the_branch_a_release_and_a_merge_are_hints() {
        let push = json!({ "ref": "refs/heads/main", "before": "0", "after": COMMIT, "deleted": false, "commits": [] });
        assert_eq!(heard("push", &push), look(COMMIT));
        let release = json!({ "action": "published", "release": { "tag_name": "v1.2.3", "draft": false } });
        assert_eq!(heard("release", &release), look("v1.2.3"));
        let pull = json!({ "merged": true, "merge_commit_sha": COMMIT, "base": { "ref": "main" } });
        assert_eq!(heard("pull_request", &json!({ "action": "closed", "pull_request": pull })), look(COMMIT));
    }

    #[test]
    fn everything_else_is_ignored_and_says_why() {
        let ignored = |event, payload: Value| match heard(event, &payload) {
            Hint::Ignored(reason) => reason,
            hint => panic!("{event}: {hint:?}"),
        };
        let push = |name: &str, deleted: bool| json!({ "ref": name, "after": COMMIT, "deleted": deleted });
        assert_eq!(ignored("push", push("refs/heads/mainly", false)), Ignored::OtherBranch);
        assert_eq!(ignored("push", push("refs/tags/main", false)), Ignored::OtherBranch);
        assert_eq!(ignored("push", push("refs/heads/main", true)), Ignored::Deleted);
        let mut other = push("refs/heads/main", false);
        other["repository"] = json!({ "full_name": "acme/fleet2" });
        assert_eq!(ignored("push", other), Ignored::OtherRepository);
        let release = json!({ "action": "edited", "release": { "tag_name": "v1" } });
        assert_eq!(ignored("release", release), Ignored::OtherAction);
        let pull = |action, merged, base| {
            let pull = json!({ "merged": merged, "merge_commit_sha": COMMIT, "base": { "ref": base } });
            json!({ "action": action, "pull_request": pull })
        };
        assert_eq!(ignored("pull_request", pull("closed", false, "main")), Ignored::OtherAction);
        assert_eq!(ignored("pull_request", pull("opened", false, "main")), Ignored::OtherAction);
        assert_eq!(ignored("pull_request", pull("closed", true, "next")), Ignored::OtherBranch);
        assert_eq!(ignored("issues", json!({})), Ignored::OtherEvent);
        assert_eq!(heard("ping", &json!({ "zen": "Speak like a human." })), Hint::Ping);
    }

    #[test]
    fn payloads_of_another_form_are_told() {
        for payload in [json!({}), json!({ "ref": 1, "after": COMMIT }), json!({ "ref": "refs/heads/main" })] {
            assert!(matches!(heard("push", &payload), Hint::Malformed(_)), "{payload}");
        }
        let strange = json!({ "ref": "refs/heads/main", "after": "a&ref=b" });
        assert_eq!(heard("push", &strange), Hint::Malformed("names no commit or tag"));
        let watched = Watched { repository: "acme/fleet".to_owned(), branch: "main".to_owned() };
        assert!(matches!(hint("push", b"[]", &watched), Hint::Malformed(_)));
        assert_eq!(hint("push", b"{}", &watched), Hint::Malformed("names no repository"));
    }
}
