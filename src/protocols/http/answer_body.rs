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
pub(super) struct AnswerBody {
    of: Of,
    /// Why it broke off, until what came before that has had its turn to go on.
    broke: Option<hyper::Error>,
}

#[derive(Debug)]
enum Of {
    /// HTTP/1.1: the connection is the request's.
    Alone(DrivenBody<RequestBody>),
    /// HTTP/2: the stream is.
    Shared(LeasedBody),
}

impl AnswerBody {
    /// Over HTTP/1.1.
    pub(super) fn alone(body: DrivenBody<RequestBody>) -> Self {
        let of = Of::Alone(body);
        Self { of, broke: None }
    }

    /// Over HTTP/2.
    pub(super) fn shared(body: LeasedBody) -> Self {
        let of = Of::Shared(body);
        Self { of, broke: None }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.get_mut();
        if let Some(broke) = this.broke.take() {
            return Poll::Ready(Some(Err(broke)));
        }
        let polled = match &mut this.of {
            Of::Alone(body) => Pin::new(body).poll_frame(cx),
            // A stream that its origin resets is reset for the client at once, head or no head.
            Of::Shared(body) => return Pin::new(body).poll_frame(cx),
        };
        let Poll::Ready(Some(Err(broke))) = polled else {
            return polled;
        };
        // On an error the library gives the client's connection up with all that it has not written of the head and
        // the body before; it writes when there is nothing to read for once.
        this.broke = Some(broke);
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        match &self.of {
            Of::Alone(body) => body.is_end_stream(),
            Of::Shared(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.of {
            Of::Alone(body) => body.size_hint(),
            Of::Shared(body) => body.size_hint(),
        }
    }
}
