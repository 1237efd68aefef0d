//! Keeps memory out of files: it holds the keys of an authority, of agents and of origins.

/// Has the system write no core dump of this process, whatever its limits say, and show its memory
/// to no other process of the same user. A child that is executed is not affected, as it is by a
/// limit on core dumps.
///
/// Not in builds for tests: they look at the descriptors of this process, which is root's then.
#[cfg(all(target_os = "linux", not(feature = "testing")))]
pub(super) fn forbid() {
    if let Err(error) = be_not_dumpable() {
        tracing::warn!(%error, "core dumps of this process cannot be forbidden; they would hold its keys");
    }
}

/// No other system has a way that children do not inherit.
#[cfg(any(not(target_os = "linux"), feature = "testing"))]
pub(super) fn forbid() {}

#[cfg(all(target_os = "linux", any(test, not(feature = "testing"))))]
fn be_not_dumpable() -> std::io::Result<()> {
    use rustix::process::{DumpableBehavior, set_dumpable_behavior};

    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use rustix::process::{DumpableBehavior, dumpable_behavior, set_dumpable_behavior};

    #[test]
    fn a_process_that_forbids_it_is_not_dumped() {
        super::be_not_dumpable().unwrap();
        let found = dumpable_behavior().unwrap();
        // The other tests of this process are none of its business.
        set_dumpable_behavior(DumpableBehavior::Dumpable).unwrap();
        assert_eq!(found, DumpableBehavior::NotDumpable);
    }
}
