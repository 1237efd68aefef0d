//! `Expect: 100-continue` of a client whose body nobody here reads (RFC 9110 §10.1.1): the expectation goes on to the
//! origin, and the body is asked of the client once the origin asks for it, or says nothing for a while.
//!
//! The library says `100 Continue` to a client of HTTP/1.1 when its body is first polled; so it is not polled before.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::header::{self, HeaderValue};
use http::{Request, Response, StatusCode, Version};
use tokio::time::Sleep;

use super::request_body::RequestBody;

/// How long an origin may leave an expectation unanswered, as curl has it. Many know of none.
const ANSWERED_WITHIN: Duration = Duration::from_secs(1);

/// Whether a client waits to be told to go on. The sentinel has refused every other expectation, and in HTTP/1.0 there
/// is none.
pub(super) fn is_said<B>(request: &Request<B>) -> bool {
    request.headers().contains_key(header::EXPECT) && request.version() >= Version::HTTP_11
}

/// Has the origin say whether it wants the body of this request, all of which is still with the client.
pub(super) fn ask_origin(request: &mut Request<RequestBody>) {
    let go_on = HeaderValue::from_static("100-continue");
    request.headers_mut().insert(header::EXPECT, go_on);
    // A client of HTTP/2 cannot be told (the library has no way to), and waits no longer than it likes to.
    if request.version() != Version::HTTP_11 {
        return;
    }
    let told = Arc::new(Told::default());
    request.body_mut().wait_for(Expectation {
        told: told.clone(),
        alarm: None,
    });
    request.extensions_mut().insert(told.clone());
    hyper::ext::on_informational(request, move |answer| {
        if answer.status() == StatusCode::CONTINUE {
            told.to_go_on();
        }
    });
}

/// What the origin has said about a body.
#[derive(Debug, Default)]
pub(super) struct Told(Mutex<Said>);

#[derive(Debug)]
enum Said {
    /// Nothing; who is to be woken once it has.
    Nothing(Option<Waker>),
    /// It is to come.
    GoOn,
    /// The answer came without it.
    Answer,
}

impl Default for Said {
    fn default() -> Self {
        Self::Nothing(None)
    }
}

impl Told {
    /// What the origin will say about the body of `request`, where it was asked.
    pub(super) fn about<B>(request: &Request<B>) -> Option<Arc<Self>> {
        request.extensions().get::<Arc<Self>>().cloned()
    }

    fn to_go_on(&self) {
        let mut said = self.lock();
        if let Said::Nothing(waiting) = &mut *said {
            let waiting = waiting.take();
            *said = Said::GoOn;
            drop(said);
            // Outside the lock: waking runs code of a runtime.
            if let Some(waiting) = waiting {
                waiting.wake();
            }
        }
    }

    /// The answer is here. Where the body was not asked for by now it never is, and `response` is marked.
    pub(super) fn answered<B>(&self, response: &mut Response<B>) {
        let mut said = self.lock();
        match *said {
            Said::GoOn => {}
            Said::Nothing(_) | Said::Answer => {
                *said = Said::Answer;
                response.extensions_mut().insert(Unsent);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Said> {
        // Whatever panicked while it was held has written one whole value, or none.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Marks an answer that came before its request's body was asked for.
#[derive(Clone, Copy, Debug)]
struct Unsent;

/// Whether this answers a request whose body stays with its client: the connection must end with it, since what comes
/// next may be that body.
pub(super) fn is_unsent<B>(response: &Response<B>) -> bool {
    response.extensions().get::<Unsent>().is_some()
}

/// A body that is not asked for yet.
#[derive(Debug)]
pub(super) struct Expectation {
    told: Arc<Told>,
    alarm: Option<Pin<Box<Sleep>>>,
}

impl Expectation {
    /// Ready once the body is to be asked for. The wait for the origin begins with the first poll.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut *self.told.lock() {
            Said::GoOn => return Poll::Ready(()),
            Said::Answer => return Poll::Pending,
            Said::Nothing(waiting) => *waiting = Some(cx.waker().clone()),
        }
        let alarm = || Box::pin(tokio::time::sleep(ANSWERED_WITHIN));
        let rings = self.alarm.get_or_insert_with(alarm).as_mut().poll(cx);
        if rings.is_ready() {
            self.told.to_go_on();
        }
        rings
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::time::Instant;

    use super::*;

    fn unsaid() -> (Arc<Told>, Expectation) {
        let told = Arc::new(Told::default());
        let expectation = Expectation {
            told: told.clone(),
            alarm: None,
        };
        (told, expectation)
    }

    fn is_marked(told: &Told) -> bool {
        let mut response = Response::new(());
        told.answered(&mut response);
        is_unsent(&response)
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_waits_for_the_origin_but_not_for_ever() {
        let begun = Instant::now();
        let (told, mut expectation) = unsaid();
        let asked = poll_fn(|cx| expectation.poll(cx));
        let origin = async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            told.to_go_on();
        };
        tokio::join!(asked, origin);
        assert!(begun.elapsed() < Duration::from_millis(100));
        assert!(!is_marked(&told));

        let (told, mut expectation) = unsaid();
        let begun = Instant::now();
        poll_fn(|cx| expectation.poll(cx)).await;
        assert!(begun.elapsed() >= ANSWERED_WITHIN);
        assert!(!is_marked(&told));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_was_answered_without_is_never_asked_for() {
        let (told, mut expectation) = unsaid();
        let asked = poll_fn(|cx| Poll::Ready(expectation.poll(cx).is_ready()));
        assert!(!asked.await);
        assert!(is_marked(&told));
        told.to_go_on();
        let asked = poll_fn(|cx| expectation.poll(cx));
        let within = ANSWERED_WITHIN.saturating_mul(9);
        assert!(tokio::time::timeout(within, asked).await.is_err());
    }
}
