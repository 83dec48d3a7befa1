//! The change feed: one stream for each follower, listening to one query for each collection: "what was written since".
//!
//! What the stream says first is all that was written since then, and that is also how a feed goes on after a break, or at
//! another master's cursor: nothing is remembered at Google's. The position is a time of Firestore's up to which everything
//! has been told. Firestore tells a document's states in their order; should one come twice or late (a stream that begins
//! anew, a tombstone and a new document of the same name), it is known by its version and left out.
//!
//! `_changed` is when the server was *asked* for a write, the version when it was done. The queries go back further than
//! the position by more than any request may last, and what the position covers is left out.

use super::codec;
use super::commit::{DELETED, TOMBSTONE_COLLECTION, TOMBSTONE_ID};
use super::connect::{Connection, Meta};
use super::{read, status};
use crate::store::{Change, Cursor, Document, FeedItem, Key, Result, Version, bounded};
use firestore::gcloud_sdk::google::firestore::v1 as proto;
use firestore::gcloud_sdk::tonic::{Code, Request, Status, Streaming};
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use proto::listen_response::ResponseType;
use proto::structured_query::{CollectionSelector, Direction, FieldReference, Order, field_filter::Operator};
use proto::target_change::TargetChangeType;
use proto::value::ValueType;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How far before the position the queries begin: more than a request may last (5 s) and clocks of servers may differ.
const OVERLAP_MICROS: u64 = 30_000_000;
/// How far the cursor stays behind what Firestore says is complete.
const SLACK_MICROS: u64 = 2_000_000;
/// A cursor older than this is a gap. Tombstones live longer.
const KEPT_MICROS: u64 = 3_600_000_000;
/// The queries begin anew after this time, or number of documents: otherwise a break would repeat all that was since the
/// start.
const RENEW_AFTER: Duration = Duration::from_secs(1800);
const RENEW_AFTER_DOCUMENTS: u64 = 5_000;
const RENEW_NOT_BEFORE: Duration = Duration::from_secs(120);
/// How long a follower leaves a server alone that has just failed it, at first and at most.
const PAUSES: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(2)];
/// How many documents' last told versions are remembered (twice).
const REMEMBERED: usize = 20_000;

/// A cursor is the database's tag and, in its lower bits, ms since 2024: enough until 2093.
const TIME_BITS: u32 = 41;
const TIME_ZERO_MICROS: u64 = 1_704_067_200_000_000;
/// The tag that no database has, nor any greater one.
pub(super) const LAST_TAG: i64 = (1 << 23) - 1;

/// A feed from `cursor`, or from now if there is none or it is not good here any more.
pub(super) async fn follow(
    connection: Arc<Connection>,
    silence: Duration,
    stop: CancellationToken,
    cursor: Option<Cursor>,
) -> Result<BoxStream<'static, Result<FeedItem>>> {
    let meta = connection.meta().await?;
    let mut follower = Follower {
        connection,
        silence,
        stop,
        tag: meta.tag,
        position: meta.now,
        listening: None,
        told: Told::default(),
        ready: VecDeque::new(),
        pause: Duration::ZERO,
    };
    match cursor.and_then(|cursor| position_of(cursor, meta.tag)).filter(|position| is_good(*position, &meta)) {
        Some(position) => follower.position = position,
        None => follower.resync(&meta),
    }
    Ok(stream::unfold(follower, Follower::next).boxed())
}

fn position_of(cursor: Cursor, tag: u64) -> Option<u64> {
    let millis = cursor.0 & ((1 << TIME_BITS) - 1);
    (cursor.0 >> TIME_BITS == tag).then_some(TIME_ZERO_MICROS + millis * 1000)
}

/// Whether a feed can go on from there without a gap.
fn is_good(position: u64, meta: &Meta) -> bool {
    (meta.now.saturating_sub(KEPT_MICROS)..=meta.now).contains(&position)
}

struct Follower {
    connection: Arc<Connection>,
    silence: Duration,
    stop: CancellationToken,
    tag: u64,
    /// Everything up to this time (µs) has been told or is in `ready`.
    position: u64,
    listening: Option<Listening>,
    told: Told,
    ready: VecDeque<Result<FeedItem>>,
    /// How long to wait before the next try to listen.
    pause: Duration,
}

struct Listening {
    answers: Streaming<proto::ListenResponse>,
    /// Collections by target, from 1.
    targets: Vec<&'static str>,
    /// Targets of which everything up to now has been said.
    current: HashSet<i32>,
    /// What is not newer than this was told before.
    floor: u64,
    since: Instant,
    documents: u64,
}

impl Follower {
    async fn next(mut self) -> Option<(Result<FeedItem>, Self)> {
        let stop = self.stop.clone();
        loop {
            if stop.is_cancelled() {
                return None;
            }
            if let Some(item) = self.ready.pop_front() {
                return Some((item, self));
            }
            stop.run_until_cancelled(self.step()).await?;
        }
    }

