//! How many tasks there are: what a connection leaves behind by mistake is one of them.

use tokio::runtime::Handle;

/// The runtimes of a process, which end without regard to this.
#[derive(Clone, Debug, Default)]
pub struct Tasks(Vec<Handle>);

impl Tasks {
    /// Those of `runtimes`.
    pub fn of(runtimes: impl IntoIterator<Item = Handle>) -> Self {
        Self(runtimes.into_iter().collect())
    }

    /// How many have begun and not ended.
    pub fn alive(&self) -> usize {
        let each = self.0.iter();
        each.map(|runtime| runtime.metrics().num_alive_tasks())
            .fold(0, usize::saturating_add)
    }
}
