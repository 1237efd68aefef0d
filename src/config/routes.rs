//! A route of the HTTP proxy from its line: methods, a place, and what holds there.

use crate::gate::{FailMode, Unanswered};
use crate::protocols::http::{Completed, OverCap, Route, Treatment};

use super::value::{self, Wrong};

const EXAMPLE: &str = "POST,PUT api.example.com/v1/* hold_within=5m fail_mode=closed";

/// `[METHOD,METHOD] HOST[/PATH] name=value…`; what it does not say is as in `base`,
/// and bodies that it captures are captured up to `capture_bytes_max`.
pub(super) fn route(text: &str, base: Treatment, capture_bytes_max: usize) -> Result<Route, Wrong> {
    let words: Vec<_> = text.split_whitespace().collect();
    let count = words.iter().take_while(|word| !is_said(word)).count();
    let (head, said) = words.split_at_checked(count).unwrap_or_default();
    let (methods, place) = match head {
        [place] => (Box::default(), value::place(place)?),
        [methods, place] => (self::methods(methods)?, value::place(place)?),
        [] | [_, _, ..] => {
            let expected = "methods (or none for any), a place, and what holds there";
            return Err(Wrong::is_not(text, "a route", expected, EXAMPLE));
        }
    };
    let mut treatment = base;
    for (at, word) in said.iter().enumerate() {
        let name = word.split_once('=').map(|(name, _)| name);
        let again = said.iter().take(at);
        if again
            .filter_map(|word| word.split_once('='))
            .any(|(n, _)| Some(n) == name)
        {
            let found = format!("{} is said twice", name.unwrap_or_default());
            return Err(Wrong::new(found, "each of them once", EXAMPLE));
        }
        set(&mut treatment, word, capture_bytes_max)?;
    }
    Ok(Route {
        text: words.join(" ").into(),
        methods,
        place,
        treatment,
    })
}

/// Whether this is `name=value`, and not a place with an equals sign in its path.
fn is_said(word: &str) -> bool {
    let name = word.split_once('=').map_or("", |(name, _)| name);
    !name.is_empty() && !name.contains(['/', '.', '*'])
}

fn methods(text: &str) -> Result<Box<[Box<str>]>, Wrong> {
    let methods = text.split(',').map(|method| {
        let fits = !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_uppercase());
        fits.then(|| Box::from(method))
    });
    methods.collect::<Option<_>>().ok_or_else(|| {
        let expected = "methods in capital letters, with commas between them";
        Wrong::is_not(text, "a list of methods", expected, EXAMPLE)
    })
}

fn set(treatment: &mut Treatment, word: &str, capture_bytes_max: usize) -> Result<(), Wrong> {
    let (name, value) = word.split_once('=').unwrap_or((word, ""));
    match name {
        "hold_within" => treatment.hold_within = value::duration(value)?,
        "answer_within" => treatment.answer_within = value::duration(value)?,
        "idle_within" => treatment.idle_within = value::duration(value)?,
        "body_within" => treatment.body_within = value::bound(value)?,
        "capture" => {
            treatment.capture_bytes_max = match value::truth(value)? {
                true => capture_bytes_max,
                false => 0,
            };
        }
        "completed" => {
            let words = [
                ("enforce", Completed::Enforce),
                ("observe", Completed::Observe),
            ];
            treatment.completed = one_of(value, words)?;
        }
        "over_cap" => {
            let words = [
                ("partial", OverCap::Partial),
                ("deny", OverCap::Deny),
                ("spill", OverCap::Spill),
            ];
            treatment.over_cap = one_of(value, words)?;
        }
        "fail_mode" => {
            let words = [("open", FailMode::Open), ("closed", FailMode::Closed)];
            treatment.unanswered = Unanswered::By(one_of(value, words)?);
        }
        _ => {
            let expected = "hold_within, answer_within, idle_within, body_within, capture, completed, over_cap or fail_mode";
            return Err(Wrong::is_not(
                word,
                "what a route can say",
                expected,
                EXAMPLE,
            ));
        }
    }
    Ok(())
}

fn one_of<T: Copy, const N: usize>(text: &str, words: [(&str, T); N]) -> Result<T, Wrong> {
    let found = words.iter().find(|(word, _)| *word == text);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let expected = words.map(|(word, _)| word).join(" or ");
        let example = words.first().map_or("", |(word, _)| word);
        Wrong::is_not(text, "one of them", &expected, example)
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn read(text: &str) -> Result<Route, Wrong> {
        route(text, Treatment::default(), 65_536)
    }

    #[test]
    fn a_route_says_what_differs_and_leaves_the_rest() {
        let all = "POST,PUT api.test/v1/* hold_within=5m answer_within=1h idle_within=30m body_within=0s capture=false completed=observe over_cap=deny fail_mode=closed";
        let route = read(all).unwrap();
        assert_eq!(&*route.text, all);
        assert_eq!(route.methods.concat(), "POSTPUT");
        let expected = Treatment {
            hold_within: Duration::from_secs(300),
            capture_bytes_max: 0,
            over_cap: OverCap::Deny,
            completed: Completed::Observe,
            answer_within: Duration::from_secs(3_600),
            idle_within: Duration::from_secs(1_800),
            body_within: None,
            unanswered: Unanswered::By(FailMode::Closed),
        };
        assert_eq!(route.treatment, expected);
        let plain = read("api.test/a=b  fail_mode=open").unwrap();
        assert_eq!(plain.methods.len(), 0);
        let expected = Treatment {
            unanswered: Unanswered::By(FailMode::Open),
            ..Treatment::default()
        };
        assert_eq!(plain.treatment, expected);
    }

    #[test]
    fn what_is_no_route_is_told_with_what_was_found() {
        #[rustfmt::skip]
        let table = [
            ("",                                "is not a route"),
            ("fail_mode=open",                  "is not a route"),
            ("GET a.test b.test",               "is not a route"),
            ("get a.test",                      "is not a list of methods"),
            ("GET, a.test",                     "is not a list of methods"),
            ("GET https://a.test/",             "is not a place"),
            ("a.test fail=open",                "is not what a route can say"),
            ("a.test fail_mode=ajar",           "is not one of them"),
            ("a.test hold_within=5",            "is not a duration"),
            ("a.test hold_within=0s",           "is not a duration"),
            ("a.test answer_within=0s",         "is not a duration"),
            ("a.test idle_within=5",            "is not a duration"),
            ("a.test body_within=5",            "is not a duration"),
            ("a.test capture=some",             "is not true or false"),
            ("a.test capture=true capture=true", "capture is said twice"),
        ];
        for (text, told) in table {
            let wrong = read(text).unwrap_err();
            assert!(wrong.found.ends_with(told), "{text}: {wrong:?}");
        }
    }
}
