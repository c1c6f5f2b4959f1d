//! A request body whose next part must come in time, and the whole of it at some speed: a slow sender holds no request
//! open for ever, not even with a byte now and then.

use std::{
    future::Future as _,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
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

/// The slowest sender that is waited for, bytes per second.
const SLOWEST: u64 = 1024;

/// A body that fails when no part of it arrives for a while, or when its parts come too slowly.
pub(super) struct TimedBody {
    body: Incoming,
    patience: Duration,
    begun: Instant,
    received_bytes: u64,
    deadline: Option<Pin<Box<Sleep>>>,
}

impl TimedBody {
    pub(super) fn new(body: Incoming, patience: Duration) -> Self {
        Self { body, patience, begun: Instant::now(), received_bytes: 0, deadline: None }
    }
}

impl Body for TimedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
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
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
