//! The little that is asked of GitHub: a file at a commit, and which commit a branch is at.
//! <https://docs.github.com/en/rest/repos/contents>, <https://docs.github.com/en/rest/commits/commits>

use crate::model::updates::GitRef;
use futures::StreamExt;
use http::header::{ACCEPT, AUTHORIZATION, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderValue, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use std::time::Duration;

/// What a request may take, its whole answer included.
const LONGEST: Duration = Duration::from_secs(20);
const RAW: &str = "application/vnd.github.raw+json";
const SHA: &str = "application/vnd.github.sha";
/// <https://docs.github.com/en/rest/about-the-rest-api/api-versions>
const API_VERSION: (&str, &str) = ("x-github-api-version", "2022-11-28");
/// When GitHub does not say how long its limits last.
const LIMITED_FOR: Duration = Duration::from_secs(60);

/// A repository at GitHub, or at an Enterprise of somebody's own.
#[derive(Debug, Clone)]
pub struct GitHub {
    client: reqwest::Client,
    base: String,
    token: Option<SecretString>,
}

/// Why GitHub does not tell.
#[derive(Debug, thiserror::Error)]
pub enum GitHubError {
    /// There is nothing of that name, or it may not be seen with this token.
    #[error("GitHub knows no {what} there, or does not show it to this token")]
    NotFound {
        /// What was asked for.
        what: String,
    },
    /// It refuses.
    #[error("GitHub answers {status}: the token may not read the repository, or is none")]
    Refused {
        /// 401 or 403.
        status: u16,
    },
    /// It was asked too often.
    #[error("GitHub has been asked too often; it says to wait")]
    Limited {
        /// How long.
        wait: Duration,
    },
    /// It does not answer rightly now.
    #[error("GitHub answers {status}")]
    Status {
        /// Anything else.
        status: u16,
    },
    /// It has more to say than anybody asked for.
    #[error("what GitHub has there is larger than {most} bytes")]
    TooLarge {
        /// How much it may be.
        most: usize,
    },
    /// It does not answer.
    #[error("GitHub does not answer")]
    Unreachable(#[source] reqwest::Error),
    /// It answers what nobody can understand.
    #[error("GitHub answers something else than was asked for")]
    Strange,
}

impl GitHub {
    /// `repository` is `owner/name`.
    ///
    /// # Errors
    /// There is no TLS.
    pub fn new(api_url: &str, repository: &str, token: Option<SecretString>) -> Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder()
            .timeout(LONGEST)
            // A repository that was renamed. Never with the token to another host: reqwest takes it away there.
            .redirect(reqwest::redirect::Policy::limited(3))
            .build()?;
        let base = format!("{}/repos/{repository}", api_url.trim_end_matches('/'));
        Ok(Self { client, base, token })
    }

    /// The file `path` as it is at `at`; at most so many bytes.
    ///
    /// # Errors
    /// See [`GitHubError`].
    pub async fn file(&self, path: &str, at: &GitRef, most: usize) -> Result<Vec<u8>, GitHubError> {
        let url = format!("{}/contents/{path}", self.base);
        self.get(self.client.get(url).query(&[("ref", at.as_str())]), RAW, most, path).await
    }

    /// The commit that `branch` is at.
    ///
    /// # Errors
    /// See [`GitHubError`].
    pub async fn head(&self, branch: &str) -> Result<GitRef, GitHubError> {
        let name = branch.replace('/', "%2F");
        let url = format!("{}/commits/{name}", self.base);
        let answer = self.get(self.client.get(url), SHA, 128, &format!("branch {branch}")).await?;
        let commit = String::from_utf8(answer).ok().and_then(|text| GitRef::parse(text.trim()));
        commit.filter(GitRef::is_commit).ok_or(GitHubError::Strange)
    }

    async fn get(
        &self,
        request: reqwest::RequestBuilder,
        accept: &'static str,
        most: usize,
        what: &str,
    ) -> Result<Vec<u8>, GitHubError> {
        let unreachable = |error: reqwest::Error| GitHubError::Unreachable(error.without_url());
        let mut request = request
            .header(ACCEPT, accept)
            .header(USER_AGENT, concat!("scale-lnd/", env!("CARGO_PKG_VERSION")))
            .header(API_VERSION.0, API_VERSION.1);
        if let Some(token) = &self.token {
            let value = HeaderValue::from_str(&format!("Bearer {}", token.expose_secret()));
            let mut value = value.map_err(|_| GitHubError::Refused { status: 401 })?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        let response = request.send().await.map_err(unreachable)?;
        if let Some(error) = refusal(response.status(), response.headers(), what) {
            return Err(error);
        }
        let mut bytes = Vec::new();
        let mut pieces = response.bytes_stream();
        while let Some(piece) = pieces.next().await {
            bytes.extend_from_slice(&piece.map_err(unreachable)?);
            if bytes.len() > most {
                return Err(GitHubError::TooLarge { most });
            }
        }
        Ok(bytes)
    }
}

/// What an answer other than 200 means.
/// <https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api>
fn refusal(status: StatusCode, headers: &HeaderMap, what: &str) -> Option<GitHubError> {
    let number = |name: &str| headers.get(name)?.to_str().ok()?.parse::<u64>().ok();
    let after = number(RETRY_AFTER.as_str());
    let is_limit = status == StatusCode::TOO_MANY_REQUESTS
        || status == StatusCode::FORBIDDEN && (after.is_some() || number("x-ratelimit-remaining") == Some(0));
    Some(match status {
        StatusCode::OK => return None,
        _ if is_limit => GitHubError::Limited { wait: after.map_or(LIMITED_FOR, Duration::from_secs) },
        StatusCode::NOT_FOUND | StatusCode::UNPROCESSABLE_ENTITY => GitHubError::NotFound { what: what.to_owned() },
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => GitHubError::Refused { status: status.as_u16() },
        _ => GitHubError::Status { status: status.as_u16() },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::extract::Query;
    use axum::routing::get;
    use std::collections::HashMap;

    async fn serve() -> GitHub {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let file = |Query(query): Query<HashMap<String, String>>, headers: HeaderMap| async move {
            assert_eq!(headers[ACCEPT], RAW);
            assert!(headers.contains_key(USER_AGENT));
            let told = headers.get(AUTHORIZATION).map(|value| value.to_str().unwrap().to_owned());
            format!("{} {}", query["ref"], told.unwrap_or_default())
        };
        let status = |status: u16, name: &'static str, value: &'static str| {
            get(move || async move { (StatusCode::from_u16(status).unwrap(), [(name, value)], "no") })
        };
        let commit = "6113728f27ae82c7b1a177c8d03f9e96e0adf246";
        let routes = Router::new()
            .route("/api/v3/repos/acme/fleet/contents/deploy/fleet.toml", get(file))
            .route("/api/v3/repos/acme/fleet/contents/large", get(|| async { vec![0; 4096] }))
            .route("/api/v3/repos/acme/fleet/contents/limited", status(403, "x-ratelimit-remaining", "0"))
            .route("/api/v3/repos/acme/fleet/contents/later", status(429, "retry-after", "7"))
            .route("/api/v3/repos/acme/fleet/contents/forbidden", status(403, "x-ratelimit-remaining", "9"))
            .route("/api/v3/repos/acme/fleet/contents/broken", status(502, "x", "y"))
            .route("/api/v3/repos/acme/fleet/commits/release%2F1", get(move || async move { commit }))
            .route("/api/v3/repos/acme/fleet/commits/main", get(|| async { "<html>" }));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/api/v3/", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        GitHub::new(&url, "acme/fleet", Some("t0ken".into())).unwrap()
    }

    #[tokio::test]
    async fn a_file_is_read_at_a_commit_with_the_token() {
        let github = serve().await;
        let at = GitRef::parse("v1.0+x").unwrap();
        let file = github.file("deploy/fleet.toml", &at, 1000).await.unwrap();
        assert_eq!(String::from_utf8(file).unwrap(), "v1.0+x Bearer t0ken");
        assert!(!format!("{github:?}").contains("t0ken"));
    }

    #[tokio::test]
    async fn what_github_refuses_is_told_apart() {
        let github = serve().await;
        let at = GitRef::parse("v1").unwrap();
        let error = |path: &'static str| {
            let (github, at) = (github.clone(), at.clone());
            async move { github.file(path, &at, 1000).await.unwrap_err() }
        };
        assert!(matches!(error("none").await, GitHubError::NotFound { .. }));
        assert!(matches!(error("large").await, GitHubError::TooLarge { most: 1000 }));
        assert!(matches!(error("limited").await, GitHubError::Limited { wait: LIMITED_FOR }));
        assert!(matches!(error("later").await, GitHubError::Limited { wait } if wait == Duration::from_secs(7)));
        assert!(matches!(error("forbidden").await, GitHubError::Refused { status: 403 }));
        assert!(matches!(error("broken").await, GitHubError::Status { status: 502 }));
        let down = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let github = GitHub::new(&format!("http://{down}"), "a/b", None).unwrap();
        let gone = github.file("x", &at, 1).await.unwrap_err();
        assert!(matches!(gone, GitHubError::Unreachable(_)), "{gone}");
    }

    #[tokio::test]
    async fn a_branch_is_at_a_commit() {
        let github = serve().await;
        assert!(github.head("release/1").await.unwrap().is_commit());
        assert!(matches!(github.head("main").await, Err(GitHubError::Strange)));
    }
}
