//! HTTP/2 on both sides, inside tunnels: clients of three kinds, an origin in
//! Node, and endings of every kind, each recorded once.

use crate::clients::{curl, python_of_tests, script, through};
use crate::support::authority::{Authority, Dates};
use crate::support::origin::Origin;
use crate::support::policies::AS_THE_PATH_SAYS;
use crate::support::process::{self, Running};
use crate::support::sidecar::{Setup, Sidecar};
use crate::support::until;

/// An origin of `tests/clients/http2_origin.mjs`.
pub(crate) struct Http2Origin {
    site: Running,
    pub(crate) authority: String,
}

impl Http2Origin {
    fn of(site: Running) -> Self {
        let authority = format!("secure.test:{}", port_of(&site));
        Self { site, authority }
    }

    /// With a certificate of `authority`, and these words behind it.
    pub(crate) fn secure(setup: &Setup, authority: &Authority, more: &[&str]) -> Self {
        let (certificate, key) = authority.pair("secure.test", Dates::Current);
        let certificate = setup.write("http2.pem", &certificate);
        let key = setup.write("http2.key", &key);
        Self::of(node(&[&[&*certificate, &*key], more].concat()))
    }

    /// Without TLS.
    pub(crate) fn plain() -> Self {
        Self::of(node(&["plain"]))
    }
}

/// An origin of that kind, and a sidecar before it.
pub(crate) struct World {
    pub(crate) sidecar: Sidecar,
    site: Running,
    pub(crate) url: String,
}

fn node(arguments: &[&str]) -> Running {
    let mut command = process::command("node");
    Running::start(command.arg(script("http2_origin.mjs")).args(arguments))
}

fn port_of(site: &Running) -> u16 {
    until("the origin's port", || {
        site.out().lines().next()?.parse().ok()
    })
}

impl World {
    fn secure() -> Self {
        Self::with("")
    }

    fn with(config: &str) -> Self {
        Self::secure_with(Setup::new().policy(AS_THE_PATH_SAYS).config(config))
    }

    pub(crate) fn secure_with(setup: Setup) -> Self {
        Self::secure_origin(setup, &[])
    }

    fn secure_origin(setup: Setup, more: &[&str]) -> Self {
        let authority = Authority::new();
        let origin = Http2Origin::secure(&setup, &authority, more);
        Self::before(setup.trust(&authority), origin, "https")
    }

    /// Without TLS.
    pub(crate) fn plain_with(setup: Setup) -> Self {
        Self::before(setup, Http2Origin::plain(), "http")
    }

    fn before(setup: Setup, origin: Http2Origin, scheme: &str) -> Self {
        let Http2Origin { site, authority } = origin;
        let sidecar = setup
            .flag("--resolve", &format!("{authority}=127.0.0.1"))
            .flag("--allow-address", "127.0.0.1/32")
            .start();
        let url = format!("{scheme}://{authority}");
        Self { sidecar, site, url }
    }

    /// What the case of `http2.py` found.
    pub(crate) fn found(&self, case: &str) -> Vec<String> {
        self.ended(&mut self.client(case))
    }

    pub(crate) fn client(&self, case: &str) -> std::process::Command {
        let mut command = process::command(&python_of_tests().display().to_string());
        let ca = self.sidecar.ca().display().to_string();
        let proxy = self.sidecar.http.to_string();
        command.args([&script("http2.py"), case, &proxy, &self.url, &ca]);
        command
    }

    fn ended(&self, command: &mut std::process::Command) -> Vec<String> {
        let ended = process::run(command);
        assert!(ended.status.success(), "{}\n{}", ended.out, ended.err);
        ended
            .out
            .lines()
            .map(|line| line.trim().to_owned())
            .collect()
    }

