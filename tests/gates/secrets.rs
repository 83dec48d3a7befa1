//! Secrets of a run occur in no log, no answer, no process list, and nowhere unsealed in the database.

use super::{all_files, files_named, store};
use crate::harness::{Api, Deployment};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use scale_lnd::app::keys::field;
use scale_lnd::model::authority::Authority;
use scale_lnd::model::node::Node;
use scale_lnd::store::repo;
use scale_lnd::store::sqlite::SqliteStore;
use std::path::Path;

/// How every macaroon of lnd begins (version 2, the location `lnd`), as bytes: in hexadecimal and base64 it is as plain.
const MACAROON: &[u8] = b"\x02\x01\x03lnd";

/// One secret, in a form in which it could be written down.
struct Needle {
    what: String,
    text: String,
}

/// Somewhere it must not be.
struct Place {
    name: String,
    text: String,
}

/// `payreq`: one that was paid, and asked about by GET.
pub async fn occur_nowhere(d: &Deployment, api: &Api, payreq: &str) {
    no_query_is_logged(d, api, payreq).await;
    let opened = store::open(d).await;
    let mut needles = needles(d, &store::all::<Node>(&opened).await, api);
    private_keys(d, &opened, &mut needles).await;
    assert!(needles.len() > 80, "{}", needles.len());
    let (apps, keys) = store::apps_and_keys(&opened).await;
    assert!(apps >= 1 && keys >= 2);
    let database = database(d);
    let pubkey = store::node(&opened, "alice").await.identity_pubkey.unwrap();
    assert!(database.iter().any(|file| file.text.contains(&pubkey)), "what is looked through is what is used");

    let mut places = logs(d);
    assert!(places.len() >= 4, "a master's, an agent's, two lnds'");
    places.extend(answers(api));
    places.extend(processes(d).await);
    places.extend(database);
    for place in &places {
        for needle in &needles {
            assert!(!place.text.contains(&needle.text), "{} is in {}", needle.what, place.name);
        }
    }
}

/// Bytes as text, one character each, so that the standard library's search can be used.
fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| char::from(byte)).collect()
}

fn needles(d: &Deployment, nodes: &[Node], api: &Api) -> Vec<Needle> {
    let keys = store::keys(d);
    let mut needles = Vec::new();
    for node in nodes {
        for name in [field::SEED, field::WALLET_PASSWORD, field::MACAROON_ROOT_KEY, field::INVOICE_KEY] {
            let secret = keys.open_of(node, name).unwrap();
            push(&mut needles, &format!("{name} of {}", node.uuid.as_str()), &secret);
        }
        let seed = String::from_utf8(keys.open_of(node, field::SEED).unwrap().to_vec()).unwrap();
        let words: Vec<&str> = seed.split_whitespace().collect();
        assert_eq!(words.len(), 24);
        for separator in [" ", ",", ", ", "\", \"", "\",\"", "\n"] {
            let part = words[..4].join(separator);
            needles.push(Needle { what: format!("the seed of {}", node.uuid.as_str()), text: part });
        }
    }
    push(&mut needles, "a macaroon", MACAROON);
    for file in all_files(d.dir.path()).iter().filter(|file| file.extension().is_some_and(|e| e == "macaroon")) {
        push(&mut needles, &format!("{}", file.display()), &std::fs::read(file).unwrap());
    }
    push(&mut needles, "the API key", api.key.rsplit('_').next().unwrap().as_bytes());
    push(&mut needles, "the join token", trimmed(&d.path("join.token")).as_bytes());
    push(&mut needles, "btcd's password", trimmed(&d.world.chain.password_file).as_bytes());
    push(&mut needles, "the sealing key", trimmed(&d.path("seal.key")).as_bytes());
    needles
}

/// The authority's, the agent's and the lnds' own: as PEM, and what is secret in them.
async fn private_keys(d: &Deployment, opened: &SqliteStore, needles: &mut Vec<Needle>) {
    let authority = repo::get::<Authority>(opened, Authority::ID).await.unwrap().expect("there is one").value;
    let ca = store::keys(d).open("deployment", "ca_key", &authority.key).unwrap();
    push_key(needles, "the authority's key", std::str::from_utf8(&ca).unwrap());
    let host = d.path("host");
    let own = std::fs::read_to_string(host.join("agent/key.pem")).unwrap();
    push_key(needles, "the agent's key", &own);
    let of_lnds = files_named(&host, "tls.key");
    assert_eq!(of_lnds.len(), 2, "{of_lnds:?}");
    for file in of_lnds {
        push_key(needles, &file.display().to_string(), &std::fs::read_to_string(&file).unwrap());
    }
    needles.push(Needle { what: "some key's PEM".to_owned(), text: "PRIVATE KEY".to_owned() });
}

