//! The sections about what a master serves and how it runs: `[http]`, `[agents]`, `[master]`, `[log]`.

use super::sections::is_host_and_port;
use super::setting::{Raw, Setting};
use super::source::{Found, Part, Section};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// `[http]`: the REST API.
#[derive(Debug, Clone)]
pub struct HttpSection {
    /// Where it listens; port 0: any free port.
    pub listen: SocketAddr,
    /// Its certificate chain (PEM).
    pub tls_cert: Option<PathBuf>,
    /// Its private key (PEM).
    pub tls_key: Option<PathBuf>,
    /// Whether it may listen without TLS on more than loopback (a TLS proxy is in front).
    pub allow_plain_http: bool,
    /// Whether calls that change something may be made by GET too.
    pub changing_gets: bool,
    /// The largest body that is read.
    pub body_limit_bytes: usize,
    /// How long a client may take for its headers.
    pub header_timeout: Duration,
    /// How long a call may take, waiting calls and streams excepted.
    pub request_timeout: Duration,
    /// How long a client may take to take an answer, event streams excepted.
    pub answer_timeout: Duration,
    /// Connections at a time.
    pub max_connections: usize,
    /// Calls in flight, over all keys.
    pub max_concurrency: usize,
    /// Calls in flight to one node.
    pub max_per_node: usize,
    /// Calls a second for each key.
    pub per_key_per_second: u32,
    /// Calls of one key that may come at once.
    pub per_key_burst: u32,
}

impl Part for HttpSection {
    const NAME: &'static str = "http";

    fn read(s: &mut Section<'_>) -> Option<Self> {
        Some(Self {
            listen: s.or("listen", SocketAddr::from(([127, 0, 0, 1], 8080))),
            tls_cert: s.optional("tls_cert"),
            tls_key: s.optional("tls_key"),
            allow_plain_http: s.or("allow_plain_http", false),
            changing_gets: s.or("changing_gets", true),
            body_limit_bytes: s.or("body_limit_bytes", 64 * 1024),
            header_timeout: Duration::from_secs(s.or("header_timeout_seconds", 10)),
            request_timeout: Duration::from_secs(s.or("request_timeout_seconds", 30)),
            answer_timeout: Duration::from_secs(s.or("answer_timeout_seconds", 60)),
            max_connections: s.or("max_connections", 8192),
            max_concurrency: s.or("max_concurrency", 1024),
            max_per_node: s.or("max_per_node", 256),
            per_key_per_second: s.or("per_key_per_second", 2000),
            per_key_burst: s.or("per_key_burst", 4000),
        })
    }

    fn validate(&self, found: &mut Found) {
        match (&self.tls_cert, &self.tls_key) {
            (Some(_), None) => found.push(("http.tls_key", "is missing: tls_cert is given".to_owned())),
            (None, Some(_)) => found.push(("http.tls_cert", "is missing: tls_key is given".to_owned())),
            (None, None) if !self.listen.ip().is_loopback() && !self.allow_plain_http => {
                let message = "is not loopback: give tls_cert and tls_key, or set allow_plain_http = true";
                found.push(("http.listen", message.to_owned()));
            }
            _ => {}
        }
        let positive = [
            ("http.body_limit_bytes", self.body_limit_bytes as u64),
            ("http.header_timeout_seconds", self.header_timeout.as_secs()),
            ("http.request_timeout_seconds", self.request_timeout.as_secs()),
            ("http.answer_timeout_seconds", self.answer_timeout.as_secs()),
            ("http.max_connections", self.max_connections as u64),
            ("http.max_concurrency", self.max_concurrency as u64),
            ("http.max_per_node", self.max_per_node as u64),
            ("http.per_key_per_second", self.per_key_per_second.into()),
            ("http.per_key_burst", self.per_key_burst.into()),
        ];
        let zero = positive.into_iter().filter(|(_, value)| *value == 0);
        found.extend(zero.map(|(key, _)| (key, "must be more than 0".to_owned())));
    }
}

