//! The configuration file as it is written: every key optional, nothing checked but its shape.
//!
//! The first line of each field's documentation is what schema, README and
//! `--help` say about the setting.

use schemars::JsonSchema;
use serde::Deserialize;

/// Configuration of openbox-sidecar. Durations carry a unit: ms, s, m or h.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "openbox-sidecar")]
pub(super) struct Raw {
    /// The embedded policy: who decides unless a Core is set.
    pub(super) policy: Policy,
    /// OpenBox Core: who decides where its URL is set.
    pub(super) core: Core,
    /// What happens while Core gives no answer: `open` lets operations pass, marked; `closed` refuses them.
    #[schemars(extend("enum" = ["open", "closed"]))]
    pub(super) fail_mode: Option<String>,
    /// Classes of database statements that are refused while Core gives no answer although `fail_mode` is `open`: `session`, `read`, `write`, `schema`, `admin`, `opaque`.
    #[schemars(extend("examples" = [["write", "schema", "admin", "opaque"]]))]
    pub(super) fail_closed_for: Option<Vec<String>>,
    /// Constraints that a protocol cannot apply: `advisory` records them and continues, `enforce` refuses.
    #[schemars(extend("enum" = ["advisory", "enforce"]))]
    pub(super) constraints: Option<String>,
    /// What HALT stops: the `run`, or everything of the `agent` beside this sidecar.
    #[schemars(extend("enum" = ["run", "agent"]))]
    pub(super) halt_scope: Option<String>,
    /// What policy is asked about: what goes over the wire (`boundary`), what an SDK's `hooks` tell, or `both`, and then once about what is seen twice.
    #[schemars(extend("enum" = ["boundary", "hooks", "both"]))]
    pub(super) govern: Option<String>,
    /// Events that policy is not asked about.
    pub(super) events: Events,
    /// Operations that wait for a person.
    pub(super) approvals: Approvals,
    /// Most outcomes that wait to be judged after their answer has gone out.
    #[schemars(range(min = 1))]
    pub(super) outcomes_waiting_max: Option<u64>,
    /// Whose operations are that nothing else claims, and how many runs are known.
    pub(super) session: Session,
    /// What OpenBox SDKs send, with the agent API as their Core.
    pub(super) sdk: Sdk,
    /// Where the sidecar listens: address:port, or `off`.
    pub(super) listen: Listen,
    /// The HTTP proxy.
    pub(super) http: Http,
    /// The relay for PostgreSQL.
    pub(super) postgres: Postgres,
    /// The relay for MySQL and MariaDB.
    pub(super) mysql: Mysql,
    /// The relay for Redis and Valkey.
    pub(super) redis: Redis,
    /// How connections to the outside are made.
    pub(super) upstream: Upstream,
    /// Folder of journal, state, CA and tokens; one sidecar at a time.
    pub(super) state_dir: Option<String>,
    /// Folder of the certificate authority's key, where it is to be apart from the rest: in memory, say.
    pub(super) ca_dir: Option<String>,
    /// Folder that agents in other containers see, for what they need to know and may: certificates and the
    /// agent API's token, readable by everybody who sees the folder.
    pub(super) share_dir: Option<String>,
    /// The journal in the state folder.
    pub(super) journal: Journal,
    /// What is written to standard error.
    pub(super) log: Log,
    /// How long open connections may finish when the sidecar is told to stop.
    #[schemars(extend("examples" = ["10s"]))]
    pub(super) drain_within: Option<String>,
    /// File that ends the sidecar in good order once it is there, where Kubernetes does not end sidecars: what
    /// `await --end-file` leaves in a folder that both containers see.
    pub(super) end_file: Option<String>,
    /// Worker threads.
    #[schemars(range(min = 1))]
    pub(super) workers: Option<u64>,
}