    /// Each request that was let through has one completion, and these outcomes.
    pub(crate) fn outcomes(&self, path: &str, count: usize) -> Vec<String> {
        let of = |record: &str| -> Vec<serde_json::Value> {
            let journal = self.sidecar.journal();
            let lines = journal.into_iter().filter(|line| {
                line["record"] == record && line["http_url"] == format!("{}{path}", self.url)
            });
            lines.collect()
        };
        until("the completions", || {
            (of("completion").len() >= count).then_some(())
        });
        assert_eq!(of("decision").len(), count, "{path}");
        let completions = of("completion");
        assert_eq!(completions.len(), count, "{path}");
        let outcomes = completions
            .iter()
            .map(|line| line["outcome"].as_str().unwrap().to_owned());
        outcomes.collect()
    }

    /// Requests that reached the origin, by path.
    pub(crate) fn reached(&self, path: &str) -> usize {
        self.told(path).len()
    }

    /// What the origin says of requests for `path`.
    pub(crate) fn told(&self, path: &str) -> Vec<serde_json::Value> {
        let out = self.site.out();
        let lines = out
            .lines()
            .skip(1)
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        lines
            .filter(|line| line["path"] == path && line["ended"].is_null())
            .collect()
    }

    /// Its line may come later than its answer.
    fn was_reached(&self, path: &str, times: usize) {
        until("the origin's lines", || {
            (self.reached(path) >= times).then_some(())
        });
        assert_eq!(self.reached(path), times);
    }
}

#[test]
fn curl_speaks_http_2_to_an_origin_that_does() {
    let world = World::secure();
    let proxy = format!("http://{}", world.sidecar.http);
    let ca = world.sidecar.ca().display().to_string();
    for protocol in ["--http2", "--http1.1"] {
        let ended = curl(&[
            protocol,
            "--proxy",
            &proxy,
            "--cacert",
            &ca,
            "--write-out",
            " %{http_version} %{response_code}",
            &format!("{}/hello", world.url),
        ]);
        let version = if protocol == "--http2" { "2" } else { "1.1" };
        // An origin that speaks nothing else cannot be reached by who does not speak it.
        let expected = match version {
            "2" => "hello from /hello 2 200",
            _ => "502",
        };
        assert!(ended.out.contains(expected), "{protocol}: {ended:?}");
    }
    world.was_reached("/hello", 1);
}

#[test]
fn httpx_speaks_http_2_through_one_sidecar_and_is_judged_by_stream() {
    let world = World::secure();
    let found = world.found("httpx");
    assert_eq!(
        found,
        [
            "hello 200 HTTP/2 hello from /hello",
            "upload 200 True",
            "large 200 True",
            "blocked 403 HTTP/2 blocked",
            "withheld 403 outcome_blocked",
            "many 150 True",
        ]
    );
    assert_eq!(world.reached("/started/block"), 0);
    world.was_reached("/completed/block", 1);
    assert_eq!(world.outcomes("/large", 1), ["answered"]);
    for number in 0..150 {
        assert_eq!(world.outcomes(&format!("/many/{number}"), 1), ["answered"]);
    }
}

#[test]
fn nodes_http2_is_governed() {
    let world = World::secure();
    let mut command = process::command("node");
    let ca = world.sidecar.ca().display().to_string();
    let proxy = world.sidecar.http.to_string();
    command.args([&script("http2.mjs"), &proxy, &world.url, &ca]);
    assert_eq!(
        world.ended(&mut command),
        [
            "hello 200 hello from /hello",
            "upload 200 100",
            "trailers 200 body 7",
            "blocked 403 blocked",
            "many true",
        ]
    );
}

#[test]
fn trailers_pass_both_ways() {
    assert_eq!(
        World::secure().found("trailers"),
        [
            "streamed 200 body {'x-sum': '7'}",
            "withheld 200 body {'x-sum': '8'}",
            "sent True",
        ]
    );
}

