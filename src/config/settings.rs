//! Every setting: its key, flag, variables and default, in one table.
//!
//! `check` reads defaults from here; command line, annotated file, schema and
//! README are tested against it.

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Its path in the configuration file.
    pub key: &'static str,
    /// Its flag; empty where there is none.
    pub flag: &'static str,
    /// Its variables, the first that is set wins.
    pub env: &'static [&'static str],
    /// What holds when nobody says anything.
    pub default: Fallback,
}

/// What holds when nobody says anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// This value, as it would be written in the file.
    Is(&'static str),
    /// A value of the surroundings, described; the file says `null`.
    Of(&'static str),
    /// An empty list.
    Empty,
}

const fn key(key: &'static str, default: &'static str) -> Setting {
    Setting {
        key,
        flag: "",
        env: &[],
        default: Is(default),
    }
}

const fn set(
    key: &'static str,
    flag: &'static str,
    env: &'static [&'static str],
    default: Fallback,
) -> Setting {
    Setting {
        key,
        flag,
        env,
        default,
    }
}

use Fallback::{Empty, Is, Of};

/// What Core tells of an Okta AI agent where none of it is configured.
const TOLD: Fallback = Of("what Core tells");

/// All of them, in the order of the annotated file.
pub static SETTINGS: &[Setting] = &[
    set(
        "policy.path",
        "--policy",
        &["OPENBOX_POLICY"],
        Of("the starter policy inside the binary"),
    ),
    key("policy.undefined", "deny"),
    key("policy.evaluate_within", "50ms"),
    key("policy.memory_bytes_max", "8388608"),
    set("policy.agent_id", "", &[], Of("none")),
    set("policy.risk_tier", "", &[], Of("none")),
    set(
        "core.url",
        "--core-url",
        &["OPENBOX_CORE_URL", "OPENBOX_URL"],
        Of("no Core: the embedded policy judges"),
    ),
    set(
        "core.api_key_file",
        "",
        &["OPENBOX_API_KEY_FILE"],
        Of("none; or the key itself in `OPENBOX_API_KEY`"),
    ),
    set(
        "core.agent_did",
        "",
        &["OPENBOX_AGENT_DID"],
        Of("none: nothing is signed"),
    ),
    set(
        "core.agent_private_key_file",
        "",
        &["OPENBOX_AGENT_PRIVATE_KEY_FILE"],
        Of("none; or the key itself in `OPENBOX_AGENT_PRIVATE_KEY`"),
    ),
    set(
        "core.identity_method",
        "",
        &["OPENBOX_AGENT_IDENTITY_METHOD"],
        Of("what the identity's settings show"),
    ),
    set(
        "core.okta_agent_private_key_file",
        "",
        &["OPENBOX_OKTA_AGENT_PRIVATE_KEY_FILE"],
        Of("none; or the key itself in `OPENBOX_OKTA_AGENT_PRIVATE_KEY`"),
    ),
    set(
        "core.okta_agent_algorithm",
        "",
        &["OPENBOX_OKTA_AGENT_ALGORITHM"],
        Is("RS256"),
    ),
    set("core.okta_agent_id", "", &["OPENBOX_OKTA_AGENT_ID"], TOLD),
    set(
        "core.okta_agent_key_id",
        "",
        &["OPENBOX_OKTA_AGENT_KEY_ID"],
        TOLD,
    ),
    set("core.agent_id", "", &["OPENBOX_AGENT_ID"], TOLD),
    set(
        "core.organization_id",
        "",
        &["OPENBOX_ORGANIZATION_ID"],
        TOLD,
    ),
    set("core.deployment_id", "", &["OPENBOX_DEPLOYMENT_ID"], TOLD),
    set(
        "core.agent_proof_audience",
        "",
        &["OPENBOX_AGENT_PROOF_AUDIENCE"],
        TOLD,
    ),
    set(
        "core.workload_private_key_file",
        "",
        &["OPENBOX_WORKLOAD_PRIVATE_KEY_FILE"],
        Of(
            "the key of the Okta AI agent, if there is one; or the key itself in `OPENBOX_WORKLOAD_PRIVATE_KEY`",
        ),
    ),
    set(
        "core.timeout",
        "",
        &["OPENBOX_GOVERNANCE_TIMEOUT"],
        Is("30s"),
    ),
    key("core.retries", "2"),
    key("core.in_flight_max", "256"),
    set("core.validate", "", &["OPENBOX_VALIDATE"], Is("true")),
    set(
        "fail_mode",
        "--fail-mode",
        &["OPENBOX_GOVERNANCE_POLICY"],
        Is("open"),
    ),
    set("fail_closed_for", "", &[], Empty),
    key("constraints", "advisory"),
    set(
        "halt_scope",
        "",
        &[],
        Of("`run` under `serve`, `agent` under `run`"),
    ),
    key("govern", "both"),
    set(
        "events.send_start",
        "",
        &["OPENBOX_SEND_START_EVENT"],
        Is("true"),
    ),
    set(
        "events.send_activity_start",
        "",
        &["OPENBOX_SEND_ACTIVITY_START_EVENT"],
        Is("true"),
    ),
    set(
        "events.skip_workflow_types",
        "",
        &["OPENBOX_SKIP_WORKFLOW_TYPES"],
        Empty,
    ),
    set(
        "events.skip_activity_types",
        "",
        &["OPENBOX_SKIP_ACTIVITY_TYPES"],
        Empty,
    ),
    set("events.skip_signals", "", &["OPENBOX_SKIP_SIGNALS"], Empty),
    set(
        "approvals.enabled",
        "",
        &["OPENBOX_HITL_ENABLED"],
        Is("true"),
    ),
    set(
        "approvals.skip_activity_types",
        "",
        &["OPENBOX_SKIP_HITL_ACTIVITY_TYPES"],
        Empty,
    ),
    key("approvals.expire_after", "30m"),
    key("approvals.open_max", "10000"),
    key("outcomes_waiting_max", "10000"),
    set(
        "session.workflow_id",
        "",
        &["OPENBOX_WORKFLOW_ID"],
        Of("the host name"),
    ),
    set(
        "session.run_id",
        "",
        &["OPENBOX_RUN_ID"],
        Of("a fresh one at every start"),
    ),
    key("session.workflow_type", "openbox-sidecar"),
    key("session.task_queue", "openbox-sidecar"),
    key("session.unattributed", "session"),
    key("session.runs_max", "10000"),
    key("session.activities_max", "10000"),
    key("session.contexts_max", "100000"),
    key("session.context_lives", "24h"),
    key("session.by_process", "false"),
    key("sdk.event_bytes_max", "4194304"),
    key("sdk.requests_per_second_max", "2000"),
    set(
        "sdk.agent_did",
        "",
        &[],
        Of("none: nothing has to be signed"),
    ),
    set("sdk.agent_public_key", "", &[], Of("none")),
    set(
        "listen.http",
        "--http-listen",
        &["OPENBOX_HTTP_LISTEN"],
        Of("`127.0.0.1:15801`; a free port under `run`"),
    ),
    set(
        "listen.transparent",
        "",
        &["OPENBOX_TRANSPARENT_LISTEN"],
        Is("off"),
    ),
    set(
        "listen.transparent_mode",
        "",
        &["OPENBOX_TRANSPARENT_MODE"],
        Is("redirect"),
    ),
    set(
        "listen.agent",
        "--agent-listen",
        &["OPENBOX_AGENT_LISTEN"],
        Of("`127.0.0.1:15800`; a free port under `run`"),
    ),
    set(
        "listen.agent_socket",
        "",
        &["OPENBOX_AGENT_SOCKET"],
        Of("none"),
    ),
    set(
        "listen.agent_socket_mode",
        "",
        &["OPENBOX_AGENT_SOCKET_MODE"],
        Is("0600"),
    ),
    set(
        "listen.agent_token_file",
        "",
        &["OPENBOX_AGENT_TOKEN_FILE"],
        Of("a new one at every start; or the token itself in `OPENBOX_AGENT_TOKEN`"),
    ),
    set(
        "listen.operator",
        "--operator-listen",
        &["OPENBOX_OPERATOR_LISTEN"],
        Of("`127.0.0.1:15810`; a free port under `run`"),
    ),
    set(
        "listen.health",
        "--health-listen",
        &["OPENBOX_HEALTH_LISTEN"],
        Of("`127.0.0.1:15820`; a free port under `run`"),
    ),
    key("http.hold_within", "25s"),
    set("http.capture", "", &["OPENBOX_HTTP_CAPTURE"], Is("true")),
    key("http.capture_bytes_max", "65536"),
    key("http.capture_within", "2s"),
    key("http.over_cap", "partial"),
    key("http.completed", "enforce"),
    set("http.passthrough", "", &[], Empty),
    set("http.connect_ports", "", &[], Of("any")),
    set("http.judge_each", "", &[], Empty),
    set("http.routes", "", &[], Empty),
    set("http.credentials", "", &[], Empty),
    key("http.head_bytes_max", "65536"),
    key("http.head_fields_max", "100"),
    key("http.head_within", "30s"),
    key("http.first_byte_within", "5s"),
    key("http.answer_within", "15m"),
    key("http.idle_within", "5m"),
    key("http.body_within", "24h"),
    key("http.connections_max", "20000"),
    key("http.idle_upstreams_max", "256"),
    key("http.bodies_bytes_max", "67108864"),
    key("http.spill_bytes_max", "1073741824"),
    key("http.spill_within", "5m"),
    set("postgres.servers", "--pg", &["OPENBOX_PG"], Empty),
    key("postgres.sslmode", "prefer"),
    set(
        "postgres.sslrootcert",
        "",
        &[],
        Of("those of the system and `upstream.ca`"),
    ),
    set("postgres.sslcert", "", &[], Of("none")),
    set("postgres.sslkey", "", &[], Of("none")),
    set("postgres.passfile", "", &[], Of("none")),
    set(
        "postgres.agent_tls",
        "",
        &[],
        Of("`off`, or `offer` where `postgres.agent_sslcert` is set"),
    ),
    set(
        "postgres.agent_sslcert",
        "",
        &[],
        Of("a certificate of the sidecar's own authority"),
    ),
    set("postgres.agent_sslkey", "", &[], Of("none")),
    key("postgres.socket_mode", "0600"),
    key("postgres.ask_at", "execute"),
    key("postgres.replication", "refuse"),
    key("postgres.hold_within", "5m"),
    key("postgres.hold_in_transaction_within", "30s"),
    key("postgres.login_within", "60s"),
    key("postgres.connections_max", "10000"),
    key("postgres.memory_bytes_max", "16777216"),
    set("mysql.servers", "--mysql", &["OPENBOX_MYSQL"], Empty),
    set(
        "mysql.agent_tls",
        "",
        &[],
        Of("`off`, or `offer` where `mysql.agent_sslcert` is set"),
    ),
    set(
        "mysql.agent_sslcert",
        "",
        &[],
        Of("a certificate of the sidecar's own authority"),
    ),
    set("mysql.agent_sslkey", "", &[], Of("none")),
    key("mysql.socket_mode", "0600"),
    key("mysql.hold_within", "5m"),
    key("mysql.hold_in_transaction_within", "30s"),
    key("mysql.login_within", "60s"),
    key("mysql.connections_max", "10000"),
    key("mysql.memory_bytes_max", "16777216"),
    key("mysql.local_files", "refuse"),
    key("mysql.replication", "refuse"),
    key("mysql.whole_password", "refuse"),
    key("mysql.sessions", "pass"),
    set("redis.servers", "--redis", &["OPENBOX_REDIS"], Empty),
    key("redis.socket_mode", "0600"),
    key("redis.hold_within", "5m"),
    key("redis.hold_in_transaction_within", "30s"),
    key("redis.connections_max", "10000"),
    key("redis.scripts_bytes_max", "16777216"),
    key("redis.pipeline_bytes_max", "268435456"),
    key("redis.refusals", "substitute"),
    key("redis.dangerous", "refuse"),
    key("redis.nodes", "refuse"),
    set(
        "upstream.ca",
        "--upstream-ca",
        &["OPENBOX_UPSTREAM_CA"],
        Empty,
    ),
    set("upstream.tls", "", &[], Empty),
    set(
        "upstream.allow_address",
        "--allow-address",
        &["OPENBOX_ALLOW_ADDRESS"],
        Empty,
    ),
    key("upstream.private", "allow"),
    key("upstream.source", "own"),
    set("upstream.resolve", "--resolve", &["OPENBOX_RESOLVE"], Empty),
    set(
        "upstream.proxy",
        "",
        &["OPENBOX_UPSTREAM_PROXY"],
        Of("none: directly"),
    ),
    set(
        "upstream.proxy_login_file",
        "",
        &["OPENBOX_UPSTREAM_PROXY_LOGIN_FILE"],
        Of("none; or the login itself in `OPENBOX_UPSTREAM_PROXY_LOGIN`"),
    ),
    set(
        "upstream.no_proxy",
        "",
        &["OPENBOX_UPSTREAM_NO_PROXY"],
        Empty,
    ),
    key("upstream.resolve_within", "5s"),
    key("upstream.connect_within", "10s"),
    set(
        "state_dir",
        "--state-dir",
        &["OPENBOX_STATE_DIR"],
        Of(
            "`$XDG_STATE_HOME/openbox-sidecar`, else `~/.local/state/openbox-sidecar`, else `/var/lib/openbox-sidecar`",
        ),
    ),
    set("ca_dir", "", &["OPENBOX_CA_DIR"], Of("the state folder")),
    set("share_dir", "", &["OPENBOX_SHARE_DIR"], Of("none")),
    key("journal.durability", "batch"),
    key("journal.count_after", "16"),
    key("journal.sync_within", "50ms"),
    key("journal.segment_bytes", "67108864"),
    key("journal.on_full", "refuse"),
    key("journal.keep_for", "4800h"),
    key("journal.keep_bytes", "8589934592"),
    set(
        "log.format",
        "--log-format",
        &["OPENBOX_LOG_FORMAT"],
        Is("text"),
    ),
    set(
        "log.level",
        "",
        &["OPENBOX_LOG_LEVEL"],
        Of("`info`, `warn` under `run`; `debug` where `OPENBOX_DEBUG` is true"),
    ),
    set(
        "drain_within",
        "--drain-within",
        &["OPENBOX_DRAIN_WITHIN"],
        Is("10s"),
    ),
    set("end_file", "", &["OPENBOX_END_FILE"], Of("none")),
    set(
        "workers",
        "--workers",
        &["OPENBOX_WORKERS"],
        Of("one per core"),
    ),
];