/// The embedded policy.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Policy {
    /// A Rego file, or a folder of them, with `*_rules.yaml` beside them; reloaded when they change.
    pub(super) path: Option<String>,
    /// The verdict where a policy says nothing about an operation: `deny` or `allow`.
    #[schemars(extend("enum" = ["deny", "allow"]))]
    pub(super) undefined: Option<String>,
    /// Longest that one evaluation may have a processor; beyond it the operation is refused.
    #[schemars(extend("examples" = ["50ms"]))]
    pub(super) evaluate_within: Option<String>,
    /// Memory for verdicts given before, bytes, about; 0 remembers none.
    pub(super) memory_bytes_max: Option<u64>,
    /// What policies read as `input.agent_id`.
    pub(super) agent_id: Option<String>,
    /// What policies read as `input.risk_tier`: 1 (low) to 4 (critical).
    #[schemars(range(min = 1, max = 4))]
    pub(super) risk_tier: Option<u64>,
}

/// OpenBox Core.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Core {
    /// Base URL of OpenBox Core; https, or http to this machine.
    #[schemars(extend("examples" = ["https://core.openbox.ai"]))]
    pub(super) url: Option<String>,
    /// File with the API key, `obx_live_…` or `obx_test_…`; the key itself never stands in this file.
    #[schemars(extend("examples" = ["/run/secrets/openbox-api-key"]))]
    pub(super) api_key_file: Option<String>,
    /// The agent's DID, `did:aip:…`: with its private key, every question to Core is signed.
    #[schemars(extend("examples" = ["did:aip:7b9d6c1e-4f3a-4c55-9a1b-0f6f3b0c2d11"]))]
    pub(super) agent_did: Option<String>,
    /// File with the base64 of the agent's Ed25519 seed; the key itself never stands in this file.
    #[schemars(extend("examples" = ["/run/secrets/openbox-agent-key"]))]
    pub(super) agent_private_key_file: Option<String>,
    /// How the agent shows who it is, where that is to be said: `openbox_did` or `okta_ai_agent`; the settings of the identity must be there too.
    #[schemars(extend("enum" = ["openbox_did", "okta_ai_agent"]))]
    pub(super) identity_method: Option<String>,
    /// File with the RSA key of the Okta AI agent, PKCS#8 PEM, 2048 bits or more: with it, every question to Core carries an assertion; the key itself never stands in this file.
    #[schemars(extend("examples" = ["/run/secrets/okta-agent-key.pem"]))]
    pub(super) okta_agent_private_key_file: Option<String>,
    /// How assertions are signed: `RS256`, nothing else.
    #[schemars(extend("enum" = ["RS256"]))]
    pub(super) okta_agent_algorithm: Option<String>,
    /// Okta's id of the agent. It and the next five: all, or none.
    pub(super) okta_agent_id: Option<String>,
    /// Okta's id of the key.
    pub(super) okta_agent_key_id: Option<String>,
    /// OpenBox's id of the agent.
    pub(super) agent_id: Option<String>,
    /// Id of the organization.
    pub(super) organization_id: Option<String>,
    /// Id of the deployment of Core.
    pub(super) deployment_id: Option<String>,
    /// For whom assertions are.
    pub(super) agent_proof_audience: Option<String>,
    /// File with the RSA key of the workload, PKCS#8 PEM, 2048 bits or more: with it, Core is asked as a workload as long as it has such an identity for us.
    #[schemars(extend("examples" = ["/run/secrets/openbox-workload-key.pem"]))]
    pub(super) workload_private_key_file: Option<String>,
    /// Longest wait for one answer of Core; the variable is in seconds.
    #[schemars(extend("examples" = ["30s"]))]
    pub(super) timeout: Option<String>,
    /// Most times a question is asked again that got no answer, within `core.timeout`; together at most a tenth of all questions.
    pub(super) retries: Option<u64>,
    /// Most questions asked at once; a further one waits for its turn.
    #[schemars(range(min = 1))]
    pub(super) in_flight_max: Option<u64>,
    /// Whether the key is checked with Core before the sidecar starts.
    pub(super) validate: Option<bool>,
}