    /// Listens, or hears one thing.
    async fn step(&mut self) {
        let Some(listening) = &mut self.listening else {
            tokio::time::sleep(self.pause).await;
            self.pause = (self.pause * 2).clamp(PAUSES[0], PAUSES[1]);
            if let Err(error) = self.listen().await {
                self.ready.push_back(Err(error));
            }
            return;
        };
        match tokio::time::timeout(self.silence, listening.answers.message()).await {
            Ok(Ok(Some(answer))) => self.hear(answer),
            Ok(Ok(None)) => self.listening = None,
            Ok(Err(status)) => self.broke(&status),
            Err(_) => self.listening = None,
        }
        if self.listening.as_ref().is_some_and(Listening::is_old) {
            self.listening = None;
            self.pause = Duration::ZERO;
        }
    }

    /// A stream that breaks is opened again: only if that fails, too, is it an error of the feed.
    fn broke(&mut self, status: &Status) {
        tracing::debug!(error.message = %status::words(status), "Firestore's stream of changes ended");
        self.listening = None;
    }

    async fn listen(&mut self) -> Result<()> {
        let connection = Arc::clone(&self.connection);
        bounded(connection.timeout(), async {
            let meta = connection.meta().await?;
            if meta.tag != self.tag || !is_good(self.position, &meta) {
                self.resync(&meta);
            }
            let (targets, requests) = requests(&connection, self.position.saturating_sub(OVERLAP_MICROS));
            // The request side stays open as long as the stream is wanted.
            let requests = stream::iter(requests).chain(stream::pending());
            let answers = connection.client().listen(Request::new(requests)).await;
            let answers = answers.map_err(|status| status::unavailable(&status))?.into_inner();
            self.listening = Some(Listening {
                answers,
                targets,
                current: HashSet::new(),
                floor: self.position,
                since: Instant::now(),
                documents: 0,
            });
            Ok(())
        })
        .await
    }

    fn resync(&mut self, meta: &Meta) {
        (self.tag, self.position) = (meta.tag, meta.now);
        self.told = Told::default();
        self.ready.push_back(Ok(self.item(Change::Resync)));
    }

    fn hear(&mut self, answer: proto::ListenResponse) {
        match answer.response_type {
            Some(ResponseType::TargetChange(change)) => self.hear_target(&change),
            Some(ResponseType::DocumentChange(change)) => self.hear_document(change),
            // What leaves a query's results was either deleted, and has a tombstone, or was never of interest.
            _ => {}
        }
    }

    fn hear_target(&mut self, change: &proto::TargetChange) {
        let Some(listening) = &mut self.listening else { return };
        match change.target_change_type() {
            TargetChangeType::Current => listening.current.extend(&change.target_ids),
            TargetChangeType::Reset => listening.current.retain(|target| !change.target_ids.contains(target)),
            TargetChangeType::Remove => {
                let cause = change.cause.as_ref();
                let code = cause.map_or(Code::Unknown, |cause| Code::from_i32(cause.code));
                let status = Status::new(code, cause.map_or("", |cause| cause.message.as_str()));
                self.listening = None;
                self.pause = PAUSES[1];
                self.ready.push_back(Err(status::unavailable(&status)));
                return;
            }
            TargetChangeType::NoChange | TargetChangeType::Add => {}
        }
        let all_current = listening.current.len() == listening.targets.len();
        if all_current {
            self.pause = Duration::ZERO;
        }
        // A time for all targets at once: all that was committed until then has been said.
        if all_current
            && change.target_ids.is_empty()
            && let Some(Version(complete)) = change.read_time.as_ref().and_then(codec::version)
        {
            self.position = self.position.max(complete.saturating_sub(SLACK_MICROS));
        }
    }

    fn hear_document(&mut self, change: proto::DocumentChange) {
        let Some(listening) = &mut self.listening else { return };
        let target = change.target_ids.first().and_then(|target| usize::try_from(target - 1).ok());
        let Some(collection) = target.and_then(|target| listening.targets.get(target)).copied() else { return };
        let Some(document) = change.document else { return };
        listening.documents += 1;
        self.connection.count_heard();
        let Some(version) = document.update_time.as_ref().and_then(codec::version) else { return };
        if version.0 <= listening.floor {
            return;
        }
        let Some(key) = self.key_of(collection, &document) else { return };
        if !self.told.is_news(&key, version) {
            return;
        }
        let change = if collection == DELETED {
            Ok(Change::Deleted(key))
        } else {
            codec::document(key, document).map(|document: Document| Change::Put(document))
        };
        let item = change.map(|change| self.item(change));
        self.ready.push_back(item);
    }

