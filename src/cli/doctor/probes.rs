//! Real clients of this machine, each asking for the canary in this environment: who comes through is answered by
//! the sidecar, who does not finds nobody.

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::process::spawn_named;
use crate::protocols::http::canary::{BRANCH, HOST};

use super::super::operator_client::shown;
use super::finding::{Finding, Report, Weight};
use super::sidecar::Sidecar;
use super::variables;

/// Longest that one client may take.
const WITHIN: Duration = Duration::from_secs(20);
/// Where clients begin. Of the folder that they begin in they read code and settings (modules, classes, `.npmrc`,
/// `.git`), and in most that folder and those above it somebody else may have put them.
const FOLDER: &str = "/";
/// Most that run at once.
const AT_ONCE: usize = 4;
/// Most of what a client says that is read, bytes.
const SAID_BYTES_MAX: u64 = 64 * 1024;
/// Most of it that is shown, characters.
const SHOWN_MAX: usize = 200;
/// How Python says that it has no such module; no other status of these scripts is the same.
const NO_MODULE: i32 = 90;

/// How a client is told from its answer to have come through.
#[derive(Clone, Copy, Debug)]
enum Shows {
    /// It wrote what the sidecar tells.
    Told,
    /// It found the branch.
    Branch,
    /// It ended well: what it asks for is nowhere else.
    Success,
}

/// A script that imports nothing from the folder it is begun in, as `-c` would.
macro_rules! python {
    ($script:literal) => {
        concat!(
            "import sys\nsys.path[:] = [folder for folder in sys.path if folder]\n",
            $script
        )
    };
}

/// One client.
#[derive(Clone, Copy, Debug)]
struct Client {
    name: &'static str,
    program: &'static str,
    /// `URL` stands for the canary's, `SOURCE` for a file with [`JAVA_SOURCE`].
    arguments: &'static [&'static str],
    shows: Shows,
    /// The variable that names whom it trusts.
    authorities: &'static str,
}

const CLIENTS: [Client; 9] = [
    Client {
        name: "curl",
        program: "curl",
        arguments: &["-sS", "--max-time", "10", "URL"],
        shows: Shows::Told,
        authorities: "CURL_CA_BUNDLE",
    },
    Client {
        name: "Python's urllib",
        program: "python3",
        arguments: &[
            "-c",
            python!(
                "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=10).read().decode())"
            ),
            "URL",
        ],
        shows: Shows::Told,
        authorities: "SSL_CERT_FILE",
    },
    Client {
        name: "Python's requests",
        program: "python3",
        arguments: &[
            "-c",
            python!(
                "import sys\ntry: import requests\nexcept ImportError: sys.exit(90)\nprint(requests.get(sys.argv[1], timeout=10).text)"
            ),
            "URL",
        ],
        shows: Shows::Told,
        authorities: "REQUESTS_CA_BUNDLE",
    },
    Client {
        name: "Python's httpx",
        program: "python3",
        arguments: &[
            "-c",
            python!(
                "import sys\ntry: import httpx\nexcept ImportError: sys.exit(90)\nprint(httpx.get(sys.argv[1], timeout=10).text)"
            ),
            "URL",
        ],
        shows: Shows::Told,
        authorities: "SSL_CERT_FILE",
    },
    Client {
        name: "Python's aiohttp (trust_env=True)",
        program: "python3",
        arguments: &[
            "-c",
            python!(
                "import asyncio, sys\ntry: import aiohttp\nexcept ImportError: sys.exit(90)\nasync def main():\n    async with aiohttp.ClientSession(trust_env=True) as session:\n        async with session.get(sys.argv[1]) as answer:\n            print(await answer.text())\nasyncio.run(main())"
            ),
            "URL",
        ],
        shows: Shows::Told,
        authorities: "SSL_CERT_FILE",
    },
    Client {
        name: NODE,
        program: "node",
        arguments: &[
            "-e",
            "fetch(process.argv[1]).then(a => a.text()).then(t => console.log(t)).catch(e => { console.error(String(e.cause ?? e)); process.exit(1) })",
            "URL",
        ],
        shows: Shows::Told,
        authorities: "NODE_EXTRA_CA_CERTS",
    },
    Client {
        name: "Java's HttpURLConnection",
        program: "java",
        arguments: &["SOURCE", "URL"],
        shows: Shows::Told,
        authorities: JAVA_OPTIONS,
    },
    Client {
        name: "git",
        program: "git",
        arguments: &["-c", "credential.helper=", "ls-remote", "URLcanary.git"],
        shows: Shows::Branch,
        authorities: "GIT_SSL_CAINFO",
    },
    Client {
        name: "npm",
        program: "npm",
        arguments: &[
            "ping",
            "--registry",
            "URL",
            "--fetch-retries=0",
            "--logs-max=0",
            "--no-update-notifier",
        ],
        shows: Shows::Success,
        authorities: "npm_config_cafile",
    },
];