#[test]
fn a_connection_serves_the_authority_of_its_tunnel_and_no_other() {
    let world = World::secure();
    let found = world.found("coalesced");
    assert_eq!(found[..3], ["other 421", "scheme 421", "host 421"]);
    assert_eq!(
        found[3], "still 200 hello from /y",
        "the connection goes on"
    );
    assert_eq!(world.reached("/x"), 0);
}

#[test]
fn streams_and_connections_that_an_origin_ends_are_told_apart() {
    let world = World::secure();
    let found = world.found("endings");
    assert_eq!(
        found,
        [
            // INTERNAL_ERROR, as the origin said.
            "reset 200 begin  reset 2",
            "refused 200 served at time 2",
            "last 200 the last of its connection",
            "next 200 hello from /next",
            "lost 200 begin  reset 2",
            "after 200 hello from /after",
        ]
    );
    assert_eq!(world.outcomes("/reset", 1), ["failed"]);
    assert_eq!(world.outcomes("/refused", 1), ["answered"]);
    assert_eq!(world.outcomes("/lost", 1), ["failed"]);
    world.was_reached("/refused", 2);
}

#[test]
fn a_stream_that_the_client_gives_up_ends_at_the_origin_and_is_recorded_once() {
    let world = World::secure();
    assert_eq!(world.found("cancelled"), ["still 200 hello from /still"]);
    // Reset, then lost with the connection.
    assert_eq!(world.outcomes("/never", 2), ["abandoned", "abandoned"]);
    assert_eq!(world.outcomes("/drip", 2), ["abandoned", "abandoned"]);
    until("the origin's streams to end", || {
        (world.site.out().matches("\"ended\":8").count() >= 4).then_some(())
    });
}

#[test]
fn a_client_that_opens_and_resets_streams_without_end_loses_its_connection() {
    let world = World::secure();
    let found = world.found("rapid_reset");
    assert!(
        found[0].starts_with("over goaway 11") || found[0] == "over closed",
        "{found:?}"
    );
    // Far fewer than were asked for.
    assert!(
        world.reached("/never") < 1000,
        "{}",
        world.reached("/never")
    );
}

#[test]
fn heads_beyond_the_bounds_are_refused_and_other_streams_go_on() {
    let world = World::secure();
    let found = world.found("large_head");
    assert_eq!(
        found,
        [
            "fields 431",
            "bytes 431 None",
            "still 200 hello from /still"
        ]
    );
    assert_eq!(world.reached("/x"), 0);
}

#[test]
fn a_held_stream_holds_up_no_other() {
    let world = World::secure();
    let client = Running::start(&mut world.client("held"));
    let approval = world.sidecar.pending_approval();
    until("the other stream", || {
        client.out().contains("held False").then_some(())
    });
    world.sidecar.approve(&approval);
    let ended = client.ended();
    let lines: Vec<_> = ended.out.lines().map(str::trim).collect();
    assert_eq!(
        lines,
        [
            "other 200 hello from /other",
            "held False",
            "released 200 hello from /started/require_approval",
        ]
    );
}

#[test]
fn a_halt_ends_the_connection_after_saying_so() {
    let found = World::secure().found("halted");
    assert_eq!(found, ["halt 403", "over goaway"]);
}

#[test]
fn tunnels_end_when_the_sidecar_does_and_what_is_under_way_gets_its_answer() {
    let setup = Setup::new().policy(AS_THE_PATH_SAYS);
    let world = World::secure_with(setup.flag("--drain-within", "60s"));
    let idle = Running::start(&mut world.client("drained"));
    let proxy = format!("http://{}", world.sidecar.http);
    let ca = world.sidecar.ca().display().to_string();
    let url = format!("{}/slowly", world.url);
    let mut command = process::command("curl");
    command.args([
        "--silent",
        "--no-buffer",
        "--http2",
        "--proxy",
        &proxy,
        "--cacert",
        &ca,
        &url,
    ]);
    let busy = Running::start(&mut command);
    until("both to be answered", || {
        let both = idle.out().contains("hello 200") && busy.out().contains("first");
        both.then_some(())
    });
    let began = tokio::time::Instant::now();
    let World { sidecar, site, .. } = world;
    sidecar.running.signal("TERM");
    let busy = busy.ended();
    assert!(busy.status.success(), "{busy:?}");
    assert_eq!(busy.out, "data: first\n\ndata: last\n\n");
    let idle = idle.ended();
    assert!(idle.out.ends_with("over goaway\n"), "{idle:?}");
    assert!(sidecar.running.ended().status.success());
    assert!(began.elapsed().as_secs() < 30, "{:?}", began.elapsed());
    drop(site);
}

