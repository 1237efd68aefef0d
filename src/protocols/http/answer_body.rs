//! An origin's response body, whichever version of HTTP it comes by.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::net::http1::DrivenBody;
use crate::net::http2::LeasedBody;

use super::request_body::RequestBody;

/// The body of an answer; dropped early, the origin need not send the rest.
#[derive(Debug)]
pub(super) enum AnswerBody {
    /// HTTP/1.1: the connection is the request's.
    Alone(DrivenBody<RequestBody>),
    /// HTTP/2: the stream is.
    Shared(LeasedBody),
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Self::Alone(body) => Pin::new(body).poll_frame(cx),
            Self::Shared(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Alone(body) => body.is_end_stream(),
            Self::Shared(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Alone(body) => body.size_hint(),
            Self::Shared(body) => body.size_hint(),
        }
    }
}