    /// The document that is told of.
    fn key_of(&self, collection: &'static str, document: &proto::Document) -> Option<Key> {
        if collection != DELETED {
            let id = document.name.rsplit('/').next()?.to_owned();
            return Some(Key { collection, id });
        }
        let text = |field: &str| match document.fields.get(field)?.value_type.as_ref()? {
            ValueType::StringValue(text) => Some(text.clone()),
            _ => None,
        };
        let of = text(TOMBSTONE_COLLECTION)?;
        let collection = self.connection.collections().iter().find(|known| **known == of)?;
        Some(Key { collection, id: text(TOMBSTONE_ID)? })
    }

    fn item(&self, change: Change) -> FeedItem {
        let millis = self.position.saturating_sub(TIME_ZERO_MICROS) / 1000;
        FeedItem { cursor: Cursor(self.tag << TIME_BITS | millis), change }
    }
}

impl Listening {
    fn is_old(&self) -> bool {
        let age = self.since.elapsed();
        age > RENEW_AFTER || (age > RENEW_NOT_BEFORE && self.documents > RENEW_AFTER_DOCUMENTS)
    }
}

/// One target for each collection, and one for tombstones.
fn requests(connection: &Connection, since: u64) -> (Vec<&'static str>, Vec<proto::ListenRequest>) {
    let targets: Vec<&'static str> = connection.collections().iter().copied().chain([DELETED]).collect();
    let requests = (1..).zip(&targets).map(|(target_id, collection)| {
        let query = proto::target::QueryTarget {
            parent: connection.documents().to_owned(),
            query_type: Some(proto::target::query_target::QueryType::StructuredQuery(query(collection, since))),
        };
        let target_type = Some(proto::target::TargetType::Query(query));
        let target = proto::Target { target_id, target_type, ..Default::default() };
        proto::ListenRequest {
            database: connection.database().to_owned(),
            target_change: Some(proto::listen_request::TargetChange::AddTarget(target)),
            ..Default::default()
        }
    });
    let requests = requests.collect();
    (targets, requests)
}

fn query(collection: &str, since: u64) -> proto::StructuredQuery {
    let since = codec::time(codec::timestamp(Version(since)).unwrap_or_default());
    let field = Some(FieldReference { field_path: codec::CHANGED.to_owned() });
    proto::StructuredQuery {
        from: vec![CollectionSelector { collection_id: collection.to_owned(), all_descendants: false }],
        r#where: Some(read::compare(codec::CHANGED, Operator::GreaterThanOrEqual, since)),
        order_by: vec![Order { field, direction: Direction::Ascending.into() }],
        ..Default::default()
    }
}

/// The last told versions of the documents told of lately: two generations, so that it neither grows nor forgets at once.
#[derive(Debug, Default)]
struct Told {
    young: HashMap<Key, Version>,
    old: HashMap<Key, Version>,
}

impl Told {
    /// Whether this version of the document is newer than what was told of it; it is told then.
    fn is_news(&mut self, key: &Key, version: Version) -> bool {
        let known = self.young.get(key).or_else(|| self.old.get(key));
        if known.is_some_and(|known| *known >= version) {
            return false;
        }
        if self.young.len() >= REMEMBERED {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key.clone(), version);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_of_one_database_and_not_for_ever() {
        let meta = Meta { tag: 7, now: 1_800_000_000_000_000 };
        let cursor = |position: u64| Cursor((7 << TIME_BITS) | ((position - TIME_ZERO_MICROS) / 1000));
        let minute_ago = meta.now - 60_000_000;
        assert_eq!(position_of(cursor(minute_ago), 7), Some(minute_ago));
        assert_eq!(position_of(cursor(minute_ago), 8), None);
        assert_eq!(position_of(Cursor(0), 7), None);
        assert_eq!(position_of(Cursor(u64::MAX), LAST_TAG.unsigned_abs() - 1), None);
        assert!(is_good(minute_ago, &meta) && is_good(meta.now, &meta));
        assert!(!is_good(meta.now + 1, &meta), "a database that was put back");
        assert!(!is_good(meta.now - KEPT_MICROS - 1, &meta), "too old");
    }

    #[test]
    fn only_news_are_told() {
        let mut told = Told::default();
        let key = |id: usize| Key { collection: "things", id: id.to_string() };
        assert!(told.is_news(&key(1), Version(5)));
        assert!(!told.is_news(&key(1), Version(5)));
        assert!(!told.is_news(&key(1), Version(4)));
        assert!(told.is_news(&key(1), Version(6)));
        for n in 2..REMEMBERED + 10 {
            assert!(told.is_news(&key(n), Version(1)));
        }
        assert!(!told.is_news(&key(1), Version(6)), "remembered for a generation");
        assert!(told.young.len() <= REMEMBERED && told.old.len() <= REMEMBERED);
    }
}
