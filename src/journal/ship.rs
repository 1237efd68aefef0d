//! Telling OpenBox Core later what it could not be told at once: read from the
//! journal, so that neither an outage nor a kill loses it.
//!
//! In order within an activity, several activities at a time, at most
//! [`PER_SECOND`] so that a Core that comes back is not run over. At least
//! once: what was told is kept as a place in the journal (`journal.told`) once
//! a second, and what lies behind it is told again under the same idempotency
//! key after a kill.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::Journal;
use super::untold::{self, Item, Piece, Place};
use crate::metrics::Metrics;
use crate::policy::{PolicyBackend, PolicyError, Ruling};
use crate::process::{Drain, clock};

/// Most reports told in a second.
pub const PER_SECOND: u64 = 100;

/// Time between two reports.
const SPACING: Duration = Duration::from_millis(1_000 / PER_SECOND);

/// Most reports that are told at the same time.
const AT_ONCE: usize = 8;

/// Most reports in memory; the others wait in the journal.
const LOADED_MAX: usize = 1_024;

/// How often the journal is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How often the place is kept.
const KEEP_EVERY: Duration = Duration::from_secs(1);

/// Shortest and longest pause after a report was not taken; doubled each time.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// What policy says of something long after it happened.
#[derive(Debug)]
pub struct Late<'a> {
    /// Whose it was.
    pub workflow_id: &'a str,
    /// See [`Self::workflow_id`].
    pub run_id: &'a str,
    /// See [`Self::workflow_id`].
    pub activity_id: Option<&'a str>,
    /// What policy says.
    pub ruling: &'a Ruling,
}

/// Acts on what comes late.
pub trait Heeds: Send + Sync + fmt::Debug {
    /// Has what comes after it stopped, where that is said.
    fn heed(&self, late: &Late<'_>);
}

/// Tells what was not told. Runs beside a gate.
#[derive(Debug)]
#[must_use = "nothing is told later unless this runs"]
pub struct Shipper {
    journal: Arc<Journal>,
    backend: Arc<dyn PolicyBackend>,
    metrics: Arc<Metrics>,
    heeds: Box<dyn Heeds>,
    /// Where reading goes on.
    read_to: Place,
    kept: Place,
    kept_at: Instant,
    lanes: HashMap<String, VecDeque<Item>>,
    /// Lanes of which nothing is being told, in the order they became so.
    ready: VecDeque<String>,
    /// When what is loaded happened, by its place.
    loaded: BTreeMap<Place, Loaded>,
    pause: Duration,
    not_before: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Loaded {
    bytes: u64,
    at_ns: u64,
}

/// How telling one report ended.
type Ended = (Item, Result<Option<Ruling>, PolicyError>);

impl Shipper {
    /// Goes on where an earlier process was.
    ///
    /// # Errors
    /// The place where it was cannot be read or written.
    pub fn new(
        journal: Arc<Journal>,
        backend: Arc<dyn PolicyBackend>,
        metrics: Arc<Metrics>,
        heeds: Box<dyn Heeds>,
    ) -> io::Result<Self> {
        let folder = journal.folder();
        let place = untold::cursor(folder)?.unwrap_or_default();
        untold::keep_cursor(folder, place)?;
        journal.keep_from(place.segment);
        let now = Instant::now();
        Ok(Self {
            journal,
            backend,
            metrics,
            heeds,
            read_to: place,
            kept: place,
            kept_at: now,
            lanes: HashMap::new(),
            ready: VecDeque::new(),
            loaded: BTreeMap::new(),
            pause: PAUSES.0,
            not_before: now,
        })
    }

    /// Tells until `drain` begins, and then until nothing is left or Core does
    /// not take it.
    pub async fn run(mut self, mut drain: Drain) {
        let mut telling: JoinSet<Ended> = JoinSet::new();
        let mut draining = drain.has_begun();
        let mut look_at = Instant::now();
        loop {
            if Instant::now() >= look_at {
                let more = self.load().await;
                self.show();
                self.keep();
                look_at = match more {
                    true => Instant::now(),
                    false => after(LOOK_EVERY),
                };
                if draining && !more && self.loaded.is_empty() {
                    break;
                }
            }
            let may_tell = !self.ready.is_empty() && telling.len() < AT_ONCE;
            tokio::select! {
                biased;
                Some(ended) = telling.join_next(), if !telling.is_empty() => {
                    // What panicked is loaded still, and told by the next start.
                    let Ok((item, told)) = ended else { break };
                    if !self.ended(item, told) && draining {
                        break;
                    }
                }
                () = drain.begun(), if !draining => {
                    draining = true;
                    look_at = Instant::now();
                }
                () = sleep_until(self.not_before), if may_tell => self.tell_next(&mut telling),
                () = sleep_until(look_at) => {}
            }
        }
        self.keep_now();
        self.show();
    }

