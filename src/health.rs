//! Whether the process lives, whether it is ready, and what it counts. On a
//! listener of its own, for anybody: nothing here is secret or changes anything.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use serde::Serialize;

use crate::metrics::Metrics;
use crate::process::{Readiness, Tasks};

/// What health is told from.
#[derive(Clone, Debug)]
pub struct Health {
    /// What start-up still waits for.
    pub readiness: Readiness,
    /// See [`Draining`].
    pub draining: Draining,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// The tasks of the process.
    pub tasks: Tasks,
}

/// Whether the process is ending. Not a [`crate::process::Drain`], which would
/// end this listener too: it must still answer while the others drain.
#[derive(Clone, Debug, Default)]
pub struct Draining(Arc<AtomicBool>);

impl Draining {
    /// From now on, not ready.
    pub fn begin(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn has_begun(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// `/livez` (also `/healthz`), `/readyz`, `/metrics`.
pub fn router(health: Health) -> Router {
    Router::new()
        .route("/livez", get(live))
        .route("/healthz", get(live))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(health)
}

async fn live() -> &'static str {
    "ok\n"
}

#[derive(Serialize)]
struct Ready {
    ready: bool,
    draining: bool,
    waiting_for: Vec<&'static str>,
}

async fn ready(State(health): State<Health>) -> Response {
    let draining = health.draining.has_begun();
    let waiting_for = health.readiness.waiting_for();
    let ready = !draining && waiting_for.is_empty();
    let status = match ready {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    let body = Ready {
        ready,
        draining,
        waiting_for,
    };
    (status, Json(body)).into_response()
}

async fn metrics(State(health): State<Health>) -> Response {
    // Counted when somebody asks: to keep the count would cost each task.
    health.metrics.tasks(health.tasks.alive());
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    ([(CONTENT_TYPE, kind)], health.metrics.render()).into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http::Request;
    use http_body_util::BodyExt;
    use tokio::runtime::Handle;
    use tower::ServiceExt;

    use super::*;
    use crate::process::spawn_named;

    async fn ask(health: &Health, path: &str) -> (u16, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = router(health.clone()).oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let mut body = response.into_body();
        let mut text = Vec::new();
        while let Some(frame) = body.frame().await {
            text.extend_from_slice(&frame.unwrap().into_data().unwrap());
        }
        (status, String::from_utf8(text).unwrap())
    }

    #[tokio::test]
    async fn readiness_names_what_it_waits_for_and_ends_with_the_drain() {
        let health = Health {
            readiness: Readiness::default(),
            draining: Draining::default(),
            metrics: Arc::new(Metrics::new().unwrap()),
            tasks: Tasks::default(),
        };
        let policy = health.readiness.pending("policy");
        let (status, text) = ask(&health, "/readyz").await;
        assert_eq!(status, 503);
        assert!(text.contains(r#""waiting_for":["policy"]"#), "{text}");
        assert_eq!(ask(&health, "/livez").await.0, 200);
        drop(policy);
        assert_eq!(ask(&health, "/readyz").await.0, 200);
        health.draining.begin();
        let (status, text) = ask(&health, "/readyz").await;
        assert_eq!(status, 503);
        assert!(text.contains(r#""draining":true"#), "{text}");
        assert_eq!(ask(&health, "/healthz").await, (200, "ok\n".to_owned()));
    }

    #[tokio::test]
    async fn metrics_are_in_the_text_format() {
        let metrics = Arc::new(Metrics::new().unwrap());
        metrics.failed_open();
        let health = Health {
            readiness: Readiness::default(),
            draining: Draining::default(),
            metrics,
            tasks: Tasks::of([Handle::current(), Handle::current()]),
        };
        let unending = spawn_named("unending", std::future::pending::<()>());
        let (status, text) = ask(&health, "/metrics").await;
        assert_eq!(status, 200);
        for line in [
            "openbox_fail_mode_decisions_total{mode=\"open\"} 1",
            "openbox_tasks 2",
        ] {
            assert!(text.lines().any(|said| said == line), "{text}");
        }
        unending.abort();
        assert!(unending.await.is_err());
        let (_, text) = ask(&health, "/metrics").await;
        assert!(text.lines().any(|said| said == "openbox_tasks 0"), "{text}");
    }
}