/// Events that policy is not asked about.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Events {
    /// Whether policy is asked about `WorkflowStarted`.
    pub(super) send_start: Option<bool>,
    /// Whether policy is asked about `ActivityStarted`.
    pub(super) send_activity_start: Option<bool>,
    /// Types of workflows whose events and signals policy is not asked about; operations and activities in them it is.
    #[schemars(extend("examples" = [["HealthCheckWorkflow"]]))]
    pub(super) skip_workflow_types: Option<Vec<String>>,
    /// Types of activities whose events policy is not asked about; operations in them it is.
    #[schemars(extend("examples" = [["heartbeat"]]))]
    pub(super) skip_activity_types: Option<Vec<String>>,
    /// Names of signals that policy is not asked about.
    #[schemars(extend("examples" = [["tick"]]))]
    pub(super) skip_signals: Option<Vec<String>>,
}

/// Operations that wait for a person.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Approvals {
    /// Whether anything waits for a person. Without, an event that needs one goes on, as in the SDKs, and an operation is refused at once.
    pub(super) enabled: Option<bool>,
    /// Types of activities that are treated as if `approvals.enabled` were false.
    #[schemars(extend("examples" = [["poll_approval"]]))]
    pub(super) skip_activity_types: Option<Vec<String>>,
    /// How long an approval stays open, unless Core says otherwise.
    #[schemars(extend("examples" = ["30m"]))]
    pub(super) expire_after: Option<String>,
    /// Most approvals open at once; beyond it, what needs one is refused.
    #[schemars(range(min = 1))]
    pub(super) open_max: Option<u64>,
}

/// Whose operations are that nothing else claims.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Session {
    /// Workflow id of the sidecar's own session.
    pub(super) workflow_id: Option<String>,
    /// Run id of the sidecar's own session.
    pub(super) run_id: Option<String>,
    /// Workflow type of the sidecar's own session.
    pub(super) workflow_type: Option<String>,
    /// Task queue of the sidecar's own session.
    pub(super) task_queue: Option<String>,
    /// Operations that no evidence attributes: the own `session`, or `refuse`.
    #[schemars(extend("enum" = ["session", "refuse"]))]
    pub(super) unattributed: Option<String>,
    /// Most runs known at once; a start beyond it is refused.
    #[schemars(range(min = 1))]
    pub(super) runs_max: Option<u64>,
    /// Most open activities of one run; a start beyond it is refused.
    #[schemars(range(min = 1))]
    pub(super) activities_max: Option<u64>,
    /// Most registered contexts (trace ids, proxy user names).
    #[schemars(range(min = 1))]
    pub(super) contexts_max: Option<u64>,
    /// How long a registered context lives.
    #[schemars(extend("examples" = ["24h"]))]
    pub(super) context_lives: Option<String>,
    /// Whether a registered process, and those that it starts, stand for a run or activity: a connection of theirs is looked up among the processes of this machine.
    pub(super) by_process: Option<bool>,
}

/// What OpenBox SDKs send.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Sdk {
    /// Largest event or hook, bytes; beyond it 413.
    #[schemars(range(min = 1024))]
    pub(super) event_bytes_max: Option<u64>,
    /// Most requests a second; what comes faster waits up to 5 s for its turn, then 429.
    #[schemars(range(min = 1))]
    pub(super) requests_per_second_max: Option<u64>,
    /// DID of the agent, `did:aip:…`: with its public key, every request must be signed by it.
    #[schemars(extend("examples" = ["did:aip:7b9d6c1e-4f3a-4c55-9a1b-0f6f3b0c2d11"]))]
    pub(super) agent_did: Option<String>,
    /// Base64 of the agent's Ed25519 public key.
    #[schemars(extend("examples" = ["11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="]))]
    pub(super) agent_public_key: Option<String>,
}