/// A P-256 key in PEM (RFC 5208, RFC 5915): version 1 and 32 secret bytes are in either form of it.
fn push_key(needles: &mut Vec<Needle>, what: &str, pem: &str) {
    const BEFORE: [u8; 5] = [2, 1, 1, 4, 32];
    let lines: Vec<&str> = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    let der = STANDARD.decode(lines.concat()).unwrap();
    let at = der.windows(BEFORE.len()).position(|bytes| bytes == BEFORE).expect("a key of this kind") + BEFORE.len();
    push(needles, what, &der[at..at + 32]);
    // Wherever the line breaks are: some of the secret is in the first two lines in either form.
    assert!(lines[0].len() == 64 && at < 48, "{}", lines[0].len());
    needles.push(Needle { what: what.to_owned(), text: lines[0].to_owned() });
}

/// What is asked for in a query is nobody's business: neither where it is answered nor where it is refused.
async fn no_query_is_logged(d: &Deployment, api: &Api, payreq: &str) {
    const MARK: &str = "a-mark-that-is-nowhere-else";
    api.get("decodepayreq", &[("uuid", "alice"), ("payreq", payreq)]).await.ok();
    api.get("pay", &[("uuid", "alice"), ("payreq", payreq)]).await.ok();
    assert_eq!(api.get("getinfo", &[("uuid", "alice"), ("bogus", MARK)]).await.status, 400);
    assert_eq!(api.get("getinfo", &[("uuid", MARK)]).await.status, 404);
    for (file, text) in d.logs() {
        for needle in [payreq, MARK, "payreq="] {
            assert!(!text.contains(needle), "{needle} is in {}", file.display());
        }
    }
}

fn trimmed(file: &Path) -> String {
    let text = std::fs::read_to_string(file).unwrap().trim().to_owned();
    assert!(text.len() >= 16, "{} is too short to be looked for", file.display());
    text
}

/// As it is, and as it would be printed.
fn push(needles: &mut Vec<Needle>, what: &str, secret: &[u8]) {
    let hex = hex::encode(secret);
    let forms = [secret.to_vec(), hex.to_uppercase().into_bytes(), hex.into_bytes()];
    let base64 = [STANDARD.encode(secret), URL_SAFE_NO_PAD.encode(secret)];
    // Without the end: there the encoding of a longer text differs.
    let base64 = base64.map(|text| text.as_bytes()[..secret.len() / 3 * 4].to_vec());
    for bytes in forms.into_iter().chain(base64) {
        needles.push(Needle { what: what.to_owned(), text: latin1(&bytes) });
    }
}

/// Logs of the masters, the agent and the lnds.
fn logs(d: &Deployment) -> Vec<Place> {
    let ours = d.logs().into_iter().map(|(file, text)| Place { name: file.display().to_string(), text });
    let lnds = all_files(&d.path("host")).into_iter().filter(|file| file.extension().is_some_and(|e| e == "log"));
    ours.chain(lnds.filter_map(|file| place(&file))).collect()
}

/// The database with what stands beside it.
fn database(d: &Deployment) -> Vec<Place> {
    let files = std::fs::read_dir(d.dir.path()).unwrap().flatten().map(|entry| entry.path());
    let of_store = files.filter(|file| file.file_name().is_some_and(|n| n.to_string_lossy().starts_with("store.db")));
    of_store.filter_map(|file| place(&file)).collect()
}

fn place(file: &Path) -> Option<Place> {
    Some(Place { name: file.display().to_string(), text: latin1(&std::fs::read(file).ok()?) })
}

fn answers(api: &Api) -> Vec<Place> {
    let seen = api.seen.lock().unwrap();
    assert!(seen.len() > 50, "{}", seen.len());
    let all = seen.iter().map(|answer| {
        let headers: Vec<String> = answer.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        let text = format!("{}\n{}", headers.join("\n"), answer.text);
        Place { name: format!("an answer: {}", answer.text), text }
    });
    all.collect()
}

/// Arguments and environment of everything that runs here.
async fn processes(d: &Deployment) -> Vec<Place> {
    let descendants = d.world.reaper.descendants().await.unwrap();
    assert!(descendants.len() >= 4, "btcd, the master, the agent, lnds");
    let files = descendants.iter().flat_map(|process| {
        ["cmdline", "environ"].map(|name| Path::new("/proc").join(process.pid.to_string()).join(name))
    });
    files.filter_map(|file| place(&file)).collect()
}
