//! Connections: so many at a time, and none for a client that takes nothing of what is sent to it.

use crate::tally::Tally;
use axum::Extension;
use axum::middleware::AddExtension;
use axum_server::accept::Accept;
use std::future::{Ready, ready};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tower::Layer;

/// The connection over which a request has come, for who has to end it.
#[derive(Debug, Clone, Default)]
pub(super) struct Connection(CancellationToken);

impl Connection {
    /// Ends it, whatever is under way on it.
    pub(super) fn close(&self) {
        self.0.cancel();
    }

    /// Whether it was ended.
    #[cfg(test)]
    pub(super) fn is_closed(&self) -> bool {
        self.0.is_cancelled()
    }
}

/// Lets connections in.
#[derive(Debug, Clone)]
pub(super) struct Gate {
    places: Arc<Semaphore>,
    stall: Duration,
    refused: Arc<Tally>,
}

impl Gate {
    /// For `most` connections at a time; one that takes no bytes for `stall` although there are some is closed.
    pub(super) fn new(most: usize, stall: Duration) -> Self {
        let places = Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)));
        Self { places, stall, refused: Arc::default() }
    }

    fn admit<I>(&self, io: I) -> io::Result<Guarded<I>> {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            if let Some(connections) = self.refused.note(Instant::now()) {
                tracing::warn!(connections, "refused: as many are open as may be (http.max_connections)");
            }
            return Err(io::Error::other("too many connections"));
        };
        let connection = Connection::default();
        let ending = Box::pin(connection.0.clone().cancelled_owned());
        Ok(Guarded { io, stall: self.stall, stalled: None, connection, ending, _place: place })
    }
}

impl<S> Accept<TcpStream, S> for Gate {
    type Stream = Guarded<TcpStream>;
    /// Every request knows its [`Connection`].
    type Service = AddExtension<S, Connection>;
    type Future = Ready<io::Result<(Self::Stream, Self::Service)>>;

    fn accept(&self, tcp: TcpStream, service: S) -> Self::Future {
        // An answer over HTTP/2 may be several writes; none of them is to wait for the other side's acknowledgement.
        let guarded = tcp.set_nodelay(true).and_then(|()| self.admit(tcp));
        ready(guarded.map(|guarded| {
            let service = Extension(guarded.connection.clone()).layer(service);
            (guarded, service)
        }))
    }
}

/// A connection that was let in.
#[derive(Debug)]
pub(super) struct Guarded<I> {
    io: I,
    stall: Duration,
    /// Runs while there are bytes that the client does not take.
    stalled: Option<Pin<Box<Sleep>>>,
    connection: Connection,
    ending: Pin<Box<WaitForCancellationFutureOwned>>,
    _place: OwnedSemaphorePermit,
}

impl<I> Guarded<I> {
    /// An error once the connection was [closed](Connection::close). Whoever reads is woken then.
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.connection.0.is_cancelled() || self.ending.as_mut().poll(cx).is_ready() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not take its answers"));
        }
        Ok(())
    }

    /// What came of a try to write, or an error where nothing has come of any for too long.
    fn watch<T>(&mut self, written: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(self.stall)));
        std::task::ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing")))
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Guarded<I> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Guarded<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.connection.0.is_cancelled() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let written = Pin::new(&mut self.io).poll_write(cx, buf);
        self.watch(written, cx)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ended = Pin::new(&mut self.io).poll_shutdown(cx);
        self.watch(ended, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.watch(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// Longer than anything here takes, so that a test that hangs fails.
    const SOON: Duration = Duration::from_secs(60);

    #[test]
    fn no_more_connections_than_may_be() {
        let gate = Gate::new(2, SOON);
        let (first, _second) = (gate.admit(()).expect("room"), gate.admit(()).expect("room"));
        assert!(gate.admit(()).is_err());
        drop(first);
        assert!(gate.admit(()).is_ok());
    }

    #[tokio::test]
    async fn who_takes_nothing_is_cut_off() {
        let (near, _far) = tokio::io::duplex(16);
        let mut near = Gate::new(1, Duration::from_millis(50)).admit(near).expect("room");
        near.write_all(&[0; 16]).await.expect("there is room for so much");
        let ended = tokio::time::timeout(SOON, near.write_all(&[0; 16])).await.expect("in time");
        assert_eq!(ended.expect_err("cut off").kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn who_takes_something_begins_anew_and_who_owes_nothing_is_left_alone() {
        let (near, mut far) = tokio::io::duplex(16);
        let mut near = Gate::new(1, SOON).admit(near).expect("room");
        near.write_all(&[0; 16]).await.expect("there is room for so much");
        assert!(near.stalled.is_none(), "nothing waits to be taken");
        assert!(futures::poll!(std::pin::pin!(near.write(&[0; 16]))).is_pending());
        assert!(near.stalled.is_some(), "from now on they have so long");
        far.read_exact(&mut [0; 1]).await.expect("taken");
        assert_eq!(near.write(&[0; 16]).await.expect("room again"), 1);
        assert!(near.stalled.is_none(), "the next time they have as long again");
    }
}
