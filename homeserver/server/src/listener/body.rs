//! A request body whose next part must come in time: a slow sender holds no request open for ever.

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

/// A body that fails when no part of it arrives for a while.
pub(super) struct TimedBody {
    body: Incoming,
    patience: Duration,
    deadline: Option<Pin<Box<Sleep>>>,
}

impl TimedBody {
    pub(super) fn new(body: Incoming, patience: Duration) -> Self {
        Self { body, patience, deadline: None }
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
            let next = Instant::now() + self.patience;
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
