//! Policy files on disk, and everything that can be wrong with them.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use regorus::{Engine, Value};
use sha2::{Digest, Sha256};

use super::check;
use super::reads::{Reads, reads};
use super::rules::Rules;
use super::syntax::{Scope, Visited, variable, visit_rule};

/// The policy that judges where none is configured.
const STARTER: &str = include_str!("../../../config/policies/starter.rego");
/// What messages call it.
const STARTER_NAME: &str = "starter.rego";

/// What ends the name of a file of behaviour rules and guardrails.
const RULES: [&str; 2] = ["_rules.yaml", "_rules.yml"];
/// Longest policy, data or rules file, bytes.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// Most files of a folder.
const FILES_MAX: usize = 1_000;
/// Most entries of one folder, of whatever kind.
const ENTRIES_MAX: usize = 10_000;
/// Deepest folder looked into.
const DEPTH_MAX: usize = 16;

/// Policies that cannot be used, with every problem that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadError {
    problems: Vec<String>,
}

impl LoadError {
    fn one(problem: String) -> Self {
        Self {
            problems: vec![problem],
        }
    }

    /// Each problem, with file, line, column and the offending text where it
    /// has a place.
    pub fn problems(&self) -> &[String] {
        &self.problems
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("\n\n")?;
            }
            f.write_str(problem)?;
        }
        Ok(())
    }
}

impl std::error::Error for LoadError {}

/// Policies as they lie on disk.
#[derive(Debug)]
pub(super) struct Files {
    policies: Vec<(String, String)>,
    data: Vec<(Vec<String>, String, String)>,
    /// Behaviour rules and guardrails: name and text of each file.
    rules: Vec<(String, String)>,
    /// What they are called in banner and logs.
    pub(super) origin: String,
}

/// Policies ready to be asked.
#[derive(Debug)]
pub(super) struct Compiled {
    pub(super) engine: Engine,
    /// `data.<package>.result` of every package that has a result, with the
    /// package's name.
    pub(super) queries: Vec<(String, std::sync::Arc<str>)>,
    pub(super) rules: usize,
    /// Behaviour rules and guardrails.
    pub(super) further: Rules,
    /// What the policies read of an operation, or why that is not known.
    pub(super) reads: Result<Reads, String>,
}

impl Files {
    /// Reads one file, a folder, or (without a path) the built-in starter.
    ///
    /// # Errors
    /// Files that cannot be read, are too large or too many.
    pub(super) fn read(path: Option<&Path>) -> Result<Self, LoadError> {
        let Some(path) = path else {
            return Ok(Self {
                policies: vec![(STARTER_NAME.to_owned(), STARTER.to_owned())],
                data: Vec::new(),
                rules: Vec::new(),
                origin: "built-in starter policy".to_owned(),
            });
        };
        let mut files = Self {
            policies: Vec::new(),
            data: Vec::new(),
            rules: Vec::new(),
            origin: path.display().to_string(),
        };
        let metadata = fs::metadata(path).map_err(|error| unreadable(path, &error))?;
        if metadata.is_dir() {
            files.folder(path, &mut Vec::new())?;
        } else {
            let text = read_text(path)?;
            files.policies.push((path.display().to_string(), text));
            files.rules_beside(path)?;
        }
        if files.policies.is_empty() {
            return Err(LoadError::one(format!(
                "{}: no .rego file in this folder",
                path.display()
            )));
        }
        Ok(files)
    }

    /// Of `name.rego` the rules are in `name_rules.yaml`, if there is one.
    fn rules_beside(&mut self, path: &Path) -> Result<(), LoadError> {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        for end in RULES {
            let rules = path.with_file_name(format!("{stem}{end}"));
            if rules.is_file() {
                let text = read_text(&rules)?;
                self.rules.push((rules.display().to_string(), text));
            }
        }
        Ok(())
    }

    /// Hidden names are left out, and with them the folders that Kubernetes
    /// keeps behind a ConfigMap; tests of policies are not policies.
    fn folder(&mut self, path: &Path, below: &mut Vec<String>) -> Result<(), LoadError> {
        if below.len() >= DEPTH_MAX {
            return Err(LoadError::one(format!(
                "{}: more than {DEPTH_MAX} folders deep",
                path.display()
            )));
        }
        for entry in sorted_entries(path)? {
            let name = entry
                .file_name()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default();
            if name.starts_with('.') {
                continue;
            }
            let metadata = fs::metadata(&entry).map_err(|error| unreadable(&entry, &error))?;
            if metadata.is_dir() {
                below.push(name);
                self.folder(&entry, below)?;
                below.pop();
            } else {
                self.file(&entry, &name, below)?;
            }
            let count = [&self.policies, &self.rules].map(Vec::len);
            if count.iter().sum::<usize>().saturating_add(self.data.len()) > FILES_MAX {
                return Err(LoadError::one(format!(
                    "{}: more than {FILES_MAX} policy files",
                    path.display()
                )));
            }
        }
        Ok(())
    }