#[test]
fn who_is_slow_to_take_an_answer_has_the_time_that_a_drain_has() {
    let setup = Setup::new().policy(AS_THE_PATH_SAYS);
    let world = World::secure_with(setup.flag("--drain-within", "60s"));
    let client = Running::start(&mut world.client("drained_slowly"));
    until("the answer to have begun", || {
        client.out().contains("under way").then_some(())
    });
    let World { sidecar, site, .. } = world;
    sidecar.running.signal("TERM");
    let client = client.ended();
    assert_eq!(client.out, "under way\ntaken 8388608 whole\n", "{client:?}");
    assert!(sidecar.running.ended().status.success());
    drop(site);
}

#[test]
fn a_tunnel_of_http_1_ends_when_the_sidecar_does() {
    let authority = Authority::new();
    let site = Origin::site_tls(authority.server("secure.test", Dates::Current));
    let setup = Setup::new().policy(AS_THE_PATH_SAYS).reach(&site);
    let setup = setup.trust(&authority).flag("--drain-within", "60s");
    let sidecar = setup.start();
    let mut wire = sidecar.tls_tunnel(&site);
    wire.say(format!(
        "GET /x HTTP/1.1\r\nhost: {}\r\n\r\n",
        site.authority()
    ));
    assert_eq!(wire.answer().status(), 200);
    let began = tokio::time::Instant::now();
    sidecar.running.signal("TERM");
    assert!(wire.is_ended());
    assert!(sidecar.running.ended().status.success());
    assert!(began.elapsed().as_secs() < 30, "{:?}", began.elapsed());
}

#[test]
fn http_2_without_tls_is_spoken_by_who_knows_it_in_advance() {
    let setup = Setup::new().policy(AS_THE_PATH_SAYS);
    let world = World::plain_with(setup);
    assert_eq!(
        world.found("plain"),
        [
            "hello 200 hello from /hello",
            "trailers 200 body {'x-sum': '7'}",
            "blocked 403",
        ]
    );
    assert_eq!(world.reached("/started/block"), 0);
}

#[test]
fn an_origin_of_http_1_serves_clients_of_http_2_and_is_then_mirrored() {
    let authority = Authority::new();
    let site = Origin::site_tls(authority.server("secure.test", Dates::Current));
    let setup = Setup::new().policy(AS_THE_PATH_SAYS).reach(&site);
    // One worker, so that the second connection meets who knows.
    let sidecar = setup.trust(&authority).flag("--workers", "1").start();
    let ca = sidecar.ca().display().to_string();
    let proxy = format!("http://{}", sidecar.http);
    let mut versions = Vec::new();
    for _ in 0..8 {
        let ended = curl(&[
            "--http2",
            "--proxy",
            &proxy,
            "--cacert",
            &ca,
            "--write-out",
            " %{http_version}",
            "--cookie",
            "a=1; b=2",
            &site.url("/hello"),
        ]);
        let (text, version) = ended.out.rsplit_once(' ').unwrap();
        assert_eq!(text, "hello from /hello", "{ended:?}");
        versions.push(version.to_owned());
    }
    // Nothing is dialed for a client before its request is allowed.
    assert_eq!(versions.first().map(String::as_str), Some("2"));
    assert_eq!(versions.last().map(String::as_str), Some("1.1"));
    for request in site.heard() {
        assert_eq!(request.get("host"), Some(&*site.authority()));
        assert_eq!(request.get("cookie"), Some("a=1; b=2"));
    }
}

