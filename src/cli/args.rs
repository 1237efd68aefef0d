//! The flags that `run`, `serve` and `check` share.
//!
//! They stay text here: `config` reads them together with environment and
//! file, so that one list tells what is wrong with all of them.

use clap::Args;

use crate::config::Flags;

/// Flags of everything that starts from a configuration.
#[derive(Args, Clone, Debug, Default)]
pub struct Shared {
    /// Configuration file [env: OPENBOX_CONFIG]
    #[arg(short, long, value_name = "FILE", help_heading = "Configuration")]
    pub config: Option<String>,

    /// Rego file or folder that judges [env: OPENBOX_POLICY; key: policy.path; default: a starter policy]
    #[arg(long, value_name = "PATH", help_heading = "Policy")]
    pub policy: Option<String>,

    /// OpenBox Core that judges instead; its key comes in OPENBOX_API_KEY or OPENBOX_API_KEY_FILE [env: OPENBOX_CORE_URL, OPENBOX_URL; key: core.url]
    #[arg(long, value_name = "URL", help_heading = "Policy")]
    pub core_url: Option<String>,

    /// What happens while Core gives no answer [env: OPENBOX_GOVERNANCE_POLICY=fail_open|fail_closed; key: fail_mode; default: open]
    #[arg(long, value_name = "open|closed", help_heading = "Policy")]
    pub fail_mode: Option<String>,

    /// HTTP proxy [env: OPENBOX_HTTP_LISTEN; key: listen.http; default: 127.0.0.1:15801, a free port under run]
    #[arg(long, value_name = "ADDR:PORT|off", help_heading = "Listeners")]
    pub http_listen: Option<String>,

    /// Agent API [env: OPENBOX_AGENT_LISTEN; key: listen.agent; default: 127.0.0.1:15800, a free port under run]
    #[arg(long, value_name = "ADDR:PORT|off", help_heading = "Listeners")]
    pub agent_listen: Option<String>,

    /// Operator API [env: OPENBOX_OPERATOR_LISTEN; key: listen.operator; default: 127.0.0.1:15810, a free port under run]
    #[arg(long, value_name = "ADDR:PORT|off", help_heading = "Listeners")]
    pub operator_listen: Option<String>,

    /// Health and metrics [env: OPENBOX_HEALTH_LISTEN; key: listen.health; default: 127.0.0.1:15820, a free port under run]
    #[arg(long, value_name = "ADDR:PORT|off", help_heading = "Listeners")]
    pub health_listen: Option<String>,

    /// PostgreSQL server to govern, and in front of it where agents connect to; repeatable [env: OPENBOX_PG; key: postgres.servers; default: 127.0.0.1:15432=, a free port under run]
    #[arg(long, value_name = "[ADDR:PORT=]URL", help_heading = "Databases")]
    pub pg: Vec<String>,

    /// MySQL or MariaDB server to govern, and in front of it where agents connect to; repeatable [env: OPENBOX_MYSQL; key: mysql.servers; default: 127.0.0.1:13306=, a free port under run]
    #[arg(long, value_name = "[ADDR:PORT=]URL", help_heading = "Databases")]
    pub mysql: Vec<String>,

    /// Redis or Valkey server to govern, and in front of it where agents connect to; repeatable [env: OPENBOX_REDIS; key: redis.servers; default: 127.0.0.1:16379=, a free port under run]
    #[arg(long, value_name = "[ADDR:PORT=]URL", help_heading = "Databases")]
    pub redis: Vec<String>,

    /// PEM file of authorities to trust besides the system's; repeatable [env: OPENBOX_UPSTREAM_CA; key: upstream.ca]
    #[arg(long, value_name = "FILE", help_heading = "Upstream")]
    pub upstream_ca: Vec<String>,

    /// Network to allow although it is loopback, link-local or metadata; repeatable [env: OPENBOX_ALLOW_ADDRESS; key: upstream.allow_address]
    #[arg(long, value_name = "CIDR", help_heading = "Upstream")]
    pub allow_address: Vec<String>,

    /// Where to connect instead of asking the resolver; repeatable [env: OPENBOX_RESOLVE; key: upstream.resolve]
    #[arg(long, value_name = "HOST:PORT=ADDRESS", help_heading = "Upstream")]
    pub resolve: Vec<String>,