/// Where the sidecar listens.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Listen {
    /// The HTTP proxy.
    #[schemars(extend("examples" = ["127.0.0.1:15801", "off"]))]
    pub(super) http: Option<String>,
    /// Connections that the kernel leads here, as `init-net` has it do: a port of both loopback addresses.
    #[schemars(extend("examples" = ["127.0.0.1:15802", "off"]))]
    pub(super) transparent: Option<String>,
    /// How the kernel leads them: `redirect`, or `tproxy`, by which they keep their addresses; that takes Linux, and CAP_NET_ADMIN or CAP_NET_RAW.
    #[schemars(extend("enum" = ["redirect", "tproxy"]))]
    pub(super) transparent_mode: Option<String>,
    /// The agent API: lifecycle events.
    #[schemars(extend("examples" = ["127.0.0.1:15800", "off"]))]
    pub(super) agent: Option<String>,
    /// Path of a Unix socket where the agent API is served too.
    #[schemars(extend("examples" = ["/openbox/agent.sock"]))]
    pub(super) agent_socket: Option<String>,
    /// Permissions of that socket, as of a file, in octal.
    #[schemars(extend("examples" = ["0666"]))]
    pub(super) agent_socket_mode: Option<String>,
    /// File with the token of the agent API, `obx_test_…` or `obx_live_…`, where it is not to be a new one at every start; the token itself never stands in this file.
    #[schemars(extend("examples" = ["/run/secrets/openbox-agent-token"]))]
    pub(super) agent_token_file: Option<String>,
    /// The operator API: approvals, halts.
    #[schemars(extend("examples" = ["127.0.0.1:15810", "off"]))]
    pub(super) operator: Option<String>,
    /// Health and metrics.
    #[schemars(extend("examples" = ["0.0.0.0:15820", "off"]))]
    pub(super) health: Option<String>,
}

/// The relay for PostgreSQL.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Postgres {
    /// Servers to govern: a URL, or `LISTEN=URL` with the address or path that agents connect to instead.
    #[schemars(extend("examples" = [["127.0.0.1:15432=postgres://orders-db.internal:5432"]]))]
    pub(super) servers: Option<Vec<String>>,
    /// TLS to servers whose URL does not say `sslmode`: `prefer` takes it where offered, `require` needs it, `verify-ca` and `verify-full` prove who answers.
    #[schemars(extend("enum" = ["disable", "prefer", "require", "verify-ca", "verify-full"]))]
    pub(super) sslmode: Option<String>,
    /// PEM file with the authorities of servers whose URL does not say `sslrootcert`; `system` takes the system's.
    #[schemars(extend("examples" = ["/etc/ssl/orders-db.pem"]))]
    pub(super) sslrootcert: Option<String>,
    /// PEM file with the certificate shown to servers that ask for one, where the URL does not say `sslcert`.
    #[schemars(extend("examples" = ["/run/secrets/client.pem"]))]
    pub(super) sslcert: Option<String>,
    /// PEM file with the key of that certificate, without a passphrase, where the URL does not say `sslkey`.
    #[schemars(extend("examples" = ["/run/secrets/client.key"]))]
    pub(super) sslkey: Option<String>,
    /// File with passwords, lines `host:port:database:role:password` (`.pgpass`), with which the sidecar logs in to servers whose URL does not say `passfile`, in the agent's place and as the role that the URL names; read for each session.
    #[schemars(extend("examples" = ["/run/secrets/pgpass"]))]
    pub(super) passfile: Option<String>,
    /// TLS from agents: `off`, `offer` it, or `require` it; where `postgres.agent_sslcert` is set, `offer` is the default.
    #[schemars(extend("enum" = ["off", "offer", "require"]))]
    pub(super) agent_tls: Option<String>,
    /// PEM file with the certificate that agents are shown; with the server's own, SCRAM channel binding holds through the sidecar.
    #[schemars(extend("examples" = ["/run/secrets/orders-db.pem"]))]
    pub(super) agent_sslcert: Option<String>,
    /// PEM file with the key of that certificate, without a passphrase.
    #[schemars(extend("examples" = ["/run/secrets/orders-db.key"]))]
    pub(super) agent_sslkey: Option<String>,
    /// Permissions of listeners that are paths, as of files, in octal.
    #[schemars(extend("examples" = ["0660"]))]
    pub(super) socket_mode: Option<String>,
    /// When a prepared statement is asked about: when it is executed (what is not understood already when it is bound), when it is bound, or when it is parsed and bound.
    #[schemars(extend("enum" = ["execute", "bind", "parse"]))]
    pub(super) ask_at: Option<String>,
    /// What becomes of a session that asks for replication: it is refused, or its start is judged and what follows passes unread.
    #[schemars(extend("enum" = ["refuse", "judge"]))]
    pub(super) replication: Option<String>,
    /// Longest wait for a person outside a transaction; then the statement is refused.
    #[schemars(extend("examples" = ["5m"]))]
    pub(super) hold_within: Option<String>,
    /// Longest wait for a person inside a transaction, which keeps its locks meanwhile.
    #[schemars(extend("examples" = ["30s"]))]
    pub(super) hold_in_transaction_within: Option<String>,
    /// Longest time from the first byte to a session that is ready.
    #[schemars(extend("examples" = ["60s"]))]
    pub(super) login_within: Option<String>,
    /// Most sessions of agents at once; one more is refused.
    #[schemars(range(min = 1))]
    pub(super) connections_max: Option<u64>,
    /// Memory for what statements seen before do, bytes, about.
    pub(super) memory_bytes_max: Option<u64>,
}