const NODE: &str = "Node's fetch";
/// All that a JVM heeds.
const JAVA_OPTIONS: &str = "JAVA_TOOL_OPTIONS";
/// What a JDK from 11 on runs as it is.
const JAVA_SOURCE: &str = "class Canary { public static void main(String[] words) throws Exception { try (var answer = java.net.URI.create(words[0]).toURL().openStream()) { System.out.write(answer.readAllBytes()); System.out.flush(); } } }\n";
const SCHEMES: [&str; 2] = ["http", "https"];

/// What became of one client.
#[derive(Debug)]
enum Went {
    Through,
    /// It is not on this machine.
    NotHere,
    /// It did not come through, and this is the last that it said.
    Not(String),
}

pub(super) async fn look(sidecar: &Sidecar, parent: &[(OsString, OsString)], report: &mut Report) {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let marker: Arc<str> = sidecar.told.authority_sha256.as_str().into();
    let begun = CLIENTS.map(|client| {
        SCHEMES.map(|scheme| {
            let (places, marker) = (places.clone(), marker.clone());
            spawn_named("probe", async move {
                let Ok(_place) = places.acquire().await else {
                    return Went::NotHere;
                };
                went(client, scheme, &marker).await
            })
        })
    });
    for (client, [plain, secure]) in CLIENTS.into_iter().zip(begun) {
        let (Ok(plain), Ok(secure)) = (plain.await, secure.await) else {
            continue;
        };
        tell(client, (plain, secure), (sidecar, parent), report).await;
    }
}

async fn tell(
    client: Client,
    went: (Went, Went),
    (sidecar, parent): (&Sidecar, &[(OsString, OsString)]),
    report: &mut Report,
) {
    let name = client.name;
    let (schemes, said) = match went {
        (Went::NotHere, _) | (_, Went::NotHere) => return,
        (Went::Through, Went::Through) => {
            report.came_through(name.to_owned());
            return;
        }
        (Went::Through, Went::Not(said)) => {
            report.came_through(format!("{name} (http alone)"));
            ("https", said)
        }
        (Went::Not(said), Went::Through) => {
            report.came_through(format!("{name} (https alone)"));
            ("http", said)
        }
        (Went::Not(_), Went::Not(said)) => ("http and https", said),
    };
    let of_java = (client.authorities == JAVA_OPTIONS).then(|| variables::java(sidecar, parent));
    let (code, why, set) = if is_of_trust(&said) {
        (
            "client_distrusts",
            "it comes to the sidecar and does not trust its authority: what it asks fails"
                .to_owned(),
            vec![format!(
                "export {}={}",
                client.authorities,
                bundle(client, sidecar)
            )],
        )
    } else if name == NODE {
        of_node(sidecar, parent).await
    } else {
        (
            "client_past",
            "it did not find what only the sidecar answers: it connects past it, or not at all"
                .to_owned(),
            vec![format!(
                "export http_proxy=http://{0} https_proxy=http://{0}",
                sidecar.proxy
            )],
        )
    };
    let set = of_java.unwrap_or(set);
    // Where the kernel leads it to the sidecar all the same, this is no way out.
    let weight = match sidecar.told.transparent.is_empty() {
        true => Weight::Finding,
        false => Weight::Note,
    };
    report.add(Finding {
        weight,
        code,
        what: format!("{name} does not come through the sidecar by {schemes}: {said}"),
        why,
        set,
    });
}

