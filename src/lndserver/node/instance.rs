//! The instance of a node on disk: what an lnd needs before it can start, and what is found of it afterwards.

use super::super::backend::Backend;
use super::super::conf::{self, Ports};
use super::super::files::{self, NodeDir};
use super::super::process::OUTPUT;
use super::super::record::Record;
use super::super::shared_files::{self, LndFile};
use super::super::spec::NodeSpec;
use super::super::start::{Found, How, Lnd, Seat};
use super::{OrderError, Shared};
use crate::fault;
use crate::lnd::{LndClient, PinnedCert};
use crate::model::NodeId;
use crate::pki::lnd_cert;
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::PathBuf;
use time::OffsetDateTime;

/// How an lnd is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The host's address.
    pub address: IpAddr,
    /// Its ports; REST only where it is switched on.
    pub ports: Ports,
    /// Whether it serves REST.
    pub rest: bool,
    /// Its certificate (PEM).
    pub certificate_pem: String,
}

/// An lnd that runs now.
pub(super) struct Started {
    pub(super) lnd: Box<dyn Lnd>,
    /// Whether it ran before.
    pub(super) adopted: bool,
}

/// The reason why something did not work out, as it is told to masters.
type Reason = String;

fn because(what: &'static str) -> impl Fn(io::Error) -> Reason {
    move |e| format!("{what}: {e}")
}

fn ports(shared: &Shared, spec: &NodeSpec) -> Result<Ports, Reason> {
    Ports::of_slot(shared.port_base, spec.slot).ok_or_else(|| format!("slot {} has no ports", spec.slot))
}

fn serves_rest(shared: &Shared, spec: &NodeSpec) -> bool {
    shared.rest.unwrap_or(spec.rest)
}

/// The lnd that runs on the folder, if one does.
pub(super) async fn running(shared: &Shared, seat: Seat<'_>) -> Result<Option<Box<dyn Lnd>>, Reason> {
    match shared.starter.find(seat).await.map_err(because("it cannot be looked for"))? {
        Found::Running(lnd) => Ok(Some(lnd)),
        Found::Free(_) => Ok(None),
        Found::Taken => Err("the folder is in use by another process".to_owned()),
    }
}

/// Starts an lnd, or adopts the one that runs on the folder already. Counts the start before it happens.
pub(super) async fn start(
    shared: &Shared,
    dir: &NodeDir,
    spec: &NodeSpec,
    record: &mut Record,
) -> Result<Started, Reason> {
    let seat = Seat { dir, slot: Some(spec.slot) };
    let lock = match shared.starter.find(seat).await.map_err(because("the lock cannot be taken"))? {
        Found::Running(lnd) => return Ok(Started { lnd, adopted: true }),
        Found::Taken => return Err("the folder is in use by another process".to_owned()),
        Found::Free(lock) => lock,
    };
    let program = program(shared, spec)?;
    prepare(shared, dir, spec)?;
    record.starts += 1;
    record.save(dir).map_err(because("the record cannot be kept"))?;
    fault::point("lndserver.start.before").await;
    let lnd = shared
        .starter
        .start(seat, How { program: &program, is_own: spec.lnd.is_none(), network: spec.network }, lock)
        .await
        .map_err(because("lnd cannot be started"))?;
    fault::point("lndserver.start.after").await;
    Ok(Started { lnd, adopted: false })
}

/// The lnd that this node is to run.
pub(super) fn program(shared: &Shared, spec: &NodeSpec) -> Result<PathBuf, Reason> {
    match &spec.lnd {
        None => Ok(shared.lnd.clone()),
        Some(digest) => shared.releases.lnd(digest, spec.network),
    }
}