/// `[agents]`: where the hosts' agents report and enrol. Always TLS, by the deployment's own authority.
#[derive(Debug, Clone)]
pub struct AgentsSection {
    /// Where the masters listen for agents; port 0: any free port.
    pub listen: SocketAddr,
    /// The addresses that agents dial (`host:port`), in invitations. None: `listen` itself.
    pub advertise: Vec<String>,
    /// How long certificates of masters and agents live. They are renewed at two thirds of it.
    pub certificate_days: u32,
}

impl AgentsSection {
    /// The addresses that agents dial.
    #[must_use]
    pub fn dialled(&self) -> Vec<String> {
        if self.advertise.is_empty() { vec![self.listen.to_string()] } else { self.advertise.clone() }
    }
}

impl Part for AgentsSection {
    const NAME: &'static str = "agents";

    fn read(s: &mut Section<'_>) -> Option<Self> {
        Some(Self {
            listen: s.or("listen", SocketAddr::from(([127, 0, 0, 1], 8081))),
            advertise: s.or("advertise", Vec::new()),
            certificate_days: s.or("certificate_days", 30),
        })
    }

    fn validate(&self, found: &mut Found) {
        if !self.advertise.iter().all(|address| is_host_and_port(address)) {
            found.push(("agents.advertise", "must be addresses with a port, such as 10.0.0.5:8081".to_owned()));
        }
        if self.advertise.is_empty() && self.listen.ip().is_unspecified() {
            let message = "is missing: agents cannot dial the address that `listen` names";
            found.push(("agents.advertise", message.to_owned()));
        }
        if !(1..=3650).contains(&self.certificate_days) {
            found.push(("agents.certificate_days", "must be from 1 to 3650".to_owned()));
        }
    }
}

/// `[master]`: how masters share the work.
#[derive(Debug, Clone)]
pub struct MasterSection {
    /// How long a heartbeat is good for; work of a dead master is taken over 2 s after it.
    pub lease_ttl: Duration,
    /// How long a running step may go on at shutdown.
    pub shutdown_grace: Duration,
}

impl Part for MasterSection {
    const NAME: &'static str = "master";

    fn read(s: &mut Section<'_>) -> Option<Self> {
        Some(Self {
            lease_ttl: Duration::from_millis(s.or("lease_ttl_ms", 8_000)),
            shutdown_grace: Duration::from_secs(s.or("shutdown_grace_seconds", 10)),
        })
    }

    fn validate(&self, found: &mut Found) {
        if !(500..=60_000).contains(&self.lease_ttl.as_millis()) {
            found.push(("master.lease_ttl_ms", "must be from 500 to 60000".to_owned()));
        }
        if self.shutdown_grace.as_secs() > 600 {
            found.push(("master.shutdown_grace_seconds", "must be at most 600".to_owned()));
        }
    }
}

/// `[log]`: what is logged, on standard error.
#[derive(Debug, Clone)]
pub struct LogSection {
    /// The form of the lines.
    pub format: LogFormat,
    /// What is logged, in `tracing`'s filter language.
    pub filter: String,
}

/// The form of the log's lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Setting for LogFormat {
    fn parse(raw: Raw) -> Result<Self, String> {
        match String::parse(raw)?.as_str() {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err("must be text or json".to_owned()),
        }
    }
}

impl Default for LogSection {
    fn default() -> Self {
        Self { format: LogFormat::Text, filter: "info".to_owned() }
    }
}

impl Part for LogSection {
    const NAME: &'static str = "log";

    fn read(s: &mut Section<'_>) -> Option<Self> {
        let default = Self::default();
        Some(Self { format: s.or("format", default.format), filter: s.or("filter", default.filter) })
    }

    fn validate(&self, found: &mut Found) {
        if tracing_subscriber::EnvFilter::try_new(&self.filter).is_err() {
            found.push(("log.filter", "is not a filter such as info,scale_lnd=debug".to_owned()));
        }
    }
}