fn bundle(client: Client, sidecar: &Sidecar) -> String {
    let told = &sidecar.told;
    let file = match client.authorities {
        // Added to what Node trusts by itself.
        "NODE_EXTRA_CA_CERTS" => &told.ca,
        _ => &told.bundle,
    };
    crate::app::env_text::sh_quoted(&file.display().to_string())
}

async fn of_node(
    sidecar: &Sidecar,
    parent: &[(OsString, OsString)],
) -> (&'static str, String, Vec<String>) {
    let said = output(Command::new("node").arg("--version")).await;
    let version = said
        .map(|(_, out, _)| shown(out.trim()))
        .unwrap_or_default();
    let asks = parent
        .iter()
        .any(|(name, value)| name == "NODE_USE_ENV_PROXY" && value == "1");
    let heeds = heeds_variables(&version);
    let mut set = Vec::new();
    if heeds != Some(false) && !asks {
        set.push("export NODE_USE_ENV_PROXY=1".to_owned());
    }
    let led = |wanted: &str| {
        let mut all = parent.iter().filter(|(name, _)| name == wanted);
        all.any(|(_, value)| value.to_str().is_some_and(|text| sidecar.is_named_by(text)))
    };
    if !led("http_proxy") || !led("https_proxy") {
        set.push(format!(
            "export http_proxy=http://{0} https_proxy=http://{0}",
            sidecar.proxy
        ));
    }
    if heeds != Some(true) {
        set.push("use Node 24 (or 22.21), or have the agent say, with the package undici: setGlobalDispatcher(new EnvHttpProxyAgent())".to_owned());
    }
    if set.is_empty() {
        set.push(
            "see what it says; a client of the agent's own may need more than variables".to_owned(),
        );
    }
    let why = match heeds {
        Some(false) => format!(
            "Node {version} ignores NODE_USE_ENV_PROXY, so its fetch connects past the sidecar"
        ),
        Some(true) | None => "its fetch connects past the sidecar, or not at all".to_owned(),
    };
    ("node_past", why, set)
}

/// Whether a Node of this version heeds `NODE_USE_ENV_PROXY`; `None` where the version cannot be read.
fn heeds_variables(version: &str) -> Option<bool> {
    let mut numbers = version.strip_prefix('v')?.split('.').map(str::parse::<u32>);
    let (major, minor) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    Some(major >= 24 || (major == 22 && minor >= 21))
}

async fn went(client: Client, scheme: &str, marker: &str) -> Went {
    let url = format!("{scheme}://{HOST}/");
    let source = match source_of(client) {
        Ok(source) => source,
        Err(error) => return Went::Not(error.to_string()),
    };
    let mut command = Command::new(client.program);
    for argument in client.arguments {
        match (&source, *argument) {
            (Some(source), "SOURCE") => command.arg(source.path()),
            (_, argument) => command.arg(argument.replace("URL", &url)),
        };
    }
    command.env("GIT_TERMINAL_PROMPT", "0");
    let (status, out, err) = match output(&mut command).await {
        Ok(said) => said,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Went::NotHere,
        Err(error) => return Went::Not(error.to_string()),
    };
    let through = match client.shows {
        Shows::Told => out.contains(marker),
        Shows::Branch => out.contains(BRANCH),
        Shows::Success => status == Some(0),
    };
    match (through, status) {
        (true, _) => Went::Through,
        (false, Some(NO_MODULE)) => Went::NotHere,
        // A shim of a version manager without what it stands for.
        (false, Some(127)) => Went::NotHere,
        (false, _) if source.is_some() && has_no_compiler(&err) => Went::NotHere,
        (false, _) => Went::Not(gist(if err.trim().is_empty() { &out } else { &err })),
    }
}

/// The file that a client runs, if it runs one. It is gone when this is dropped.
fn source_of(client: Client) -> io::Result<Option<tempfile::NamedTempFile>> {
    if !client.arguments.contains(&"SOURCE") {
        return Ok(None);
    }
    let mut file = tempfile::Builder::new().suffix(".java").tempfile()?;
    file.write_all(JAVA_SOURCE.as_bytes())?;
    Ok(Some(file))
}

/// Whether a JVM says that it runs no source: it is older than 11, or has no compiler.
fn has_no_compiler(said: &str) -> bool {
    [
        "Module jdk.compiler not found",
        "Could not find or load main class",
    ]
    .iter()
    .any(|words| said.contains(words))
}

