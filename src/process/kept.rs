//! A bounded table whose entries leave by themselves, for what one request
//! leaves behind for a later one.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Values under keys, several under one key, each for a while.
pub struct Kept<K, V> {
    within: Duration,
    at_most: usize,
    table: Mutex<Table<K, V>>,
}

struct Entry<V> {
    number: u64,
    since: Instant,
    value: V,
}

struct Table<K, V> {
    /// Oldest first under each key.
    by_key: HashMap<K, VecDeque<Entry<V>>>,
    /// In the order they came; some were taken already.
    order: VecDeque<(u64, Instant, K)>,
    live: usize,
    numbered: u64,
}

impl<K, V> fmt::Debug for Kept<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept")
            .field("live", &self.lock().live)
            .finish_non_exhaustive()
    }
}

impl<K, V> Kept<K, V> {
    /// Keeps each value for `within`, and at most `at_most` of them: beyond it
    /// the oldest leaves.
    pub fn new(within: Duration, at_most: usize) -> Self {
        Self {
            within,
            at_most,
            table: Mutex::new(Table {
                by_key: HashMap::new(),
                order: VecDeque::new(),
                live: 0,
                numbered: 0,
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table<K, V>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Clone + Eq + Hash, V> Kept<K, V> {
    /// Keeps `value`, and hands back what had to leave. Dropping that is up to
    /// the caller, outside our lock.
    pub fn keep(&self, key: K, value: V, now: Instant) -> Vec<V> {
        let mut table = self.lock();
        let number = table.numbered.wrapping_add(1);
        table.numbered = number;
        table.live = table.live.saturating_add(1);
        table.order.push_back((number, now, key.clone()));
        let entry = Entry {
            number,
            since: now,
            value,
        };
        table.by_key.entry(key).or_default().push_back(entry);
        let mut left = Vec::new();
        while let Some((number, since, key)) = table.order.front().cloned() {
            let overdue = self.is_over(since, now) || table.live > self.at_most;
            if !overdue && table.is_live(&key, number) {
                break;
            }
            table.order.pop_front();
            left.extend(table.remove(&key, |entry| entry.number == number));
        }
        if table.order.len() > self.at_most.saturating_mul(2) {
            let mut order = std::mem::take(&mut table.order);
            order.retain(|(number, _, key)| table.is_live(key, *number));
            table.order = order;
        }
        left
    }

    /// Takes the oldest value under `key` that `is_it` recognises.
    pub fn take(&self, key: &K, now: Instant, is_it: impl Fn(&V) -> bool) -> Option<V> {
        let mut table = self.lock();
        table.remove(key, |entry| {
            !self.is_over(entry.since, now) && is_it(&entry.value)
        })
    }

    /// Whether something is kept under `key`.
    pub fn has(&self, key: &K, now: Instant) -> bool {
        let table = self.lock();
        let known = table.by_key.get(key);
        known.is_some_and(|known| known.iter().any(|entry| !self.is_over(entry.since, now)))
    }

    fn is_over(&self, since: Instant, now: Instant) -> bool {
        now.saturating_duration_since(since) >= self.within
    }
}

impl<K: Eq + Hash, V> Table<K, V> {
    fn is_live(&self, key: &K, number: u64) -> bool {
        let known = self.by_key.get(key);
        known.is_some_and(|known| known.iter().any(|entry| entry.number == number))
    }

    fn remove(&mut self, key: &K, is_it: impl Fn(&Entry<V>) -> bool) -> Option<V> {
        let known = self.by_key.get_mut(key)?;
        let at = known.iter().position(is_it)?;
        let taken = known.remove(at);
        if known.is_empty() {
            self.by_key.remove(key);
        }
        self.live = self.live.saturating_sub(1);
        taken.map(|entry| entry.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WITHIN: Duration = Duration::from_secs(10);

    fn after(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn the_oldest_that_is_recognised_is_taken_and_only_once() {
        let (kept, now) = (Kept::new(WITHIN, 9), Instant::now());
        for value in [1, 2, 3] {
            assert!(kept.keep("k", value, now).is_empty());
        }
        assert_eq!(kept.take(&"k", now, |value| *value > 1), Some(2));
        assert_eq!(kept.take(&"k", now, |_| true), Some(1));
        assert_eq!(kept.take(&"k", now, |value| *value == 1), None);
        assert_eq!(kept.take(&"k", now, |_| true), Some(3));
        assert!(!kept.has(&"k", now) && kept.lock().by_key.is_empty());
    }

    #[test]
    fn what_is_over_is_not_found_and_leaves_with_the_next() {
        let (kept, now) = (Kept::new(WITHIN, 9), Instant::now());
        kept.keep("k", 1, now);
        assert!(kept.has(&"k", after(now, 9)));
        assert!(!kept.has(&"k", after(now, 10)));
        assert_eq!(kept.take(&"k", after(now, 10), |_| true), None);
        assert_eq!(kept.keep("l", 2, after(now, 10)), [1]);
    }

    #[test]
    fn the_bound_counts_what_is_there_and_not_what_was_taken() {
        let (kept, now) = (Kept::new(WITHIN, 3), Instant::now());
        kept.keep("long", 0, now);
        for value in 1..100 {
            assert!(kept.keep("k", value, now).is_empty(), "{value}");
            assert_eq!(kept.take(&"k", now, |_| true), Some(value));
            assert!(kept.lock().order.len() <= 7);
        }
        assert!(kept.keep("k", 1, now).is_empty());
        assert!(kept.keep("k", 2, now).is_empty());
        assert_eq!(kept.keep("k", 3, now), [0], "the oldest leaves");
        assert_eq!(kept.lock().live, 3);
    }
}