    fn file(&mut self, path: &Path, name: &str, below: &[String]) -> Result<(), LoadError> {
        let shown = path.display().to_string();
        match name {
            "data.json" => self.data.push((below.to_vec(), shown, read_text(path)?)),
            "data.yaml" | "data.yml" => {
                return Err(LoadError::one(format!(
                    "{shown}: data is read from JSON only; write it as data.json"
                )));
            }
            _ if name.ends_with("_test.rego") => {}
            "rules.yaml" | "rules.yml" => self.rules.push((shown, read_text(path)?)),
            _ if RULES.iter().any(|end| name.ends_with(end)) => {
                self.rules.push((shown, read_text(path)?));
            }
            _ if name.ends_with(".rego") => self.policies.push((shown, read_text(path)?)),
            _ => {}
        }
        Ok(())
    }

    /// Number of policy files.
    pub(super) fn count(&self) -> usize {
        self.policies.len()
    }

    /// Twelve hex digits that change with any byte of any file.
    pub(super) fn hash(&self) -> String {
        let mut hash = Sha256::new();
        let data = self.data.iter().map(|(_, name, text)| (name, text));
        let policies = self.policies.iter().map(|(name, text)| (name, text));
        let rules = self.rules.iter().map(|(name, text)| (name, text));
        for (name, text) in policies.chain(data).chain(rules) {
            for part in [name, text] {
                hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
                hash.update(part.as_bytes());
            }
        }
        let digest = hash.finalize();
        digest
            .iter()
            .take(6)
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    /// Parses and checks everything.
    ///
    /// # Errors
    /// Every problem of every file.
    pub(super) fn compile(&self) -> Result<Compiled, LoadError> {
        let mut engine = Engine::new();
        engine.set_strict_builtin_errors(true);
        engine.set_gather_prints(true);
        let mut problems = Vec::new();
        for (name, text) in &self.policies {
            problems.extend(add(&mut engine, name, text).err());
        }
        for (below, name, text) in &self.data {
            problems.extend(add_data(&mut engine, below, name, text).err());
        }
        let mut further = Rules::default();
        for (name, text) in &self.rules {
            problems.extend(further.add(name, text).err().into_iter().flatten());
        }
        if !problems.is_empty() {
            return Err(LoadError { problems });
        }
        let modules = engine.get_modules().clone();
        let scopes: Vec<Scope<'_>> = modules.iter().map(|module| Scope::new(module)).collect();
        let symbols = check::Symbols::new(&scopes);
        let problems = check::problems(&scopes, &symbols);
        if !problems.is_empty() {
            return Err(LoadError { problems });
        }
        let queries = queries(&scopes)?;
        if let Some((query, _)) = queries.first() {
            // Makes the engine schedule every rule now, which finds names used
            // before they are defined, and leaves it ready for its clones.
            engine
                .compile_with_entrypoint(&query.as_str().into())
                .map_err(|error| LoadError::one(shown(&error)))?;
        }
        Ok(Compiled {
            rules: scopes.iter().map(|scope| scope.module.policy.len()).sum(),
            reads: reads(&scopes, &symbols),
            queries,
            engine,
            further,
        })
    }
}

/// Today's Rego first; a file that is not may still be one of before 1.0, which
/// has no `if`. What is wrong is said about today's.
fn add(engine: &mut Engine, name: &str, text: &str) -> Result<(), String> {
    engine.set_rego_v0(false);
    let today = engine.add_policy(name.to_owned(), text.to_owned());
    let Err(error) = today else {
        return Ok(());
    };
    if !may_be_old(text) || !is_old(name, text) {
        return Err(shown(&error));
    }
    engine.set_rego_v0(true);
    engine
        .add_policy(name.to_owned(), text.to_owned())
        .map(|_| ())
        .map_err(|_| shown(&error))
}

/// Old Rego takes an `if` it was not told about for a name, and would read
/// `result := "BLOCK" if ...` as two rules. Such a file is today's, and wrong.
fn may_be_old(text: &str) -> bool {
    let imports = text.contains("future.keywords") || text.contains("rego.v1");
    imports || !words(text).any(|word| word == "if")
}

/// Whether `text` is old Rego with no keyword taken for a name.
fn is_old(name: &str, text: &str) -> bool {
    let mut engine = Engine::new();
    engine.set_rego_v0(true);
    if engine.add_policy(name.to_owned(), text.to_owned()).is_err() {
        return false;
    }
    let mut has_keyword = false;
    for module in engine.get_modules() {
        for rule in &module.policy {
            let scope = Scope::new(module);
            let path = scope.rule_path(rule);
            let name = path.get(scope.package.len()).map(String::as_str);
            has_keyword |= matches!(name, Some("if" | "in" | "every" | "contains"));
            visit_rule(rule, &mut |visited| {
                if let Visited::Expr(expr) = visited {
                    has_keyword |= matches!(variable(expr), Some("if" | "in" | "every"));
                }
            });
        }
    }
    !has_keyword
}

/// The words of a policy, without comments and strings.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let mut inside = None;
    let mut escaped = false;
    text.split(move |c: char| {
        let code = inside.is_none();
        match inside {
            None if c == '#' => inside = Some('\n'),
            None if c == '"' || c == '`' => inside = Some(c),
            Some('"') if escaped => escaped = false,
            Some('"') if c == '\\' => escaped = true,
            Some(end) if c == end => inside = None,
            None | Some(_) => {}
        }
        // Within a string every character ends a word, so none is longer than
        // nothing.
        !code || !(c.is_alphanumeric() || c == '_')
    })
}

