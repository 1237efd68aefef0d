//! The journal for who keeps it elsewhere: where its chain has got to, and its
//! lines as they stand.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use utoipa::ToSchema;

use crate::journal::follow::Follower;
use crate::process::spawn_named;

use super::super::body::InQuery;
use super::super::problem::{Problem, Problems, json};
use super::super::stream::{PIECES_MAX, Pieces, blocking, more};
use super::OperatorApi;

/// Where the chain of the journal has got to.
#[derive(Serialize, ToSchema)]
pub(super) struct Head {
    /// Number of the record that comes next.
    next: u64,
    /// SHA-256 of the record before it, hex: what the next one is chained to.
    chain: String,
    /// Number of the segment that is written to.
    segment: u64,
    /// Bytes in it.
    bytes: u64,
    /// The Ed25519 public key that signs it, hex.
    key: String,
}

/// Where the chain of the journal has got to: kept elsewhere, it proves later that nothing before it was changed.
#[utoipa::path(get, operation_id = "audit_head", path = "/v1/audit/head", tag = "journal", responses((status = 200, body = Head), Problems))]
pub(super) async fn head(State(api): State<Arc<OperatorApi>>) -> Result<Response, Problem> {
    let journal = api.gate.journal().clone();
    let head = blocking(move || journal.head()).await.map_err(unreadable)?;
    let head = Head {
        next: head.next,
        chain: head.chain,
        segment: head.segment,
        bytes: head.offset,
        key: head.key.to_string(),
    };
    Ok(json(StatusCode::OK, &head))
}

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct From {
    /// Only what comes after the record of this number.
    after: Option<u64>,
}

/// The journal up to now, line by line as it stands, so that it can be proved again.
#[utoipa::path(get, operation_id = "export_audit", path = "/v1/audit/export", tag = "journal", params(From),
    responses((status = 200, body = String, content_type = "application/jsonl"), Problems))]
pub(super) async fn export(
    State(api): State<Arc<OperatorApi>>,
    InQuery(from): InQuery<From>,
) -> Result<Response, Problem> {
    let journal = api.gate.journal().clone();
    let begin = move || {
        let end = journal.head()?.next;
        let follower = match from.after {
            None => Follower::from_start(journal),
            Some(number) => Follower::after(journal, number),
        };
        Ok((follower?, end))
    };
    let (follower, end) = blocking(begin).await.map_err(unreadable)?;
    let (sender, receiver) = mpsc::channel(PIECES_MAX);
    drop(spawn_named("export", send(follower, end, sender)));
    let kind = [(CONTENT_TYPE, HeaderValue::from_static("application/jsonl"))];
    Ok((kind, Body::new(Pieces(receiver))).into_response())
}

/// Sends what stands before record `end`, or as much as the client takes.
async fn send(mut follower: Follower, end: u64, pieces: mpsc::Sender<Bytes>) {
    let mut next = 0;
    while next < end && follower.is_behind() {
        let lines;
        (follower, lines) = match more(follower).await {
            Ok(read) => read,
            Err(error) => {
                return tracing::error!(%error, "an export ends: the journal cannot be read");
            }
        };
        let mut text = String::new();
        for line in lines.iter().filter(|line| line.number < end) {
            text.push_str(&line.text);
            text.push('\n');
        }
        next = lines
            .last()
            .map_or(next, |line| line.number.saturating_add(1));
        if !text.is_empty() && pieces.send(text.into()).await.is_err() {
            return;
        }
    }
}

pub(super) fn unreadable(error: std::io::Error) -> Problem {
    tracing::error!(%error, "the journal cannot be read");
    let detail = "the journal cannot be read; the log of the sidecar says why";
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "journal", detail)
}
