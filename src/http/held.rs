//! A call keeps its place until its answer is with the client, or the client is gone: whoever reads slowly holds memory, and
//! may hold only as much of it as they have places.

use super::places::Place;
use axum::body::{Body, Bytes, HttpBody};
use axum::response::Response;
use hyper::body::{Frame, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// The same answer, which gives `place` back when the last of its bytes is dropped. A stream of events, which has no end
/// that could be told, has a place of its own kind and gives this one back at once.
pub(super) fn hold(response: Response, place: Place) -> Response {
    if response.body().size_hint().exact().is_none() {
        return response;
    }
    response.map(|body| Body::new(Held { body, place: Arc::new(place) }))
}

struct Held {
    body: Body,
    place: Arc<Place>,
}

/// HTTP/2 takes a body's bytes long before it sends them: so they, too, own the place.
struct Chunk {
    bytes: Bytes,
    _place: Arc<Place>,
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
        let own = |bytes| Bytes::from_owner(Chunk { bytes, _place: Arc::clone(&self.place) });
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(own))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
