//! What was found, as a person reads it and as a program does.

use std::fmt;

use serde_json::{Value, json};

use super::sidecar::Sidecar;

/// Whether anything must change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weight {
    /// Something goes past the sidecar, or will.
    Finding,
    /// To be known; it may be meant so.
    Note,
}

/// What is so where the sidecar takes captured connections.
pub(super) const CAPTURED: &str = "the rules of init-net, where they are there, have the kernel lead connections to this sidecar all the same";

/// One thing.
#[derive(Debug)]
pub(super) struct Finding {
    pub(super) weight: Weight,
    /// A word for programs; never changes its meaning.
    pub(super) code: &'static str,
    /// What is so, with no secret in it.
    pub(super) what: String,
    /// Why it matters.
    pub(super) why: String,
    /// What to set or do, a line each, in the order of doing it.
    pub(super) set: Vec<String>,
}

/// All that was found.
#[derive(Debug)]
pub(super) struct Report {
    sidecar: String,
    version: String,
    /// Whether the kernel is to lead connections to it.
    captures: bool,
    findings: Vec<Finding>,
    /// Clients that were seen to come through.
    through: Vec<String>,
}

impl Report {
    pub(super) fn new(sidecar: &Sidecar) -> Self {
        Self {
            sidecar: sidecar.proxy.to_string(),
            version: sidecar.told.version.clone(),
            captures: sidecar.captures(),
            findings: Vec::new(),
            through: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    /// Adds a way past the sidecar that programs have by themselves. Where the kernel is to lead them to it all the
    /// same this is no way out, so it becomes a note that says so.
    pub(super) fn add_way_past(&mut self, mut finding: Finding) {
        if self.captures {
            finding.weight = Weight::Note;
            finding.why.push_str("; ");
            finding.why.push_str(CAPTURED);
        }
        self.add(finding);
    }

    pub(super) fn came_through(&mut self, client: String) {
        self.through.push(client);
    }

    /// Whether nothing must change.
    pub(super) fn is_clean(&self) -> bool {
        self.of(Weight::Finding).next().is_none()
    }

    fn of(&self, weight: Weight) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(move |one| one.weight == weight)
    }

    pub(super) fn json(&self) -> Value {
        let all = |weight| {
            let all = self.of(weight).map(
                |one| json!({ "code": one.code, "what": one.what, "why": one.why, "set": one.set }),
            );
            all.collect::<Vec<_>>()
        };
        json!({
            "sidecar": { "proxy": self.sidecar, "version": self.version },
            "through": self.through,
            "findings": all(Weight::Finding),
            "notes": all(Weight::Note),
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            sidecar, version, ..
        } = self;
        writeln!(f, "the sidecar {version} at {sidecar}")?;
        if !self.through.is_empty() {
            writeln!(f, "came through: {}", self.through.join(", "))?;
        }
        for (weight, word) in [(Weight::Finding, "finding"), (Weight::Note, "note")] {
            for one in self.of(weight) {
                writeln!(f, "\n{word} {}: {}", one.code, one.what)?;
                writeln!(f, "  why  {}", one.why)?;
                let mut word = "set";
                for line in &one.set {
                    writeln!(f, "  {word:<4} {line}")?;
                    word = "";
                }
            }
        }
        match self.of(Weight::Finding).count() {
            0 => writeln!(f, "\nnothing was found to go past the sidecar"),
            1 => writeln!(f, "\n1 finding"),
            many => writeln!(f, "\n{many} findings"),
        }
    }
}
