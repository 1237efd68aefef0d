//! How long a peer says that it keeps an idle connection: `Keep-Alive: timeout=5`
//! (draft-thomson-hybi-http-timeout §2, which servers wrote long before and write still).

use std::time::Duration;

use http::HeaderMap;

/// A request that is on its way when the peer's time is over is lost: the way takes time, and
/// clocks of timers are coarse.
const BEFORE: Duration = Duration::from_secs(1);

/// How long a connection may be idle and still be used, if its peer says so.
pub(super) fn timeout(answer: &HeaderMap) -> Option<Duration> {
    let said = answer.get("keep-alive")?.to_str().ok()?;
    let seconds = said.split(',').find_map(|part| {
        let (name, value) = part.split_once('=')?;
        let is_timeout = name.trim().eq_ignore_ascii_case("timeout");
        is_timeout.then(|| value.trim().trim_matches('"').parse().ok())?
    })?;
    Some(Duration::from_secs(seconds).saturating_sub(BEFORE))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(value: &str) -> Option<u64> {
        let mut answer = HeaderMap::new();
        answer.insert("keep-alive", value.parse().unwrap());
        timeout(&answer).map(|idle| idle.as_secs())
    }

    #[test]
    fn the_time_that_a_peer_names_is_kept_to_with_a_second_to_spare() {
        assert_eq!(timeout(&HeaderMap::new()), None);
        for (value, idle) in [
            ("timeout=5", Some(4)),
            ("max=100, Timeout = 60", Some(59)),
            ("timeout=\"15\";x, max=1", None),
            ("timeout=\"15\"", Some(14)),
            ("timeout=1", Some(0)),
            ("timeout=0", Some(0)),
            ("timeout=", None),
            ("timeout=-1", None),
            ("timeout=99999999999999999999", None),
            ("max=5", None),
            ("5", None),
        ] {
            assert_eq!(said(value), idle, "{value}");
        }
    }
}
