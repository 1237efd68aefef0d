//! Whose an operation is, for every protocol: by each kind of evidence alone, and
//! where two contradict each other, with two activities open at once.

#![cfg(test)]
#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "an overflow or a bad index in a test fails the test; the file is no data path"
)]

#[path = "support/mod.rs"]
mod support;

use std::cell::Cell;
use std::path::PathBuf;
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use support::origin::Origin;
use support::policies::ALLOW;
use support::sidecar::{Setup, Sidecar, request};
use support::wire::Wire;
use support::{free_port, mysql, postgres, process, redis, until};

/// What may say whose an operation is, in the order in which it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Evidence {
    Ids,
    Trace,
    Name,
    Process,
}

use Evidence::{Ids, Name, Process, Trace};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Through {
    Proxy,
    Tunnel,
    Socks,
    Postgres,
    Mysql,
    Redis,
    /// A hook told to the agent API, at its address.
    Hook,
    /// The same at its path.
    HookAtPath,
}

impl Through {
    const ALL: [Self; 8] = [
        Self::Proxy,
        Self::Tunnel,
        Self::Socks,
        Self::Postgres,
        Self::Mysql,
        Self::Redis,
        Self::Hook,
        Self::HookAtPath,
    ];

    /// What its clients can say at once.
    fn evidence(self) -> &'static [Evidence] {
        match self {
            Self::Proxy | Self::Tunnel | Self::Socks => &[Ids, Trace, Name, Process],
            // What names ids must be right there: it is refused otherwise, and
            // nothing else counts.
            Self::Hook | Self::HookAtPath => &[Ids, Trace, Name, Process],
            Self::Postgres | Self::Mysql => &[Trace, Name, Process],
            // A connection has one name, which is either.
            Self::Redis => &[Trace, Name, Process],
        }
    }

    fn can_say(self, one: Evidence, other: Evidence) -> bool {
        self != Self::Redis || (one, other) != (Trace, Name)
    }

    /// The journal's word for what is asked, where that is a database.
    fn system(self) -> Option<&'static str> {
        match self {
            Self::Postgres => Some("postgresql"),
            Self::Mysql => Some("mysql"),
            Self::Redis => Some("redis"),
            Self::Proxy | Self::Tunnel | Self::Socks | Self::Hook | Self::HookAtPath => None,
        }
    }

    /// The word that the journal has for the rule.
    fn rule(self, evidence: Evidence) -> &'static str {
        match (evidence, self) {
            (Ids, _) => "headers",
            (Trace, _) => "trace",
            (Name, Self::Postgres | Self::Mysql | Self::Redis) => "database_hint",
            (Name, _) => "proxy_credentials",
            (Process, _) => "process",
        }
    }
}

/// What an operation says; each names an activity.
type Said<'a> = [(Evidence, &'a str)];

fn of<'a>(said: &Said<'a>, evidence: Evidence) -> Option<&'a str> {
    let mut said = said.iter();
    said.find(|(kind, _)| *kind == evidence)
        .map(|(_, activity)| *activity)
}

fn trace(activity: &str) -> String {
    let digit = activity.chars().last().unwrap();
    let id: String = std::iter::repeat_n(digit, 32).collect();
    format!("00-{id}-00f067aa0ba902b7-01")
}

struct World {
    sidecar: Sidecar,
    socket: PathBuf,
    site: Origin,
    postgres: (postgres::Server, u16),
    mysql: (mysql::Server, u16),
    redis: (redis::Server, u16),
    asked: Cell<usize>,
}

impl World {
    fn new() -> Self {
        let site = Origin::site();
        let postgres = (postgres::Server::start(), free_port());
        let mysql = (mysql::Server::start(&[]), free_port());
        let redis = (redis::Server::start(&[]), free_port());
        let url = |scheme: &str, at: u16, port: u16| {
            format!("127.0.0.1:{at}={scheme}://localhost:{port}")
        };
        let setup = Setup::new();
        let socket = setup.folder().join("agent.sock");
        let sidecar = setup
            .policy(ALLOW)
            .reach(&site)
            .config("session: {by_process: true}\n")
            .env("OPENBOX_AGENT_SOCKET", socket.to_str().unwrap())
            .flag("--pg", &url("postgres", postgres.1, postgres.0.port))
            .flag("--mysql", &url("mysql", mysql.1, mysql.0.port))
            .flag("--redis", &url("redis", redis.1, redis.0.port))
            .start();
        sidecar.event("/v1/workflows", &json!({"workflow_id": "w", "run_id": "r"}));
        let world = Self {
            sidecar,
            socket,
            site,
            postgres,
            mysql,
            redis,
            asked: Cell::new(0),
        };
        for activity in ["a1", "a2"] {
            let ids = json!({"workflow_id": "w", "run_id": "r", "activity_id": activity, "activity_type": "t"});
            world.sidecar.event("/v1/activities", &ids);
            let more = json!({"traceparent": trace(activity)});
            world.register(&format!("bot-{activity}"), Some(activity), more);
        }
        world
    }

