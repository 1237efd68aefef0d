//! `tail`: what a sidecar does, as it happens.

use std::io;

use serde_json::Value;

use crate::config::Source;

use super::operator_client::{Target, shown, text};
use super::{Streams, report};

/// What is shown, and how.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// Begin after the record of this number, and not now
    #[arg(long, value_name = "SEQ")]
    after: Option<u64>,
    /// Only this run
    #[arg(long, value_name = "ID")]
    run: Option<String>,
    /// Each record whole, as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

pub(super) fn tail(args: &Args, env: &Source, streams: &mut Streams<'_>) -> io::Result<u8> {
    let done = args.target.find(env).and_then(|operator| {
        operator.follow("/v1/stream", args.after, &mut |data| {
            let Ok(record) = serde_json::from_str::<Value>(data) else {
                return Ok(());
            };
            let run = args.run.as_deref();
            if run.is_some_and(|run| record.get("run_id").and_then(Value::as_str) != Some(run)) {
                return Ok(());
            }
            match args.json {
                true => writeln!(streams.out, "{data}")?,
                false => writeln!(streams.out, "{}", line(&record))?,
            }
            streams.out.flush()
        })
    });
    report::operated(done.map(|()| String::new()), streams)
}

/// One record in one line: its number, what became of what, in which run.
fn line(record: &Value) -> String {
    let number = record.get("seq").and_then(Value::as_u64).unwrap_or(0);
    let first = |keys: &[&str]| {
        let mut all = keys.iter().map(|key| text(record, key));
        all.find(|text| !text.is_empty()).unwrap_or_default()
    };
    let what = first(&[
        "summary",
        "http_url",
        "statement",
        "file_path",
        "function",
        "activity_id",
        "reason",
    ]);
    let times = record.get("admitted").and_then(Value::as_u64);
    let words = [
        number.to_string(),
        first(&["record"]),
        times.map_or_else(String::new, |times| format!("{times} x")),
        first(&[
            "event_type",
            "http_method",
            "db_operation",
            "file_operation",
        ]),
        first(&["stage"]),
        first(&["state", "decision", "outcome", "verdict"]),
        first(&["run_id"]),
        shown(&what).chars().take(200).collect(),
    ];
    let words = words.iter().filter(|word| !word.is_empty());
    words.map(String::as_str).collect::<Vec<_>>().join("  ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_one_line_that_moves_no_cursor() {
        let record = serde_json::json!({
            "record": "decision", "seq": 7, "stage": "started", "http_method": "GET",
            "http_url": "http://x/\u{1b}[2J", "decision": "allow", "run_id": "r",
        });
        assert_eq!(
            line(&record),
            "7  decision  GET  started  allow  r  http://x/\u{fffd}[2J"
        );
        let series = serde_json::json!({
            "record": "series", "seq": 8, "db_operation": "GET", "decision": "allow",
            "admitted": 984,
        });
        assert_eq!(line(&series), "8  series  984 x  GET  allow");
    }
}
