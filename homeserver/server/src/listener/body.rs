//! A request body whose next part must come in time, and the whole of it at some speed: a slow sender holds no request
//! open for ever, not even with a byte now and then.
//!
//! What nobody read of it is read here, if it is little: a connection that is closed upon bytes in flight is reset, and the client
//! may never see the answer that explains why nobody wanted them.

use std::{
    future::Future as _,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http_body_util::BodyExt as _;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use parking_lot::Mutex;
use tokio::time::{Instant, Sleep};

/// Why reading a body ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    /// The next part did not come in time.
    #[error("the request's body did not arrive in time")]
    TimedOut,
    /// The connection broke.
    #[error(transparent)]
    Broken(#[from] hyper::Error),
}

/// The most that is read of a body that nobody wanted, bytes.
const MAX_LEFT: u64 = 64 * 1024;

/// How long it may take to come.
const LEFT_PATIENCE: Duration = Duration::from_secs(1);

/// What was not read of a body, once whoever had it let it go.
#[derive(Clone, Debug, Default)]
pub(super) struct Left(Arc<Mutex<Option<Incoming>>>);

impl Left {
    /// Whether the connection can be used again: nothing is left of the body. A little is read and thrown away, unless the
    /// client waits for a word before it sends any.
    pub(super) async fn is_done_with(&self, client_waits: bool) -> bool {
        let Some(mut body) = self.0.lock().take() else { return true };
        if client_waits || body.size_hint().lower() > MAX_LEFT {
            return false;
        }
        let drained = tokio::time::timeout(LEFT_PATIENCE, async {
            let mut read: u64 = 0;
            while let Some(frame) = body.frame().await {
                let Ok(frame) = frame else { return false };
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                read = read.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
                if read > MAX_LEFT {
                    return false;
                }
            }
            true
        });
        drained.await.unwrap_or(false)
    }
}

/// The slowest sender that is waited for, bytes per second.
const SLOWEST: u64 = 1024;

/// A body that fails when no part of it arrives for a while, or when its parts come too slowly.
pub(super) struct TimedBody {
    /// There until it is dropped.
    body: Option<Incoming>,
    left: Left,
    patience: Duration,
    begun: Instant,
    received_bytes: u64,
    deadline: Option<Pin<Box<Sleep>>>,
}

impl TimedBody {
    pub(super) fn new(body: Incoming, patience: Duration, left: Left) -> Self {
        Self { body: Some(body), left, patience, begun: Instant::now(), received_bytes: 0, deadline: None }
    }
}

impl Body for TimedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(body) = self.body.as_mut() else { return Poll::Ready(None) };
        if let Poll::Ready(frame) = Pin::new(body).poll_frame(context) {
            if let Some(Ok(data)) = frame.as_ref().map(|frame| frame.as_ref().map(|frame| frame.data_ref())) {
                let bytes = data.map_or(0, |data| u64::try_from(data.len()).unwrap_or(u64::MAX));
                self.received_bytes = self.received_bytes.saturating_add(bytes);
            }
            let bought = Duration::from_secs(self.received_bytes / SLOWEST);
            let next = (Instant::now() + self.patience).min(self.begun + self.patience * 2 + bought);
            if let Some(deadline) = &mut self.deadline {
                deadline.as_mut().reset(next);
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(BodyError::from)));
        }
        // A timer only for bodies that are not there at once: most are.
        let patience = self.patience;
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        deadline.as_mut().poll(context).map(|()| Some(Err(BodyError::TimedOut)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::default, Body::size_hint)
    }
}

impl Drop for TimedBody {
    fn drop(&mut self) {
        if let Some(body) = self.body.take().filter(|body| !body.is_end_stream()) {
            *self.left.0.lock() = Some(body);
        }
    }
}
