//! The routing that TPROXY needs: what is marked belongs to this machine, whatever its destination.
//!
//! Driven by `ip`, family by family, as `nft` knows nothing of routes.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::process::{Command, Output};

use super::tproxy::MARK;

/// Number of the rule, before those of the system, and of the table that it leads to.
const NUMBER: &str = "15802";

/// Most rules of this number that are taken out.
const RULES_MAX: usize = 16;

/// Where the kernel says whether IPv6 may be spoken by loopback; not there where it knows none.
const WITHOUT_IPV6: &str = "/proc/sys/net/ipv6/conf/lo/disable_ipv6";

const IPV4: &str = "-4";
const IPV6: &str = "-6";

/// Of what `ip` takes for an error, what is none to who takes something back: a table into which nobody has put a
/// route, and a family that the kernel does not speak.
const ABSENT: [&str; 2] = ["does not exist", "not supported"];

/// What was not there before.
#[derive(Debug)]
pub(super) struct Added(Vec<&'static str>);

impl Added {
    /// As it was before. What cannot be taken back leads nothing anywhere: nothing is marked without the rules.
    pub(super) fn take_back(self, ip: &Path) {
        for family in self.0 {
            drop(clear(ip, family));
        }
    }
}

/// Has the kernel take in what is marked. What is there stays all along: earlier rules may lead connections by it.
///
/// # Errors
/// What `ip` said. Nothing stays of what was added.
pub(super) fn install(ip: &Path) -> Result<Added, String> {
    let mut added = Added(Vec::new());
    let all = spoken()
        .iter()
        .try_for_each(|family| add(ip, family, &mut added));
    match all {
        Ok(()) => Ok(added),
        Err(told) => {
            added.take_back(ip);
            Err(told)
        }
    }
}

fn add(ip: &Path, family: &'static str, added: &mut Added) -> Result<(), String> {
    let mark = format!("{MARK:#x}");
    let there = listed(ip, family)?.contains(&format!("fwmark {mark} lookup {NUMBER}"));
    if !there {
        added.0.push(family);
    }
    let route = [
        "route", "replace", "local", "default", "dev", "lo", "table", NUMBER,
    ];
    done(ip, family, &route)?;
    if !there {
        let rule = [
            "rule", "add", "pref", NUMBER, "fwmark", &mark, "lookup", NUMBER,
        ];
        done(ip, family, &rule)?;
    }
    Ok(())
}

/// Takes it back, was it there or not. Where there is no `ip`, it was not.
///
/// # Errors
/// What `ip` said.
pub(super) fn remove(ip: &Path) -> Result<(), String> {
    let asked = Command::new(ip).arg("-V").output();
    if asked.is_err_and(|error| error.kind() == ErrorKind::NotFound) {
        return Ok(());
    }
    known().iter().try_for_each(|family| clear(ip, family))
}

fn clear(ip: &Path, family: &str) -> Result<(), String> {
    let there = or_absent(listed(ip, family))?;
    for _ in there.lines().take(RULES_MAX) {
        done(ip, family, &["rule", "delete", "pref", NUMBER])?;
    }
    or_absent(done(ip, family, &["route", "flush", "table", NUMBER]))?;
    Ok(())
}

/// The rules of this number, a line for each.
fn listed(ip: &Path, family: &str) -> Result<String, String> {
    done(ip, family, &["rule", "list", "pref", NUMBER])
}

fn or_absent(told: Result<String, String>) -> Result<String, String> {
    told.or_else(
        |told| match ABSENT.iter().any(|absent| told.contains(absent)) {
            true => Ok(String::new()),
            false => Err(told),
        },
    )
}

/// The families that this machine speaks. Of the other, what is marked goes nowhere.
fn spoken() -> &'static [&'static str] {
    let without = fs::read_to_string(WITHOUT_IPV6);
    match without.as_deref().map(str::trim) {
        Ok("0") => &[IPV4, IPV6],
        Ok(_) | Err(_) => &[IPV4],
    }
}

/// The families that the kernel knows. A rule of IPv6 outlives that loopback may speak it.
fn known() -> &'static [&'static str] {
    match Path::new(WITHOUT_IPV6).exists() {
        true => &[IPV4, IPV6],
        false => &[IPV4],
    }
}

fn done(ip: &Path, family: &str, words: &[&str]) -> Result<String, String> {
    let name = ip.display();
    let output = Command::new(ip).arg(family).args(words).output();
    let output = output.map_err(|error| {
        format!("cannot start {name}: {error}; it comes with the package iproute2, and --tproxy needs it")
    })?;
    let Output {
        status,
        stdout,
        stderr,
    } = output;
    if status.success() {
        return Ok(String::from_utf8_lossy(&stdout).into_owned());
    }
    Err(format!(
        "{name} {family} {} failed ({status}): {}; it needs root with NET_ADMIN",
        words.join(" "),
        super::first_words(&stderr)
    ))
}