/// Status, output and errors of `command`, each bounded.
async fn output(command: &mut Command) -> io::Result<(Option<i32>, String, String)> {
    command
        .current_dir(FOLDER)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn()?;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let work = async {
        let (out, err) = tokio::join!(read(out), read(err));
        let status = child.wait().await?;
        Ok((status.code(), out?, err?))
    };
    match timeout(WITHIN, work).await {
        Ok(said) => said,
        Err(_) => Ok((
            None,
            String::new(),
            format!("no end within {} s", WITHIN.as_secs()),
        )),
    }
}

async fn read(stream: Option<impl AsyncRead + Unpin>) -> io::Result<String> {
    let mut said = Vec::new();
    if let Some(stream) = stream {
        let mut stream = stream.take(SAID_BYTES_MAX);
        while stream.read_buf(&mut said).await? > 0 {}
    }
    Ok(String::from_utf8_lossy(&said).into_owned())
}

/// Whether a client says that it does not trust whom it reached.
fn is_of_trust(said: &str) -> bool {
    ["certificate", "issuer", "CERT_", "PKIX"]
        .iter()
        .any(|word| said.contains(word))
}

/// The line that says most, without logins of URLs.
fn gist(said: &str) -> String {
    let mut lines = said
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        // What a JVM was told, and where it was.
        .filter(|line| !line.starts_with("Picked up ") && !line.starts_with("at "));
    // Some say more after what matters.
    let matters = |line: &&str| {
        line.contains("reason: ") || line.starts_with("Exception in thread") || is_of_trust(line)
    };
    let why = lines.clone().rfind(matters);
    let last = why.or(lines.next_back()).unwrap_or("it said nothing");
    let mut words = String::new();
    for word in last.split(' ') {
        let word = match (word.split_once("://"), word.rsplit_once('@')) {
            (Some((scheme, _)), Some((_, place))) => format!("{scheme}://{place}"),
            (None, Some((login, place))) if login.contains(':') => place.to_owned(),
            _ => word.to_owned(),
        };
        words.push_str(&word);
        words.push(' ');
    }
    let words: String = words.trim_end().chars().take(SHOWN_MAX).collect();
    shown(&words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_tells_and_shows_no_login() {
        let said = "Traceback:\n  x\nProxyError: http://u:secret@127.0.0.1:1/ refused\n\n";
        assert_eq!(gist(said), "ProxyError: http://127.0.0.1:1/ refused");
        assert_eq!(gist("no proxy u:secret@proxy:1"), "no proxy proxy:1");
        let npm = "npm error request failed, reason: self-signed certificate\nnpm error Log files";
        assert_eq!(
            gist(npm),
            "npm error request failed, reason: self-signed certificate"
        );
        let java = "Picked up JAVA_TOOL_OPTIONS: -Dx\nException in thread \"main\" x\nCaused by: PKIX path\n\tat java.base/PKIX.x";
        assert_eq!(gist(java), "Caused by: PKIX path");
        assert_eq!(gist(""), "it said nothing");
        assert_eq!(gist(&"x".repeat(1000)).len(), SHOWN_MAX);
    }

    #[test]
    fn pythons_scripts_import_nothing_from_the_folder_they_begin_in() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("of_the_agent.py"), "").unwrap();
        for (script, expected) in [
            ("import of_the_agent", true),
            (python!("import of_the_agent"), false),
        ] {
            let mut python = std::process::Command::new("python3");
            python.args(["-c", script]).current_dir(folder.path());
            let ended = python.env_remove("PYTHONSAFEPATH").output().unwrap();
            assert_eq!(ended.status.success(), expected, "{script}");
        }
    }

    #[test]
    fn node_heeds_variables_from_some_versions_on() {
        for (version, expected) in [
            ("v20.20.2", Some(false)),
            ("v22.20.0", Some(false)),
            ("v22.21.0", Some(true)),
            ("v23.9.0", Some(false)),
            ("v24.0.0", Some(true)),
            ("v26.1.0", Some(true)),
            ("", None),
        ] {
            assert_eq!(heeds_variables(version), expected, "{version}");
        }
    }
}
