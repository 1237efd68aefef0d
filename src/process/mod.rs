//! What the process itself does: tasks.

pub mod spawn;

pub use spawn::spawn_named;
