//! The sections of the configuration that do not depend on who decides.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::control::agent::served;
use crate::domain::Context;
use crate::gate::{Govern, HaltScope, Unanswered};
use crate::journal::{Durability, OnFull};
use crate::net::address::Private;
use crate::net::caller::Callers;
use crate::net::listen::Capture;
use crate::net::{chain, dial};
use crate::policy::core::{AgentDid, Identities, Known, Signer, Unsigned};
use crate::protocols::http::credentials::{Credential, Readable};
use crate::protocols::http::{self as http_proxy, Completed, OverCap, Treatment};
use crate::session::{self, registry::Unattributed};

use super::database_url::file_mode;
use super::problem::quoted;
use super::resolve::{Origin, Resolver};
use super::secret::Told;
use super::value::{self, Wrong};
use super::{
    AgentSocket, For, Listen, Listener, LogConfig, LogFormat, PolicyMode, SdkConfig, UpstreamConfig,
};
use super::{credentials, raw, routes};

/// Longest path of a socket that the system takes (`sockaddr_un`), bytes.
const SOCKET_PATH_BYTES_MAX: usize = 107;

impl Resolver<'_> {
    pub(super) fn halt_scope(&mut self, said: Option<String>, purpose: For) -> HaltScope {
        let words = match purpose {
            For::Serve => [("run", HaltScope::Run), ("agent", HaltScope::Agent)],
            For::Run => [("agent", HaltScope::Agent), ("run", HaltScope::Run)],
        };
        self.choice("halt_scope", said, words, "")
    }

    pub(super) fn durability(&mut self, said: Option<String>) -> Durability {
        let parse = |text: &str, _| value::durability(text);
        self.parsed("journal.durability", said, parse)
            .unwrap_or_default()
    }

    pub(super) fn on_full(&mut self, said: Option<String>) -> OnFull {
        let words = [
            ("refuse", OnFull::Refuse),
            ("drop_oldest", OnFull::DropOldest),
        ];
        self.choice("journal.on_full", said, words, "")
    }

    pub(super) fn govern(&mut self, said: Option<String>) -> Govern {
        let parse = |text: &str, _| match text {
            "both" => Ok(Govern::Both),
            "boundary" => Ok(Govern::Boundary),
            "hooks" => Ok(Govern::Hooks),
            _ => Err(Wrong::is_not(
                text,
                "what can be governed",
                "boundary, hooks or both",
                "both",
            )),
        };
        let govern = self.parsed("govern", said, parse).unwrap_or(Govern::Both);
        let unasked = match govern {
            Govern::Both => return govern,
            Govern::Boundary => "what SDKs tell of operations",
            Govern::Hooks => "what goes over the wire",
        };
        let text = format!("`govern` leaves {unasked} unasked: it passes unless its run is halted");
        self.warnings.push(text);
        govern
    }

    pub(super) fn session(&mut self, raw: raw::Session) -> session::Settings {
        let host_name = self.env.host_name().to_owned();
        let run_id = self.env.run_id().to_owned();
        let own = Context {
            workflow_id: Arc::from(self.text("session.workflow_id", raw.workflow_id, &host_name)),
            run_id: Arc::from(self.text("session.run_id", raw.run_id, &run_id)),
            workflow_type: Arc::from(
                self.text_or_table("session.workflow_type", raw.workflow_type),
            ),
            task_queue: Arc::from(self.text_or_table("session.task_queue", raw.task_queue)),
            activity: None,
        };
        session::Settings {
            own,
            unattributed: self.choice(
                "session.unattributed",
                raw.unattributed,
                [
                    ("session", Unattributed::Session),
                    ("refuse", Unattributed::Refuse),
                ],
                "",
            ),
            runs_max: self.count("session.runs_max", raw.runs_max, 1),
            activities_max: self.count("session.activities_max", raw.activities_max, 1),
            contexts_max: self.count("session.contexts_max", raw.contexts_max, 1),
            context_lives: self.duration("session.context_lives", raw.context_lives),
            callers: match self.truth("session.by_process", raw.by_process) {
                true => Callers::Identified,
                false => Callers::Unknown,
            },
        }
    }

    pub(super) fn http(&mut self, raw: raw::Http) -> http_proxy::Settings {
        let capture_bytes_max = self.count("http.capture_bytes_max", raw.capture_bytes_max, 0);
        let capture = self.truth("http.capture", raw.capture);
        let treatment = Treatment {
            hold_within: self.duration("http.hold_within", raw.hold_within),
            capture_bytes_max: if capture { capture_bytes_max } else { 0 },
            over_cap: self.one_of(
                "http.over_cap",
                raw.over_cap,
                ("partial", OverCap::Partial),
                [("deny", OverCap::Deny), ("spill", OverCap::Spill)],
                "",
            ),
            completed: self.choice(
                "http.completed",
                raw.completed,
                [
                    ("enforce", Completed::Enforce),
                    ("observe", Completed::Observe),
                ],
                "",
            ),
            answer_within: self.duration("http.answer_within", raw.answer_within),
            idle_within: self.duration("http.idle_within", raw.idle_within),
            body_within: self
                .parsed("http.body_within", raw.body_within, |text, _| {
                    value::bound(text)
                })
                .unwrap_or_default(),
            unanswered: Unanswered::AsSet,
        };
        let passthrough = self.list("http.passthrough", raw.passthrough, value::host_pattern);
        let settings = http_proxy::Settings {
            treatment,
            credentials: self.credentials(raw.credentials, &passthrough),
            routes: self.list("http.routes", raw.routes, |text| {
                routes::route(text, treatment, capture_bytes_max)
            }),
            capture_within: self.duration("http.capture_within", raw.capture_within),
            passthrough,
            connect_ports: self.list("http.connect_ports", raw.connect_ports, value::port),
            judge_each: self.list("http.judge_each", raw.judge_each, value::place),
            head_bytes_max: self.count("http.head_bytes_max", raw.head_bytes_max, 1_024),
            head_fields_max: self.count("http.head_fields_max", raw.head_fields_max, 1),
            head_within: self.duration("http.head_within", raw.head_within),
            first_byte_within: self.duration("http.first_byte_within", raw.first_byte_within),
            idle_within: treatment.idle_within,
            connections_max: self.count("http.connections_max", raw.connections_max, 1),
            idle_upstreams_max: self.count("http.idle_upstreams_max", raw.idle_upstreams_max, 0),
            bodies_bytes_max: self.count("http.bodies_bytes_max", raw.bodies_bytes_max, 65_536),
            spill_bytes_max: self.count("http.spill_bytes_max", raw.spill_bytes_max, 65_536),
            spill_within: self.duration("http.spill_within", raw.spill_within),
        };
        self.check_room(&settings);
        settings
    }

    /// Requests and answers have half of the room each, and what is copied of answers that stream half of theirs.
    fn check_room(&mut self, settings: &http_proxy::Settings) {
        const CAP: &str = "http.capture_bytes_max";
        const ROOM: &str = "http.bodies_bytes_max";
        let routed = settings.routes.iter().map(|route| route.treatment);
        let all = routed.chain([settings.treatment]);
        let cap = all.map(|one| one.capture_bytes_max).max().unwrap_or(0);
        let room = settings.bodies_bytes_max;
        let (twice, four_times) = (cap.saturating_mul(2), cap.saturating_mul(4));
        if twice > room {
            let found =
                format!("{cap} is over half of {ROOM} ({room}): there is no room for such a body");
            let expected = format!("at most half of {ROOM}; a quarter, for answers that stream");
            let example = format!("{ROOM}: {four_times}");
            self.tell(CAP, Wrong::new(found, &expected, &example));
        } else if four_times > room {
            self.warnings.push(format!(
                "{CAP}: {cap} is over a quarter of {ROOM} ({room}): of an answer that streams, policy sees less; set {ROOM} to {four_times}"
            ));
        }
    }

    fn credentials(
        &mut self,
        said: Option<Vec<String>>,
        passthrough: &[String],
    ) -> Vec<Credential> {
        let parse = |text: &str| credentials::credential(text, passthrough);
        let all = self.list("http.credentials", said, parse);
        for credential in &all {
            if let Ok(Readable::ByAll) = credential.check() {
                self.warnings.push(format!(
                    "http.credentials: whoever finds {path} can read it, the agent too; chmod 600 it, where more than the sidecar find it",
                    path = credential.file.display()
                ));
            }
        }
        all
    }

    pub(super) fn sdk(&mut self, raw: raw::Sdk, own: Option<&Identities>) -> SdkConfig {
        const BYTES: &str = "sdk.event_bytes_max";
        const RATE: &str = "sdk.requests_per_second_max";
        SdkConfig {
            served: served::Settings {
                event_bytes_max: self.count(BYTES, raw.event_bytes_max, 1_024),
                requests_per_second_max: self.count(RATE, raw.requests_per_second_max, 1),
                ..served::Settings::default()
            },
            signer: self
                .signer(raw.agent_did, raw.agent_public_key)
                .map(|signer| (Known::Did(signer), Unsigned::Rejected))
                // Whoever signs to Core for its agent may be signed to by it.
                .or_else(|| Some((own?.known()?, Unsigned::Taken))),
        }
    }

    /// Who must sign: a DID and its public key, or neither.
    fn signer(&mut self, did: Option<String>, key: Option<String>) -> Option<Signer> {
        const DID: &str = "sdk.agent_did";
        const KEY: &str = "sdk.agent_public_key";
        let (did, key) = match (self.given(DID, did), self.given(KEY, key)) {
            (Some(did), Some(key)) => (did, key),
            (None, None) => return None,
            (Some(one), None) => {
                let found = "a DID is set, and no public key to check it with".to_owned();
                let wrong = Wrong::new(
                    found,
                    "sdk.agent_public_key too, or neither",
                    "the base64 of 32 bytes",
                );
                self.tell(&one.at, wrong);
                return None;
            }
            (None, Some(one)) => {
                let found = "a public key is set, and no DID that it is of".to_owned();
                let wrong = Wrong::new(
                    found,
                    "sdk.agent_did too, or neither",
                    "did:aip:7b9d6c1e-4f3a-4c55-9a1b-0f6f3b0c2d11",
                );
                self.tell(&one.at, wrong);
                return None;
            }
        };
        let agent = AgentDid::parse(&did.text).map_err(|unfit| self.tell(&did.at, unfit.into()));
        let signer = Signer::parse(agent.ok()?, &key.text);
        signer
            .map_err(|unfit| self.tell(&key.at, unfit.into()))
            .ok()
    }

    pub(super) fn listen(
        &mut self,
        raw: raw::Listen,
        purpose: For,
        judge: Option<&PolicyMode>,
    ) -> Listen {
        let listen = Listen {
            http: self.listener("listen.http", raw.http, 15_801, purpose),
            transparent: self.transparent(raw.transparent),
            capture: self.choice(
                "listen.transparent_mode",
                raw.transparent_mode,
                [("redirect", Capture::Redirect), ("tproxy", Capture::Tproxy)],
                "",
            ),
            agent: self.listener("listen.agent", raw.agent, 15_800, purpose),
            agent_socket: self.agent_socket(raw.agent_socket, raw.agent_socket_mode),
            agent_token: self.agent_token(raw.agent_token_file, judge),
            operator: self.listener("listen.operator", raw.operator, 15_810, purpose),
            health: self.listener("listen.health", raw.health, 15_820, purpose),
        };
        self.tell_shared_ports(&listen);
        for (what, listener) in [
            ("HTTP proxy", listen.http),
            ("operator API", listen.operator),
        ] {
            if let Listener::At(address) = listener
                && !address.ip().is_loopback()
            {
                self.warnings.push(format!(
                    "the {what} listens on {address}, which other machines may reach"
                ));
            }
        }
        listen
    }

    fn agent_socket(&mut self, path: Option<String>, mode: Option<String>) -> Option<AgentSocket> {
        let octal = |text: &str, _: Option<Origin>| file_mode(text);
        let mode = self.parsed("listen.agent_socket_mode", mode, octal);
        let given = self.given("listen.agent_socket", path)?;
        let path = PathBuf::from(&given.text);
        if !path.is_absolute() || given.text.len() > SOCKET_PATH_BYTES_MAX {
            let expected = "an absolute path of at most 107 bytes";
            let wrong = Wrong::is_not(
                &given.text,
                "a path of a socket",
                expected,
                "/openbox/agent.sock",
            );
            self.tell(&given.at, wrong);
            return None;
        }
        Some(AgentSocket {
            path,
            mode: mode.unwrap_or(0o600),
        })
    }

    fn transparent(&mut self, said: Option<String>) -> Listener {
        let Some(given) = self.given("listen.transparent", said) else {
            return Listener::Off;
        };
        let at = value::listener(&given.text).and_then(|listener| match listener {
            Listener::At(address) if !address.ip().is_loopback() => Err(Wrong::is_not(
                &given.text,
                "an address of this machine alone",
                "a loopback address, to which the kernel leads what it captures",
                "127.0.0.1:15802",
            )),
            Listener::At(_) | Listener::Off => Ok(listener),
        });
        at.unwrap_or_else(|wrong| {
            self.tell(&given.at, wrong);
            Listener::Off
        })
    }

    fn listener(&mut self, key: &str, said: Option<String>, port: u16, purpose: For) -> Listener {
        let port = match purpose {
            For::Serve => port,
            For::Run => 0,
        };
        let default = Listener::At(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
        let Some(given) = self.given(key, said) else {
            return default;
        };
        value::listener(&given.text).unwrap_or_else(|wrong| {
            self.tell(&given.at, wrong);
            default
        })
    }

    fn tell_shared_ports(&mut self, listen: &Listen) {
        let all = [
            ("listen.http", listen.http),
            ("listen.transparent", listen.transparent),
            ("listen.agent", listen.agent),
            ("listen.operator", listen.operator),
            ("listen.health", listen.health),
        ];
        for (index, (key, one)) in all.iter().enumerate() {
            let before = all.iter().take(index);
            let twin = before
                .filter(|(_, other)| one == other)
                .map(|(key, _)| key)
                .next();
            if let (Listener::At(address), Some(twin)) = (one, twin)
                && address.port() != 0
            {
                let found = format!("{address} is taken by {twin}");
                let wrong = Wrong::new(found, "an address of its own", "127.0.0.1:0");
                self.tell(key, wrong);
            }
        }
    }

    pub(super) fn upstream(&mut self, mut raw: raw::Upstream, capture: Capture) -> UpstreamConfig {
        let chain = self.chain(&mut raw);
        UpstreamConfig {
            ca_files: self.list("upstream.ca", raw.ca, ca_file),
            origins: self.list("upstream.tls", raw.tls.take(), value::origin),
            source: self.source(raw.source.take(), capture),
            dial: dial::Settings {
                chain,
                allow: self.list("upstream.allow_address", raw.allow_address, value::network),
                private: self.choice(
                    "upstream.private",
                    raw.private,
                    [("allow", Private::Open), ("refuse", Private::Refused)],
                    "",
                ),
                resolve: self.list("upstream.resolve", raw.resolve, value::resolve_override),
                resolve_within: self.duration("upstream.resolve_within", raw.resolve_within),
                connect_within: self.duration("upstream.connect_within", raw.connect_within),
            },
        }
    }

    /// An address that the kernel has changed is not the client's to go on from.
    fn source(&mut self, said: Option<String>, capture: Capture) -> dial::Source {
        let words = [("own", dial::Source::Own), ("client", dial::Source::Client)];
        let source = self.choice("upstream.source", said, words, "");
        if (source, capture) == (dial::Source::Client, Capture::Redirect) {
            let found = "client, while listen.transparent_mode is redirect".to_owned();
            let expected = "own, or listen.transparent_mode: tproxy";
            self.tell("upstream.source", Wrong::new(found, expected, "own"));
        }
        source
    }

    /// The proxy of the network.
    fn chain(&mut self, raw: &mut raw::Upstream) -> Option<chain::Settings> {
        let kept = self.kept(
            "OPENBOX_UPSTREAM_PROXY_LOGIN",
            "upstream.proxy_login_file",
            raw.proxy_login_file.take(),
        );
        let login = match kept {
            Ok(Some(kept)) => {
                if chain::Login::parse(&kept.secret).is_none() {
                    let wrong = Wrong::new(
                        chain::NO_LOGIN.to_owned(),
                        "the proxy's user, a colon, the password",
                        "me:…",
                    );
                    self.tell(&kept.at, wrong);
                }
                Some(match kept.file {
                    Some(file) => chain::LoginAt::File(file),
                    None => chain::LoginAt::Here(kept.secret),
                })
            }
            Ok(None) | Err(Told) => None,
        };
        let direct = self.list("upstream.no_proxy", raw.no_proxy.take(), value::direct_host);
        let given = self.given("upstream.proxy", raw.proxy.take())?;
        match given.text.parse() {
            Ok(proxy) => Some(chain::Settings {
                proxy,
                login,
                direct: direct.join(","),
            }),
            Err(found) => {
                let expected = "http://HOST:PORT or socks5://HOST:PORT";
                // Where there is a login there is an `@`, wherever the rest of it went wrong.
                let shown = match given.text.contains('@') {
                    true => "what has an @ in it is not shown".to_owned(),
                    false => quoted(&given.text),
                };
                let found = format!("{shown}: {found}");
                let wrong = Wrong::new(found, expected, "http://proxy.corp.example:3128");
                self.tell(&given.at, wrong);
                None
            }
        }
    }

    pub(super) fn state_dir(&mut self, said: Option<String>) -> PathBuf {
        let inside = |variable: &str, rest: &str| {
            let base = Path::new(self.env.get(variable)?);
            base.is_absolute().then(|| base.join(rest))
        };
        let default = inside("XDG_STATE_HOME", "openbox-sidecar")
            .or_else(|| inside("HOME", ".local/state/openbox-sidecar"))
            .unwrap_or_else(|| PathBuf::from("/var/lib/openbox-sidecar"));
        PathBuf::from(self.text("state_dir", said, &default.to_string_lossy()))
    }

    /// Apart from the `private` folders, neither inside nor around them: whoever sees it must not see the
    /// authority's key.
    pub(super) fn share_dir(&mut self, said: Option<String>, private: &[&Path]) -> Option<PathBuf> {
        let given = self.given("share_dir", said)?;
        let folder = PathBuf::from(&given.text);
        let meets = |other: &&Path| folder.starts_with(other) || other.starts_with(&folder);
        let met = private.iter().copied().find(meets);
        if met.is_some() || !folder.is_absolute() {
            let beside = met.map(|other| format!(" with {}", other.display()));
            let found = format!("{}{}", given.text, beside.unwrap_or_default());
            let expected = "an absolute path, apart from state_dir and ca_dir: agents see it";
            self.tell(&given.at, Wrong::new(found, expected, "/openbox"));
            return None;
        }
        Some(folder)
    }

    /// Removed at the start, so it is said in full.
    pub(super) fn end_file(&mut self, said: Option<String>) -> Option<PathBuf> {
        let given = self.given("end_file", said)?;
        let path = PathBuf::from(&given.text);
        if path.is_absolute() {
            return Some(path);
        }
        let wrong = Wrong::new(given.text, "an absolute path", "/run/done/app");
        self.tell(&given.at, wrong);
        None
    }

    pub(super) fn log(&mut self, raw: raw::Log, purpose: For) -> LogConfig {
        let format = self.choice(
            "log.format",
            raw.format,
            [("text", LogFormat::Text), ("json", LogFormat::Json)],
            "",
        );
        let debug = match self.env.get("OPENBOX_DEBUG").map(value::truth) {
            Some(Err(wrong)) => {
                self.tell("OPENBOX_DEBUG", wrong);
                false
            }
            Some(Ok(debug)) => debug,
            None => false,
        };
        let default = match (debug, purpose) {
            (true, _) => "debug",
            (false, For::Serve) => "info",
            // The terminal is the child's.
            (false, For::Run) => "warn",
        };
        let filter = match self.given("log.level", raw.level) {
            None => default.to_owned(),
            Some(given) => match tracing_subscriber::EnvFilter::builder().parse(&given.text) {
                Ok(_) if !given.text.trim().is_empty() => given.text,
                Ok(_) | Err(_) => {
                    let expected =
                        "off, error, warn, info, debug or trace, or a list of target=level";
                    let wrong = Wrong::is_not(&given.text, "a log filter", expected, "info");
                    self.tell(&given.at, wrong);
                    default.to_owned()
                }
            },
        };
        LogConfig { format, filter }
    }

    pub(super) fn count_after(&mut self, said: Option<u32>) -> Option<NonZeroU32> {
        let times = self.count("journal.count_after", said.map(u64::from), 0);
        NonZeroU32::new(u32::try_from(times).unwrap_or(u32::MAX))
    }

    pub(super) fn workers(&mut self, said: Option<u64>) -> NonZeroUsize {
        let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        let Some(given) = self.given("workers", said.map(|n| n.to_string())) else {
            return cores;
        };
        match value::count(&given.text, 1) {
            Ok(workers) => NonZeroUsize::new(workers).unwrap_or(cores),
            Err(wrong) => {
                self.tell(&given.at, wrong);
                cores
            }
        }
    }
}

fn ca_file(text: &str) -> Result<PathBuf, Wrong> {
    match File::open(text) {
        Ok(_) => Ok(PathBuf::from(text)),
        Err(error) => Err(Wrong::new(
            format!("{text}: {error}"),
            "a readable PEM file",
            "/etc/ssl/corporate.pem",
        )),
    }
}