/// The relay for MySQL and MariaDB.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Mysql {
    /// Servers to govern: a URL, or `LISTEN=URL` with the address or path that agents connect to instead.
    #[schemars(extend("examples" = [["127.0.0.1:13306=mysql://orders-db.internal:3306"]]))]
    pub(super) servers: Option<Vec<String>>,
    /// TLS from agents: `off`, `offer` it, or `require` it; where `mysql.agent_sslcert` is set, `offer` is the default.
    #[schemars(extend("enum" = ["off", "offer", "require"]))]
    pub(super) agent_tls: Option<String>,
    /// PEM file with the certificate that agents are shown.
    #[schemars(extend("examples" = ["/run/secrets/orders-db.pem"]))]
    pub(super) agent_sslcert: Option<String>,
    /// PEM file with the key of that certificate, without a passphrase.
    #[schemars(extend("examples" = ["/run/secrets/orders-db.key"]))]
    pub(super) agent_sslkey: Option<String>,
    /// Permissions of listeners that are paths, as of files, in octal.
    #[schemars(extend("examples" = ["0660"]))]
    pub(super) socket_mode: Option<String>,
    /// Longest wait for a person outside a transaction; then the statement is refused.
    #[schemars(extend("examples" = ["5m"]))]
    pub(super) hold_within: Option<String>,
    /// Longest wait for a person inside a transaction, which keeps its locks meanwhile.
    #[schemars(extend("examples" = ["30s"]))]
    pub(super) hold_in_transaction_within: Option<String>,
    /// Longest time from the first byte to a session that is ready.
    #[schemars(extend("examples" = ["60s"]))]
    pub(super) login_within: Option<String>,
    /// Most agent connections at once.
    #[schemars(range(min = 1))]
    pub(super) connections_max: Option<u64>,
    /// Memory for what statements seen before do, bytes, about.
    pub(super) memory_bytes_max: Option<u64>,
    /// `LOAD DATA LOCAL`: `refuse`, or `judge` like any statement, and only for the file that it names.
    #[schemars(extend("enum" = ["refuse", "judge"]))]
    pub(super) local_files: Option<String>,
    /// What becomes of a server that follows another, or of `mysqlbinlog`: `refuse`, or `judge` that it begins; what the other has changed then passes unread.
    #[schemars(extend("enum" = ["refuse", "judge"]))]
    pub(super) replication: Option<String>,
    /// A password that a server behind TLS asks of a client in clear (`caching_sha2_password`, `sha256_password`): `refuse` the login, or `receive` it under an RSA key of the sidecar and pass it on to a server that has proven who it is.
    #[schemars(extend("enum" = ["refuse", "receive"]))]
    pub(super) whole_password: Option<String>,
    /// Whether policy is asked about a session that begins, as the statement `CONNECT`: `pass`, or `judge`; then what CONSTRAIN asks for is set on it before the agent has it.
    #[schemars(extend("enum" = ["pass", "judge"]))]
    pub(super) sessions: Option<String>,
}

