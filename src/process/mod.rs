//! What makes this a process: tasks with names and how many, time, shares of processors, drain, readiness, signals,
//! how it is told of another's end, what it remembers for a while, and what files are known by.

pub mod clock;
pub mod cpu;
pub mod drain;
pub mod end_file;
pub mod kept;
pub mod readiness;
pub mod signals;
pub mod spawn;
pub mod stamp;
pub mod tasks;
pub mod workers;

pub use drain::{Drain, DrainTrigger};
pub use kept::Kept;
pub use readiness::Readiness;
pub use spawn::spawn_named;
pub use stamp::Stamp;
pub use tasks::Tasks;
pub use workers::Workers;
