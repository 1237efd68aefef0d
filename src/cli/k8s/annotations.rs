//! What a pod asks for: annotations under `openbox.ai/`, over the defaults of the installation.
//!
//! Settings of the sidecar that have a flag and a variable are annotations under the flag's name, and are
//! checked here as the sidecar itself will check them: `openbox.ai/pg` is `--pg` and `OPENBOX_PG`.

use std::collections::BTreeMap;
use std::fmt;

use crate::app::child_databases::Database;
use crate::app::environment::{databases, leg};
use crate::cli::init_net;
use crate::config::{self, Config, Flags, For, SETTINGS, Setting, Source};

/// What our annotations and labels begin with.
pub(super) const PREFIX: &str = "openbox.ai/";
/// The label that asks for a sidecar (`enabled`), or forbids one (`disabled`).
pub(super) const INJECT: &str = "openbox.ai/inject";
/// Says that a pod has been given its sidecar, and by which version.
pub(super) const INJECTED: &str = "openbox.ai/injected";

/// Flags that name a file or an address inside the sidecar's own container: the injection's to say.
const OURS: [&str; 7] = [
    "--policy",
    "--http-listen",
    "--agent-listen",
    "--operator-listen",
    "--health-listen",
    "--upstream-ca",
    "--state-dir",
];

/// Names of objects in the pod's namespace, and what else is no setting of the sidecar's.
const OBJECTS: [&str; 9] = [
    "mode",
    "policy-configmap",
    "config-configmap",
    "api-key-secret",
    "agent-token-secret",
    "credentials-secret",
    "journal-claim",
    "containers",
    "image",
];

/// A key in the API key's secret, where the annotation does not name one.
const API_KEY: &str = "api-key";
/// The same for the agent's token.
const AGENT_TOKEN: &str = "agent-token";

/// What a pod is to be given.
#[derive(Debug)]
pub(super) struct Wanted {
    /// Variables of the sidecar's container, by what was asked.
    pub(super) variables: Vec<(&'static str, String)>,
    /// The same, as the sidecar will understand it.
    pub(super) config: Config,
    /// ConfigMap whose files are the policy.
    pub(super) policy: Option<String>,
    /// ConfigMap that holds `openbox-sidecar.yaml`.
    pub(super) config_file: Option<String>,
    /// Secret, and the key in it, that is the agent's key for Core.
    pub(super) api_key: Option<(String, String)>,
    /// Secret, and the key in it, that is the token of the agent API; a new one at every start where none is said.
    pub(super) agent_token: Option<(String, String)>,
    /// Secret whose files are what `http.credentials` names.
    pub(super) credentials: Option<String>,
    /// Claim that keeps journal and state longer than the pod.
    pub(super) journal_claim: Option<String>,
    /// The containers that are sent through the sidecar; all, where none are named.
    pub(super) containers: Vec<String>,
    /// Image of the sidecar, where it is another than the installation's.
    pub(super) image: Option<String>,
    /// How the pod's traffic comes to the sidecar.
    pub(super) mode: Mode,
}

/// How the pod's traffic comes to the sidecar.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Mode {
    /// By variables, which a program may ignore.
    #[default]
    Cooperative,
    /// By the kernel, too.
    Redirect,
}

impl Mode {
    fn read(name: &str) -> Option<Self> {
        match name {
            "cooperative" => Some(Self::Cooperative),
            "redirect" => Some(Self::Redirect),
            _ => None,
        }
    }
}

/// Why a pod gets no sidecar; names the annotation, or the field of the pod.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused(pub(super) Vec<String>);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("; "))
    }
}

impl Refused {
    pub(super) fn one(told: impl Into<String>) -> Self {
        Self(vec![told.into()])
    }
}

impl Wanted {
    /// Reads `annotations` over `defaults`; those of others are nobody's business here.
    ///
    /// # Errors
    /// An unknown name of ours, a value that its setting does not take, or two that exclude each other.
    pub(super) fn read(
        annotations: &BTreeMap<String, String>,
        defaults: &BTreeMap<String, String>,
    ) -> Result<Self, Refused> {
        let mut said: BTreeMap<&str, &str> = BTreeMap::new();
        for (name, value) in defaults {
            said.insert(name, value.trim());
        }
        for (name, value) in annotations {
            if let Some(name) = name.strip_prefix(PREFIX) {
                said.insert(name, value.trim());
            }
        }
        // Empty is how one takes back a default.
        said.retain(|_, value| !value.is_empty());
        said.remove("injected");
        let mut told = unknown(&said);
        told.extend(contradictions(&said));
        let variables = variables(&said);
        match check(&variables, said.contains_key("api-key-secret")) {
            Ok(config) if told.is_empty() => Ok(Self::of(&said, variables, config)),
            Ok(_) => Err(Refused(told)),
            Err(problems) => {
                told.extend(problems);
                Err(Refused(told))
            }
        }
    }