fn add_data(engine: &mut Engine, below: &[String], name: &str, text: &str) -> Result<(), String> {
    let value = Value::from_json_str(text).map_err(|error| format!("{name}: not JSON: {error}"))?;
    if value.as_object().is_err() {
        return Err(format!("{name}: data must be a JSON object"));
    }
    let value = below.iter().rev().fold(value, |value, key| {
        Value::from(std::collections::BTreeMap::from([(
            Value::from(key.as_str()),
            value,
        )]))
    });
    engine
        .add_data(value)
        .map_err(|error| format!("{name}: {error}"))
}

/// The engine's message without the empty line it begins with.
pub(super) fn shown(error: &impl fmt::Display) -> String {
    error.to_string().trim_start_matches('\n').to_owned()
}

fn queries(scopes: &[Scope<'_>]) -> Result<Vec<(String, std::sync::Arc<str>)>, LoadError> {
    let mut packages: Vec<(String, std::sync::Arc<str>)> = Vec::new();
    for scope in scopes {
        let result = scope.own(&["result".to_owned()]);
        let has_result = scope
            .module
            .policy
            .iter()
            .any(|rule| scope.rule_path(rule).starts_with(&result));
        let query = (query(&result), query(&scope.package).into());
        if has_result && !packages.contains(&query) {
            packages.push(query);
        }
    }
    if packages.is_empty() {
        let names: Vec<String> = scopes.iter().map(|scope| query(&scope.package)).collect();
        return Err(LoadError::one(format!(
            "no policy says `result`\n  expected   a rule `result` in {}\n  example    \
             default result := {{\"decision\": \"BLOCK\", \"reason\": \"not allowed\"}}",
            names.join(" or ")
        )));
    }
    Ok(packages)
}

/// A path as a query writes it.
fn query(path: &[String]) -> String {
    let is_name = |text: &str| {
        text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    let mut query = String::new();
    for part in path {
        if query.is_empty() {
            query.push_str(part);
        } else if is_name(part) {
            query.push('.');
            query.push_str(part);
        } else {
            query.push_str(&format!("[{part:?}]"));
        }
    }
    query
}

fn sorted_entries(path: &Path) -> Result<Vec<PathBuf>, LoadError> {
    let entries = fs::read_dir(path).and_then(|entries| {
        entries
            .take(ENTRIES_MAX)
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<Vec<_>, _>>()
    });
    let mut entries = entries.map_err(|error| unreadable(path, &error))?;
    // Never a policy left out in silence.
    if entries.len() >= ENTRIES_MAX {
        return Err(LoadError::one(format!(
            "{}: {ENTRIES_MAX} entries or more in one folder",
            path.display()
        )));
    }
    entries.sort();
    Ok(entries)
}

fn read_text(path: &Path) -> Result<String, LoadError> {
    use io::Read as _;
    let mut text = String::new();
    fs::File::open(path)
        .and_then(|file| {
            file.take(FILE_BYTES_MAX.saturating_add(1))
                .read_to_string(&mut text)
        })
        .map_err(|error| unreadable(path, &error))?;
    if u64::try_from(text.len()).unwrap_or(u64::MAX) > FILE_BYTES_MAX {
        return Err(LoadError::one(format!(
            "{}: larger than {FILE_BYTES_MAX} bytes",
            path.display()
        )));
    }
    Ok(text)
}

fn unreadable(path: &Path, error: &io::Error) -> LoadError {
    LoadError::one(format!("{}: cannot be read: {error}", path.display()))
}
