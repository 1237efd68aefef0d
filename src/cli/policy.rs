//! `policy test`, `policy eval`: what the embedded policy answers, without an
//! agent.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Subcommand;

use crate::config::{self, For, PolicyMode, Source};
use crate::policy::local::cases::{self, Case, Expected, Seen};
use crate::policy::local::{LocalPolicy, Settings};
use crate::policy::{PolicyError, Ruling, Side};
use crate::protocols::{postgres, redis};

use super::{Shared, Streams, exit, report};

/// Longest text of cases or input, bytes.
const TEXT_BYTES_MAX: u64 = 4 << 20;
/// Least deadline of an evaluation.
const EVALUATE_WITHIN_MIN: Duration = Duration::from_secs(5);

/// What about the policy.
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Run cases and show where the policy answers something else
    Test(Test),
    /// Print what the policy answers to one input
    Eval(Eval),
}

/// What `policy test` is told.
#[derive(clap::Args, Debug)]
pub(super) struct Test {
    /// Files of cases [default: those named *_cases.yaml beside the policy]
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    shared: Shared,
}

/// What `policy eval` is told.
#[derive(clap::Args, Debug)]
pub(super) struct Eval {
    /// File with an input document, or with an operation or event as in a case [default: standard input]
    #[arg(value_name = "FILE", default_value = "-")]
    file: PathBuf,
    #[command(flatten)]
    shared: Shared,
}

pub(super) fn policy(verb: &Verb, env: &Source, streams: &mut Streams<'_>) -> io::Result<u8> {
    let shared = match verb {
        Verb::Test(args) => &args.shared,
        Verb::Eval(args) => &args.shared,
    };
    let config = match config::check(&shared.flags(), env, For::Serve) {
        Ok(config) => config,
        Err(problems) => return report::problems(&problems, streams),
    };
    let PolicyMode::Local(settings) = config.policy else {
        return failed(
            streams,
            "an OpenBox Core is configured; only the embedded policy can be asked here",
        );
    };
    let policy = match LocalPolicy::load(patient(settings)) {
        Ok(policy) => policy,
        Err(error) => {
            writeln!(streams.err, "openbox-sidecar: {error}")?;
            return Ok(exit::CONFIG);
        }
    };
    match verb {
        Verb::Test(args) => test(&args.files, &policy, streams),
        Verb::Eval(args) => eval(&args.file, &policy, streams),
    }
}

/// With time for what a process evaluates first, which is slow about more than the policy.
pub(super) fn patient(settings: Settings) -> Settings {
    Settings {
        evaluate_within: settings.evaluate_within.max(EVALUATE_WITHIN_MIN),
        ..settings
    }
}

/// A statement as the relay for its system shows it.
fn seen(system: &str, statement: &str) -> Option<Seen> {
    let (operation, statement, reading) = match system {
        "postgresql" => {
            let (verb, statement, reading) = postgres::as_seen(statement);
            (verb.into(), statement, reading)
        }
        "redis" => redis::as_seen(statement)?,
        _ => return None,
    };
    Some(Seen {
        operation,
        statement,
        reading,
    })
}

fn test(files: &[PathBuf], policy: &LocalPolicy, streams: &mut Streams<'_>) -> io::Result<u8> {
    let beside = match (files, &policy.settings().path) {
        ([], Some(path)) => match cases::beside(path) {
            Ok(files) => files,
            Err(error) => return failed(streams, &format!("{}: {error}", path.display())),
        },
        (_, _) => files.to_vec(),
    };
    if beside.is_empty() {
        let text = "no cases were found\n  expected   files of cases, or some named *_cases.yaml beside the policy\n  \
                    example    openbox-sidecar policy test --policy my.rego my_cases.yaml";
        return failed(streams, text);
    }
    let (mut count, mut wrong) = (0_usize, 0_usize);
    let mut unread = false;
    for file in &beside {
        writeln!(streams.out, "{}", file.display())?;
        let read = text_of(file)
            .map_err(|error| vec![format!("{}: {error}", file.display())])
            .and_then(|text| cases::read(&file.display().to_string(), &text, seen));
        let cases = match read {
            Ok(cases) => cases,
            Err(problems) => {
                unread = true;
                for problem in problems {
                    writeln!(streams.err, "openbox-sidecar: {problem}")?;
                }
                continue;
            }
        };
        for case in cases {
            count = count.saturating_add(1);
            match difference(&case, &policy.ask(&case)) {
                None => writeln!(streams.out, "  ok    {}", case.name)?,
                Some(difference) => {
                    wrong = wrong.saturating_add(1);
                    writeln!(streams.out, "  FAIL  {}\n{difference}", case.name)?;
                }
            }
        }
    }
    writeln!(streams.out, "{count} cases, {wrong} failed")?;
    Ok(if wrong == 0 && !unread {
        exit::OK
    } else {
        exit::FAILED
    })
}

