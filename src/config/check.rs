//! Flags, environment and file to [`Config`], or every problem at once.

use std::cell::RefCell;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::gate::{self, Constraints, FailMode};
use crate::journal;
use crate::policy::core::{self, CoreUrl};
use crate::policy::local::{self, Undefined};

use super::problem::{Problem, Problems};
use super::raw::{self, Raw};
use super::resolve::{Flags, Resolver};
use super::source::Source;
use super::value::Wrong;
use super::{Config, CoreConfig, For, PolicyMode, Validate, resolved, settings, structure};

/// Largest configuration file read, bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Checks everything that was said, for `purpose`.
///
/// # Errors
/// Every problem of file, environment and flags, in one list.
pub fn check(flags: &Flags, env: &Source, purpose: For) -> Result<Config, Problems> {
    let mut resolver = Resolver {
        flags,
        env,
        file: String::new(),
        problems: Vec::new(),
        warnings: Vec::new(),
        said: RefCell::default(),
    };
    let raw = resolver.file();
    resolver.refuse_unsupported();
    let config = resolver.config(raw, purpose);
    match config {
        Some(config) if resolver.problems.is_empty() => Ok(Config {
            warnings: resolver.warnings,
            resolved: resolved::all(&resolver.said.into_inner()),
            ..config
        }),
        Some(_) | None => Err(Problems(resolver.problems)),
    }
}