/// The relay for Redis and Valkey.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Redis {
    /// Servers to govern: a URL, or `LISTEN=URL` with the address that agents connect to instead.
    #[schemars(extend("examples" = [["127.0.0.1:16379=redis://cache.internal:6379"]]))]
    pub(super) servers: Option<Vec<String>>,
    /// Permissions of listeners that are paths, as of files, in octal.
    #[schemars(extend("examples" = ["0660"]))]
    pub(super) socket_mode: Option<String>,
    /// Longest wait for a person outside a transaction; then the command is refused.
    #[schemars(extend("examples" = ["5m"]))]
    pub(super) hold_within: Option<String>,
    /// Longest wait for a person inside a transaction, or while keys are watched for one.
    #[schemars(extend("examples" = ["30s"]))]
    pub(super) hold_in_transaction_within: Option<String>,
    /// Most agent connections at once.
    #[schemars(range(min = 1))]
    pub(super) connections_max: Option<u64>,
    /// Memory for the texts of scripts, by which `EVALSHA` is understood, bytes, about.
    pub(super) scripts_bytes_max: Option<u64>,
    /// Memory for commands that clients send ahead of reading replies, all connections together, bytes.
    pub(super) pipeline_bytes_max: Option<u64>,
    /// How a command is refused: `substitute` sends the server one that cannot exist, `local` answers here, for proxies that end a connection on those; one that does is noticed, and answered for from then on.
    #[schemars(extend("enum" = ["substitute", "local"]))]
    pub(super) refusals: Option<String>,
    /// `DEBUG`, `MODULE`, `CONFIG SET` of files, `SHUTDOWN` and `REPLICAOF`: `refuse`, or `judge` like any command.
    #[schemars(extend("enum" = ["refuse", "judge"]))]
    pub(super) dangerous: Option<String>,
    /// Answers of a cluster or of Sentinel that name a server which `servers` does not: `refuse` them, or `open` a listener for it.
    #[schemars(extend("enum" = ["refuse", "open"]))]
    pub(super) nodes: Option<String>,
}