    fn register(&self, name: &str, activity: Option<&str>, mut context: Value) {
        context["workflow_id"] = "w".into();
        context["run_id"] = "r".into();
        if let Some(activity) = activity {
            context["activity_id"] = activity.into();
        }
        let path = format!("/v1/contexts/{name}");
        let (status, told) = self.sidecar.agent("PUT", &path, &context.to_string());
        assert_eq!(status, 200, "{told}");
    }

    /// Has an operation done, saying this. The rule and the activity by the journal.
    fn ask(&self, through: Through, said: &Said<'_>) -> (String, Value) {
        // Everything here comes from this process, or from one that it starts.
        match of(said, Process) {
            Some(activity) => {
                let pid = json!({"pid": std::process::id()});
                self.register("process", Some(activity), pid);
            }
            None => drop(self.sidecar.agent("DELETE", "/v1/contexts/process", "")),
        }
        self.asked.set(self.asked.get() + 1);
        let marker = format!("op_{}_", self.asked.get());
        let before = self.sidecar.journal().len();
        match through {
            Through::Proxy => self.by_proxy(&marker, said),
            Through::Tunnel => self.by_tunnel(&marker, said),
            Through::Socks => self.by_socks(&marker, said),
            Through::Postgres => self.by_postgres(&marker, said),
            Through::Mysql => self.by_mysql(&marker, said),
            Through::Redis => self.by_redis(&marker, said),
            Through::Hook | Through::HookAtPath => self.by_hook(through, &marker, said),
        }
        // The journal has no statements, and each protocol asks one thing at a time.
        let system = through.system();
        let line = until(&marker, || {
            let lines = self.sidecar.journal();
            let mut new = lines.into_iter().skip(before);
            new.find(|line| {
                line["stage"] == "started"
                    && match system {
                        Some(system) => line["db_system"] == system,
                        None => line.to_string().contains(&marker),
                    }
            })
        });
        let rule = line["attribution"].as_str().unwrap().to_owned();
        (rule, line["activity_id"].clone())
    }

    fn by_proxy(&self, marker: &str, said: &Said<'_>) {
        let mut fields = inside(said);
        if let Some(activity) = of(said, Name) {
            fields.push(("proxy-authorization", self.basic(activity)));
        }
        let fields: Vec<_> = fields.iter().map(|(n, v)| (*n, v.as_str())).collect();
        let url = self.site.url(&format!("/{marker}"));
        let answer = self.sidecar.send("GET", &url, &fields, "");
        assert_eq!(answer.status(), 200, "{}", answer.text());
    }

    fn by_tunnel(&self, marker: &str, said: &Said<'_>) {
        let mut wire = self.sidecar.wire();
        let authority = self.site.authority();
        let user = of(said, Name).map(|activity| self.basic(activity));
        let user = user.map(|user| format!("proxy-authorization: {user}\r\n"));
        let user = user.unwrap_or_default();
        wire.say(format!(
            "CONNECT {authority} HTTP/1.1\r\nhost: {authority}\r\n{user}\r\n"
        ));
        assert_eq!(wire.head().unwrap().status(), 200);
        self.get(&mut wire, marker, said);
    }

    fn by_socks(&self, marker: &str, said: &Said<'_>) {
        let mut wire = self.sidecar.wire();
        match of(said, Name) {
            None => {
                wire.say([5, 1, 0]);
                assert_eq!(wire.exactly(2), [5, 0]);
            }
            Some(activity) => {
                wire.say([5, 1, 2]);
                assert_eq!(wire.exactly(2), [5, 2]);
                let short = |text: &str| {
                    let length = u8::try_from(text.len()).unwrap();
                    [&[length], text.as_bytes()].concat()
                };
                let name = short(&format!("bot-{activity}"));
                let token = short(&self.sidecar.agent_token);
                wire.say([&[1][..], &name, &token].concat());
                assert_eq!(wire.exactly(2), [1, 0]);
            }
        }
        let authority = self.site.authority();
        let (host, port) = authority.rsplit_once(':').unwrap();
        let length = u8::try_from(host.len()).unwrap();
        let port: u16 = port.parse().unwrap();
        let target = [&[5, 1, 0, 3, length], host.as_bytes(), &port.to_be_bytes()];
        wire.say(target.concat());
        assert_eq!(wire.exactly(10)[1], 0);
        self.get(&mut wire, marker, said);
    }

