//! `check http METHOD URL`: which route fits a request, what holds for it, and
//! the verdict it would get, without sending anything.

use std::io;
use std::net::SocketAddr;

use crate::config::{self, Config, For, PolicyMode, Source};
use crate::domain::Verdict;
use crate::gate::{FailMode, Govern, Unanswered};
use crate::net::address::AddressRules;
use crate::policy::local::LocalPolicy;
use crate::policy::local::cases;
use crate::policy::{Ruling, Side, redaction};
use crate::protocols::http::{
    Asked, Completed, Judged, Leads, OverCap, Preview, preview, tool_called,
};

use super::policy::patient;
use super::{Shared, Streams, exit, report};

/// What `check http` is told.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// Method of the request
    method: String,
    /// Its URL; a message of a WebSocket is `POST wss://…`
    url: String,
    /// A header of it, as often as there are
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// Text that it carries
    #[arg(long, value_name = "TEXT")]
    body: Option<String>,
    #[command(flatten)]
    shared: Shared,
}

pub(super) fn check(args: &Args, env: &Source, streams: &mut Streams<'_>) -> io::Result<u8> {
    let config = match config::check(&args.shared.flags(), env, For::Serve) {
        Ok(config) => config,
        Err(problems) => return report::problems(&problems, streams),
    };
    report::warnings(&config, streams)?;
    let asked = Asked {
        method: &args.method,
        url: &args.url,
        headers: &args.headers,
    };
    let seen = match preview(&config.http, &asked) {
        Ok(seen) => seen,
        Err(wrong) => return failed(streams, &wrong),
    };
    let verdict = match verdict(&config, &seen, args.body.as_deref()) {
        Ok(verdict) => verdict,
        Err(error) => return failed(streams, &error),
    };
    streams.out.write_all(told(&config, &seen).as_bytes())?;
    writeln!(streams.out, "verdict        {verdict}")?;
    Ok(exit::OK)
}

/// What the configuration says about it.
fn told(config: &Config, seen: &Preview<'_>) -> String {
    let route = match seen.route {
        Some((at, route)) => format!("http.routes[{at}]: {}", route.text),
        None => "none fits: what `http` says for all".to_owned(),
    };
    let capture = match seen.treatment.capture_bytes_max {
        0 => "no bodies".to_owned(),
        bytes => format!("bodies up to {bytes} bytes"),
    };
    let over_cap = match seen.treatment.over_cap {
        _ if seen.treatment.capture_bytes_max == 0 => "of no effect: no body is captured",
        OverCap::Partial => "partial",
        OverCap::Deny => "deny",
        OverCap::Spill => "spill",
    };
    let fail_mode = match seen.treatment.unanswered {
        Unanswered::AsSet => config.gate.fail_mode,
        Unanswered::By(mode) => mode,
    };
    let fail_mode = match fail_mode {
        FailMode::Open => "open",
        FailMode::Closed => "closed",
    };
    let reads = match (seen.leads, seen.judged) {
        (Leads::Read, Judged::Request) => "the request",
        (Leads::Read, Judged::Each) => "the request, and each message or event (http.judge_each)",
        (Leads::Read, Judged::Message) => "the message",
        (Leads::Read, Judged::Nothing) => {
            "the handshake only: http.judge_each does not name the place"
        }
        (Leads::Unread, _) => "the tunnel only: http.passthrough names the host",
        (Leads::Refused, _) => "nothing: http.connect_ports does not name the port",
    };
    let hold_within = format!("{:?}", seen.treatment.hold_within);
    let answer_within = format!("{:?}", seen.treatment.answer_within);
    let idle_within = format!("{:?}", seen.treatment.idle_within);
    let body_within = match seen.treatment.body_within {
        Some(within) => format!("{within:?}"),
        None => "unbounded".to_owned(),
    };
    let mut rows = vec![
        ("asked about", format!("{} {}", seen.method, seen.url)),
        ("route", route),
    ];
    rows.extend(credential(seen).map(|credential| ("credential", credential)));
    rows.extend([
        ("read", reads.to_owned()),
        ("  capture", capture),
        ("  over_cap", over_cap.to_owned()),
        ("  completed", completed(seen).to_owned()),
        ("  hold_within", hold_within),
        ("  answer_within", answer_within),
        ("  idle_within", idle_within),
        ("  body_within", body_within),
        ("  fail_mode", fail_mode.to_owned()),
    ]);
    let lines = rows
        .into_iter()
        .map(|(name, value)| format!("{name:<14} {value}\n"));
    lines.collect()
}

