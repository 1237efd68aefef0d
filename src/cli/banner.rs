//! What `run` says before and after: who judges, where, and what was decided.

use std::fmt;
use std::path::Path;

use crate::app::View;
use crate::config::PolicyMode;
use crate::gate::Tally;

use super::version::VERSION;

/// What is live, before the command starts.
pub(super) struct Banner<'a> {
    pub(super) view: &'a View,
    pub(super) mode: Mode,
}

/// Who judges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// The embedded policy: always there.
    Local,
    /// OpenBox Core: may be away.
    Core,
}

impl From<&PolicyMode> for Mode {
    fn from(policy: &PolicyMode) -> Self {
        match policy {
            PolicyMode::Local(_) => Self::Local,
            PolicyMode::Core(_) => Self::Core,
        }
    }
}

impl fmt::Display for Banner<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let view = self.view;
        let (mode, outage) = match self.mode {
            Mode::Local => (
                "local policy",
                "the policy judges in process and has no outage",
            ),
            Mode::Core if view.fail_mode == "open" => (
                "OpenBox Core",
                "what Core does not answer passes, marked (--fail-mode closed refuses it)",
            ),
            Mode::Core => ("OpenBox Core", "what Core does not answer is refused"),
        };
        writeln!(f, "{VERSION}  {mode}: {}", view.policy)?;
        match self.mode {
            Mode::Local => writeln!(f, "  on outage  {outage}")?,
            Mode::Core => writeln!(f, "  on outage  fail {}: {outage}", view.fail_mode)?,
        }
        for (name, address) in view.addresses.named() {
            match address {
                Some(address) => writeln!(f, "  {name:<9}  http://{address}")?,
                None => writeln!(f, "  {name:<9}  off")?,
            }
        }
        for address in &view.addresses.transparent {
            writeln!(f, "  captured   {address}")?;
        }
        if let Some(path) = &view.addresses.agent_socket {
            writeln!(f, "  agent      {}", path.display())?;
        }
        for upstream in &view.postgres {
            let (host, port) = (&upstream.host, upstream.port);
            writeln!(f, "  postgres   {} for {host}:{port}", upstream.listen)?;
        }
        for upstream in &view.mysql {
            let (host, port) = (&upstream.host, upstream.port);
            writeln!(f, "  mysql      {} for {host}:{port}", upstream.listen)?;
        }
        for upstream in &view.redis {
            let (host, port) = (&upstream.host, upstream.port);
            write!(f, "  redis      {} for {host}", upstream.listen)?;
            // A path has none.
            match port {
                0 => writeln!(f)?,
                port => writeln!(f, ":{port}")?,
            }
        }
        if let Some(fingerprint) = &view.ca_fingerprint {
            writeln!(f, "  CA         sha256:{fingerprint}")?;
        }
        writeln!(f, "  state      {}", view.state_dir.display())
    }
}

/// What was decided, after the command has ended.
pub(super) struct Summary<'a> {
    pub(super) tally: Tally,
    pub(super) journal: &'a Path,
}

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tally {
            allowed,
            constrained,
            approvals,
            blocked,
            halted,
            refused,
            withheld,
        } = self.tally;
        // Withheld ones were admitted, and are counted there.
        let operations = [allowed, constrained, approvals, blocked, halted, refused]
            .into_iter()
            .fold(0_u64, u64::saturating_add);
        let noun = if operations == 1 {
            "operation"
        } else {
            "operations"
        };
        writeln!(
            f,
            "openbox-sidecar: {operations} {noun}: {allowed} allowed, {constrained} constrained, \
             {approvals} held, {blocked} blocked, {withheld} withheld, {halted} halted, \
             {refused} refused without a verdict"
        )?;
        writeln!(f, "  journal    {}", self.journal.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_counts_every_operation_once() {
        let tally = Tally {
            allowed: 7,
            constrained: 1,
            approvals: 2,
            blocked: 3,
            halted: 1,
            refused: 1,
            withheld: 4,
        };
        let summary = Summary {
            tally,
            journal: Path::new("/s/journal.jsonl"),
        };
        assert_eq!(
            summary.to_string(),
            "openbox-sidecar: 15 operations: 7 allowed, 1 constrained, 2 held, 3 blocked, \
             4 withheld, 1 halted, 1 refused without a verdict\n  journal    /s/journal.jsonl\n"
        );
    }
}
