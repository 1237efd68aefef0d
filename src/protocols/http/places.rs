//! Which requests a setting is about: by host, and by path where it says one.

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

    /// Whether a request to `host` for `path` (without its query) is meant.
    pub(super) fn covers(&self, host: &str, path: &str) -> bool {
        let path_fits = match &self.path {
            Path::Any => true,
            Path::Is(only) => path == &**only,
            Path::Begins(begin) => path.starts_with(&**begin),
        };
        path_fits && (&*self.host == "*" || is_host(&self.host, host))
    }
}

/// Whether `host` is what a pattern stands for: a name, or `*.` and a suffix.
pub(super) fn is_host(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix("*.") {
        Some(suffix) => host
            .strip_suffix(suffix)
            .is_some_and(|rest| rest.ends_with('.') && rest.len() > 1),
        None => pattern.eq_ignore_ascii_case(host),
    }
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
        ];
        for (host, path, of, requested, covered) in table {
            let place = Place::new(host, path);
            let found = place.covers(of, requested);
            assert_eq!(found, covered, "{host} {path:?} of {of}{requested}");
        }
    }
}
