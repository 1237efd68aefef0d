//! Room for bodies that policy is shown: asked for before a byte is read, one for all
//! connections together, so that no number of them takes more memory than was set.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::domain::Room;
use crate::metrics::{LimitHit, Metrics};

/// What room is counted in, bytes.
const UNIT: usize = 1_024;
/// Most bodies that wait for room at once.
const WAITERS_MAX: usize = 1_024;

/// Room that bodies share.
#[derive(Debug)]
pub(super) struct Budget {
    units: Arc<Semaphore>,
    all: u32,
    waiters: Semaphore,
    limit: LimitHit,
    metrics: Arc<Metrics>,
}

/// Room that one body has, until it is dropped.
#[derive(Debug, Default)]
pub(super) struct Share(Option<OwnedSemaphorePermit>);

impl Budget {
    /// Room for `bytes_max`; `limit` is counted where there is none.
    pub(super) fn new(bytes_max: usize, limit: LimitHit, metrics: Arc<Metrics>) -> Self {
        let all = units(bytes_max).max(1);
        Self {
            units: Arc::new(Semaphore::new(
                usize::try_from(all).unwrap_or(usize::MAX >> 3),
            )),
            all,
            waiters: Semaphore::new(WAITERS_MAX),
            limit,
            metrics,
        }
    }

    /// Room for `bytes`, or for as many as there is at all, waiting at most `within` for
    /// it. Cancel-safe.
    pub(super) async fn share(&self, bytes: usize, within: Duration) -> Option<Share> {
        let units = units(bytes).min(self.all);
        if let Ok(permit) = self.units.clone().try_acquire_many_owned(units) {
            return Some(Share(Some(permit)));
        }
        let turn = self.waiters.try_acquire().ok();
        let permit = match turn {
            Some(_) => {
                let waiting = self.units.clone().acquire_many_owned(units);
                tokio::time::timeout(within, waiting).await.ok()
            }
            None => None,
        };
        let permit = permit.and_then(Result::ok);
        if permit.is_none() {
            self.metrics.limit_hit(self.limit);
        }
        permit.map(|permit| Share(Some(permit)))
    }

    /// Makes `share` one of `bytes` at once; says whether there was room.
    pub(super) fn grow(&self, share: &mut Share, bytes: u64) -> bool {
        let wanted = units(usize::try_from(bytes).unwrap_or(usize::MAX));
        let more = wanted.saturating_sub(share.units());
        if more == 0 {
            return true;
        }
        let Ok(permit) = self.units.clone().try_acquire_many_owned(more) else {
            self.metrics.limit_hit(self.limit);
            return false;
        };
        share.add(permit);
        true
    }

    /// Makes `share` one of `bytes`, or as large as what can be done without may be: half of all room is left to what
    /// cannot. Says for how many bytes it is now.
    pub(super) fn grow_where_spare(&self, share: &mut Share, bytes: usize) -> usize {
        let wanted = units(bytes).min(self.spare(share));
        let more = wanted.saturating_sub(share.units());
        if more > 0
            && let Ok(permit) = self.units.clone().try_acquire_many_owned(more)
        {
            share.add(permit);
        }
        share.bytes()
    }

    /// Gives back what is more of `share` than `bytes`, and than what can be done without may be.
    pub(super) fn lower_to_spare(&self, share: &mut Share, bytes: usize) {
        share.shrink_to(units(bytes).min(self.spare(share)));
    }

    /// Units that `share` may have in all if it can be done without.
    fn spare(&self, share: &Share) -> u32 {
        let free = u32::try_from(self.units.available_permits()).unwrap_or(self.all);
        let not_others = free.saturating_add(share.units());
        not_others.saturating_sub(self.all.div_ceil(2))
    }

    /// Something could have been had with more room.
    pub(super) fn was_short(&self) {
        self.metrics.limit_hit(self.limit);
    }

    /// Makes `share` one of `bytes` at once, giving back what is more; says whether there was room.
    pub(super) fn fit(&self, share: &mut Share, bytes: usize) -> bool {
        share.shrink(bytes);
        self.grow(share, u64::try_from(bytes).unwrap_or(u64::MAX))
    }

    /// Bytes that are taken, about.
    pub(super) fn taken(&self) -> usize {
        let all = usize::try_from(self.all).unwrap_or(usize::MAX);
        let taken = all.saturating_sub(self.units.available_permits());
        taken.saturating_mul(UNIT)
    }
}

impl Share {
    /// The room of whatever shares it from now on.
    pub(super) fn into_room(self) -> Room {
        self.0.map_or_else(Room::default, Room::of)
    }

    /// Gives back what is more than `bytes`.
    pub(super) fn shrink(&mut self, bytes: usize) {
        self.shrink_to(units(bytes));
    }

    fn shrink_to(&mut self, units: u32) {
        let excess = self.units().saturating_sub(units);
        if let (Some(permit), Ok(excess)) = (&mut self.0, usize::try_from(excess)) {
            drop(permit.split(excess));
        }
    }

