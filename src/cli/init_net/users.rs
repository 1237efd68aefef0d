//! Users whose traffic is captured, as `--capture-uid` names them.

use std::fmt;
use std::str::FromStr;

/// One user, or all from the first to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Users {
    first: u32,
    last: u32,
}

impl Users {
    /// Without overlaps, which `nft` does not take, in order.
    pub(super) fn merged(all: &[Self]) -> Vec<Self> {
        let mut sorted = all.to_vec();
        sorted.sort_unstable();
        let mut merged: Vec<Self> = Vec::with_capacity(sorted.len());
        for next in sorted {
            match merged.last_mut() {
                Some(last) if next.first <= last.last.saturating_add(1) => {
                    last.last = last.last.max(next.last);
                }
                Some(_) | None => merged.push(next),
            }
        }
        merged
    }
}

impl FromStr for Users {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.parse::<u32>().ok();
        let (first, last) = match text.split_once('-') {
            Some((first, last)) => (number(first), number(last)),
            None => (number(text), number(text)),
        };
        match (first, last) {
            (Some(first), Some(last)) if first <= last => Ok(Self { first, last }),
            (Some(_), Some(_)) => Err("its first user comes behind its last".to_owned()),
            (None, _) | (_, None) => Err(
                "expected a user's number or a range of them, for example 1000 or 1000-1999"
                    .to_owned(),
            ),
        }
    }
}

impl fmt::Display for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_and_a_range_are_read_and_nothing_else() {
        for (text, expected) in [
            ("1000", Some("1000")),
            ("1000-1000", Some("1000")),
            ("1000-1999", Some("1000-1999")),
            ("0", Some("0")),
            ("1999-1000", None),
            ("root", None),
            ("", None),
            ("-", None),
            ("1-2-3", None),
            ("4294967296", None),
        ] {
            let read = text.parse::<Users>().ok().map(|users| users.to_string());
            assert_eq!(read.as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn what_overlaps_or_touches_is_one() {
        let all = ["7", "10-20", "15-30", "31", "5", "33"].map(|text| text.parse().unwrap());
        let merged: Vec<_> = Users::merged(&all).iter().map(Users::to_string).collect();
        assert_eq!(merged, ["5", "7", "10-31", "33"]);
    }
}
