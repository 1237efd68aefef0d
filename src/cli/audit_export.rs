//! The journal for other tools: its lines as they are, or a table.

use std::io::{self, Write};

use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// What an export is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// Each line as it stands in the journal, so that it can be proved again
    Jsonl,
    /// A table with a header line, its times in RFC 3339
    Csv,
}

/// The columns of a table: the names of the journal, and `at` for `at_ns`.
const COLUMNS: [&str; 71] = [
    "seq",
    "at",
    "record",
    "event_id",
    "event_type",
    "workflow_id",
    "workflow_type",
    "run_id",
    "activity_id",
    "activity_type",
    "attribution",
    "protocol",
    "stage",
    "http_method",
    "http_url",
    "db_system",
    "db_name",
    "db_user",
    "db_operation",
    "file_path",
    "file_operation",
    "module",
    "function",
    "said",
    "arguments",
    "request_body",
    "request_bytes",
    "request_sha256",
    "statement",
    "statement_bytes",
    "statement_sha256",
    "outcome",
    "http_status_code",
    "response_body",
    "response_bytes",
    "response_sha256",
    "rows",
    "bytes_read",
    "bytes_written",
    "result",
    "error",
    "decision",
    "verdict",
    "policy",
    "policy_generation",
    "core_event_id",
    "constraints",
    "redacted",
    "reason",
    "by_fail_mode",
    "approval_id",
    "decided_by",
    "state",
    "summary",
    "by",
    "policy_us",
    "held_us",
    "upstream_us",
    "took_us",
    "series",
    "admitted",
    "first_ns",
    "last_ns",
    "answered",
    "ended_apart",
    "longest_us",
    "statements_sha256",
    "may_follow",
    "within_ms",
    "signature",
    "chain",
];

/// Writes lines of a journal in one format.
pub(super) struct Export<'a> {
    format: Format,
    out: &'a mut dyn Write,
}

impl<'a> Export<'a> {
    /// Begins an export to `out`.
    pub(super) fn begin(format: Format, out: &'a mut dyn Write) -> io::Result<Self> {
        match format {
            Format::Jsonl => {}
            Format::Csv => row(out, COLUMNS.iter().copied().map(String::from))?,
        }
        Ok(Self { format, out })
    }

    /// Writes one line of the journal.
    pub(super) fn line(&mut self, line: &[u8]) -> io::Result<()> {
        match self.format {
            Format::Jsonl => {
                self.out.write_all(line)?;
                self.out.write_all(b"\n")
            }
            Format::Csv => {
                let record: Map<String, Value> = serde_json::from_slice(line)?;
                row(self.out, COLUMNS.iter().map(|name| cell(&record, name)))
            }
        }
    }
}

fn cell(record: &Map<String, Value>, name: &str) -> String {
    let value = match name {
        "at" => return record.get("at_ns").and_then(rfc3339).unwrap_or_default(),
        name => record.get(name),
    };
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => harmless(text),
        Some(other) => other.to_string(),
    }
}

fn rfc3339(at_ns: &Value) -> Option<String> {
    let at = OffsetDateTime::from_unix_timestamp_nanos(at_ns.as_u64()?.into());
    at.ok()?.format(&Rfc3339).ok()
}

/// A spreadsheet runs what begins like a formula, and agents write these texts.
fn harmless(text: &str) -> String {
    match text.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        true => format!("'{text}"),
        false => text.to_owned(),
    }
}

/// A line of RFC 4180.
fn row(out: &mut dyn Write, cells: impl Iterator<Item = String>) -> io::Result<()> {
    let mut comma = "";
    for cell in cells {
        out.write_all(comma.as_bytes())?;
        match cell.contains(['"', ',', '\n', '\r']) {
            true => write!(out, "\"{}\"", cell.replace('"', "\"\""))?,
            false => out.write_all(cell.as_bytes())?,
        }
        comma = ",";
    }
    out.write_all(b"\r\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exported(format: Format, line: &str) -> String {
        let mut out = Vec::new();
        let mut export = Export::begin(format, &mut out).unwrap();
        export.line(line.as_bytes()).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_line_of_jsonl_is_the_journals_own() {
        let line = r#"{"record":"halt","seq":3,"chain":"00"}"#;
        assert_eq!(exported(Format::Jsonl, line), format!("{line}\n"));
    }

    #[test]
    fn a_cell_keeps_quotes_commas_and_lines_and_runs_nothing() {
        let line = r#"{"record":"halt","at_ns":1000000000,"seq":3,"reason":"a, \"b\"\nc","by":"=HYPERLINK(1)","constraints":["read_only"],"http_status_code":-1}"#;
        let table = exported(Format::Csv, line);
        let (head, body) = table.split_once("\r\n").unwrap();
        assert_eq!(head.split(',').count(), COLUMNS.len());
        assert!(body.starts_with("3,1970-01-01T00:00:01Z,halt,"), "{body}");
        for cell in [
            "\"a, \"\"b\"\"\nc\"",
            "'=HYPERLINK(1)",
            "\"[\"\"read_only\"\"]\"",
            ",-1,",
        ] {
            assert!(body.contains(cell), "{cell} in {body}");
        }
    }
}
