//! Which sidecars a connection has passed on its way: where one of them meets itself, they lead in a circle.
//!
//! Each that asks a proxy of the network for a connection says its own name, and those that it was told, in `Via` (RFC
//! 9110 §7.6.3): a pseudonym that means nothing to anybody else. Origins are not told.

use std::sync::Arc;

use http::HeaderMap;
use http::header::VIA;

/// Most sidecars in a row.
const PASSED_MAX: usize = 8;

/// What every name begins with.
const PREFIX: &str = "openbox-";

/// Digits behind it.
const DIGITS: usize = 16;

/// What one sidecar is called for as long as it lives: another one each time it starts.
#[derive(Debug)]
pub struct Name(Box<str>);

impl Default for Name {
    fn default() -> Self {
        Self(format!("{PREFIX}{:016x}", rand::random::<u64>()).into())
    }
}

/// Those that were passed, as `Via` has them; nobody, mostly.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Passed(Option<Arc<str>>);

/// Why a connection goes no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Circle {
    /// It was here already.
    Here,
    /// It has passed too many.
    Long,
}

impl Circle {
    /// In words, for whoever set the proxies.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Here => {
                "this connection was asked for by this sidecar itself: upstream.proxy leads in a circle, through a proxy whose own way out is this sidecar"
            }
            Self::Long => {
                "this connection has passed 8 sidecars, each the upstream.proxy of the one before: that is a circle, or too long a way"
            }
        }
    }
}

impl Passed {
    /// Those that `headers` say were passed, on the way to the sidecar that is called `here`.
    ///
    /// # Errors
    ///
    /// When it is among them, or they are too many.
    pub fn of(headers: &HeaderMap, here: &Name) -> Result<Self, Circle> {
        let mut passed = String::new();
        let mut count = 0_usize;
        for name in headers
            .get_all(VIA)
            .iter()
            .flat_map(|via| names(via.as_bytes()))
        {
            if *name == *here.0 {
                return Err(Circle::Here);
            }
            count = count.saturating_add(1);
            if count >= PASSED_MAX {
                return Err(Circle::Long);
            }
            passed.push_str("1.1 ");
            passed.push_str(name);
            passed.push_str(", ");
        }
        Ok(Self((!passed.is_empty()).then(|| passed.into())))
    }

    /// Those and `here`, as a field says it.
    pub(super) fn and(&self, here: &Name) -> String {
        let before = self.0.as_deref().unwrap_or_default();
        format!("{before}1.1 {}", here.0)
    }
}

/// The sidecars in one field, each behind the version that it was spoken to in.
fn names(via: &[u8]) -> impl Iterator<Item = &str> {
    let text = std::str::from_utf8(via).unwrap_or_default();
    text.split(',').filter_map(|one| {
        let name = one.split_ascii_whitespace().nth(1)?;
        let digits = name.strip_prefix(PREFIX)?;
        let is_name = digits.len() == DIGITS && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_name.then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(via: &[&str]) -> HeaderMap {
        let all = via.iter().map(|via| (VIA, via.parse().unwrap()));
        all.collect()
    }

    #[test]
    fn who_was_here_before_is_known_again_behind_whatever_is_between() {
        let (one, two, three) = (Name::default(), Name::default(), Name::default());
        let first = Passed::default().and(&one);
        let second = Passed::of(&headers(&[&first]), &two).unwrap().and(&two);
        let between = format!("1.1 squid (squid/5, a), {second}, HTTP/2 nginx");
        for via in [&[&*second][..], &[&between], &[&first, "1.0 x", &second]] {
            let found = Passed::of(&headers(via), &one);
            assert_eq!(found, Err(Circle::Here), "{via:?}");
            assert!(Passed::of(&headers(via), &three).is_ok());
        }
    }

    #[test]
    fn what_others_say_is_nobodys_name() {
        let here = Name::default();
        for via in [
            "",
            "1.1 proxy",
            "1.1",
            "openbox-0123456789abcdef",
            "1.1 openbox-xyz",
        ] {
            let passed = Passed::of(&headers(&[via]), &here);
            assert_eq!(passed, Ok(Passed::default()), "{via}");
        }
    }

    #[test]
    fn a_way_has_an_end() {
        let mut passed = Passed::default();
        let mut names = Vec::new();
        loop {
            let name = Name::default();
            let via = passed.and(&name);
            names.push(name);
            match Passed::of(&headers(&[&via]), &Name::default()) {
                Ok(next) => passed = next,
                Err(circle) => {
                    assert_eq!((circle, names.len()), (Circle::Long, PASSED_MAX));
                    assert!(circle.words().contains(&PASSED_MAX.to_string()));
                    return;
                }
            }
        }
    }
}
