//! `check http METHOD URL`: which route fits a request, what holds for it, and
//! the verdict it would get, without sending anything.

use std::io;
use std::net::SocketAddr;

use crate::config::{self, Config, For, PolicyMode, Source};
use crate::gate::{FailMode, Unanswered};
use crate::net::address::AddressRules;
use crate::policy::Ruling;
use crate::policy::local::LocalPolicy;
use crate::policy::local::cases;
use crate::protocols::http::{Completed, Leads, OverCap, Preview, preview};

use super::{Shared, Streams, exit, report};

/// What `check http` is told.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// Method of the request
    method: String,
    /// Its URL
    url: String,
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
    let seen = match preview(&config.http, &args.method, &args.url) {
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
        OverCap::Partial => "partial",
        OverCap::Deny => "deny",
        OverCap::Spill => "spill",
    };
    let completed = match seen.treatment.completed {
        Completed::Enforce => "enforce",
        Completed::Observe => "observe",
    };
    let fail_mode = match seen.treatment.unanswered {
        Unanswered::AsSet => config.gate.fail_mode,
        Unanswered::By(mode) => mode,
    };
    let fail_mode = match fail_mode {
        FailMode::Open => "open",
        FailMode::Closed => "closed",
    };
    let reads = match (seen.leads, seen.judges_each) {
        (Leads::Read, false) => "the request",
        (Leads::Read, true) => "the request, and each message or event (http.judge_each)",
        (Leads::Unread, _) => "the tunnel only: http.passthrough names the host",
        (Leads::Refused, _) => "nothing: http.connect_ports does not name the port",
    };
    let hold_within = format!("{:?}", seen.treatment.hold_within);
    let rows = [
        ("asked about", format!("{} {}", seen.method, seen.url)),
        ("route", route),
        ("read", reads.to_owned()),
        ("  capture", capture),
        ("  over_cap", over_cap.to_owned()),
        ("  completed", completed.to_owned()),
        ("  hold_within", hold_within),
        ("  fail_mode", fail_mode.to_owned()),
    ];
    let lines = rows.map(|(name, value)| format!("{name:<15}{value}\n"));
    lines.concat()
}

/// What would be answered to it.
fn verdict(config: &Config, seen: &Preview<'_>, body: Option<&str>) -> Result<String, String> {
    if seen.leads == Leads::Refused {
        return Ok("refused: port_refused, before policy is asked".to_owned());
    }
    let asked = match &config.policy {
        PolicyMode::Core(core) => {
            return Ok(format!(
                "OpenBox Core at {} decides; it is not asked here, since what it is asked it records",
                core.client.url
            ));
        }
        PolicyMode::Local(local) => LocalPolicy::load(local.clone())
            .map_err(|error| error.to_string())?
            .ask(&case(seen, body)?),
    };
    let mut text = match asked {
        Ok(ruling) => ruled(&ruling),
        Err(error) => format!("refused: {error}"),
    };
    if let Some(rule) = address(config, seen) {
        text.push_str(&format!(
            "\naddress        refused, whatever the verdict: {rule}"
        ));
    }
    Ok(text)
}

fn case(seen: &Preview<'_>, body: Option<&str>) -> Result<cases::Case, String> {
    let mut operation = serde_json::json!({"method": &*seen.method, "url": seen.url});
    if let (Some(body), Some(operation)) = (body, operation.as_object_mut())
        && seen.treatment.capture_bytes_max > 0
    {
        operation.insert("body".to_owned(), body.into());
    }
    let text = serde_json::json!({ "operation": operation }).to_string();
    cases::read_one("the request", &text, |_, _| None).map_err(|problems| problems.join("\n"))
}

fn ruled(ruling: &Ruling) -> String {
    let mut text = ruling.verdict.as_str().to_owned();
    if let Some(reason) = &ruling.reason {
        text.push_str(&format!(": {reason}"));
    }
    if let Some(policy) = &ruling.policy {
        text.push_str(&format!(" ({policy})"));
    }
    text
}

/// The rule that closes the address, where it shows without asking a resolver.
fn address(config: &Config, seen: &Preview<'_>) -> Option<String> {
    let dial = &config.upstream.dial;
    let rules = AddressRules::new(dial.allow.clone(), dial.private, Vec::new());
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
