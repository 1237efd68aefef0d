//! What the integration tests stand on: origins that behave or do not, a Core
//! that says what it is told, and the real binary as a process of its own.

#![allow(
    dead_code,
    reason = "each test binary uses its own part of what stands here"
)]

pub(crate) mod authority;
pub(crate) mod core;
pub(crate) mod http2_wire;
pub(crate) mod mysql;
pub(crate) mod origin;
pub(crate) mod policies;
pub(crate) mod postgres;
pub(crate) mod process;
pub(crate) mod redis;
pub(crate) mod sidecar;
pub(crate) mod wire;

use std::fs::File;
use std::net::TcpListener;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// Longest wait for anything that must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A port for a program that must be told one. Below those that the system
/// gives to whoever asks for any: one of them could be given away again before
/// the program has it. It is nobody else's as long as this process is there.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Other test programs may run at the same time, and begin elsewhere.
    let begin = u16::try_from(std::process::id() % 10_000).unwrap();
    loop {
        let port = 20_000 + (begin + NEXT.fetch_add(1, Ordering::Relaxed)) % 12_000;
        if is_reserved_for_us(port) && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Whether no other test program has reserved it, of any folder: each holds the lock of a
/// file that is named like it.
fn is_reserved_for_us(port: u16) -> bool {
    static RESERVED: Mutex<Vec<File>> = Mutex::new(Vec::new());
    let user = rustix::process::getuid().as_raw();
    let folder = std::env::temp_dir().join(format!("openbox-test-ports-{user}"));
    std::fs::create_dir_all(&folder).unwrap();
    let file = File::create(folder.join(port.to_string())).unwrap();
    let is_free = file.try_lock().is_ok();
    if is_free {
        RESERVED.lock().unwrap().push(file);
    }
    is_free
}

/// Whether it comes true.
pub(crate) fn eventually(mut is: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while !is() {
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}

/// What `look` finds, once it finds it.
pub(crate) fn until<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    until_within(PATIENCE, what, look)
}

/// The same, for what takes longer on a busy machine.
pub(crate) fn until_within<T>(
    within: Duration,
    what: &str,
    mut look: impl FnMut() -> Option<T>,
) -> T {
    let deadline = Instant::now() + within;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
