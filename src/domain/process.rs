//! A process of this machine.

/// A process, by its id and by when it started, so that an id that is used again is another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Process {
    /// Its id, as this sidecar sees it.
    pub id: u32,
    /// When it started, clock ticks since the machine did.
    pub started: u64,
}