/// Everything an lnd needs. May be repeated.
fn prepare(shared: &Shared, dir: &NodeDir, spec: &NodeSpec) -> Result<(), Reason> {
    let spec = &NodeSpec { rest: serves_rest(shared, spec), ..spec.clone() };
    let ports = ports(shared, spec)?;
    // lnd would make it when it makes the wallet; the agent watches it from before the first backup.
    files::private_dir(&dir.instance(""))
        .and_then(|()| shared_files::make_dirs(&dir.instance(""), &NodeDir::chain(spec.network)))
        .map_err(because("the folder cannot be made"))?;
    certificate(dir, &spec.node, shared.address)?;
    if let Backend::Btcd { certificate_pem, .. } = &spec.backend {
        let path = dir.instance(conf::BACKEND_CERT);
        files::write_private(&path, certificate_pem.as_bytes())
            .map_err(because("the certificate cannot be written"))?;
    }
    let text = conf::render(spec, &shared.starter.seen_by_lnd(dir), shared.address, ports);
    files::write_private(&dir.instance(conf::LND_CONF), text.as_bytes())
        .map_err(because("the configuration cannot be written"))?;
    let used = [Some(ports.rpc), Some(ports.p2p), spec.rest.then_some(ports.rest)];
    for port in used.into_iter().flatten() {
        let at = SocketAddr::new(shared.address, port);
        TcpListener::bind(at).map_err(|e| format!("port {port} cannot be used: {e}"))?;
    }
    Ok(())
}

/// Makes lnd's key and certificate where there are none. They are never replaced: the certificate is how masters know
/// this lnd. lnd itself would replace an expired one, so it is not started with one. It names the node, so that no lnd can
/// stand in for another's.
fn certificate(dir: &NodeDir, node: &NodeId, address: IpAddr) -> Result<(), Reason> {
    let (cert, key) = (dir.instance(conf::TLS_CERT), dir.instance(conf::TLS_KEY));
    match certificate_pem(dir)? {
        Some(pem) => {
            let not_after = lnd_cert::not_after(&pem).map_err(|e| format!("lnd's certificate cannot be read: {e}"))?;
            if not_after <= OffsetDateTime::now_utc() {
                return Err(format!("lnd's certificate expired at {not_after}"));
            }
            Ok(())
        }
        None => {
            let made = lnd_cert::make_lnd_cert(&[address], &[node.to_string()], OffsetDateTime::now_utc())
                .map_err(|e| format!("lnd's certificate cannot be made: {e}"))?;
            // The certificate last: with it the pair is whole.
            files::private_dir(&dir.lnd())
                .and_then(|()| files::write_private(&key, made.key_pem.as_bytes()))
                .and_then(|()| files::write_private(&cert, made.cert_pem.as_bytes()))
                .map_err(because("lnd's certificate cannot be written"))
        }
    }
}

/// lnd could have put another there; the master takes only one that names the node.
fn certificate_pem(dir: &NodeDir) -> Result<Option<String>, Reason> {
    const MOST_BYTES: u64 = 16 * 1024;
    let pem = dir.written(conf::TLS_CERT).read(MOST_BYTES).map_err(because("lnd's certificate cannot be read"))?;
    Ok(pem.map(|pem| String::from_utf8_lossy(&pem).into_owned()))
}

/// How the lnd is reached.
pub(super) fn endpoint(shared: &Shared, dir: &NodeDir, spec: &NodeSpec) -> Result<Endpoint, Reason> {
    let certificate_pem = certificate_pem(dir)?.ok_or("lnd has no certificate")?;
    Ok(Endpoint {
        address: shared.address,
        ports: ports(shared, spec)?,
        rest: serves_rest(shared, spec),
        certificate_pem,
    })
}

/// A client that speaks to this lnd and no other.
pub(super) fn client(shared: &Shared, dir: &NodeDir, spec: &NodeSpec) -> Option<LndClient> {
    let endpoint = endpoint(shared, dir, spec).ok()?;
    let cert = PinnedCert::from_pem(endpoint.certificate_pem.as_bytes()).ok()?;
    let at = SocketAddr::new(endpoint.address, endpoint.ports.rpc);
    LndClient::new(&at.to_string(), &cert).ok()
}