    fn add(&mut self, permit: OwnedSemaphorePermit) {
        match &mut self.0 {
            Some(share) => share.merge(permit),
            none => *none = Some(permit),
        }
    }

    /// For how many bytes it is.
    pub(super) fn bytes(&self) -> usize {
        let units = self.0.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        units.saturating_mul(UNIT)
    }

    fn units(&self) -> u32 {
        let units = self.0.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        u32::try_from(units).unwrap_or(u32::MAX)
    }
}

fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(bytes: usize) -> Arc<Budget> {
        let metrics = Arc::new(Metrics::new().unwrap());
        Arc::new(Budget::new(bytes, LimitHit::Bodies, metrics))
    }

    const WITHIN: Duration = Duration::from_secs(2);

    #[tokio::test(start_paused = true)]
    async fn room_is_waited_for_so_long_and_comes_back_with_what_has_it() {
        let budget = budget(64 * UNIT);
        let first = budget.share(40 * UNIT, WITHIN).await.unwrap();
        let began = tokio::time::Instant::now();
        assert!(budget.share(40 * UNIT, WITHIN).await.is_none());
        assert_eq!(began.elapsed(), WITHIN);
        assert_eq!(budget.taken(), 40 * UNIT);
        drop(first);
        // One that wants more than all there is gets all there is.
        let all = budget.share(1 << 30, WITHIN).await.unwrap();
        assert_eq!(budget.taken(), 64 * UNIT);
        let text = budget.metrics.render();
        assert!(
            text.contains(r#"openbox_limit_hits_total{limit="bodies"} 1"#),
            "{text}"
        );
        drop(all);
        assert_eq!(budget.taken(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_share_shrinks_to_what_came_and_grows_where_there_is_room() {
        let budget = budget(64 * UNIT);
        let mut share = budget.share(60 * UNIT, WITHIN).await.unwrap();
        share.shrink(UNIT + 1);
        assert_eq!(budget.taken(), 2 * UNIT);
        assert!(budget.grow(&mut share, 64 * 1024));
        assert!(!budget.grow(&mut share, 64 * 1024 + 1));
        let mut none = Share::default();
        assert!(!budget.grow(&mut none, 1));
        drop(share);
        assert!(budget.grow(&mut none, 1));
        assert_eq!(budget.taken(), UNIT);
    }

    #[test]
    fn what_can_be_done_without_leaves_half() {
        let budget = budget(64 * UNIT);
        let (mut one, mut other) = (Share::default(), Share::default());
        assert_eq!(budget.grow_where_spare(&mut one, 20 * UNIT), 20 * UNIT);
        assert_eq!(budget.grow_where_spare(&mut other, 10 * UNIT), 10 * UNIT);
        // What is spare, where that is not enough.
        assert_eq!(budget.grow_where_spare(&mut other, 20 * UNIT), 12 * UNIT);
        // What there is already needs none.
        assert_eq!(budget.grow_where_spare(&mut one, 19 * UNIT), 20 * UNIT);
        assert_eq!(budget.grow_where_spare(&mut one, 21 * UNIT), 20 * UNIT);
        let mut needed = Share::default();
        assert!(budget.fit(&mut needed, 32 * UNIT));
        assert_eq!(budget.taken(), 64 * UNIT);
    }

    #[test]
    fn what_can_be_done_without_after_all_keeps_what_is_spare_of_its_own() {
        let budget = budget(64 * UNIT);
        let (mut one, mut other) = (Share::default(), Share::default());
        assert!(budget.fit(&mut one, 40 * UNIT));
        budget.lower_to_spare(&mut one, 20 * UNIT);
        assert!(budget.fit(&mut other, 40 * UNIT));
        budget.lower_to_spare(&mut other, 40 * UNIT);
        assert_eq!([one.bytes(), other.bytes()], [20 * UNIT, 12 * UNIT]);
    }

    #[test]
    fn room_is_taken_until_the_last_that_shares_it_is_gone() {
        let budget = budget(64 * UNIT);
        let mut share = Share::default();
        assert!(budget.fit(&mut share, UNIT));
        let room = share.into_room();
        let shared = room.clone();
        drop(room);
        assert_eq!(budget.taken(), UNIT);
        drop(shared);
        assert_eq!(budget.taken(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn only_so_many_wait() {
        let budget = budget(UNIT);
        let all = budget.share(UNIT, WITHIN).await.unwrap();
        let waiting: Vec<_> = (0..WAITERS_MAX)
            .map(|_| {
                let budget = budget.clone();
                crate::process::spawn_named("waits", async move {
                    budget.share(1, Duration::from_secs(60)).await.is_some()
                })
            })
            .collect();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let began = tokio::time::Instant::now();
        assert!(budget.share(1, WITHIN).await.is_none());
        assert_eq!(began.elapsed(), Duration::ZERO);
        drop(all);
        for one in waiting {
            assert!(one.await.unwrap());
        }
    }
}
