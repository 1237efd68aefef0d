//! How requests are treated, by method, host and path: the first route that fits.

use std::time::Duration;

use crate::domain::Action;
use crate::gate::{Permit, Unanswered};

use super::places::Place;
use super::settings::{Completed, OverCap, Settings};

/// How a request and its answer are treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Treatment {
    /// Longest wait for a person on an open connection; then `approval_pending`.
    pub hold_within: Duration,
    /// Most bytes of a body captured for policy; 0 where none is.
    pub capture_bytes_max: usize,
    /// What becomes of a body larger than that.
    pub over_cap: OverCap,
    /// Whether the answer is withheld until policy has judged it.
    pub completed: Completed,
    /// Longest wait for the head of its answer.
    pub answer_within: Duration,
    /// Longest silence of its answer's body, or of a tunnel or WebSocket that it opens.
    pub idle_within: Duration,
    /// Longest time that a body may take in all, of the request or the answer; `None` where that is not bounded.
    pub body_within: Option<Duration>,
    /// What it means that policy gives no answer.
    pub unanswered: Unanswered,
}

impl Default for Treatment {
    fn default() -> Self {
        Self {
            hold_within: Duration::from_secs(25),
            capture_bytes_max: 65_536,
            over_cap: OverCap::Partial,
            completed: Completed::Enforce,
            answer_within: Duration::from_secs(15 * 60),
            idle_within: Duration::from_secs(300),
            body_within: Some(Duration::from_secs(24 * 3_600)),
            unanswered: Unanswered::AsSet,
        }
    }
}

impl Treatment {
    /// Whether a body that policy does not see all of is refused. Where policy sees none, nothing is over a cap.
    #[must_use]
    pub fn refuses_over_cap(&self) -> bool {
        self.over_cap == OverCap::Deny && self.capture_bytes_max > 0
    }

    /// Whether an answer, a piece of one, that policy does not see all of is withheld: one that goes
    /// out before its verdict cannot be.
    #[must_use]
    pub fn withholds_over_cap(&self) -> bool {
        self.refuses_over_cap() && self.completed == Completed::Enforce
    }
}

/// A treatment, and what it is for.
#[derive(Clone, Debug)]
pub struct Route {
    /// As it was written.
    pub text: Box<str>,
    /// Upper case; none for any.
    pub methods: Box<[Box<str>]>,
    /// Where.
    pub place: Place,
    /// How.
    pub treatment: Treatment,
}

impl Route {
    /// Whether a request of `method` to `host` for `path` is meant. Methods are case-sensitive
    /// (RFC 9110 §9.1), but `get` must not get around what is said of `GET`.
    fn covers(&self, method: &str, host: &str, path: &str) -> bool {
        let mut methods = self.methods.iter();
        let method_fits = methods.len() == 0 || methods.any(|m| m.eq_ignore_ascii_case(method));
        method_fits && self.place.covers(host, path)
    }
}

impl Settings {
    /// The first route that fits, with its place in the list.
    #[must_use]
    pub fn route(&self, method: &str, host: &str, path: &str) -> Option<(usize, &Route)> {
        let mut routes = self.routes.iter().enumerate();
        routes.find(|(_, route)| route.covers(method, host, path))
    }

    /// What holds for such a request. A tunnel that is not looked into has the
    /// method CONNECT and no path.
    #[must_use]
    pub fn treatment(&self, method: &str, host: &str, path: &str) -> Treatment {
        let route = self.route(method, host, path);
        route.map_or(self.treatment, |(_, route)| route.treatment)
    }

    /// What holds for what was admitted.
    pub(super) fn treatment_of(&self, permit: &Permit) -> Treatment {
        match permit.operation().map(|operation| &operation.action) {
            Some(Action::Http(call)) => self.treatment(&call.method, &call.host, &call.path),
            Some(Action::Database(_) | Action::File(_) | Action::Function(_)) | None => {
                self.treatment
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(methods: &[&str], place: Place, seconds: u64) -> Route {
        Route {
            text: "".into(),
            methods: methods.iter().map(|method| (*method).into()).collect(),
            place,
            treatment: Treatment {
                hold_within: Duration::from_secs(seconds),
                ..Treatment::default()
            },
        }
    }

    #[test]
    fn the_first_route_that_fits_holds_and_else_what_is_set_for_all() {
        let settings = Settings {
            routes: vec![
                route(&["POST", "PUT"], Place::new("a.test", Some("/x/*")), 1),
                route(&[], Place::new("a.test", None), 2),
                route(&["CONNECT"], Place::new("*", None), 3),
            ],
            ..Settings::default()
        };
        #[rustfmt::skip]
        let table = [
            // method    host      path     seconds
            ("POST",    "a.test", "/x/y",  1),
            ("put",     "a.test", "/x/y",  1),
            ("GET",     "a.test", "/x/y",  2),
            ("POST",    "a.test", "/y",    2),
            ("CONNECT", "b.test", "",      3),
            ("CONNECT", "a.test", "",      2),
            ("GET",     "b.test", "/x/y",  25),
        ];
        for (method, host, path, seconds) in table {
            let found = settings.treatment(method, host, path).hold_within;
            assert_eq!(found.as_secs(), seconds, "{method} {host}{path}");
        }
    }
}