#[test]
fn who_takes_nothing_of_an_answer_loses_the_connection() {
    for case in ["takes_nothing", "reads_nothing"] {
        let world = World::with("http:\n  idle_within: 4s\n");
        let client = Running::start(&mut world.client(case));
        // Whatever else it says meanwhile.
        until("the connection to be gone", || {
            let asked = world.reached("/large") == 1;
            (asked && world.sidecar.metric("openbox_connections_open") == 0).then_some(())
        });
        assert_eq!(world.outcomes("/large", 1), ["abandoned"], "{case}");
        drop(client);
    }
}

/// The root is blocked, and nothing else.
const NOT_THE_ROOT: &str = r#"
package test

default result := {"decision": "ALLOW"}

result := {"decision": "BLOCK"} if input.spans[0].attributes["url.path"] == "/"
"#;

#[test]
fn a_path_that_is_empty_is_judged_as_the_root() {
    let world = World::secure_with(Setup::new().policy(NOT_THE_ROOT));
    assert_eq!(
        world.found("no_path"),
        ["bare 403", "named 403", "other 200"]
    );
    assert_eq!(world.reached("/"), 0);
}

#[test]
fn a_connection_whose_origin_falls_silent_is_not_used_again() {
    let world = World::with("http:\n  answer_within: 5s\n");
    let found = world.found("silent");
    assert_eq!(found, ["first 200", "never 504", "after 200"]);
    // The origin numbers its connections.
    world.was_reached("/after", 1);
    let out = world.site.out();
    let lines = out.lines().skip(1);
    let sessions: Vec<_> = lines
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|line| line["ended"].is_null())
        .map(|line| (line["path"].clone(), line["session"].clone()))
        .collect();
    assert_eq!(
        sessions,
        [
            ("/first".into(), 1.into()),
            ("/never".into(), 1.into()),
            ("/after".into(), 2.into()),
        ]
    );
}

/// What curl is answered for `/over-http1`, and what the origin heard of it: versions and lengths.
fn over_http1(body: &[&str]) -> (Vec<String>, Vec<String>) {
    let setup = Setup::new().policy(AS_THE_PATH_SAYS);
    let world = World::secure_origin(setup.flag("--workers", "1"), &["both"]);
    let url = format!("{}/over-http1", world.url);
    let all = ["--http2", "--write-out", " %{http_code}", &url];
    let answers = [body, &[]].map(|more| through(&world.sidecar, &[&all, more].concat()).out);
    let heard = world.told("/over-http1");
    let heard = heard.iter().map(|line| match line["version"].as_str() {
        Some(version) => format!("{version} {}", line["method"].as_str().unwrap()),
        None => "2".to_owned(),
    });
    (answers.to_vec(), heard.collect())
}

#[test]
fn an_origin_that_wants_http_1_is_asked_again_over_it_and_remembered() {
    let (answers, heard) = over_http1(&["--data", "small"]);
    assert_eq!(answers, ["over 1.1: 5 200", "over 1.1: 0 200"]);
    assert_eq!(heard, ["2", "1.1 POST", "1.1 GET"]);
}

#[test]
fn what_cannot_be_said_again_fails_there_once() {
    let setup = Setup::new();
    let file = setup.write("upload", &"x".repeat(1 << 20));
    let upload = format!("@{file}");
    let kind = "content-type: image/png";
    let (answers, heard) = over_http1(&["--header", kind, "--data-binary", &upload]);
    assert!(answers[0].ends_with(" 502"), "{answers:?}");
    assert_eq!(answers[1], "over 1.1: 0 200");
    assert_eq!(heard, ["2", "1.1 GET"]);
}
