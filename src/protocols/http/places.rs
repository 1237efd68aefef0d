//! Which requests a setting is about: by host, and by path where it says one.

use std::borrow::Cow;

use crate::net::origins::is_host;

/// `HOST` or `HOST/PATH`. The host is a name, an address, `*.example.com` or `*`;
/// a path that ends in `*` stands for everything that begins so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Lower case.
    host: Box<str>,
    path: Path,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Path {
    Any,
    Is(Box<str>),
    Begins(Box<str>),
}

impl Place {
    /// From a checked host pattern and, where one is said, a path with its slash.
    #[must_use]
    pub fn new(host: &str, path: Option<&str>) -> Self {
        Self {
            host: host.to_ascii_lowercase().into(),
            path: match path.map(|path| (path, path.strip_suffix('*'))) {
                None => Path::Any,
                Some((_, Some(begin))) => Path::Begins(begin.into()),
                Some((path, None)) => Path::Is(path.into()),
            },
        }
    }

    /// Whether all its hosts are among those of `patterns`: hosts, or `*.` and what hosts end with.
    #[must_use]
    pub fn is_within(&self, patterns: &[String]) -> bool {
        patterns
            .iter()
            .any(|pattern| match self.host.strip_prefix("*.") {
                Some(name) => {
                    **pattern == *self.host || (pattern.starts_with("*.") && is_host(pattern, name))
                }
                None => is_host(pattern, &self.host),
            })
    }

    /// Whether a request to `host` for `path` (without its query) is meant, however
    /// the path is written.
    pub(super) fn covers(&self, host: &str, path: &str) -> bool {
        let path = match self.path {
            Path::Any => Cow::Borrowed(path),
            Path::Is(_) | Path::Begins(_) => plain(path),
        };
        let path_fits = match &self.path {
            Path::Any => true,
            Path::Is(only) => *path == **only,
            Path::Begins(begin) => path.starts_with(&**begin),
        };
        path_fits && (&*self.host == "*" || is_host(&self.host, host))
    }

    /// Whether a path is said, and `path` is one that an origin may read as another than it is
    /// compared as: with a slash that is encoded (also twice) or leans backwards, with what ends
    /// a text in C, with parameters (`;`), or with segments that are empty, `.` or `..`, before
    /// which some take parameters away and which some keep.
    pub(super) fn is_ambiguous(&self, path: &str) -> bool {
        match self.path {
            Path::Any => false,
            Path::Is(_) | Path::Begins(_) => {
                // As it came: resolved, it does not say any more what was to be resolved.
                let lower = unreserved_decoded(path).to_ascii_lowercase();
                let parts = ["%2f", "%5c", "%25", "%00", "%3b", "\\", ";", "//"];
                let dots = |segment| matches!(segment, "." | "..");
                parts.iter().any(|part| lower.contains(part)) || lower.split('/').any(dots)
            }
        }
    }
}

/// `path` as origins understand it, or an agent could write it so that no setting
/// fits: percent-encoded letters, digits and `-._~` as themselves, `.` and `..`
/// resolved (RFC 3986 §6.2.2), several slashes as one.
fn plain(path: &str) -> Cow<'_, str> {
    if !path.contains('%') && !path.contains("/.") && !path.contains("//") {
        return Cow::Borrowed(path);
    }
    let decoded = unreserved_decoded(path);
    let mut kept: Vec<&str> = Vec::new();
    let mut ends_in_folder = true;
    for segment in decoded.split('/').skip(1) {
        ends_in_folder = matches!(segment, "" | "." | "..");
        match segment {
            "" | "." => {}
            ".." => drop(kept.pop()),
            name => kept.push(name),
        }
    }
    let end = if ends_in_folder && !kept.is_empty() {
        "/"
    } else {
        ""
    };
    Cow::Owned(format!("/{}{end}", kept.join("/")))
}

fn unreserved_decoded(path: &str) -> String {
    let mut decoded = String::with_capacity(path.len());
    let mut rest = path;
    while let Some((before, behind)) = rest.split_once('%') {
        decoded.push_str(before);
        let code = behind.get(..2);
        let byte = code.and_then(|code| u8::from_str_radix(code, 16).ok());
        match byte.filter(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(byte)) {
            Some(byte) => {
                decoded.push(char::from(byte));
                rest = behind.get(2..).unwrap_or_default();
            }
            None => {
                decoded.push('%');
                rest = behind;
            }
        }
    }
    decoded.push_str(rest);
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_covers_its_host_and_path_and_nothing_else() {
        #[rustfmt::skip]
        let table = [
            // host             path              of             for         covered
            ("a.test",          None,             "a.test",      "/x",       true),
            ("A.test",          None,             "a.test",      "/x",       true),
            ("a.test",          None,             "b.a.test",    "/x",       false),
            ("*.a.test",        None,             "b.a.test",    "/x",       true),
            ("*.a.test",        None,             "a.test",      "/x",       false),
            ("*.a.test",        None,             "xa.test",     "/x",       false),
            ("*",               None,             "any.test",    "/x",       true),
            ("a.test",          Some("/x"),       "a.test",      "/x",       true),
            ("a.test",          Some("/x"),       "a.test",      "/x/y",     false),
            ("a.test",          Some("/x/*"),     "a.test",      "/x/y",     true),
            ("a.test",          Some("/x/*"),     "a.test",      "/x",       false),
            ("*",               Some("/x*"),      "b.test",      "/xy",      true),
            ("*",               Some("/x*"),      "b.test",      "/y",       false),
            // However it is written.
            ("a.test",          Some("/x/*"),     "a.test",      "/%78/y",   true),
            ("a.test",          Some("/x/*"),     "a.test",      "//x//y",   true),
            ("a.test",          Some("/x/*"),     "a.test",      "/z/../x/y", true),
            ("a.test",          Some("/x/*"),     "a.test",      "/z/%2e%2E/x/", true),
            ("a.test",          Some("/x/*"),     "a.test",      "/x/../y",  false),
            ("a.test",          Some("/x"),       "a.test",      "/./x",     true),
            ("a.test",          Some("/x"),       "a.test",      "/x%2f",    false),
            ("a.test",          Some("/%2fx"),    "a.test",      "/%2fx",    true),
            ("a.test",          Some("/"),        "a.test",      "/../..",   true),
            ("a.test",          Some("/x%"),      "a.test",      "/x%",      true),
        ];
        for (host, path, of, requested, covered) in table {
            let place = Place::new(host, path);
            let found = place.covers(of, requested);
            assert_eq!(found, covered, "{host} {path:?} of {of}{requested}");
        }
    }
}