    /// A request inside a tunnel.
    fn get(&self, wire: &mut Wire, marker: &str, said: &Said<'_>) {
        let fields = inside(said);
        let fields: Vec<_> = fields.iter().map(|(n, v)| (*n, v.as_str())).collect();
        let authority = self.site.authority();
        let text = request("GET", &format!("http://{authority}/{marker}"), &fields, "");
        wire.say(text.replacen(&format!("http://{authority}"), "", 1));
        let answer = wire.answer();
        assert_eq!(answer.status(), 200, "{}", answer.text());
    }

    fn by_postgres(&self, marker: &str, said: &Said<'_>) {
        let name = of(said, Name).map(|activity| format!("bot-{activity}"));
        let mut parameters = vec![("user", "postgres"), ("database", "postgres")];
        if let Some(name) = &name {
            parameters.push(("application_name", name));
        }
        let mut client = postgres::Client::connect(self.postgres.1, &parameters);
        client.rows(&format!("SELECT 1 AS {marker}{}", comment(said)));
    }

    fn by_mysql(&self, marker: &str, said: &Said<'_>) {
        let mut client = mysql::Client::open(self.mysql.1);
        client.next().unwrap();
        let name = of(said, Name).map(|activity| format!("bot-{activity}"));
        let login = match &name {
            None => mysql::login(mysql::CAPABILITIES, "bob"),
            Some(name) => {
                let attribute: Vec<u8> = ["program_name", name]
                    .iter()
                    .flat_map(|text| {
                        [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat()
                    })
                    .collect();
                let length = u8::try_from(attribute.len()).unwrap();
                let login = mysql::login(mysql::CAPABILITIES | CLIENT_CONNECT_ATTRS, "bob");
                [login, vec![length], attribute].concat()
            }
        };
        client.send(1, &login);
        let answer = client.next().unwrap();
        assert_eq!(answer.body[0], 0, "{answer:?}");
        client.rows(&format!("SELECT 1 AS {marker}{}", comment(said)));
    }

    fn by_redis(&self, marker: &str, said: &Said<'_>) {
        let mut client = redis::Client::connect(self.redis.1);
        let name = of(said, Name).map(|activity| format!("bot-{activity}"));
        let name = name.or_else(|| of(said, Trace).map(trace));
        if let Some(name) = name {
            client.ask(&format!("CLIENT SETNAME {name}"));
        }
        client.ask(&format!("GET {marker}"));
    }

    fn by_hook(&self, through: Through, marker: &str, said: &Said<'_>) {
        let mut hook = json!({
            "kind": "function_call",
            "stage": "started",
            "span": {"function": marker, "module": "m"},
        });
        if let Some(activity) = of(said, Ids) {
            hook["activity_id"] = activity.into();
        }
        if let Some(activity) = of(said, Trace) {
            hook["traceparent"] = trace(activity).into();
        }
        if let Some(activity) = of(said, Name) {
            hook["context"] = format!("bot-{activity}").into();
        }
        if through == Through::Hook {
            return drop(self.sidecar.event("/v1/evaluate", &hook));
        }
        // A process of its own, which this one has started.
        let told = process::run(
            Command::new("curl")
                .args([
                    "-s",
                    "--noproxy",
                    "*",
                    "-w",
                    " %{http_code}",
                    "--unix-socket",
                ])
                .arg(&self.socket)
                .args([
                    "-H",
                    &format!("Authorization: Bearer {}", self.sidecar.agent_token),
                ])
                .args(["-d", &hook.to_string(), "http://localhost/v1/evaluate"]),
        );
        assert!(told.out.ends_with(" 200"), "{told:?}");
    }

    fn basic(&self, activity: &str) -> String {
        let user = format!("bot-{activity}:{}", self.sidecar.agent_token);
        format!("Basic {}", STANDARD.encode(user))
    }
}

const CLIENT_CONNECT_ATTRS: u32 = 1 << 20;

/// What a request says itself.
fn inside(said: &Said<'_>) -> Vec<(&'static str, String)> {
    let mut fields = Vec::new();
    if let Some(activity) = of(said, Ids) {
        fields.push(("x-openbox-workflow-id", "w".to_owned()));
        fields.push(("x-openbox-run-id", "r".to_owned()));
        fields.push(("x-openbox-activity-id", activity.to_owned()));
    }
    if let Some(activity) = of(said, Trace) {
        fields.push(("traceparent", trace(activity)));
    }
    fields
}

fn comment(said: &Said<'_>) -> String {
    let parent = of(said, Trace).map(trace);
    let comment = parent.map(|parent| format!(" /*traceparent='{parent}'*/"));
    comment.unwrap_or_default()
}

#[test]
fn of_two_open_activities_the_first_evidence_names_the_one() {
    let world = World::new();
    let mut wrong = Vec::new();
    let mut expect = |through: Through, said: &Said<'_>, rule: &str, activity: Value| {
        let got = world.ask(through, said);
        if got != (rule.to_owned(), activity) {
            wrong.push(format!("{through:?} {said:?}: {got:?}"));
        }
    };
    for through in Through::ALL {
        // Two are open: neither is the only one.
        expect(through, &[], "own_session", Value::Null);
        let all = through.evidence();
        for (index, first) in all.iter().enumerate() {
            let rule = through.rule(*first);
            expect(through, &[(*first, "a2")], rule, "a2".into());
            let later = all[index + 1..].iter();
            for second in later.filter(|second| through.can_say(*first, **second)) {
                let said = [(*first, "a1"), (*second, "a2")];
                expect(through, &said, rule, "a1".into());
                let said = [(*first, "a2"), (*second, "a1")];
                expect(through, &said, rule, "a2".into());
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let counted = |rule: &str| {
        let name = format!("openbox_attributions_total{{rule=\"{rule}\"}}");
        world.sidecar.metric(&name)
    };
    for rule in [
        "headers",
        "trace",
        "proxy_credentials",
        "database_hint",
        "process",
        "own_session",
    ] {
        assert!(counted(rule) > 0, "{rule}");
    }
}

#[test]
fn evidence_of_what_is_not_open_is_none_and_the_only_activity_comes_last() {
    let world = World::new();
    let databases = [Through::Postgres, Through::Mysql, Through::Redis];
    let all = [Through::Proxy, Through::Tunnel, Through::Socks];
    for through in all.into_iter().chain(databases) {
        for evidence in through.evidence().iter().filter(|one| **one != Process) {
            let said = [(*evidence, "a9"), (Process, "a2")];
            let got = world.ask(through, &said);
            assert_eq!(
                got,
                ("process".into(), "a2".into()),
                "{through:?} {evidence:?}"
            );
        }
    }
    let done = json!({"workflow_id": "w", "run_id": "r"});
    world.sidecar.event("/v1/activities/a2/complete", &done);
    for through in Through::ALL {
        // What stood for the activity that has ended stands for nothing.
        for said in [&[][..], &[(Name, "a2")], &[(Trace, "a2")]] {
            let got = world.ask(through, said);
            assert_eq!(
                got,
                ("only_activity".into(), "a1".into()),
                "{through:?} {said:?}"
            );
        }
        let pid = json!({"pid": std::process::id()});
        world.register("process", None, pid);
        let said = [(Process, "a1")];
        assert_eq!(world.ask(through, &said).0, "process", "{through:?}");
    }
}

#[test]
fn a_process_stands_for_nothing_where_it_is_not_looked_at_or_not_seen() {
    let sidecar = Setup::new().policy(ALLOW).start();
    sidecar.event("/v1/workflows", &json!({"workflow_id": "w", "run_id": "r"}));
    let ids = json!({"workflow_id": "w", "run_id": "r", "pid": std::process::id()});
    let (status, told) = sidecar.agent("PUT", "/v1/contexts/me", &ids.to_string());
    assert_eq!(
        (status, &told["code"]),
        (409, &json!("processes_not_looked_at"))
    );
    let looking = Setup::new()
        .policy(ALLOW)
        .config("session: {by_process: true}\n")
        .start();
    looking.event("/v1/workflows", &json!({"workflow_id": "w", "run_id": "r"}));
    let ids = json!({"workflow_id": "w", "run_id": "r", "pid": u32::MAX});
    let (status, told) = looking.agent("PUT", "/v1/contexts/me", &ids.to_string());
    assert_eq!((status, &told["code"]), (404, &json!("unknown_process")));
}
