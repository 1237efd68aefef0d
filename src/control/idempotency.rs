//! `Idempotency-Key`: the same request sent twice is done once, and answered
//! twice. Remembered in memory, for a while and within bounds.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::process::spawn_named;

use super::body::{BODY_BYTES_MAX, whole};
use super::problem::Problem;

/// How long an answer is remembered.
const KEPT_WITHIN: Duration = Duration::from_secs(600);

/// Most keys remembered; beyond it the oldest answer is forgotten.
const KEYS_MAX: usize = 4_096;

/// Most of all answers remembered, bytes; likewise.
const BYTES_MAX: usize = 16 << 20;

/// Longest key, bytes.
const KEY_BYTES_MAX: usize = 255;

const HEADER: HeaderName = HeaderName::from_static("idempotency-key");
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// Marks an answer that may be another one when the request is sent again, so
/// that it is not remembered.
#[derive(Clone, Copy, Debug)]
pub(in crate::control) struct ForNow;

type Print = [u8; 32];

/// Answers by key. Cloning shares them.
#[derive(Clone, Debug, Default)]
pub(in crate::control) struct Answers(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    by_key: HashMap<Arc<str>, Entry>,
    /// In the order they were answered; some are forgotten already.
    order: VecDeque<(Instant, Arc<str>)>,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    /// Of the request that had the key first.
    print: Print,
    /// Absent while it is being answered.
    answer: Option<Answer>,
}

#[derive(Clone, Debug)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

/// What a key stands for.
enum Known {
    Nothing,
    Running,
    Answered(Answer),
    AnotherRequest,
}

/// Does a `POST` that has a key once.
pub(in crate::control) async fn once(
    State(answers): State<Answers>,
    request: Request,
    next: Next,
) -> Response {
    if request.method() != Method::POST || !request.headers().contains_key(HEADER) {
        return next.run(request).await;
    }
    match by_key(answers, request, next).await {
        Ok(response) | Err(response) => response,
    }
}

async fn by_key(answers: Answers, request: Request, next: Next) -> Result<Response, Response> {
    let key = key(request.headers()).map_err(IntoResponse::into_response)?;
    let (head, body) = whole(request, BODY_BYTES_MAX)
        .await
        .map_err(IntoResponse::into_response)?;
    let mut hash = Sha256::new();
    // Not the query: a second try may wait for another while.
    hash.update(head.uri.path().as_bytes());
    hash.update([0]);
    hash.update(&body);
    let print: Print = hash.finalize().into();
    match answers.begin(&key, print, Instant::now()) {
        Known::Nothing => {}
        Known::Running => {
            let detail = "the request with this Idempotency-Key is being answered; try again";
            let problem = Problem::new(StatusCode::CONFLICT, "idempotency_in_progress", detail);
            return Err(problem.for_now().into_response());
        }
        Known::AnotherRequest => {
            let detail = "this Idempotency-Key came with another path or body before; give each request its own";
            let status = StatusCode::UNPROCESSABLE_ENTITY;
            let problem = Problem::new(status, "idempotency_key_reused", detail);
            return Err(problem.into_response());
        }
        Known::Answered(answer) => {
            let mut response = answer.into_response();
            let yes = HeaderValue::from_static("true");
            response.headers_mut().insert(REPLAYED, yes);
            return Ok(response);
        }
    }
    // On a task of its own: a client that goes away and comes back with the key
    // must find what came of it.
    let running = Running { answers, key };
    let request = Request::from_parts(head, Body::from(body));
    let task = spawn_named("idempotent", async move {
        running.answered(next.run(request).await).await
    });
    task.await.map_err(|_| {
        let detail = "the request broke off";
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail).into_response()
    })
}

