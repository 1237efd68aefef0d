//! An origin's response body, whichever version of HTTP it comes by.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::net::http1::DrivenBody;
use crate::net::http2::LeasedBody;

use super::fields;
use super::request_body::RequestBody;
use super::sentinel::Shared;

/// The body of an answer; dropped early, the origin need not send the rest.
#[derive(Debug)]
pub(super) enum AnswerBody {
    /// HTTP/1.1: the connection is the request's.
    Alone {
        body: DrivenBody<RequestBody>,
        /// Why it broke off, until what came before that has gone on.
        broke: Option<hyper::Error>,
        /// Who tells when that has.
        written: Option<Arc<Shared>>,
    },
    /// HTTP/2: the stream is.
    Shared(LeasedBody),
}

impl AnswerBody {
    /// Over HTTP/1.1.
    pub(super) fn alone(body: DrivenBody<RequestBody>) -> Self {
        Self::Alone {
            body,
            broke: None,
            written: None,
        }
    }

    /// From now on it goes out on the connection of `client` as it comes.
    pub(super) fn goes_out_to(&mut self, client: &Arc<Shared>) {
        if let Self::Alone { written, .. } = self {
            *written = client.tells_when_written().then(|| client.clone());
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.get_mut().poll_said(cx).map_ok(fields::travelling)
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Alone { body, .. } => body.is_end_stream(),
            Self::Shared(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Alone { body, .. } => body.size_hint(),
            Self::Shared(body) => body.size_hint(),
        }
    }
}

impl AnswerBody {
    /// What the origin says, as it says it.
    fn poll_said(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let (body, broke, written) = match self {
            Self::Alone {
                body,
                broke,
                written,
            } => (body, broke, written),
            // A stream that its origin resets is reset for the client at once, head or no head.
            Self::Shared(body) => return Pin::new(body).poll_frame(cx),
        };
        if broke.is_some() {
            if let Some(client) = written {
                ready!(client.poll_written(cx));
            }
            return Poll::Ready(broke.take().map(Err));
        }
        let polled = Pin::new(body).poll_frame(cx);
        let Poll::Ready(Some(Err(error))) = polled else {
            return polled;
        };
        // On an error the library gives the client's connection up with all that it has not written of the head and
        // the body before; it writes when there is nothing to read for once. Where nobody tells when all is written,
        // the error has to be said at the next turn.
        *broke = Some(error);
        match written {
            Some(client) => client.ask_when_written(cx.waker()),
            None => cx.waker().wake_by_ref(),
        }
        Poll::Pending
    }
}
