//! The environment as data: read once, in `main`; tests inject a map.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use crate::process::clock;

/// What the surroundings say: variables, the host's name, a fresh run id.
#[derive(Clone)]
pub struct Source {
    variables: BTreeMap<String, String>,
    /// Names of our variables whose values are not UTF-8.
    unreadable: Vec<String>,
    host_name: String,
    run_id: String,
}

/// Names only: values may be secrets.
impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source")
            .field("variables", &self.variables.keys())
            .field("unreadable", &self.unreadable)
            .field("host_name", &self.host_name)
            .field("run_id", &self.run_id)
            .finish()
    }
}

impl Source {
    /// Reads the process environment. Call it once.
    pub fn from_process() -> Self {
        let mut source = Self::of_os(std::env::vars_os());
        source.host_name = host_name(&source.variables);
        source.run_id = clock::secret_name("run-");
        source
    }

    /// These variables, on a host called `host_name`.
    pub fn new<'a>(
        variables: impl IntoIterator<Item = (&'a str, &'a str)>,
        host_name: &str,
    ) -> Self {
        let pairs = variables
            .into_iter()
            .map(|(name, value)| (OsString::from(name), OsString::from(value)));
        let mut source = Self::of_os(pairs);
        host_name.clone_into(&mut source.host_name);
        "run-test".clone_into(&mut source.run_id);
        source
    }

    fn of_os(pairs: impl Iterator<Item = (OsString, OsString)>) -> Self {
        let mut variables = BTreeMap::new();
        let mut unreadable = Vec::new();
        for (name, value) in pairs {
            let Ok(name) = name.into_string() else {
                continue;
            };
            match value.into_string() {
                Ok(value) => drop(variables.insert(name, value)),
                Err(_) if name.starts_with("OPENBOX_") => unreadable.push(name),
                Err(_) => {}
            }
        }
        Self {
            variables,
            unreadable,
            host_name: String::new(),
            run_id: String::new(),
        }
    }

    /// The value of `name`; an empty one counts as absent, as shells and
    /// container manifests leave them behind.
    pub fn get(&self, name: &str) -> Option<&str> {
        let value = self.variables.get(name)?;
        (!value.is_empty()).then_some(value)
    }

    /// Names of set variables that begin with `prefix`.
    pub fn named<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a str> {
        self.variables
            .iter()
            .filter(move |(name, value)| name.starts_with(prefix) && !value.is_empty())
            .map(|(name, _)| name.as_str())
    }

    /// Names of our variables whose values are not UTF-8.
    pub(super) fn unreadable(&self) -> &[String] {
        &self.unreadable
    }

    /// The name of this host.
    pub fn host_name(&self) -> &str {
        &self.host_name
    }

    /// A run id nobody used before.
    pub fn run_id(&self) -> &str {
        &self.run_id
    }
}

fn host_name(variables: &BTreeMap<String, String>) -> String {
    let of_file = |path: &str| std::fs::read_to_string(Path::new(path)).ok();
    [
        of_file("/proc/sys/kernel/hostname"),
        of_file("/etc/hostname"),
        variables.get("HOSTNAME").cloned(),
    ]
    .into_iter()
    .flatten()
    .map(|name| name.trim().to_owned())
    .find(|name| !name.is_empty())
    .unwrap_or_else(|| "localhost".to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    #[test]
    fn an_empty_variable_is_absent() {
        let source = Source::new([("A", ""), ("B", "x")], "host");
        assert_eq!((source.get("A"), source.get("B")), (None, Some("x")));
    }

    #[test]
    fn a_value_that_is_not_text_is_remembered_by_name() {
        let bad = || OsString::from_vec(vec![0xff]);
        let pairs = [("OPENBOX_POLICY", bad()), ("OTHER", bad())];
        let pairs = pairs.map(|(name, value)| (OsString::from(name), value));
        assert_eq!(
            Source::of_os(pairs.into_iter()).unreadable,
            ["OPENBOX_POLICY"]
        );
    }

    #[test]
    fn debug_output_shows_no_value() {
        let source = Source::new([("OPENBOX_API_KEY", "obx_live_abc")], "host");
        assert!(!format!("{source:?}").contains("obx_live"), "{source:?}");
    }
}