fn key(headers: &HeaderMap) -> Result<Arc<str>, Problem> {
    let mut all = headers.get_all(HEADER).iter();
    let only = all.next().filter(|_| all.next().is_none());
    let text = only.and_then(|value| value.to_str().ok());
    text.filter(|text| !text.is_empty() && text.len() <= KEY_BYTES_MAX)
        .map(Arc::from)
        .ok_or_else(|| {
            let detail = format!(
                "Idempotency-Key must be one text of 1 to {KEY_BYTES_MAX} visible ASCII characters, for example a UUID"
            );
            Problem::new(StatusCode::BAD_REQUEST, "invalid_idempotency_key", detail)
        })
}

/// A request that has its key. Dropping it without an answer gives the key back.
struct Running {
    answers: Answers,
    key: Arc<str>,
}

impl Running {
    /// Remembers `response`, if it is one to stay.
    async fn answered(self, response: Response) -> Response {
        let stays = response.status().is_success()
            && response.status() != StatusCode::ACCEPTED
            && response.extensions().get::<ForNow>().is_none();
        if !stays {
            return response;
        }
        let (head, body) = response.into_parts();
        let Ok(body) = to_bytes(body, BYTES_MAX).await else {
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        };
        let answer = Answer {
            status: head.status,
            headers: head.headers,
            body,
        };
        self.answers.keep(&self.key, answer.clone(), Instant::now());
        answer.into_response()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.answers.give_back(&self.key);
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        (self.status, self.headers, self.body).into_response()
    }
}

impl Answers {
    fn begin(&self, key: &Arc<str>, print: Print, now: Instant) -> Known {
        let mut table = self.lock();
        table.forget(now);
        match table.by_key.get(key) {
            Some(entry) if entry.print != print => Known::AnotherRequest,
            Some(Entry { answer: None, .. }) => Known::Running,
            Some(Entry {
                answer: Some(answer),
                ..
            }) => Known::Answered(answer.clone()),
            None => {
                let entry = Entry {
                    print,
                    answer: None,
                };
                table.by_key.insert(key.clone(), entry);
                Known::Nothing
            }
        }
    }

    fn keep(&self, key: &Arc<str>, answer: Answer, now: Instant) {
        let mut table = self.lock();
        let bytes = answer.body.len();
        let Some(entry) = table.by_key.get_mut(key) else {
            return;
        };
        entry.answer = Some(answer);
        table.bytes = table.bytes.saturating_add(bytes);
        table.order.push_back((now, key.clone()));
        table.forget(now);
    }

    /// Gives the key of a request back that was not answered to stay.
    fn give_back(&self, key: &str) {
        let mut table = self.lock();
        if table.by_key.get(key).is_some_and(|e| e.answer.is_none()) {
            table.by_key.remove(key);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// Forgets what is old, and what is too much.
    fn forget(&mut self, now: Instant) {
        while let Some((at, key)) = self.order.front() {
            let old = now.duration_since(*at) >= KEPT_WITHIN;
            let much = self.order.len() > KEYS_MAX || self.bytes > BYTES_MAX;
            if !old && !much {
                return;
            }
            let known = self.by_key.remove(key);
            let bytes = known
                .and_then(|entry| entry.answer)
                .map_or(0, |a| a.body.len());
            self.bytes = self.bytes.saturating_sub(bytes);
            self.order.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(bytes: usize) -> Answer {
        Answer {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            body: vec![b'x'; bytes].into(),
        }
    }

    #[test]
    fn what_is_old_or_too_much_is_forgotten() {
        let answers = Answers::default();
        let now = Instant::now();
        let begin = |name: &str, now| {
            let key: Arc<str> = name.into();
            matches!(answers.begin(&key, [0; 32], now), Known::Nothing)
        };
        assert!(begin("a", now));
        assert!(!begin("a", now), "it is being answered");
        answers.keep(&"a".into(), answer(1), now);
        assert!(!begin("a", now), "it was answered");
        let later = now.checked_add(KEPT_WITHIN).unwrap();
        assert!(begin("a", later));
        answers.give_back("a");
        for name in ["b", "c"] {
            assert!(begin(name, later));
            answers.keep(&name.into(), answer(BYTES_MAX), later);
        }
        assert!(begin("b", later) && !begin("c", later));
        assert!(answers.lock().bytes <= BYTES_MAX);
    }
}
