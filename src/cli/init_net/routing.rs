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

/// Where the kernel says whether IPv6 may be spoken by loopback.
const WITHOUT_IPV6: &str = "/proc/sys/net/ipv6/conf/lo/disable_ipv6";

/// Has the kernel take in what is marked, in place of earlier rules.
///
/// # Errors
/// What `ip` said. Nothing stays of what was done.
pub(super) fn install(ip: &Path) -> Result<(), String> {
    remove(ip)?;
    let all: Result<(), String> = families().iter().try_for_each(|family| add(ip, family));
    all.inspect_err(|_| drop(remove(ip)))
}

fn add(ip: &Path, family: &str) -> Result<(), String> {
    let mark = format!("{MARK:#x}");
    done(
        ip,
        family,
        &[
            "route", "replace", "local", "default", "dev", "lo", "table", NUMBER,
        ],
    )?;
    done(
        ip,
        family,
        &[
            "rule", "add", "pref", NUMBER, "fwmark", &mark, "lookup", NUMBER,
        ],
    )?;
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
    for family in families() {
        let there = done(ip, family, &["rule", "list", "pref", NUMBER])?;
        for _ in there.lines().take(RULES_MAX) {
            done(ip, family, &["rule", "delete", "pref", NUMBER])?;
        }
        // A table that nobody has put a route into is not there, which `ip` takes for an error.
        let flushed = done(ip, family, &["route", "flush", "table", NUMBER]);
        flushed.or_else(|told| match told.contains("does not exist") {
            true => Ok(String::new()),
            false => Err(told),
        })?;
    }
    Ok(())
}

/// The families that this machine speaks. Of the other, what is marked goes nowhere.
fn families() -> &'static [&'static str] {
    let without = fs::read_to_string(WITHOUT_IPV6);
    match without.as_deref().map(str::trim) {
        Ok("0") => &["-4", "-6"],
        Ok(_) | Err(_) => &["-4"],
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