    /// Looks at `defaults` before there is a pod that they are for.
    ///
    /// # Errors
    /// As of [`Self::read`], but for what a pod may still say itself.
    pub(super) fn check_defaults(defaults: &BTreeMap<String, String>) -> Result<(), Refused> {
        let mut all = defaults.clone();
        if all.get("core-url").is_some_and(|url| !url.is_empty()) {
            // Each pod may name its own.
            all.entry("api-key-secret".to_owned())
                .or_insert_with(|| API_KEY.to_owned());
        }
        Self::read(&BTreeMap::new(), &all)
            .map(drop)
            .map_err(|refused| {
                let told = refused.0.into_iter();
                Refused(told.map(|told| format!("default of {told}")).collect())
            })
    }

    /// The database servers that are governed, and where.
    pub(super) fn databases(&self) -> Vec<Database> {
        databases(
            (
                &self.config.postgres.upstreams,
                leg(self.config.postgres.agent_tls.as_ref()),
            ),
            (
                &self.config.mysql.upstreams,
                leg(self.config.mysql.agent_tls.as_ref()),
            ),
            &self.config.redis.upstreams,
        )
    }

    fn of(
        said: &BTreeMap<&str, &str>,
        variables: Vec<(&'static str, String)>,
        config: Config,
    ) -> Self {
        let object = |name: &str| said.get(name).map(|value| (*value).to_owned());
        let secret = |name: &str, key: &str| {
            object(name).map(|value| match value.split_once('/') {
                Some((secret, key)) => (secret.to_owned(), key.to_owned()),
                None => (value, key.to_owned()),
            })
        };
        let containers = said.get("containers").copied().unwrap_or_default();
        let containers = containers.split(',').map(str::trim);
        Self {
            variables,
            config,
            policy: object("policy-configmap"),
            config_file: object("config-configmap"),
            api_key: secret("api-key-secret", API_KEY),
            agent_token: secret("agent-token-secret", AGENT_TOKEN),
            credentials: object("credentials-secret"),
            journal_claim: object("journal-claim"),
            containers: containers
                .filter(|name| !name.is_empty())
                .map(str::to_owned)
                .collect(),
            image: object("image"),
            mode: mode(said).unwrap_or_default(),
        }
    }
}

/// The settings that a pod may say, by the names of their annotations.
pub(super) fn settings() -> impl Iterator<Item = (&'static str, &'static Setting)> {
    let sayable = |setting: &&Setting| !setting.env.is_empty() && !OURS.contains(&setting.flag);
    let all = SETTINGS.iter().filter(sayable);
    all.filter_map(|setting| Some((setting.flag.strip_prefix("--")?, setting)))
}

fn unknown(said: &BTreeMap<&str, &str>) -> Vec<String> {
    let known = |name: &str| OBJECTS.contains(&name) || settings().any(|(known, _)| known == name);
    let unknown = said.keys().filter(|name| !known(name));
    let told = unknown.map(|name| {
        let mut all: Vec<_> = settings().map(|(name, _)| name).chain(OBJECTS).collect();
        all.sort_unstable();
        format!(
            "annotation {PREFIX}{name} is not known; known are {}",
            all.join(", ")
        )
    });
    told.collect()
}

fn contradictions(said: &BTreeMap<&str, &str>) -> Vec<String> {
    let mut told = Vec::new();
    if said.contains_key("policy-configmap") && said.contains_key("core-url") {
        told.push(format!(
            "annotations {PREFIX}policy-configmap and {PREFIX}core-url exclude each other: either the embedded policy judges, or OpenBox Core"
        ));
    }
    if said.contains_key("core-url") && !said.contains_key("api-key-secret") {
        told.push(format!(
            "annotation {PREFIX}core-url needs {PREFIX}api-key-secret: NAME, or NAME/KEY, of a Secret with the agent's API key"
        ));
    }
    if let Some(said) = said.get("mode").filter(|_| mode(said).is_none()) {
        told.push(format!(
            "annotation {PREFIX}mode is {said:?}; it is cooperative or redirect"
        ));
    }
    told
}

/// The mode that is said; none where there is no such mode.
fn mode(said: &BTreeMap<&str, &str>) -> Option<Mode> {
    match said.get("mode") {
        Some(name) => Mode::read(name),
        None => Some(Mode::default()),
    }
}

fn variables(said: &BTreeMap<&str, &str>) -> Vec<(&'static str, String)> {
    let all = settings().filter_map(|(name, setting)| {
        let value = said.get(name)?;
        Some((*setting.env.first()?, (*value).to_owned()))
    });
    let mut all: Vec<_> = all.collect();
    match mode(said) {
        Some(Mode::Redirect) => all.extend(init_net::listeners()),
        Some(Mode::Cooperative) | None => {}
    }
    all
}

/// Asks the sidecar's own configuration what it would say, and tells problems by annotation.
fn check(variables: &[(&'static str, String)], has_key: bool) -> Result<Config, Vec<String>> {
    let mut environment: Vec<(&str, &str)> = variables
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    if has_key {
        // Of the shape of a key: the real one is seen by the sidecar alone.
        environment.push(("OPENBOX_API_KEY", "obx_test_checked_by_the_sidecar"));
    }
    let source = Source::new(environment, "pod");
    let checked = config::check(&Flags::default(), &source, For::Serve);
    checked.map_err(|problems| {
        let told = problems.0.iter().map(|problem| {
            let setting = settings().find(|(_, setting)| setting.env.contains(&&*problem.at));
            let at = match setting {
                Some((name, _)) => format!("annotation {PREFIX}{name}"),
                None => problem.at.clone(),
            };
            format!(
                "{at}: {}; expected {}, for example {}",
                problem.found, problem.expected, problem.example
            )
        });
        told.collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let pairs = pairs.iter();
        pairs
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    fn refused(annotations: &[(&str, &str)]) -> String {
        let read = Wanted::read(&map(annotations), &map(&[]));
        read.expect_err("it is taken").to_string()
    }

    #[test]
    fn settings_are_annotations_under_the_names_of_their_flags() {
        let wanted = Wanted::read(
            &map(&[
                ("openbox.ai/pg", "127.0.0.1:15432=postgres://orders-db:5432"),
                ("openbox.ai/fail-mode", "closed"),
                ("openbox.ai/injected", "0.1.0"),
                ("prometheus.io/scrape", "true"),
            ]),
            &map(&[("fail-mode", "open"), ("log-format", "json")]),
        )
        .unwrap();
        assert_eq!(
            wanted.variables,
            [
                ("OPENBOX_GOVERNANCE_POLICY", "closed".to_owned()),
                (
                    "OPENBOX_PG",
                    "127.0.0.1:15432=postgres://orders-db:5432".to_owned()
                ),
                ("OPENBOX_LOG_FORMAT", "json".to_owned()),
            ]
        );
        let host = &wanted.config.postgres.upstreams.first().unwrap().host;
        assert_eq!(&**host, "orders-db");
    }

    #[test]
    fn an_empty_annotation_takes_a_default_back() {
        let defaults = map(&[("core-url", "https://core.test"), ("api-key-secret", "k")]);
        let with = Wanted::read(&map(&[]), &defaults).unwrap();
        assert_eq!(with.api_key, Some(("k".into(), "api-key".into())));
        let without = [
            ("openbox.ai/core-url", ""),
            ("openbox.ai/api-key-secret", ""),
        ];
        let without = Wanted::read(&map(&without), &defaults).unwrap();
        assert_eq!((without.variables.len(), without.api_key), (0, None));
    }

    #[test]
    fn what_cannot_be_is_refused_by_the_annotations_name() {
        for (annotation, value, told) in [
            (
                "openbox.ai/pg",
                "mysql://orders-db",
                "annotation openbox.ai/pg: ",
            ),
            (
                "openbox.ai/pgg",
                "x",
                "annotation openbox.ai/pgg is not known; known are ",
            ),
            (
                "openbox.ai/fail-mode",
                "ajar",
                "annotation openbox.ai/fail-mode: ",
            ),
            (
                "openbox.ai/mode",
                "wishful",
                "annotation openbox.ai/mode is \"wishful\"",
            ),
            (
                "openbox.ai/core-url",
                "https://core.test",
                "needs openbox.ai/api-key-secret",
            ),
            (
                "openbox.ai/state-dir",
                "/x",
                "annotation openbox.ai/state-dir is not known",
            ),
        ] {
            let found = refused(&[(annotation, value)]);
            assert!(found.contains(told), "{annotation}: {found}");
        }
        let both = refused(&[
            ("openbox.ai/core-url", "https://core.test"),
            ("openbox.ai/api-key-secret", "k"),
            ("openbox.ai/policy-configmap", "p"),
        ]);
        assert!(both.contains("exclude each other"), "{both}");
    }

    #[test]
    fn a_default_is_looked_at_before_there_is_a_pod() {
        let told = |defaults: &[(&str, &str)]| match Wanted::check_defaults(&map(defaults)) {
            Ok(()) => String::new(),
            Err(refused) => refused.to_string(),
        };
        for (defaults, expected) in [
            (
                &[("workers", "many")][..],
                "default of annotation openbox.ai/workers: ",
            ),
            (
                &[("pgg", "x")],
                "default of annotation openbox.ai/pgg is not known",
            ),
            (
                &[("mode", "wishful")],
                "default of annotation openbox.ai/mode",
            ),
            (
                &[("drain-within", "soon")],
                "default of annotation openbox.ai/drain-within: ",
            ),
            (
                &[("core-url", "https://core.test"), ("policy-configmap", "p")],
                "exclude each other",
            ),
        ] {
            let found = told(defaults);
            assert!(found.contains(expected), "{defaults:?}: {found}");
        }
        // Whose key it is each pod may say.
        assert_eq!(told(&[("core-url", "https://core.test"), ("pg", "")]), "");
    }

    #[test]
    fn every_problem_is_told_at_once() {
        let found = refused(&[
            ("openbox.ai/pg", "nonsense"),
            ("openbox.ai/workers", "none"),
            ("openbox.ai/what", "x"),
        ]);
        for told in ["openbox.ai/pg", "openbox.ai/workers", "openbox.ai/what"] {
            assert!(found.contains(told), "{found}");
        }
    }
}