impl Resolver<'_> {
    fn file(&mut self) -> Raw {
        let typed = self.flags.all("--config").last();
        let (at, path) = match (typed, self.env.get("OPENBOX_CONFIG")) {
            (Some(path), _) => ("--config", path),
            (None, Some(path)) => ("OPENBOX_CONFIG", path),
            (None, None) => return Raw::default(),
        };
        path.clone_into(&mut self.file);
        match read(Path::new(path)) {
            Ok(yaml) => structure::read(&yaml, path, &mut self.problems),
            Err(found) => {
                let wrong = Wrong::new(
                    format!("{path}: {found}"),
                    "a readable YAML file",
                    "openbox-sidecar.yaml",
                );
                self.tell(at, wrong);
                Raw::default()
            }
        }
    }

    fn config(&mut self, raw: Raw, purpose: For) -> Option<Config> {
        let policy = self.policy(raw.policy, raw.core);
        let fail_mode = self.choice(
            "fail_mode",
            raw.fail_mode,
            [("open", FailMode::Open), ("closed", FailMode::Closed)],
            "fail_",
        );
        let fail_closed_for = self.list("fail_closed_for", raw.fail_closed_for, class);
        let constraints = self.choice(
            "constraints",
            raw.constraints,
            [
                ("advisory", Constraints::Advisory),
                ("enforce", Constraints::Enforce),
            ],
            "",
        );
        let govern = self.govern(raw.govern);
        let unasked = self.unasked(raw.events);
        let unheld = self.unheld(raw.approvals.enabled, raw.approvals.skip_activity_types);
        let own = match &policy.0 {
            Some(PolicyMode::Core(core)) => Some(&core.client.identity),
            Some(PolicyMode::Local(_)) | None => None,
        };
        let sdk = self.sdk(raw.sdk, own);
        let state_dir = self.state_dir(raw.state_dir);
        let ca_dir = PathBuf::from(self.text("ca_dir", raw.ca_dir, &state_dir.to_string_lossy()));
        let share_dir = self.share_dir(raw.share_dir, &[&state_dir, &ca_dir]);
        let session = self.session(raw.session);
        let listen = self.listen(raw.listen, purpose, policy.0.as_ref());
        let config = Config {
            own_run_is_new: *session.own.run_id == *self.env.run_id(),
            gate: gate::Settings {
                judge_within: policy.1,
                approval_lives: self.duration("approvals.expire_after", raw.approvals.expire_after),
                holds_max: self.count("approvals.open_max", raw.approvals.open_max, 1),
                reports_max: self.count("outcomes_waiting_max", raw.outcomes_waiting_max, 1),
                fail_mode,
                fail_closed_for: fail_closed_for.into(),
                constraints,
                halt_scope: self.halt_scope(raw.halt_scope, purpose),
                govern,
                unasked,
                unheld,
                count_after: self.count_after(raw.journal.count_after),
            },
            session,
            journal: journal::Settings {
                folder: state_dir.clone(),
                durability: self.durability(raw.journal.durability),
                sync_within: self.duration("journal.sync_within", raw.journal.sync_within),
                segment_bytes: self.bytes(
                    "journal.segment_bytes",
                    raw.journal.segment_bytes,
                    1 << 16,
                ),
                on_full: self.on_full(raw.journal.on_full),
                keep_for: self.duration("journal.keep_for", raw.journal.keep_for),
                keep_bytes: self.bytes("journal.keep_bytes", raw.journal.keep_bytes, 1 << 16),
            },
            http: self.http(raw.http),
            postgres: self.postgres(raw.postgres, purpose),
            mysql: self.mysql(raw.mysql, purpose),
            redis: self.redis(raw.redis, purpose),
            sdk,
            upstream: self.upstream(raw.upstream, listen.capture),
            listen,
            state_dir,
            ca_dir,
            share_dir,
            log: self.log(raw.log, purpose),
            drain_within: self.duration("drain_within", raw.drain_within),
            end_file: self.end_file(raw.end_file),
            workers: self.workers(raw.workers),
            warnings: Vec::new(),
            resolved: Vec::new(),
            policy: policy.0?,
        };
        Some(config)
    }

    /// Who decides, and how long the gate waits for it.
    fn policy(
        &mut self,
        policy: raw::Policy,
        mut raw_core: raw::Core,
    ) -> (Option<PolicyMode>, Duration) {
        self.tell_two_urls();
        let (identity, identity_at) = self.identities(&mut raw_core);
        let path = self.given("policy.path", policy.path);
        let url = self.given("core.url", raw_core.url);
        // Read in both modes, so that a mistake is told in both.
        let timeout = self.duration("core.timeout", raw_core.timeout);
        let validate = self.truth("core.validate", raw_core.validate);
        let retries_max = self.count("core.retries", raw_core.retries, 0);
        let retries_max = u32::try_from(retries_max).unwrap_or(u32::MAX);
        let in_flight_max = self.count("core.in_flight_max", raw_core.in_flight_max, 1);
        let evaluate_within = self.duration("policy.evaluate_within", policy.evaluate_within);
        let undefined = self.choice(
            "policy.undefined",
            policy.undefined,
            [("deny", Undefined::Deny), ("allow", Undefined::Allow)],
            "",
        );
        let memory_bytes_max = self.count("policy.memory_bytes_max", policy.memory_bytes_max, 0);
        let agent_id = self
            .given("policy.agent_id", policy.agent_id)
            .map(|given| given.text.into());
        let risk_tier = self.risk_tier(policy.risk_tier);
        if let (Some(path), Some(url)) = (&path, &url) {
            let found = format!("{} is set too, and only one of them can decide", url.at);
            let wrong = Wrong::new(found, "a local policy or a Core", "--policy policy.rego");
            self.tell(&path.at.clone(), wrong);
        }
        let mode = match url {
            Some(url) => {
                let api_key = self.api_key(raw_core.api_key_file);
                let parsed = CoreUrl::parse(&url.text);
                let parsed = parsed
                    .map_err(|unfit| self.tell(&url.at, unfit.into()))
                    .ok();
                parsed.zip(api_key).map(|(url, api_key)| {
                    PolicyMode::Core(CoreConfig {
                        client: core::Settings {
                            answer_within: timeout,
                            retries_max,
                            in_flight_max,
                            identity,
                            ..core::Settings::new(url, api_key)
                        },
                        validate: if validate {
                            Validate::AtStart
                        } else {
                            Validate::Never
                        },
                    })
                })
            }
            None => {
                if self.env.get("OPENBOX_API_KEY").is_some() {
                    let text = "OPENBOX_API_KEY is set without OPENBOX_CORE_URL: \
                                the embedded policy judges, the key is not used";
                    self.warnings.push(text.to_owned());
                }
                if let Some(at) = identity_at {
                    self.warnings.push(format!(
                        "{at} is set without OPENBOX_CORE_URL: the embedded policy judges, nothing is signed"
                    ));
                }
                Some(PolicyMode::Local(local::Settings {
                    path: path.map(|path| self.policy_path(&path.at, &path.text)),
                    undefined,
                    evaluate_within,
                    memory_bytes_max,
                    agent_id,
                    risk_tier,
                }))
            }
        };
        (mode, timeout)
    }

    fn risk_tier(&mut self, said: Option<u64>) -> Option<u8> {
        let given = self.given("policy.risk_tier", said.map(|tier| tier.to_string()))?;
        let tier = given
            .text
            .parse()
            .ok()
            .filter(|tier| (1..=4).contains(tier));
        if tier.is_none() {
            let expected = "1 (low), 2, 3 or 4 (critical)";
            let wrong = Wrong::is_not(&given.text, "a risk tier", expected, "2");
            self.tell(&given.at, wrong);
        }
        tier
    }

    fn tell_two_urls(&mut self) {
        let urls = ["OPENBOX_CORE_URL", "OPENBOX_URL"].map(|name| self.env.get(name));
        if let [Some(one), Some(other)] = urls
            && one != other
        {
            let found = "OPENBOX_CORE_URL is set too, to another URL".to_owned();
            let wrong = Wrong::new(found, "one URL", "unset OPENBOX_URL");
            self.tell("OPENBOX_URL", wrong);
        }
    }

    fn policy_path(&mut self, at: &str, path: &str) -> PathBuf {
        if let Err(error) = std::fs::metadata(path) {
            let found = format!("{path}: {error}");
            let wrong = Wrong::new(found, "a Rego file, or a folder of them", "policy.rego");
            self.tell(at, wrong);
        }
        PathBuf::from(path)
    }

    /// What the SDKs know and this version does not do is refused, not ignored.
    fn refuse_unsupported(&mut self) {
        for name in self.env.unreadable() {
            self.problems.push(Problem {
                at: name.clone(),
                found: "the value is not UTF-8".to_owned(),
                expected: "text".to_owned(),
                example: format!("unset {name}"),
            });
        }
        // Also what we do not know of identities: an agent that has one must not
        // be asked about as another without a word.
        let unsupported = ["OPENBOX_SKIP_", "OPENBOX_OKTA_", "OPENBOX_WORKLOAD_"];
        let names = unsupported.iter().flat_map(|name| self.env.named(name));
        let names = names.filter(|name| !settings::is_known(name));
        let names: Vec<_> = names.map(str::to_owned).collect();
        for name in names {
            let found = "not supported by this version".to_owned();
            let expected = "this variable to be absent";
            let wrong = Wrong::new(found, expected, &format!("unset {name}"));
            self.tell(&name, wrong);
        }
    }
}

fn read(path: &Path) -> Result<String, String> {
    let told = |error: std::io::Error| error.to_string();
    let mut text = String::new();
    let limit = FILE_BYTES_MAX.saturating_add(1);
    let file = File::open(path).map_err(told)?;
    file.take(limit).read_to_string(&mut text).map_err(told)?;
    if u64::try_from(text.len()).unwrap_or(u64::MAX) > FILE_BYTES_MAX {
        return Err(format!("it is longer than {FILE_BYTES_MAX} bytes"));
    }
    Ok(text)
}

/// A class of database statements.
fn class(text: &str) -> Result<Box<str>, Wrong> {
    const CLASSES: [&str; 6] = ["session", "read", "write", "schema", "admin", "opaque"];
    if CLASSES.contains(&text) {
        return Ok(text.into());
    }
    Err(Wrong::new(
        format!("{text:?} is no class of database statements"),
        &CLASSES.join(" or "),
        "write",
    ))
}
