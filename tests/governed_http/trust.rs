//! Which of the variables that `run` sets a client heeds: the table of the README, row by
//! row, with real clients that have nothing but the variables of their row.

use std::path::Path;

use crate::clients::{node_24, python_3, python_of_tests, script};
use crate::support::authority::{Authority, Dates};
use crate::support::free_port;
use crate::support::policies::ALLOW;
use crate::support::process;
use crate::support::sidecar::{Setup, journal};

/// Client, the variable that names the proxy, the one that names the authorities.
#[rustfmt::skip]
const TABLE: [(&str, &str, &str); 13] = [
    ("curl",     "https_proxy",            "CURL_CA_BUNDLE"),
    ("git",      "https_proxy",            "GIT_SSL_CAINFO"),
    ("pip",      "https_proxy",            "PIP_CERT"),
    ("npm",      "npm_config_https_proxy", "NODE_EXTRA_CA_CERTS"),
    ("cargo",    "https_proxy",            "CARGO_HTTP_CAINFO"),
    ("java",     "JAVA_TOOL_OPTIONS",      "JAVA_TOOL_OPTIONS"),
    ("go",       "https_proxy",            "SSL_CERT_FILE"),
    ("urllib",   "https_proxy",            "SSL_CERT_FILE"),
    ("requests", "https_proxy",            "REQUESTS_CA_BUNDLE"),
    ("httpx",    "https_proxy",            "SSL_CERT_FILE"),
    ("aiohttp",  "https_proxy",            "SSL_CERT_FILE"),
    ("undici",   "https_proxy",            "NODE_EXTRA_CA_CERTS"),
    // With `https_proxy`, as from Node 24 on.
    ("fetch",    "NODE_USE_ENV_PROXY",     "NODE_EXTRA_CA_CERTS"),
];

/// A sidecar before an origin that a script is to be: the port, certificate and key of that.
pub(crate) fn before_a_script(authority: &Authority) -> (Setup, [String; 3]) {
    let port = free_port().to_string();
    let setup = Setup::new()
        .policy(ALLOW)
        .flag("--resolve", &format!("secure.test:{port}=127.0.0.1"))
        .flag("--allow-address", "127.0.0.1/32")
        .trust(authority);
    let (certificate, key) = authority.pair("secure.test", Dates::Current);
    let certificate = setup.write("origin.pem", &certificate);
    let key = setup.write("origin.key", &key);
    (setup, [port, certificate, key])
}

fn heeds(client: &str) {
    heeds_with(client, &python_of_tests());
}

/// The same, by the Python at this path.
fn heeds_with(client: &str, python: &Path) {
    let (_, proxy, authorities) = TABLE.iter().find(|row| row.0 == client).unwrap();
    let (setup, [port, certificate, key]) = before_a_script(&Authority::new());
    let folder = setup.folder().join("work").display().to_string();
    let python = python.display().to_string();
    let words = [
        &python,
        &script("trust.py"),
        client,
        &port,
        &certificate,
        &key,
        &folder,
    ];
    let mut command = setup.run_command(&words);
    let home = std::env::vars_os().find(|(name, _)| name == "HOME");
    command.env("RUN_HOME", home.unwrap().1);
    let ended = process::run(&mut command);
    assert!(ended.status.success(), "{}\n{}", ended.out, ended.err);
    let expected = match proxy == authorities {
        true => "both yes\nwithout no\n".to_owned(),
        false => format!("both yes\nwithout {proxy} no\nwithout {authorities} no\n"),
    };
    assert_eq!(ended.out, expected, "{}", ended.err);
    let of_client = |line: &serde_json::Value| {
        let url = format!("https://secure.test:{port}/{client}/");
        let asked = line["http_url"]
            .as_str()
            .is_some_and(|u| u.starts_with(&url));
        asked && line["record"] == "completion" && line["outcome"] == "answered"
    };
    assert!(journal(&setup.state()).iter().any(of_client), "{client}");
}

macro_rules! clients {
    ($($name:ident)*) => {$(
        #[test]
        fn $name() {
            heeds(stringify!($name));
        }
    )*};
}

clients!(curl git pip npm cargo java go urllib requests httpx aiohttp undici);

/// Where there is a Node 24; `scripts/test.sh` says where there is none.
#[test]
fn fetch() {
    if node_24().is_some() {
        heeds("fetch");
    }
}

/// Those of Python, where this minor version is; `scripts/test.sh` says where it is not.
fn heeds_in_python_3(minor: u8) {
    let Some(python) = python_3(minor) else {
        return;
    };
    for client in ["urllib", "requests", "httpx", "aiohttp"] {
        heeds_with(client, &python);
    }
}

#[test]
fn clients_of_python_3_11() {
    heeds_in_python_3(11);
}

#[test]
fn clients_of_python_3_12() {
    heeds_in_python_3(12);
}

#[test]
fn clients_of_python_3_13() {
    heeds_in_python_3(13);
}

#[test]
fn the_readme_has_the_same_table() {
    let readme = include_str!("../../README.md");
    for (client, proxy, authorities) in TABLE {
        let row = match proxy == authorities {
            true => format!("`{proxy}` (both)"),
            false => format!("`{proxy}` | `{authorities}`"),
        };
        let found = readme
            .lines()
            .any(|line| line.starts_with('|') && line.contains(client) && line.contains(&row));
        assert!(found, "{client}: {row}");
    }
}
