//! Deciders that take no time: OpenBox Core, and the service that Envoy's ext_authz asks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use clap::{Args, ValueEnum};

use crate::loopback::Loopback;
use crate::server::{self, Request, Respond};

#[derive(Args)]
pub(crate) struct CoreOptions {
    /// Address to listen on
    #[arg(long)]
    listen: Loopback,
    /// The verdict on every event
    #[arg(long, value_enum, default_value = "allow")]
    verdict: Verdict,
}

#[derive(Args)]
pub(crate) struct AuthzOptions {
    /// Address to listen on
    #[arg(long)]
    listen: Loopback,
}

#[derive(Clone, Copy, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Verdict {
    Allow,
    RequireApproval,
}

/// Runs until the process is ended.
pub(crate) async fn run_core(options: CoreOptions) -> Result<(), String> {
    run(
        options.listen,
        Core {
            verdict: options.verdict,
            events: AtomicU64::new(0),
        },
    )
    .await
}

/// Runs until the process is ended.
pub(crate) async fn run_authz(options: AuthzOptions) -> Result<(), String> {
    run(options.listen, Authz).await
}

async fn run(address: Loopback, respond: impl Respond) -> Result<(), String> {
    let respond = Arc::new(respond);
    let listener = server::listen(address).await?;
    server::accept(listener, move |stream| {
        server::serve(stream, Arc::clone(&respond))
    })
    .await
}

struct Authz;

impl Respond for Authz {
    fn respond(&self, _request: &Request<'_>, response: &mut Vec<u8>) {
        response.extend_from_slice(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    }
}

struct Core {
    verdict: Verdict,
    events: AtomicU64,
}

impl Respond for Core {
    fn respond(&self, request: &Request<'_>, response: &mut Vec<u8>) {
        if request
            .line
            .starts_with(b"POST /api/v1/governance/evaluate ")
        {
            json(response, "200 OK", &self.evaluated());
        } else if request
            .line
            .starts_with(b"POST /api/v1/governance/approval ")
        {
            // Pending for ever: a hold is what is measured, not its end.
            json(
                response,
                "200 OK",
                r#"{"id":"00000000-0000-4000-9000-000000000000","action":"require_approval"}"#,
            );
        } else if request.line.starts_with(b"GET /api/v1/auth/validate ") {
            json(
                response,
                "200 OK",
                r#"{"valid":true,"active":true,"environment":"test"}"#,
            );
        } else {
            json(
                response,
                "404 Not Found",
                r#"{"code":404,"message":"not found"}"#,
            );
        }
    }
}

impl Core {
    fn evaluated(&self) -> String {
        let event = self.events.fetch_add(1, Ordering::Relaxed);
        let id = format!("00000000-0000-4000-8000-{event:012x}");
        match self.verdict {
            Verdict::Allow => {
                format!(r#"{{"governance_event_id":"{id}","verdict":"allow","action":"allow"}}"#)
            }
            Verdict::RequireApproval => format!(
                r#"{{"governance_event_id":"{id}","verdict":"require_approval","action":"require_approval","approval_id":"{id}"}}"#
            ),
        }
    }
}

fn json(response: &mut Vec<u8>, status: &str, body: &str) {
    let length = body.len();
    response.extend_from_slice(
        format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        )
        .as_bytes(),
    );
}
