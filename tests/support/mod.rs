//! What the integration tests stand on: origins that behave or do not, a Core
//! that says what it is told, and the real binary as a process of its own.

#![allow(
    dead_code,
    reason = "each test binary uses its own part of what stands here"
)]

pub(crate) mod authority;
pub(crate) mod core;
pub(crate) mod origin;
pub(crate) mod policies;
pub(crate) mod postgres;
pub(crate) mod process;
pub(crate) mod sidecar;
pub(crate) mod wire;

use std::time::Duration;

use tokio::time::Instant;

/// Longest wait for anything that must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// What `look` finds, once it finds it.
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