/// What a flag or variable says that the file cannot.
#[derive(Clone, Copy, Debug)]
pub struct Outside {
    /// Its flag; empty where there is none.
    pub flag: &'static str,
    /// Its variable.
    pub env: &'static str,
    /// What holds when nobody says anything.
    pub default: &'static str,
    /// What it is for.
    pub meaning: &'static str,
}

/// All of them.
pub static OUTSIDE: &[Outside] = &[
    Outside {
        flag: "--config",
        env: "OPENBOX_CONFIG",
        default: "no file",
        meaning: "The configuration file.",
    },
    Outside {
        flag: "",
        env: "OPENBOX_API_KEY",
        default: "none",
        meaning: "The agent's API key for Core, `obx_live_…` or `obx_test_…`; taken out of the environment of what `run` starts.",
    },
    Outside {
        flag: "",
        env: "OPENBOX_AGENT_PRIVATE_KEY",
        default: "none",
        meaning: "The base64 of the agent's Ed25519 seed, which signs what Core is asked; taken out of the environment of what `run` starts.",
    },
    Outside {
        flag: "",
        env: "OPENBOX_OKTA_AGENT_PRIVATE_KEY",
        default: "none",
        meaning: "The RSA key of the Okta AI agent, PKCS#8 PEM; taken out of the environment of what `run` starts.",
    },
    Outside {
        flag: "",
        env: "OPENBOX_WORKLOAD_PRIVATE_KEY",
        default: "none",
        meaning: "The RSA key of the workload, PKCS#8 PEM; taken out of the environment of what `run` starts.",
    },
    Outside {
        flag: "",
        env: "OPENBOX_AGENT_TOKEN",
        default: "a new one at every start",
        meaning: "The token of the agent API, `obx_test_…` or `obx_live_…`, 32 or more letters, digits and `_` behind that; what `run` starts gets it as `OPENBOX_SIDECAR_TOKEN` and `OPENBOX_API_KEY`.",
    },
    Outside {
        flag: "",
        env: "OPENBOX_DEBUG",
        default: "false",
        meaning: "Whether the log says everything.",
    },
];

/// The row of `key`, if there is one.
pub(super) fn setting(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.key == key)
}

/// Whether `variable` says anything here.
pub(super) fn is_known(variable: &str) -> bool {
    let mut settings = SETTINGS.iter().flat_map(|setting| setting.env);
    let mut outside = OUTSIDE.iter();
    settings.any(|name| *name == variable) || outside.any(|row| row.env == variable)
}
