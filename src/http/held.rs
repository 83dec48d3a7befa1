//! A call keeps its place until its answer is with the client, or the client is gone: whoever reads slowly holds memory, and
//! may hold only as much of it as they have places, and only for so long.

use super::gate::Connection;
use super::places::Place;
use axum::body::{Body, Bytes, HttpBody};
use axum::response::Response;
use hyper::body::{Frame, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio_util::sync::{CancellationToken, DropGuard};

/// The same answer, which gives `place` back when the last of its bytes is dropped. A client that has not taken all of it
/// `patience` after it was there loses its connection: over HTTP/2 nothing else frees bytes for which it opens no window
/// (RFC 9113, section 5.2). A stream of events, which has no end that could be told, has a place of its own kind and gives
/// this one back at once.
pub(super) fn hold(response: Response, place: Place, connection: Option<Connection>, patience: Duration) -> Response {
    if response.body().size_hint().exact().is_none() {
        return response;
    }
    let taken = CancellationToken::new();
    if let Some(connection) = connection {
        tokio::spawn(cut_off(connection, taken.clone(), patience));
    }
    let held = Arc::new(Kept { _place: place, _taken: taken.drop_guard() });
    response.map(|body| Body::new(Held { body, held }))
}

async fn cut_off(connection: Connection, taken: CancellationToken, patience: Duration) {
    if tokio::time::timeout(patience, taken.cancelled_owned()).await.is_err() {
        tracing::info!("a client did not take its answer in time: its connection is closed");
        connection.close();
    }
}

/// What an answer keeps until it is taken.
struct Kept {
    _place: Place,
    _taken: DropGuard,
}

struct Held {
    body: Body,
    held: Arc<Kept>,
}

/// HTTP/2 takes a body's bytes long before it sends them: so they, too, keep the place.
struct Chunk {
    bytes: Bytes,
    _held: Arc<Kept>,
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(cx));
        let own = |bytes| Bytes::from_owner(Chunk { bytes, _held: Arc::clone(&self.held) });
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(own))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_takes_the_answer_keeps_the_connection_and_who_does_not_loses_it() {
        for takes in [true, false] {
            let (connection, taken) = (Connection::default(), CancellationToken::new());
            if takes {
                taken.cancel();
            }
            cut_off(connection.clone(), taken, Duration::ZERO).await;
            assert_eq!(connection.is_closed(), !takes);
        }
    }
}
