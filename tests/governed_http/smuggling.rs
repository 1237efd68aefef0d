//! Requests with more than one reading, before real origins: each is refused, or every one
//! of them reads what the sidecar has judged.

use crate::clients::{python_of_tests, script};
use crate::support::policies::ALLOW;
use crate::support::process::{self, Running};
use crate::support::sidecar::{Setup, Sidecar};
use crate::support::until;

/// What is sent, what is answered to it and to the request behind it, and what origins read.
#[rustfmt::skip]
const TABLE: [(&str, &str, &str); 50] = [
    ("CL.TE", "400", ""),
    ("TE.CL", "400", ""),
    ("CL.CL", "400", ""),
    ("CL in a list", "400", ""),
    ("CL twice the same", "400", ""),
    ("CL with a sign", "400", ""),
    ("CL in hex", "400", ""),
    ("CL with a space in it", "400", ""),
    ("CL with an underscore", "200 200 200", "POST /first, GET /smuggled, GET /behind"),
    ("TE with a space before the colon", "400", ""),
    ("TE with a tab", "200 200", "POST /first, GET /behind"),
    ("TE with a vertical tab", "400", ""),
    ("TE xchunked", "400", ""),
    ("TE chunked, identity", "400", ""),
    ("TE twice", "400", ""),
    ("TE in quotes", "400", ""),
    ("TE folded", "400", ""),
    ("TE behind a bare CR", "400", ""),
    ("TE behind a bare LF", "400", ""),
    ("TE behind NUL", "400", ""),
    ("TE of HTTP/1.0", "400", ""),
    ("TE nominated by Connection", "200 200", "POST /first, GET /behind"),
    ("CL nominated by Connection", "200 200", "POST /first, GET /behind"),
    ("a chunk size too large", "400", ""),
    ("a negative chunk size", "400", ""),
    ("a chunk size with 0x", "400", ""),
    ("a chunk size with an underscore", "400", ""),
    ("a chunk ended by LF", "400", ""),
    ("a chunk longer than its size", "400", ""),
    ("LF in a chunk extension", "400", ""),
    ("a chunk extension", "200 200", "POST /first, GET /behind"),
    ("CL among the trailers", "400", ""),
    ("GET with a body", "200 200", "GET /first, GET /behind"),
    ("lines that end in LF", "400", ""),
    ("a space before the first field", "400", ""),
    ("two hosts", "400", ""),
    ("an absolute form that is not its Host", "400", ""),
    ("userinfo in the authority", "400", ""),
    ("a backslash in the path", "200 200", "GET /a\\..\\first, GET /behind"),
    ("a space in the path", "400", ""),
    ("a fragment", "200 200", "GET /first, GET /behind"),
    ("another version", "400", ""),
    ("HTTP/2.0 on the line", "505", ""),
    ("lower-case version", "400", ""),
    ("an empty name", "400", ""),
    ("a name with a space", "400", ""),
    ("Upgrade with a body", "400", ""),
    ("Expect with a body", "100 200 200", "POST /first, GET /behind"),
    ("an authority form in a tunnel", "200 400", ""),
    ("two requests at once", "200 200", "POST /first, GET /behind"),
];

/// A real server, and the file in which it writes down what it has read.
struct Site {
    _running: Running,
    port: u16,
    log: String,
}

fn logging(setup: &Setup, program: &str, origin: &str) -> Site {
    let log = setup.write("read.log", "");
    let mut command = process::command(program);
    let running = Running::start(command.arg(script(origin)).arg(&log));
    let port = until("the origin's port", || {
        running.out().lines().next()?.parse().ok()
    });
    Site {
        _running: running,
        port,
        log,
    }
}

fn nginx(setup: &Setup) -> Site {
    let log = setup.write("read.log", "");
    let port = crate::support::free_port();
    let folder = setup.folder().display().to_string();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|name| format!("{name}_temp_path {folder}/{name};\n"))
        .collect();
    let config = format!(
        "daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/nginx.err;\n\
         events {{ worker_connections 64; }}\n\
         http {{\n{temporary}log_format read '$request_method $request_uri';\n\
         access_log {log} read;\n\
         server {{ listen 127.0.0.1:{port}; location / {{ return 200 read; }} }} }}\n"
    );
    let config = setup.write("nginx.conf", &config);
    let mut command = process::command("/usr/sbin/nginx");
    let running = Running::start(command.args(["-p", &folder, "-c", &config]));
    until("nginx to listen", || {
        std::net::TcpStream::connect(("127.0.0.1", port)).ok()
    });
    Site {
        _running: running,
        port,
        log,
    }
}

fn one_reading_each(setup: Setup, site: &Site) {
    let sidecar = setup
        .policy(ALLOW)
        .flag("--allow-address", "127.0.0.1/32")
        .start();
    let python = python_of_tests().display().to_string();
    let mut command = process::command(&python);
    let (proxy, port) = (sidecar.http.to_string(), site.port.to_string());
    command.args([&script("smuggling.py"), &proxy, &port, &site.log]);
    let ended = process::run(&mut command);
    assert!(ended.status.success(), "{}\n{}", ended.out, ended.err);
    let expected: Vec<_> = TABLE
        .iter()
        .map(|(name, answers, read)| format!("{name}: {answers} | {read}"))
        .collect();
    let found: Vec<_> = ended.out.lines().map(str::trim_end).collect();
    let expected: Vec<_> = expected.iter().map(|line| line.trim_end()).collect();
    assert_eq!(found, expected);
    assert_eq!(judged(&sidecar), read(site));
}

/// What was judged, in order.
fn judged(sidecar: &Sidecar) -> Vec<String> {
    let journal = sidecar.journal();
    let decisions = journal.iter().filter(|line| line["record"] == "decision");
    decisions
        .map(|line| {
            let url = line["http_url"].as_str().unwrap();
            let path = url.splitn(4, '/').nth(3).unwrap_or_default();
            format!("{} /{path}", line["http_method"].as_str().unwrap())
        })
        .collect()
}

fn read(site: &Site) -> Vec<String> {
    let log = std::fs::read_to_string(&site.log).unwrap();
    log.lines()
        .map(|line| line.replace("\\x5C", "\\"))
        .collect()
}

#[test]
fn nginx_reads_what_was_judged() {
    let setup = Setup::new();
    let site = nginx(&setup);
    one_reading_each(setup, &site);
}

#[test]
fn node_reads_what_was_judged() {
    let setup = Setup::new();
    let site = logging(&setup, "node", "smuggling_origin.mjs");
    one_reading_each(setup, &site);
}

#[test]
fn python_reads_what_was_judged() {
    let setup = Setup::new();
    let site = logging(&setup, "python3", "smuggling_origin.py");
    one_reading_each(setup, &site);
}