/// The HTTP proxy.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Http {
    /// Longest wait for a person on an open request; then it is answered `approval_pending`.
    #[schemars(extend("examples" = ["25s"]))]
    pub(super) hold_within: Option<String>,
    /// Whether policy sees bodies; without, every body counts as unread.
    pub(super) capture: Option<bool>,
    /// Most bytes of a body that policy sees.
    pub(super) capture_bytes_max: Option<u64>,
    /// Longest wait for a body that policy is to see, before it streams on as `partial`.
    #[schemars(extend("examples" = ["2s"]))]
    pub(super) capture_within: Option<String>,
    /// A body larger than policy sees: `partial` shows the beginning of a text; `deny` refuses it, text or not, be it of a request or, where `completed` is `enforce`, of an answer, which is then also refused if it is slow; `spill` has all of a request's text here first, in a file, and shows its beginning (for answers it is as `partial`).
    #[schemars(extend("enum" = ["partial", "deny", "spill"]))]
    pub(super) over_cap: Option<String>,
    /// Answers: `enforce` withholds what is within `capture_bytes_max` until policy has judged it, `observe` does not.
    #[schemars(extend("enum" = ["enforce", "observe"]))]
    pub(super) completed: Option<String>,
    /// Hosts whose TLS is not intercepted: exact names, or `*.example.com`.
    #[schemars(extend("examples" = [["*.pinned.example.com"]]))]
    pub(super) passthrough: Option<Vec<String>>,
    /// Ports that tunnels may lead to (CONNECT and SOCKS5), where not any port is to be asked about.
    #[schemars(extend("examples" = [["443", "80"]]))]
    pub(super) connect_ports: Option<Vec<String>>,
    /// Where each message of a WebSocket, and each event of a stream, is judged: `HOST` or `HOST/PATH`, with `*.example.com` or `*` for hosts and a `*` at the end of paths.
    #[schemars(extend("examples" = [["api.example.com/v1/realtime*"]]))]
    pub(super) judge_each: Option<Vec<String>>,
    /// What differs for some requests, by method, host and path; the first that fits holds: `[METHOD,METHOD] HOST[/PATH]` and, of `hold_within`, `answer_within`, `idle_within`, `body_within`, `capture`, `completed`, `over_cap` and `fail_mode`, what differs.
    #[schemars(extend("examples" = [["POST,PUT api.example.com/v1/* hold_within=5m fail_mode=closed"]]))]
    pub(super) routes: Option<Vec<String>>,
    /// Headers that requests get once they may leave, out of files that the agent need not read; the first whose place fits: `HOST[:PORT][/PATH] file=FILE` and, where it is not `authorization` with `Bearer ` before it, `header=NAME` and `prefix="TEXT"`; `plain` where it may go without TLS.
    #[schemars(extend("examples" = [["api.example.com file=/run/secrets/example-token"]]))]
    pub(super) credentials: Option<Vec<String>>,
    /// Largest header section of a request, bytes; beyond it 431.
    #[schemars(range(min = 1024))]
    pub(super) head_bytes_max: Option<u64>,
    /// Most header fields of a request; beyond it 431.
    #[schemars(range(min = 1))]
    pub(super) head_fields_max: Option<u64>,
    /// Longest time a request may take to send its head.
    #[schemars(extend("examples" = ["30s"]))]
    pub(super) head_within: Option<String>,
    /// Longest wait for the first byte inside a tunnel.
    #[schemars(extend("examples" = ["5s"]))]
    pub(super) first_byte_within: Option<String>,
    /// Longest wait for the response headers of an origin.
    #[schemars(extend("examples" = ["15m"]))]
    pub(super) answer_within: Option<String>,
    /// Longest silence on a body, a tunnel or an idle connection, and longest time in which a client takes nothing of an answer.
    #[schemars(extend("examples" = ["5m"]))]
    pub(super) idle_within: Option<String>,
    /// Longest time that a body may take in all, of a request or an answer, however steadily it comes: then a request is answered 408, and an answer breaks off. `0s` for no bound.
    #[schemars(extend("examples" = ["24h"]))]
    pub(super) body_within: Option<String>,
    /// Most agent connections at once.
    #[schemars(range(min = 1))]
    pub(super) connections_max: Option<u64>,
    /// Most idle connections that each worker keeps to one origin, of either version of HTTP.
    pub(super) idle_upstreams_max: Option<u64>,
    /// Memory for the bodies that policy is shown, all together, bytes, about; where there is none, a request is answered 503 before it is read.
    #[schemars(range(min = 65536))]
    pub(super) bodies_bytes_max: Option<u64>,
    /// Most bytes of all bodies in files (`over_cap: spill`); beyond it 503.
    #[schemars(range(min = 65536))]
    pub(super) spill_bytes_max: Option<u64>,
    /// Longest time that a body may take which is to be here whole; then 408.
    #[schemars(extend("examples" = ["5m"]))]
    pub(super) spill_within: Option<String>,
}