/// Moves the instance away, under a name that tells whose it was and when. A wallet is never deleted.
pub(super) async fn set_aside(shared: &Shared, seat: Seat<'_>, node: &NodeId) -> Result<(), OrderError> {
    let failed = |e: io::Error| OrderError::Failed(format!("the folder cannot be set aside: {e}"));
    let dir = seat.dir;
    let Found::Free(_lock) = shared.starter.find(seat).await.map_err(failed)? else {
        return Err(OrderError::Failed("another process is on its folder".to_owned()));
    };
    let instance = dir.instance("");
    if !instance.exists() {
        return Ok(());
    }
    let millis = OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000;
    fs::rename(&instance, shared.data.removed().join(format!("{node}-{millis}"))).map_err(failed)?;
    files::sync_dir(&shared.data.removed()).and_then(|()| files::sync_dir(dir.path())).map_err(failed)
}

/// The last thing lnd said: to its output if it died early or in a panic, or else to its log.
pub(super) fn last_words(shared: &Shared, dir: &NodeDir, spec: &NodeSpec) -> Option<String> {
    let output = last_line(&dir.written(OUTPUT));
    let line = output.or_else(|| last_line(&dir.log(spec.network)))?;
    Some(scrub(&line, &[dir, &shared.starter.seen_by_lnd(dir)]))
}

fn last_line(file: &LndFile) -> Option<String> {
    const TAIL: u64 = 16 * 1024;
    let bytes = file.tail(TAIL).ok()??;
    let text = String::from_utf8_lossy(&bytes);
    // A panic says first what it is and then where; the rest of its output is stacks.
    let panic = text.lines().find(|line| line.starts_with("panic:") || line.starts_with("fatal error:"));
    panic.or_else(|| text.lines().rev().find(|line| !line.trim().is_empty())).map(str::to_owned)
}

/// Takes out of a line what must not leave the host: paths, anything as long as a key, and what no line has.
fn scrub(line: &str, dirs: &[&NodeDir]) -> String {
    const LONGEST: usize = 300;
    let line = dirs.iter().fold(line.to_owned(), |line, dir| line.replace(&*dir.path().to_string_lossy(), "…"));
    let words = line.split(' ').map(|word| {
        let core = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
        let key_like = core.len() >= 40 && core.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/=_-".contains(&b));
        if key_like { "…" } else { word }
    });
    let line: String = words.collect::<Vec<_>>().join(" ");
    line.chars().filter(|c| !c.is_control()).take(LONGEST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lndserver::files::DataDir;

    #[test]
    fn last_words_hold_no_path_and_no_key() {
        let folder = tempfile::tempdir().expect("a folder");
        let data = DataDir::open(folder.path()).expect("opens");
        let dir = data.node(&NodeId::random(&mut rand::rng()));
        files::private_dir(&dir.instance("")).expect("io");
        let key = "ab".repeat(32);
        let said = format!("one\nunable to open {}: key={key} and\x1b[0m {key}\n\n", dir.lnd().display());
        fs::write(dir.instance(OUTPUT), said).expect("io");
        let line = scrub(&last_line(&dir.written(OUTPUT)).expect("a line"), &[&dir]);
        assert!(line.starts_with("unable to open …/instance/lnd:"), "{line}");
        assert!(!line.contains(folder.path().to_str().expect("utf-8")), "{line}");
        assert!(!line.contains(&format!(" {key}")) && !line.contains('\x1b'), "{line}");
    }

    #[test]
    fn a_panic_is_told_by_its_first_line() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = LndFile::new(folder.path().to_owned(), OUTPUT);
        fs::write(file.path(), "hello\npanic: index out of range\n\ngoroutine 1 [running]:\nmain()\n").expect("io");
        assert_eq!(last_line(&file).as_deref(), Some("panic: index out of range"));
    }
}
