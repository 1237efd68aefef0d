//! What happened, out of the journal, a page at once.

use std::collections::VecDeque;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::journal::Journal;
use crate::journal::follow::Follower;

use super::super::body::{InPath, InQuery};
use super::super::problem::{Problem, Problems, json};
use super::super::stream::blocking;
use super::OperatorApi;
use super::audit::unreadable;
use super::runs::OWN;

/// Records of a page that does not say how many.
const LIMIT: usize = 100;

/// Most records of a page.
const LIMIT_MAX: usize = 1_000;

/// Bytes of records after which a page ends.
const PAGE_BYTES: usize = 4 << 20;

/// Most bytes of the journal that are read for one page.
const READ_BYTES_MAX: usize = 128 << 20;

/// Which records.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Page {
    /// Only what comes after the record of this number; without, the newest of the journal's last two segments.
    after: Option<u64>,
    /// How many at most: 100 unless said, at most 1000.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// Only of this workflow.
    workflow_id: Option<String>,
    /// Only of this run.
    run_id: Option<String>,
    /// Only of this activity.
    activity_id: Option<String>,
}

/// Records as they stand in the journal, oldest first.
#[derive(Serialize, ToSchema)]
pub(super) struct Records {
    #[schema(value_type = Vec<Object>)]
    records: Vec<Box<RawValue>>,
    /// What `after` goes on from; absent where nothing was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<u64>,
    /// Whether there is more to read after `next`.
    more: bool,
}

/// Operations: what was decided about each, and how it ended; and how often those were repeated that are counted together.
#[utoipa::path(get, path = "/v1/operations", tag = "journal", params(Page),
    responses((status = 200, body = Records), Problems))]
pub(super) async fn operations(
    State(api): State<Arc<OperatorApi>>,
    InQuery(page): InQuery<Page>,
) -> Result<Response, Problem> {
    read(&api, page, &["decision", "completion", "series"]).await
}

/// Everything that happened in a run: events, operations, approvals, halts. `own` is the sidecar's.
#[utoipa::path(get, path = "/v1/runs/{run_id}/timeline", tag = "runs", params(("run_id" = String, Path,), Page),
    responses((status = 200, body = Records), Problems))]
pub(super) async fn timeline(
    State(api): State<Arc<OperatorApi>>,
    InPath(run_id): InPath<String>,
    InQuery(page): InQuery<Page>,
) -> Result<Response, Problem> {
    let run_id = match run_id == OWN {
        true => api.gate.registry().own().context.run_id.to_string(),
        false => run_id,
    };
    let run_id = Some(run_id);
    read(&api, Page { run_id, ..page }, &[]).await
}

async fn read(
    api: &OperatorApi,
    page: Page,
    kinds: &'static [&'static str],
) -> Result<Response, Problem> {
    let limit = page.limit.unwrap_or(LIMIT);
    if !(1..=LIMIT_MAX).contains(&limit) {
        let detail = format!("`limit` is {limit}; expected 1 to {LIMIT_MAX}");
        return Err(Problem::invalid_field(detail));
    }
    let journal = api.gate.journal().clone();
    let found = blocking(move || found(journal, &page, kinds, limit)).await;
    Ok(json(StatusCode::OK, &found.map_err(unreadable)?))
}

/// What of a record is looked at.
#[derive(Deserialize)]
struct Seen<'a> {
    record: &'a str,
    #[serde(default, borrow)]
    workflow_id: Option<std::borrow::Cow<'a, str>>,
    #[serde(default, borrow)]
    run_id: Option<std::borrow::Cow<'a, str>>,
    #[serde(default, borrow)]
    activity_id: Option<std::borrow::Cow<'a, str>>,
}

impl Page {
    fn wants(&self, line: &str, kinds: &[&str]) -> bool {
        let Ok(seen) = serde_json::from_str::<Seen<'_>>(line) else {
            return false;
        };
        let is = |wanted: &Option<String>, seen: &Option<std::borrow::Cow<'_, str>>| {
            wanted.is_none() || wanted.as_deref() == seen.as_deref()
        };
        (kinds.is_empty() || kinds.contains(&seen.record))
            && is(&self.workflow_id, &seen.workflow_id)
            && is(&self.run_id, &seen.run_id)
            && is(&self.activity_id, &seen.activity_id)
    }
}

fn found(
    journal: Arc<Journal>,
    page: &Page,
    kinds: &[&str],
    limit: usize,
) -> std::io::Result<Records> {
    journal.flush()?;
    let newest = page.after.is_none();
    let mut follower = match page.after {
        None => Follower::recent(journal)?,
        Some(number) => Follower::after(journal, number)?,
    };
    let mut kept: VecDeque<String> = VecDeque::new();
    let (mut kept_bytes, mut read_bytes) = (0_usize, 0_usize);
    let mut next = page.after;
    let mut full = false;
    while !full && follower.is_behind() && (newest || read_bytes < READ_BYTES_MAX) {
        for line in follower.more()? {
            read_bytes = read_bytes.saturating_add(line.text.len());
            next = Some(line.number);
            if !page.wants(&line.text, kinds) {
                continue;
            }
            kept_bytes = kept_bytes.saturating_add(line.text.len());
            kept.push_back(line.text);
            // The newest stay, or the first that come.
            while newest && (kept.len() > limit || (kept_bytes > PAGE_BYTES && kept.len() > 1)) {
                let gone = kept.pop_front().unwrap_or_default();
                kept_bytes = kept_bytes.saturating_sub(gone.len());
            }
            full = !newest && (kept.len() >= limit || kept_bytes > PAGE_BYTES);
            if full {
                break;
            }
        }
    }
    let records = kept.into_iter().map(RawValue::from_string);
    Ok(Records {
        records: records.collect::<Result<_, _>>()?,
        next,
        more: full || follower.is_behind(),
    })
}