/// How connections to the outside are made.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Upstream {
    /// PEM files of certificate authorities to trust besides the system's.
    #[schemars(extend("examples" = [["/etc/ssl/corporate.pem"]]))]
    pub(super) ca: Option<Vec<String>>,
    /// Origins whose TLS is not like that of the others, by host, the first that fits: `HOST` (or `*.example.com`) and, of `ca=FILE` (its authorities alone are trusted there), `cert=FILE` with `key=FILE` (which are shown).
    #[schemars(extend("examples" = [["*.corp.example ca=/etc/ssl/corp.pem cert=/run/tls/agent.pem key=/run/tls/agent.key"]]))]
    pub(super) tls: Option<Vec<String>>,
    /// Networks to allow although they are loopback, link-local or metadata addresses.
    #[schemars(extend("examples" = [["127.0.0.0/8"]]))]
    pub(super) allow_address: Option<Vec<String>>,
    /// Private networks (10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, 100.64.0.0/10, fc00::/7 and the like): `allow`, or `refuse` them unless `upstream.allow_address` names them.
    #[schemars(extend("enum" = ["allow", "refuse"]))]
    pub(super) private: Option<String>,
    /// Whose address captured connections go on from: `own`, or `client`, with `listen.transparent_mode: tproxy`; databases and a proxy are reached from our own.
    #[schemars(extend("enum" = ["own", "client"]))]
    pub(super) source: Option<String>,
    /// HOST:PORT=ADDRESS: where to connect instead of asking the resolver.
    #[schemars(extend("examples" = [["api.example.com:443=10.0.0.7"]]))]
    pub(super) resolve: Option<Vec<String>>,
    /// The proxy of the network that HTTP, tunnels and captured connections go through: `http://HOST:PORT`, which is asked by CONNECT, or `socks5://HOST:PORT`. It resolves names.
    #[schemars(extend("examples" = ["http://proxy.corp.example:3128"]))]
    pub(super) proxy: Option<String>,
    /// File with USER:PASSWORD for the proxy.
    pub(super) proxy_login_file: Option<String>,
    /// What is reached directly all the same: names with all below them, addresses, networks. Loopback, and what `upstream.resolve` names, always is.
    #[schemars(extend("examples" = [["corp.example", "10.0.0.0/8"]]))]
    pub(super) no_proxy: Option<Vec<String>>,
    /// Longest wait for the resolver.
    #[schemars(extend("examples" = ["5s"]))]
    pub(super) resolve_within: Option<String>,
    /// Longest wait for a connection, all addresses of a name together.
    #[schemars(extend("examples" = ["10s"]))]
    pub(super) connect_within: Option<String>,
}

/// The journal.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Journal {
    /// `none`, `batch` (written before a request leaves), or `every` (synced before, too).
    #[schemars(extend("enum" = ["none", "batch", "every"]))]
    pub(super) durability: Option<String>,
    /// So many identical executions in a row on a connection have records of their own, further ones are counted in one; 0: all have.
    #[schemars(range(max = 1_000_000))]
    pub(super) count_after: Option<u32>,
    /// Longest time until a decision is synced to the disk; a power cut may lose that window.
    #[schemars(extend("examples" = ["50ms"]))]
    pub(super) sync_within: Option<String>,
    /// Size at which a segment is closed and the next begun, bytes.
    #[schemars(range(min = 65536))]
    pub(super) segment_bytes: Option<u64>,
    /// When the disk takes no more: `refuse` what needs a record, or `drop_oldest` segments.
    #[schemars(extend("enum" = ["refuse", "drop_oldest"]))]
    pub(super) on_full: Option<String>,
    /// Age at which a full segment is deleted.
    #[schemars(extend("examples" = ["4800h"]))]
    pub(super) keep_for: Option<String>,
    /// Most bytes of all segments together; the oldest is deleted first.
    #[schemars(range(min = 65536))]
    pub(super) keep_bytes: Option<u64>,
}

/// What is written to standard error.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Log {
    /// `text` for people, `json` for machines.
    #[schemars(extend("enum" = ["text", "json"]))]
    pub(super) format: Option<String>,
    /// Least severe level written, or a filter such as `info,openbox_sidecar::gate=debug`.
    #[schemars(extend("examples" = ["info"]))]
    pub(super) level: Option<String>,
}
