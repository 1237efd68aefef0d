//! The body of an answer over a shared connection.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::Slot;

/// A body that counts as a request under way for as long as it lives. Dropped
/// before its end, its stream is reset.
#[derive(Debug)]
pub struct LeasedBody {
    body: Incoming,
    _slot: Slot,
}

impl LeasedBody {
    pub(super) fn new(body: Incoming, slot: Slot) -> Self {
        Self { body, _slot: slot }
    }
}

impl Body for LeasedBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
