//! Whether the kernel leads clients to the sidecar, or their variables alone do.

use std::process::{Command, Stdio};

use super::super::init_net::TABLE;
use super::finding::{Finding, Report, Weight};
use super::sidecar::Sidecar;

/// What is known of the rules in this network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rules {
    There,
    NotThere,
    /// Only root sees them, by a program that may not be here.
    Unseen,
}

pub(super) fn look(sidecar: &Sidecar, report: &mut Report) {
    let captures = !sidecar.told.transparent.is_empty();
    let (weight, code, what, why, set) = match (rules(), captures) {
        (Rules::There, true) => return,
        (Rules::There, false) => (
            Weight::Finding,
            "rules_without_listener",
            "the kernel leads connections to a port where this sidecar does not listen",
            "what ignores the variables reaches nothing at all",
            "start the sidecar with listen.transparent, or `openbox-sidecar init-net remove`",
        ),
        (Rules::NotThere, true) => (
            Weight::Finding,
            "rules_missing",
            "the sidecar takes captured connections, and no rules of this network namespace lead any there",
            "a program that ignores the variables connects past the sidecar",
            "as root: openbox-sidecar init-net install",
        ),
        (Rules::Unseen, true) => (
            Weight::Note,
            "rules_unseen",
            "the sidecar takes captured connections; whether rules lead any there only root can see, with nft",
            "without them a program that ignores the variables connects past the sidecar",
            "as root: openbox-sidecar doctor",
        ),
        (Rules::NotThere | Rules::Unseen, false) => (
            Weight::Note,
            "variables_alone",
            "only variables lead programs to this sidecar",
            "a program that ignores or unsets them connects past it",
            "openbox-sidecar init-net has the kernel lead all of a pod's or container's there",
        ),
    };
    report.add(Finding {
        weight,
        code,
        what: what.to_owned(),
        why: why.to_owned(),
        set: vec![set.to_owned()],
    });
}

fn rules() -> Rules {
    let listed = Command::new("nft")
        .args(["list", "table", "inet", TABLE])
        .stdin(Stdio::null())
        .output();
    let Ok(listed) = listed else {
        return Rules::Unseen;
    };
    let said = String::from_utf8_lossy(&listed.stderr);
    if listed.status.success() {
        Rules::There
    } else if said.contains("No such file") {
        Rules::NotThere
    } else {
        Rules::Unseen
    }
}
