//! Telling OpenBox Core later what it could not be told at once: read from the
//! journal, so that neither an outage nor a kill loses it.
//!
//! An outcome that policy is being asked about is written down before that, as
//! `asking`: what no completion follows was being asked about when an earlier
//! process died. It is told then, under the key it was asked under.
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
use super::untold::{self, Found, Item, Piece, Place};
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
    lanes: HashMap<String, Lane>,
    /// Lanes of which nothing is being told, in the order they became so.
    ready: VecDeque<String>,
    /// What policy is or was being asked about: where that stands, by event.
    asking: HashMap<String, (Place, String)>,
    /// Where this process began to write: until reading has come so far, what is
    /// being asked about may have been answered before.
    began: Option<Place>,
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

impl Loaded {
    fn of(item: &Item) -> Self {
        Self {
            bytes: item.bytes,
            at_ns: item.at_ns,
        }
    }
}

/// What is told in order.
#[derive(Debug, Default)]
struct Lane {
    items: VecDeque<Item>,
    /// It is ready, or something of it is being told.
    busy: bool,
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
        let began = Some(journal.end());
        Ok(Self {
            asking: HashMap::new(),
            began,
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
                let more = self.load(telling.is_empty()).await;
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

    /// Loads more, `idle` while nothing is being told; whether there is more than
    /// that.
    async fn load(&mut self, idle: bool) -> bool {
        // Where all of it waits for what is being asked about, the answer to
        // that stands further on.
        let stuck = idle && self.ready.is_empty();
        if self.loaded.len() >= LOADED_MAX && !stuck {
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
        let Piece { found, next } = match read {
            Ok(piece) => piece,
            Err(error) => {
                tracing::error!(%error, segment = from.segment, at = from.offset, "the journal cannot be read for what OpenBox Core was not told");
                return false;
            }
        };
        let more = next != from;
        self.read_to = next;
        for one in found {
            match one {
                Found::Item(item) => self.take(item),
                Found::Ended(event) => self.answered(&event),
            }
        }
        if let Some(began) = self.began.take_if(|began| next >= *began) {
            self.take_orphans(began);
        }
        more
    }

    fn take(&mut self, item: Item) {
        if item.asking {
            if self.asking.contains_key(&item.event_id) {
                return;
            }
            let stands = (item.place, item.lane.clone());
            self.asking.insert(item.event_id.clone(), stands);
        } else {
            self.answered(&item.event_id);
            self.loaded.insert(item.place, Loaded::of(&item));
        }
        let lane = item.lane.clone();
        self.lanes
            .entry(lane.clone())
            .or_default()
            .items
            .push_back(item);
        self.look_at(&lane);
    }

    /// What was being asked about needs no telling any more.
    fn answered(&mut self, event: &str) {
        let Some((place, name)) = self.asking.remove(event) else {
            return;
        };
        if let Some(lane) = self.lanes.get_mut(&name) {
            lane.items.retain(|item| item.place != place);
        }
        self.look_at(&name);
    }

    /// What an earlier process was asking about when it died is told now.
    fn take_orphans(&mut self, began: Place) {
        let orphans: Vec<_> = self
            .asking
            .extract_if(|_, (place, _)| *place < began)
            .map(|(_, stands)| stands)
            .collect();
        for (place, name) in orphans {
            let items = self.lanes.get_mut(&name).map(|lane| &mut lane.items);
            let own = items.and_then(|items| items.iter_mut().find(|i| i.place == place));
            if let Some(item) = own {
                item.asking = false;
                self.loaded.insert(place, Loaded::of(item));
            }
            self.look_at(&name);
        }
    }

    /// Has the first of a lane told, where that can be.
    fn look_at(&mut self, name: &str) {
        let Some(lane) = self.lanes.get_mut(name) else {
            return;
        };
        match lane.items.front() {
            None if !lane.busy => drop(self.lanes.remove(name)),
            Some(first) if !lane.busy && !first.asking => {
                lane.busy = true;
                self.ready.push_back(name.to_owned());
            }
            Some(_) | None => {}
        }
    }

    fn tell_next(&mut self, telling: &mut JoinSet<Ended>) {
        self.not_before = after(SPACING);
        let Some(lane) = self.ready.pop_front() else {
            return;
        };
        let first = self.lanes.get_mut(&lane);
        let Some(item) = first.and_then(|lane| lane.items.pop_front()) else {
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
        }
        let Some(own) = self.lanes.get_mut(&lane) else {
            return heard;
        };
        if heard {
            own.busy = false;
            self.look_at(&lane);
        } else {
            own.items.push_front(item);
            // What was not heard is oldest: it goes first.
            self.ready.push_front(lane);
        }
        heard
    }

    /// Before this place everything was told.
    fn told_to(&self) -> Place {
        let loaded = self.loaded.first_key_value().map(|(place, _)| *place);
        let asking = self.asking.values().map(|(place, _)| *place).min();
        let first = loaded.into_iter().chain(asking).min();
        first.unwrap_or(self.read_to)
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