    /// Loads more; whether there is more than that.
    async fn load(&mut self) -> bool {
        if self.loaded.len() >= LOADED_MAX {
            return false;
        }
        let (folder, from) = (self.journal.folder().to_owned(), self.read_to);
        let end = self.journal.end();
        let reading = tokio::task::spawn_blocking(move || untold::read(&folder, from, end));
        let read = reading
            .await
            .unwrap_or_else(|error| Err(io::Error::other(error)));
        // A segment that is closed meanwhile is found under its number.
        if self.journal.end().segment != end.segment {
            return true;
        }
        let Piece { items, next } = match read {
            Ok(piece) => piece,
            Err(error) => {
                tracing::error!(%error, segment = from.segment, at = from.offset, "the journal cannot be read for what OpenBox Core was not told");
                return false;
            }
        };
        let more = next != from;
        self.read_to = next;
        for item in items {
            let loaded = Loaded {
                bytes: item.bytes,
                at_ns: item.at_ns,
            };
            self.loaded.insert(item.place, loaded);
            match self.lanes.get_mut(&item.lane) {
                Some(lane) => lane.push_back(item),
                None => {
                    self.ready.push_back(item.lane.clone());
                    self.lanes.insert(item.lane.clone(), VecDeque::from([item]));
                }
            }
        }
        more
    }

    fn tell_next(&mut self, telling: &mut JoinSet<Ended>) {
        self.not_before = after(SPACING);
        let Some(lane) = self.ready.pop_front() else {
            return;
        };
        let Some(item) = self.lanes.get_mut(&lane).and_then(VecDeque::pop_front) else {
            return;
        };
        let backend = self.backend.clone();
        telling.spawn(async move {
            let told = backend.tell(&item.untold).await;
            (item, told)
        });
    }

    /// Whether it was heard.
    fn ended(&mut self, item: Item, told: Result<Option<Ruling>, PolicyError>) -> bool {
        let lane = item.lane.clone();
        let heard = match told {
            Ok(None) => true,
            Ok(Some(ruling)) => {
                self.heeds.heed(&Late {
                    workflow_id: &item.workflow_id,
                    run_id: &item.run_id,
                    activity_id: item.activity_id.as_deref(),
                    ruling: &ruling,
                });
                true
            }
            Err(PolicyError::Unjudgeable(reason)) => {
                tracing::error!(key = %item.untold.key, %reason, "OpenBox Core does not take a report: it is only in the journal");
                true
            }
            Err(PolicyError::Unavailable(reason)) => {
                let pause = self.pause.mul_f64(rand::random_range(0.5..1.0));
                tracing::debug!(%reason, pause_ms = pause.as_millis(), "OpenBox Core is told later");
                self.not_before = self.not_before.max(after(pause));
                self.pause = self.pause.saturating_mul(2).min(PAUSES.1);
                false
            }
        };
        if heard {
            self.pause = PAUSES.0;
            self.loaded.remove(&item.place);
            self.metrics.told_later();
        } else if let Some(waiting) = self.lanes.get_mut(&lane) {
            waiting.push_front(item);
        }
        match self.lanes.get(&lane) {
            Some(waiting) if waiting.is_empty() => drop(self.lanes.remove(&lane)),
            // What was not heard is oldest: it goes first.
            Some(_) if !heard => self.ready.push_front(lane),
            Some(_) => self.ready.push_back(lane),
            None => {}
        }
        heard
    }

    /// Before this place everything was told.
    fn told_to(&self) -> Place {
        let first = self.loaded.first_key_value();
        first.map_or(self.read_to, |(place, _)| *place)
    }

    fn keep(&mut self) {
        if self.kept_at.elapsed() >= KEEP_EVERY {
            self.keep_now();
        }
    }

    fn keep_now(&mut self) {
        self.kept_at = Instant::now();
        let place = self.told_to();
        if place == self.kept {
            return;
        }
        match untold::keep_cursor(self.journal.folder(), place) {
            Ok(()) => {
                self.kept = place;
                self.journal.keep_from(place.segment);
            }
            Err(error) => {
                tracing::error!(%error, "what OpenBox Core was told cannot be kept: a restart tells it again");
            }
        }
    }

    fn show(&self) {
        let unread = untold::bytes_between(self.journal.folder(), self.read_to, self.journal.end());
        let loaded: u64 = self.loaded.values().map(|one| one.bytes).sum();
        let oldest = self.loaded.values().map(|one| one.at_ns).min();
        let now = clock::now().0;
        let lag = oldest.map_or(Duration::ZERO, |at| {
            Duration::from_nanos(now.saturating_sub(at))
        });
        let bytes = loaded.saturating_add(unread.unwrap_or_default());
        self.metrics.untold(bytes, lag);
    }
}

fn after(pause: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(pause).unwrap_or(now)
}

#[cfg(test)]
#[path = "ship_tests.rs"]
mod tests;
