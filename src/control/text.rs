//! Texts of the local APIs: ids, durations, points in time.

use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::domain::Timestamp;

use super::problem::Problem;

/// Longest id, characters.
const ID_CHARS_MAX: usize = 256;

/// Takes an id that somebody else made up: not empty, bounded, and fit for a
/// log line.
pub(in crate::control) fn id(name: &str, text: &str) -> Result<Arc<str>, Problem> {
    let problem = |what: String| Err(Problem::invalid_field(format!("`{name}` {what}")));
    if text.is_empty() {
        return problem("is empty; leave it out or give it a value".to_owned());
    }
    let chars = text.chars().count();
    if chars > ID_CHARS_MAX {
        return problem(format!(
            "has {chars} characters; at most {ID_CHARS_MAX} are taken"
        ));
    }
    if text.chars().any(char::is_control) {
        return problem("has a control character; none is taken".to_owned());
    }
    Ok(text.into())
}

/// An id that must be there.
pub(in crate::control) fn required(name: &str, text: Option<&str>) -> Result<Arc<str>, Problem> {
    match text {
        Some(text) => id(name, text),
        None => Err(Problem::missing_field(name, &format!("\"{name}\": \"…\""))),
    }
}

/// An id that may be there.
pub(in crate::control) fn optional(
    name: &str,
    text: Option<&str>,
) -> Result<Option<Arc<str>>, Problem> {
    text.map(|text| id(name, text)).transpose()
}

/// `?wait=`: `25s`, `500ms`, `1m`, or plain seconds.
pub(in crate::control) fn wait(
    text: Option<&str>,
    otherwise: Duration,
    at_most: Duration,
) -> Result<Duration, Problem> {
    duration("wait", text, otherwise, at_most)
}

/// A duration called `name`: `25s`, `500ms`, `1m`, `2h`, or plain seconds.
pub(in crate::control) fn duration(
    name: &str,
    text: Option<&str>,
    otherwise: Duration,
    at_most: Duration,
) -> Result<Duration, Problem> {
    let Some(text) = text else {
        return Ok(otherwise);
    };
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = text.strip_prefix(digits).unwrap_or("");
    let number = digits.bytes().all(|byte| byte.is_ascii_digit());
    let number = number.then(|| digits.parse::<u64>().ok()).flatten();
    let taken = match (number.ok_or(()), unit) {
        (Ok(ms), "ms") => Some(Duration::from_millis(ms)),
        (Ok(seconds), "s" | "") => Some(Duration::from_secs(seconds)),
        (Ok(minutes), "m") => minutes.checked_mul(60).map(Duration::from_secs),
        (Ok(hours), "h") => hours.checked_mul(3_600).map(Duration::from_secs),
        (Ok(_) | Err(_), _) => None,
    };
    taken.filter(|taken| *taken <= at_most).ok_or_else(|| {
        let most = at_most.as_secs();
        let shown: String = text.escape_debug().take(40).collect();
        Problem::invalid_field(format!(
            "`{name}` is \"{shown}\"; expected a duration of at most {most}s, for example 25s"
        ))
    })
}

/// RFC 3339 in UTC, to the millisecond.
pub(in crate::control) fn rfc3339(at: Timestamp) -> String {
    let whole_ms = i128::from(at.unix_ms()).saturating_mul(1_000_000);
    OffsetDateTime::from_unix_timestamp_nanos(whole_ms)
        .ok()
        .and_then(|at| at.format(&Rfc3339).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_a_duration_within_its_bound_or_an_error() {
        let most = Duration::from_secs(60);
        #[rustfmt::skip]
        let table = [
            (None,           Some(25_000)),
            (Some("55s"),    Some(55_000)),
            (Some("7"),      Some(7_000)),
            (Some("250ms"),  Some(250)),
            (Some("1m"),     Some(60_000)),
            (Some("61s"),    None),
            (Some("2m"),     None),
            (Some(""),       None),
            (Some("s"),      None),
            (Some("-1s"),    None),
            (Some("1h"),     None),
            (Some("+5s"),    None),
            (Some("99999999999999999999"), None),
            (Some("999999999999999999m"), None),
        ];
        for (text, ms) in table {
            let got = wait(text, Duration::from_secs(25), most).ok();
            assert_eq!(got, ms.map(Duration::from_millis), "{text:?}");
        }
    }

    #[test]
    fn an_id_that_could_break_a_log_line_is_refused() {
        for bad in ["", "a\nb", "a\u{7f}", &"x".repeat(257)] {
            assert!(id("run_id", bad).is_err(), "{bad:?}");
        }
        assert!(id("run_id", &"ä".repeat(256)).is_ok());
    }

    #[test]
    fn time_is_told_to_the_millisecond() {
        let at = Timestamp(1_795_205_232_692_671_800);
        assert_eq!(rfc3339(at), "2026-11-20T20:07:12.692Z");
    }
}
