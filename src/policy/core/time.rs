//! Points in time as Core's wire writes them, out and in.

use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::format_description::well_known::{Rfc2822, Rfc3339};
use time::macros::format_description;

use crate::domain::Timestamp;

/// What we send: milliseconds, and always `Z`.
const MILLISECONDS_UTC: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// What a signature is over: microseconds and an offset, as Python writes them.
const MICROSECONDS_OFFSET: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]+00:00");

/// `at` as the contract wants it.
pub(super) fn written(at: Timestamp) -> String {
    formatted(at, MILLISECONDS_UTC)
}

/// `at` as the signing SDKs write it.
pub(super) fn written_signed(at: Timestamp) -> String {
    formatted(at, MICROSECONDS_OFFSET)
}

fn formatted(at: Timestamp, as_this: &[BorrowedFormatItem<'_>]) -> String {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(at.0))
        .ok()
        .and_then(|at| at.format(as_this).ok())
        .unwrap_or_default()
}

/// What Core sends, in every spelling its clients accept: `Z` or an offset
/// (`+01:00`, `+0100`, `+01`) or neither (UTC), `T` or a space. `None` for
/// anything else: an expiry nobody can read does not exist.
pub(super) fn read(text: &str) -> Option<Timestamp> {
    const DATE_AND_SECONDS: usize = "2026-01-01T00:00:00".len();
    let text = text.trim();
    let (date, rest) = text.split_at_checked("2026-01-01".len())?;
    let clock = rest.strip_prefix(['T', 't', ' '])?;
    let (clock, offset) = match clock.find(['Z', 'z', '+', '-']) {
        Some(at) => clock.split_at_checked(at)?,
        None => (clock, "Z"),
    };
    let offset = match (offset.split_at_checked(1)?, offset.len()) {
        (("Z" | "z", ""), _) => "Z".to_owned(),
        ((sign, hours), 3) => format!("{sign}{hours}:00"),
        ((sign, digits), 5) => {
            let (hours, minutes) = digits.split_at_checked(2)?;
            format!("{sign}{hours}:{minutes}")
        }
        (_, 6) => offset.to_owned(),
        _ => return None,
    };
    let clock = clock.trim_end();
    let mut whole = format!("{date}T{clock}");
    if whole.len() < DATE_AND_SECONDS {
        whole.push_str(":00");
    }
    let at = OffsetDateTime::parse(&(whole + &offset), &Rfc3339).ok()?;
    u64::try_from(at.unix_timestamp_nanos()).ok().map(Timestamp)
}

/// What `Retry-After` asks for (RFC 9110 §10.2.3): seconds, or a date.
pub(super) fn retry_after(text: &str, now: Timestamp) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = OffsetDateTime::parse(text.trim(), &Rfc2822).ok()?;
    let at = u64::try_from(at.unix_timestamp_nanos()).ok()?;
    Some(Timestamp(at).since(now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_told_in_seconds_or_as_a_date() {
        let now = Timestamp(784_111_767_000_000_000);
        let seconds = Duration::from_secs;
        #[rustfmt::skip]
        let table = [
            ("0",                             Some(seconds(0))),
            (" 120 ",                         Some(seconds(120))),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(seconds(10))),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(seconds(0))),
            ("-1",                            None),
            ("1.5",                           None),
            ("soon",                          None),
            ("",                              None),
        ];
        for (text, expected) in table {
            assert_eq!(retry_after(text, now), expected, "{text}");
        }
    }

    #[test]
    fn every_spelling_of_a_moment_is_that_moment() {
        let noon = Timestamp(1_767_268_800_000_000_000);
        for text in [
            "2026-01-01T12:00:00Z",
            "2026-01-01T12:00:00.000z",
            "2026-01-01 12:00:00Z",
            "2026-01-01T12:00:00",
            "2026-01-01 12:00:00.000000",
            "2026-01-01T12:00",
            "2026-01-01T13:00:00+01:00",
            "2026-01-01T13:00:00+0100",
            "2026-01-01T13:00:00+01",
            "2026-01-01 06:30:00.000-05:30",
            " 2026-01-01T12:00:00+00 ",
        ] {
            assert_eq!(read(text), Some(noon), "{text}");
        }
        assert_eq!(written(noon), "2026-01-01T12:00:00.000Z");
        let later = Timestamp(noon.0 + 1_999_999);
        assert_eq!(written(later), "2026-01-01T12:00:00.001Z");
    }

    #[test]
    fn what_is_no_moment_is_none() {
        for text in [
            "",
            "soon",
            "2026-01-01",
            "2026-13-01T12:00:00Z",
            "2026-01-01T12:00:00+1",
            "2026-01-01T12:00:00Zebra",
            "1767268800",
            "1026-01-01T12:00:00Z",
            "ää26-01-01T12:00:00Z",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