/// What becomes of an answer to it while policy judges that.
fn completed(seen: &Preview<'_>) -> &'static str {
    let treatment = &seen.treatment;
    match (treatment.completed, seen.leads, seen.judged) {
        (Completed::Observe, _, _) => "observe",
        (Completed::Enforce, Leads::Unread | Leads::Refused, _) => "enforce",
        (Completed::Enforce, Leads::Read, Judged::Message | Judged::Nothing) => "enforce",
        (Completed::Enforce, Leads::Read, Judged::Request | Judged::Each) => {
            match treatment.capture_bytes_max {
                0 => "enforce, for answers without a body: no other is captured",
                _ if treatment.withholds_over_cap() => {
                    "enforce: an answer goes out once policy has seen all of it, or is refused"
                }
                _ => "enforce: what is over the cap, or slow, goes out before it is judged",
            }
        }
    }
}

/// Which credential it would leave with; never the credential.
fn credential(seen: &Preview<'_>) -> Option<String> {
    let (at, credential, withheld) = seen.credential?;
    Some(match withheld {
        Some(why) => format!("none: http.credentials[{at}] fits, but {why}"),
        None => format!(
            "http.credentials[{at}]: {} from {}, once it may leave",
            credential.header,
            credential.file.display()
        ),
    })
}

/// What would be answered to it.
fn verdict(config: &Config, seen: &Preview<'_>, body: Option<&str>) -> Result<String, String> {
    if seen.leads == Leads::Refused {
        return Ok("refused: port_refused, before policy is asked".to_owned());
    }
    let cap = seen.treatment.capture_bytes_max;
    if seen.treatment.refuses_over_cap() && body.is_some_and(|body| body.len() > cap) {
        return Ok("refused: body_too_large_to_judge, before policy is asked".to_owned());
    }
    // What policy is shown of it.
    let body = body.filter(|_| cap > 0 && seen.is_text && seen.leads == Leads::Read);
    let mut text = match (&config.policy, config.gate.govern) {
        _ if seen.judged == Judged::Nothing => "not asked: the message passes".to_owned(),
        // As the gate answers it.
        (_, Govern::Hooks) => "allow: not asked: `govern` leaves this out".to_owned(),
        (PolicyMode::Core(core), Govern::Both | Govern::Boundary) => format!(
            "OpenBox Core at {} decides; it is not asked here, since what it is asked it records",
            core.client.url
        ),
        (PolicyMode::Local(local), Govern::Both | Govern::Boundary) => {
            let policy =
                LocalPolicy::load(patient(local.clone())).map_err(|error| error.to_string())?;
            match policy.ask(&case(seen, body)?) {
                Ok(ruling) => ruled(&ruling, body),
                Err(error) => format!("refused: {error}"),
            }
        }
    };
    if let Some(rule) = address(config, seen) {
        text.push_str(&format!(
            "\naddress        refused, whatever the verdict: {rule}"
        ));
    }
    Ok(text)
}

fn case(seen: &Preview<'_>, body: Option<&str>) -> Result<cases::Case, String> {
    let headers = seen.headers.iter();
    let headers: serde_json::Map<_, _> = headers
        .map(|(name, value)| (name.to_owned(), value.into()))
        .collect();
    let mut operation = serde_json::json!({
        "method": &*seen.method,
        "url": seen.url,
        "headers": headers,
    });
    if let (Some(body), Some(operation)) = (body, operation.as_object_mut()) {
        operation.insert("body".to_owned(), body.into());
        if let Some(tool) = tool_called(body).and_then(|call| call.name) {
            operation.insert("tool".to_owned(), (*tool).into());
        }
    }
    let text = serde_json::json!({ "operation": operation }).to_string();
    cases::read_one("the request", &text, |_, _| None).map_err(|problems| problems.join("\n"))
}

/// What policy says, and what becomes of a `body` that it redacted.
fn ruled(ruling: &Ruling, body: Option<&str>) -> String {
    let mut text = ruling.verdict.as_str().to_owned();
    if let Some(reason) = &ruling.reason {
        text.push_str(&format!(": {reason}"));
    }
    if let Some(policy) = &ruling.policy {
        text.push_str(&format!(" ({policy})"));
    }
    let goes_on = match ruling.verdict {
        Verdict::Allow | Verdict::Constrain | Verdict::RequireApproval => true,
        Verdict::Block | Verdict::Halt => false,
    };
    if let Some(redacted) = ruling.redacted.as_ref().filter(|_| goes_on) {
        let instead = body.and_then(|_| redaction::body(redacted, Side::Input));
        text.push_str(&match instead {
            Some(instead) => format!("\nredacted       the body goes on as {instead:?}"),
            None => "\nredacted       refused: constraint_not_applicable, since what policy redacts cannot be replaced here".to_owned(),
        });
    }
    text
}

/// The rule that closes the address, where it shows without asking a resolver.
fn address(config: &Config, seen: &Preview<'_>) -> Option<String> {
    let dial = &config.upstream.dial;
    let rules = AddressRules::new(dial.allow.clone(), dial.private, config.listeners());
    let by_name = rules.refused_name(&seen.host);
    let by_address = || {
        let address = SocketAddr::new(seen.host.parse().ok()?, seen.port);
        rules.permits(address).err()
    };
    by_name.or_else(by_address).map(|rule| rule.to_string())
}

fn failed(streams: &mut Streams<'_>, text: &str) -> io::Result<u8> {
    writeln!(streams.err, "openbox-sidecar: {text}")?;
    Ok(exit::FAILED)
}