    /// Folder of journal, state, CA and tokens [env: OPENBOX_STATE_DIR; key: state_dir; default: ~/.local/state/openbox-sidecar]
    #[arg(long, value_name = "DIR", help_heading = "Process")]
    pub state_dir: Option<String>,

    /// How log lines are written [env: OPENBOX_LOG_FORMAT; key: log.format; default: text]
    #[arg(long, value_name = "text|json", help_heading = "Process")]
    pub log_format: Option<String>,

    /// How long open connections may finish at the end [env: OPENBOX_DRAIN_WITHIN; key: drain_within; default: 10s]
    #[arg(long, value_name = "DURATION", help_heading = "Process")]
    pub drain_within: Option<String>,

    /// Worker threads [env: OPENBOX_WORKERS; key: workers; default: one per core]
    #[arg(long, value_name = "N", help_heading = "Process")]
    pub workers: Option<String>,
}

impl Shared {
    /// The flags as `config` reads them.
    pub fn flags(&self) -> Flags {
        let mut flags = Flags::default();
        let single = [
            ("--config", &self.config),
            ("--policy", &self.policy),
            ("--core-url", &self.core_url),
            ("--fail-mode", &self.fail_mode),
            ("--http-listen", &self.http_listen),
            ("--agent-listen", &self.agent_listen),
            ("--operator-listen", &self.operator_listen),
            ("--health-listen", &self.health_listen),
            ("--state-dir", &self.state_dir),
            ("--log-format", &self.log_format),
            ("--drain-within", &self.drain_within),
            ("--workers", &self.workers),
        ];
        for (name, value) in single {
            if let Some(value) = value {
                flags.push(name, value.clone());
            }
        }
        let repeatable = [
            ("--pg", &self.pg),
            ("--mysql", &self.mysql),
            ("--redis", &self.redis),
            ("--upstream-ca", &self.upstream_ca),
            ("--allow-address", &self.allow_address),
            ("--resolve", &self.resolve),
        ];
        for (name, values) in repeatable {
            for value in values {
                flags.push(name, value.clone());
            }
        }
        flags
    }
}

#[cfg(test)]
mod tests {
    use clap::{Command, CommandFactory, Parser};

    use super::super::Cli;
    use super::*;
    use crate::config::{OUTSIDE, SETTINGS};

    #[derive(Parser)]
    struct Only {
        #[command(flatten)]
        shared: Shared,
    }

    /// Flag and help text of every argument of a command.
    fn arguments(command: &Command) -> Vec<(String, String)> {
        let all = command.get_arguments().filter(|arg| arg.get_id() != "help");
        let all = all.filter_map(|arg| {
            let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
            Some((format!("--{}", arg.get_long()?), help))
        });
        all.collect()
    }

    #[test]
    fn the_flags_are_those_of_the_settings_and_their_help_names_variables_and_key() {
        let typed = arguments(&Only::command());
        let of_settings = SETTINGS.iter().map(|s| (s.flag, s.env, s.key));
        let of_outside = OUTSIDE
            .iter()
            .map(|o| (o.flag, std::slice::from_ref(&o.env), ""));
        let known: Vec<_> = of_settings
            .chain(of_outside)
            .filter(|row| !row.0.is_empty())
            .collect();
        for (flag, env, key) in &known {
            let (_, help) = typed
                .iter()
                .find(|(typed, _)| typed == flag)
                .unwrap_or_else(|| panic!("{flag} cannot be typed"));
            for word in env.iter().chain([key]) {
                assert!(help.contains(word), "{flag}: its help does not name {word}");
            }
        }
        assert_eq!(typed.len(), known.len());
    }

    #[test]
    fn every_flag_reaches_the_configuration() {
        for (flag, _) in arguments(&Only::command()) {
            let only = Only::try_parse_from(["x", &flag, "value"]).unwrap();
            let flags = format!("{:?}", only.shared.flags());
            assert_eq!(flags, format!("Flags([(\"{flag}\", \"value\")])"));
        }
    }

    #[test]
    fn run_and_serve_take_the_same_flags() {
        let cli = Cli::command();
        let of = |verb: &str| arguments(cli.find_subcommand(verb).unwrap());
        let shared = arguments(&Only::command());
        for verb in ["run", "serve", "check"] {
            let typed = of(verb);
            for flag in &shared {
                assert!(typed.contains(flag), "{verb} lacks {}", flag.0);
            }
        }
    }
}
