//! Idle connections, by key, newest first.

use std::collections::{HashMap, VecDeque};
use std::error::Error as StdError;
use std::fmt;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use http_body::Body;
use tokio::time::Instant;

use super::{ClientConnection, Home};

/// How many idle connections are kept, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct PoolSettings {
    /// Most idle connections of one key; the oldest is closed for a newer one.
    pub idle_max_per_key: usize,
    /// Most idle connections altogether; a further one is closed, not kept.
    pub idle_max: usize,
    /// A connection idle for longer is closed.
    pub idle_for_max: Duration,
}

impl Default for PoolSettings {
    fn default() -> Self {
        Self {
            idle_max_per_key: 256,
            idle_max: 4_096,
            idle_for_max: Duration::from_secs(90),
        }
    }
}

/// Locks, so that connections to different places do not wait for each other.
const SHARDS: usize = 8;
/// Idle connections, by key. Cheap enough to ask for every request: a hash, a
/// lock held for a few instructions, and one look at the connection.
pub struct Pool<K, B> {
    settings: PoolSettings,
    hasher: RandomState,
    shards: [Shard<K, B>; SHARDS],
    idle: AtomicUsize,
    own: Weak<Self>,
}

type Shard<K, B> = Mutex<HashMap<K, VecDeque<ClientConnection<B>>>>;

impl<K, B> fmt::Debug for Pool<K, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("idle", &self.idle.load(Ordering::Relaxed))
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl<K, B> Pool<K, B>
where
    K: Hash + Eq + Clone + Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    /// An empty pool.
    pub fn new(settings: PoolSettings) -> Arc<Self> {
        Arc::new_cyclic(|own| Self {
            settings,
            hasher: RandomState::new(),
            shards: std::array::from_fn(|_| Mutex::default()),
            idle: AtomicUsize::new(0),
            own: own.clone(),
        })
    }

    /// Makes a fresh connection come here whenever it can be used again.
    pub fn adopt(&self, key: K, mut connection: ClientConnection<B>) -> ClientConnection<B> {
        connection.home = Some(Box::new(Place {
            pool: self.own.clone(),
            key,
        }));
        connection
    }

    /// The newest idle connection of `key` whose peer has not closed it.
    pub fn take(&self, key: &K) -> Option<ClientConnection<B>> {
        loop {
            let mut newest = {
                let mut shard = lock(self.shard(key));
                shard.get_mut(key)?.pop_back()?
            };
            self.idle.fetch_sub(1, Ordering::Relaxed);
            // The sweep finds the older ones, which are even staler.
            if self.is_usable(&mut newest, Instant::now()) {
                return Some(newest);
            }
        }
    }

    /// Closes what has been idle for too long at `now`, or was closed by its
    /// peer. Meant to be called every few seconds.
    pub fn sweep(&self, now: Instant) {
        for shard in &self.shards {
            let mut dead = Vec::new();
            {
                let mut shard = lock(shard);
                shard.retain(|_, idle| {
                    let mut at = 0_usize;
                    while let Some(connection) = idle.get_mut(at) {
                        if self.is_usable(connection, now) {
                            at = at.saturating_add(1);
                        } else {
                            dead.extend(idle.remove(at));
                        }
                    }
                    !idle.is_empty()
                });
            }
            self.idle.fetch_sub(dead.len(), Ordering::Relaxed);
        }
    }

    fn is_usable(&self, connection: &mut ClientConnection<B>, now: Instant) -> bool {
        let idle_for = connection.idle_for(now).unwrap_or_default();
        idle_for <= self.settings.idle_for_max && connection.is_alive(now)
    }

    /// Idle connections held.
    pub fn idle(&self) -> usize {
        self.idle.load(Ordering::Relaxed)
    }

    fn put(&self, place: Box<Place<K, B>>, mut connection: ClientConnection<B>) {
        // Counted before it is kept, so that the bound holds under any race.
        if self.idle.fetch_add(1, Ordering::Relaxed) >= self.settings.idle_max {
            self.idle.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        let mut surplus = None;
        {
            let mut shard = lock(self.shard(&place.key));
            if let Some(idle) = shard.get_mut(&place.key) {
                connection.home = Some(place);
                idle.push_back(connection);
                if idle.len() > self.settings.idle_max_per_key {
                    surplus = idle.pop_front();
                }
            } else {
                // Keys without a connection stay, since a key used again and
                // again should cost no allocation; but they never make the map grow.
                if shard.len() == shard.capacity() {
                    shard.retain(|_, idle| !idle.is_empty());
                }
                let key = place.key.clone();
                connection.home = Some(place);
                shard.insert(key, VecDeque::from([connection]));
            }
        }
        if surplus.is_some() {
            self.idle.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn shard(&self, key: &K) -> &Shard<K, B> {
        let [first, ..] = &self.shards;
        let hash = usize::try_from(self.hasher.hash_one(key) >> 32).unwrap_or(0);
        self.shards.get(hash % SHARDS).unwrap_or(first)
    }
}

/// The way back to a pool. Weak: a pool owns its idle connections, not the
/// other way round.
struct Place<K, B> {
    pool: Weak<Pool<K, B>>,
    key: K,
}

impl<K, B> Home<B> for Place<K, B>
where
    K: Hash + Eq + Clone + Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    fn take_back(self: Box<Self>, connection: ClientConnection<B>) {
        if let Some(pool) = self.pool.upgrade() {
            pool.put(self, connection);
        }
    }
}

fn lock<T>(shard: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while it is held leaves a shorter list at worst.
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}