/// What was expected and what was answered, where they differ.
fn difference(case: &Case, answer: &Result<Arc<Ruling>, PolicyError>) -> Option<String> {
    let expected = case.expect.as_ref()?;
    let shown = |verdict: &str, reason: Option<&str>, redacted: Option<String>| {
        let reason = reason.map_or_else(String::new, |reason| {
            format!("\n            reason   {reason}")
        });
        let redacted =
            redacted.map_or_else(String::new, |json| format!("\n            redacted {json}"));
        format!("{verdict}{reason}{redacted}")
    };
    let wanted = shown(
        expected.verdict.as_str(),
        expected.reason.as_deref(),
        expected.redacted.as_ref().map(ToString::to_string),
    );
    let found = match answer {
        Ok(ruling) if agrees(expected, ruling) => return None,
        Ok(ruling) => shown(
            ruling.verdict.as_str(),
            ruling.reason.as_ref().map(|reason| &*reason.0),
            ruling.redacted.as_ref().map(|json| json.0.to_string()),
        ),
        Err(error) => error.to_string(),
    };
    Some(format!(
        "          expected {wanted}\n          found    {found}"
    ))
}

fn agrees(expected: &Expected, ruling: &Ruling) -> bool {
    let reason = ruling.reason.as_ref().map(|reason| &*reason.0);
    let redacted: Option<serde_json::Value> = ruling
        .redacted
        .as_ref()
        .and_then(|json| serde_json::from_str(&json.0).ok());
    expected.verdict == ruling.verdict
        && expected
            .reason
            .as_ref()
            .is_none_or(|wanted| reason == Some(wanted))
        && expected
            .redacted
            .as_ref()
            .is_none_or(|wanted| redacted.as_ref() == Some(wanted))
}

fn eval(file: &Path, policy: &LocalPolicy, streams: &mut Streams<'_>) -> io::Result<u8> {
    let name = match file.to_str() {
        Some("-") | None => "standard input".to_owned(),
        Some(name) => name.to_owned(),
    };
    let read = text_of(file)
        .map_err(|error| vec![format!("{name}: {error}")])
        .and_then(|text| cases::read_one(&name, &text, seen));
    let case = match read {
        Ok(case) => case,
        Err(problems) => return failed(streams, &problems.join("\n\n")),
    };
    match policy.ask(&case) {
        Ok(ruling) => {
            serde_json::to_writer_pretty(&mut *streams.out, &told(&ruling))?;
            writeln!(streams.out)?;
            Ok(exit::OK)
        }
        Err(error) => failed(streams, &error.to_string()),
    }
}

/// A ruling for people and scripts: what decided, and what came with it.
fn told(ruling: &Ruling) -> serde_json::Value {
    let redacted = ruling.redacted.as_ref();
    let guardrails = ruling.guardrails.as_ref().map(|guardrails| {
        let findings = guardrails.findings.iter();
        let reasons: Vec<_> = findings
            .map(|f| serde_json::json!({"type": f.kind, "field": f.field, "reason": f.reason}))
            .collect();
        serde_json::json!({
            "side": match guardrails.side { Side::Input => "input", Side::Output => "output" },
            "validation_passed": guardrails.passed,
            "reasons": reasons,
        })
    });
    serde_json::json!({
        "verdict": ruling.verdict.as_str(),
        "reason": ruling.reason.as_ref().map(|reason| &*reason.0),
        "policy": ruling.policy.as_deref(),
        "constraints": ruling.constraints,
        "redacted": redacted.and_then(|json| serde_json::from_str::<serde_json::Value>(&json.0).ok()),
        "guardrails": guardrails,
    })
}

/// The text of `file`, where `-` is standard input.
fn text_of(file: &Path) -> io::Result<String> {
    let mut text = String::new();
    let from: Box<dyn Read> = if file == Path::new("-") {
        Box::new(io::stdin())
    } else {
        Box::new(std::fs::File::open(file)?)
    };
    from.take(TEXT_BYTES_MAX.saturating_add(1))
        .read_to_string(&mut text)?;
    if u64::try_from(text.len()).unwrap_or(u64::MAX) > TEXT_BYTES_MAX {
        let text = format!("larger than {TEXT_BYTES_MAX} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
    }
    Ok(text)
}

fn failed(streams: &mut Streams<'_>, text: &str) -> io::Result<u8> {
    writeln!(streams.err, "openbox-sidecar: {text}")?;
    Ok(exit::FAILED)
}
