//! Real clients, unchanged, doing what agents do: each script in `clients/`
//! makes the same list of checks and runs under `openbox-sidecar run`.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::authority::{Authority, Dates};
use crate::support::origin::{Origin, pattern, sha256};
use crate::support::policies::AS_THE_PATH_SAYS;
use crate::support::process::{self, Ended};
use crate::support::sidecar::{Setup, Sidecar, journal};

/// Everything curl said; silent but for errors, and never by our environment.
pub(crate) fn curl(arguments: &[&str]) -> Ended {
    let mut command = process::command("curl");
    command.args(["--silent", "--show-error", "--max-time", "20"]);
    process::run(command.args(arguments))
}

struct World {
    plain: Origin,
    secure: Origin,
    setup: Setup,
}

fn world() -> World {
    let authority = Authority::new();
    let plain = Origin::site();
    let secure = Origin::site_tls(authority.server("secure.test", Dates::Current));
    let setup = Setup::new()
        .policy(AS_THE_PATH_SAYS)
        .reach(&plain)
        .reach(&secure)
        .trust(&authority);
    World {
        plain,
        secure,
        setup,
    }
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub(crate) fn script(name: &str) -> String {
    let path = repository().join("tests/clients").join(name);
    path.display().to_string()
}

/// Runs a script's list of checks under `run` and looks at what was recorded.
fn checks(program: &Path, arguments: &[String]) {
    let World {
        plain,
        secure,
        setup,
    } = world();
    let program = program.display().to_string();
    let urls = [plain.url(""), secure.url("")];
    let mut words: Vec<&str> = vec![&program];
    words.extend(arguments.iter().map(String::as_str));
    words.extend(urls.iter().map(String::as_str));
    let ended = process::run(&mut setup.run_command(&words));
    assert_eq!(ended.status.code(), Some(0), "{}\n{}", ended.out, ended.err);
    let last = ended.out.lines().last().unwrap_or_default();
    assert!(last.starts_with("all checks passed"), "{}", ended.out);
    for site in [&plain, &secure] {
        assert_eq!(site.times("/started/block"), 0);
        assert_eq!(site.times("/completed/block"), 1, "{}", site.url(""));
        assert!(site.times("/echo") >= 2, "{}", site.url(""));
        let journal = journal(&setup.state());
        let count = |record: &str| {
            let of_site = |line: &&serde_json::Value| {
                line["record"] == record
                    && line["http_url"]
                        .as_str()
                        .unwrap_or("")
                        .starts_with(&site.url(""))
            };
            let lines: Vec<_> = journal.iter().filter(of_site).collect();
            lines.len()
        };
        let blocked = 1;
        assert_eq!(count("decision"), site.heard().len() + blocked);
        assert_eq!(count("completion"), site.heard().len());
    }
}

pub(crate) fn python_of_tests() -> PathBuf {
    let path = repository().join(".venv/bin/python");
    assert!(
        path.exists(),
        "{} is missing; `make test` makes it, or: python3 -m venv .venv && .venv/bin/pip install requests httpx aiohttp",
        path.display()
    );
    path
}

#[test]
fn urllib_of_the_systems_python_is_governed() {
    checks(
        Path::new("python3"),
        &[script("python.py"), "urllib".to_owned()],
    );
}

#[test]
fn requests_is_governed() {
    checks(
        &python_of_tests(),
        &[script("python.py"), "requests".to_owned()],
    );
}

#[test]
fn httpx_is_governed() {
    checks(
        &python_of_tests(),
        &[script("python.py"), "httpx".to_owned()],
    );
}

#[test]
fn aiohttp_is_governed() {
    checks(
        &python_of_tests(),
        &[script("python.py"), "aiohttp".to_owned()],
    );
}

/// The Python of this minor version with HTTP clients; `scripts/test.sh` says where there is none.
pub(crate) fn python_3(minor: u8) -> Option<PathBuf> {
    let path = repository().join(format!(".tools/python3.{minor}/bin/python"));
    let version = Command::new(&path).arg("--version").output().ok()?;
    let expected = format!("Python 3.{minor}.");
    let said = String::from_utf8_lossy(&version.stdout).into_owned();
    assert!(said.starts_with(&expected), "{}: {said}", path.display());
    Some(path)
}

fn clients_of_python_3(minor: u8) {
    let Some(python) = python_3(minor) else {
        return;
    };
    for client in ["urllib", "requests", "httpx", "aiohttp"] {
        checks(&python, &[script("python.py"), client.to_owned()]);
    }
}

#[test]
fn http_clients_of_python_3_11_are_governed() {
    clients_of_python_3(11);
}

#[test]
fn http_clients_of_python_3_12_are_governed() {
    clients_of_python_3(12);
}

/// It verifies certificates more strictly than any before it (`VERIFY_X509_STRICT`), and
/// must accept our leaves.
#[test]
fn http_clients_of_python_3_13_are_governed() {
    clients_of_python_3(13);
}

/// Node 24; `scripts/test.sh` says where there is none.
pub(crate) fn node_24() -> Option<PathBuf> {
    let path = repository().join(".tools/node24/run");
    path.exists().then_some(path)
}

#[test]
fn fetch_of_node_24_is_governed_by_variables_alone() {
    let Some(node) = node_24() else { return };
    checks(&node, &[script("node.mjs")]);
}

/// Node below 24 cannot send its own `fetch` through a proxy; there the script
/// gives it a connector that does, as an agent would have to.
#[test]
fn fetch_of_node_is_governed() {
    checks(Path::new("node"), &[script("node.mjs")]);
}

/// The body of an answer of curl's, and what `--write-out` said of it.
pub(crate) fn through(sidecar: &Sidecar, arguments: &[&str]) -> Ended {
    let proxy = format!("http://{}", sidecar.http);
    let ca = sidecar.ca().display().to_string();
    let mut all = vec!["--proxy", &proxy, "--cacert", &ca];
    all.extend(arguments);
    let ended = curl(&all);
    assert_eq!(ended.status.code(), Some(0), "{arguments:?}: {ended:?}");
    ended
}

#[test]
fn curl_gets_posts_uploads_and_waits_for_100_continue() {
    let World {
        plain,
        secure,
        setup,
    } = world();
    let file = setup.folder().join("upload");
    std::fs::write(&file, pattern(1 << 20)).unwrap();
    let upload = format!("@{}", file.display());
    let sum = sha256(&pattern(1 << 20));
    let sidecar = setup.start();
    for site in [&plain, &secure] {
        let text = through(&sidecar, &[&site.url("/hello")]);
        assert_eq!(text.out, "hello from /hello");

        let posted = through(&sidecar, &["--json", r#"{"a":1}"#, &site.url("/echo")]);
        let echoed: serde_json::Value = serde_json::from_str(&posted.out).unwrap();
        assert_eq!(
            (&echoed["method"], &echoed["text"]),
            (&"POST".into(), &r#"{"a":1}"#.into())
        );

        // More than what policy sees, both as text and as bytes, each framed both ways.
        for kind in ["text/plain", "application/octet-stream"] {
            let kind = format!("content-type: {kind}");
            for framing in ["x-framing: length", "transfer-encoding: chunked"] {
                let sent = through(
                    &sidecar,
                    &[
                        "-H",
                        &kind,
                        "-H",
                        framing,
                        "-H",
                        "expect: 100-continue",
                        "--data-binary",
                        &upload,
                        &site.url("/echo"),
                    ],
                );
                let echoed: serde_json::Value = serde_json::from_str(&sent.out).unwrap();
                assert_eq!(
                    (&echoed["bytes"], &echoed["sha256"]),
                    (&(1 << 20).into(), &sum.clone().into()),
                    "{kind}, {framing}"
                );
            }
        }

        let head = through(&sidecar, &["--head", &site.url("/bytes/1000")]);
        assert!(
            head.out.contains("content-length: 1000\r\n"),
            "{}",
            head.out
        );
        for status in ["204", "304"] {
            let code = [
                "--write-out",
                "%{http_code} %{size_download}",
                &site.url(&format!("/status/{status}")),
            ];
            assert_eq!(through(&sidecar, &code).out, format!("{status} 0"));
        }
        // One connection of curl's for three requests.
        let one = site.url("/hello");
        let kept = through(
            &sidecar,
            &[
                "--write-out",
                "%{num_connects} ",
                "-o",
                "/dev/null",
                "-o",
                "/dev/null",
                "-o",
                "/dev/null",
                &one,
                &one,
                &one,
            ],
        );
        assert_eq!(kept.out, "1 0 0 ");

        let blocked = through(&sidecar, &["--include", &site.url("/started/block")]);
        assert!(
            blocked.out.contains("openbox-verdict: block\r\n"),
            "{}",
            blocked.out
        );
        assert!(
            blocked.out.contains("\"code\":\"blocked\""),
            "{}",
            blocked.out
        );
    }
    let tunneled = through(&sidecar, &["--proxytunnel", &plain.url("/through-connect")]);
    assert_eq!(tunneled.out, "hello from /through-connect");
    assert_eq!(
        sidecar.record_of("/through-connect", "started")["decision"],
        "allow"
    );
}

#[test]
fn what_is_refused_is_not_uploaded() {
    let World { plain, setup, .. } = world();
    let file = setup.folder().join("upload");
    std::fs::write(&file, pattern(1 << 20)).unwrap();
    let upload = format!("@{}", file.display());
    let sidecar = setup.start();
    let fields = [
        "-H",
        "content-type: application/octet-stream",
        "-H",
        "expect: 100-continue",
        // By itself it sends after a second what nobody asked for.
        "--expect100-timeout",
        "20",
    ];
    let url = plain.url("/started/block");
    let mut arguments = fields.to_vec();
    arguments.extend([
        "--data-binary",
        &upload,
        "--write-out",
        "\n%{http_code} %{size_upload}",
        &url,
    ]);
    let ended = through(&sidecar, &arguments);
    assert_eq!(ended.out.lines().last(), Some("403 0"), "{ended:?}");
    assert_eq!(plain.connections(), 0);
}
