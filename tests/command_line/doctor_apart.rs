//! `doctor` where the sidecar is not on loopback, where the kernel leads connections to it, and in a folder that
//! somebody else has written.

use std::path::Path;

use serde_json::Value;

use crate::doctor::{alone, codes, of_node, path, report, under_run};
use crate::support::policies::ALLOW;
use crate::support::process::{self, Ended};
use crate::support::sidecar::{BINARY, Setup};

/// What is there as a note.
fn notes(report: &Value) -> Vec<&str> {
    let all = report["notes"].as_array().unwrap().iter();
    all.map(|one| one["code"].as_str().unwrap()).collect()
}

/// What answers like a sidecar that listens on addresses of its own, and an agent API that it names on yet another.
const ELSEWHERE: &str = r#"
import http.server, json, os, socket, threading
TOLD = {"version": "0", "authority_sha256": "", "ca": "/x", "bundle": "/x", "java_store": "/x", "agent": "192.0.2.3:80",
        "health": None, "transparent": [], "relays": [{"system": "postgres", "listen": "192.0.2.2:7001"}]}
class Canary(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps(TOLD).encode()
        self.send_response(200), self.send_header("content-length", str(len(body))), self.end_headers()
        self.wfile.write(body)
    protocol_version = "HTTP/1.1"
class Agent(Canary):
    def do_GET(self):
        with open(os.environ["HOME"] + "/asked", "a") as asked: asked.write(str(self.headers))
        super().do_GET()
relay, other = socket.create_server(("192.0.2.2", 7001)), socket.create_server(("192.0.2.2", 443))
for place, handler in ((("192.0.2.2", 15801), Canary), (("192.0.2.3", 80), Agent)):
    threading.Thread(target=http.server.ThreadingHTTPServer(place, handler).serve_forever).start()
print("serves", flush=True)
"#;

/// One that is connected to the sidecar, to its relay and past it.
const AGENT: &str = r#"
import socket, time
held = [socket.create_connection(("192.0.2.2", port), source_address=("192.0.2.1", 0)) for port in (15801, 7001, 443)]
print("connected", flush=True)
time.sleep(60)
"#;

/// `script` in a network where [`ELSEWHERE`] and [`AGENT`] run, and where `sidecar` is a name.
fn elsewhere(setup: &Setup, script: &str) -> Ended {
    setup.write("elsewhere.py", ELSEWHERE);
    setup.write("agent.py", AGENT);
    setup.write("hosts", "192.0.2.2 sidecar\n");
    let script = format!(
        "set -e; cd $HOME; mount --bind hosts /etc/hosts; ip link set lo up
        for one in 1 2 3; do ip addr add 192.0.2.$one/32 dev lo; done
        export HTTPS_PROXY=http://sidecar:15801 DATABASE_URL=postgres://u:hush@sidecar:7001/x
        rm -f said; mkfifo said; trap 'kill $serves $agent' EXIT
        python3 elsewhere.py > said 2>/dev/null & serves=$!; read word < said
        python3 agent.py > said & agent=$!; read word < said
        set +e; {script}"
    );
    let mut command = process::command("unshare");
    command.args(["--net", "--mount", "--map-root-user", "sh", "-c", &script]);
    command.env("HOME", setup.folder());
    process::run(&mut command)
}

#[test]
fn what_leads_to_a_sidecar_on_an_address_of_its_own_is_not_past_it() {
    let setup = Setup::new();
    let script = format!("{BINARY} doctor --no-probes --json --http-listen 192.0.2.2:15801");
    let ended = elsewhere(&setup, &script);
    let report = report(&ended);
    let of_interest = ["proxy_elsewhere", "database_past", "process_past"];
    let mut found = codes(&report);
    found.retain(|code| of_interest.contains(code));
    assert_eq!(found, ["process_past"], "{report:#}");
    assert!(ended.out.contains("is connected to 192.0.2.2:443 past"));

    // The same of a command that is watched.
    let watched = elsewhere(
        &setup,
        &format!("kill $agent; wait $agent; {script} -- timeout 2 python3 agent.py"),
    );
    let report = crate::doctor::report(&watched);
    let past: Vec<_> = codes(&report)
        .into_iter()
        .filter(|code| *code == "process_past")
        .collect();
    assert_eq!(past.len(), 1, "{report:#}");
}

#[test]
fn the_agents_token_goes_nowhere_but_where_clients_send_it() {
    let setup = Setup::new();
    let doctor = format!(
        "OPENBOX_SIDECAR_TOKEN=obx_test_hush {BINARY} doctor --no-probes --json --http-listen 192.0.2.2:15801"
    );
    let asked = setup.folder().join("asked");
    let ended = elsewhere(&setup, &doctor);
    assert!(
        notes(&report(&ended)).contains(&"agent_api_unasked"),
        "{}",
        ended.out
    );
    assert!(!asked.exists(), "{:?}", std::fs::read_to_string(&asked));
    let ended = elsewhere(
        &setup,
        &format!("OPENBOX_SIDECAR_URL=http://192.0.2.3:80 {doctor}"),
    );
    assert!(
        !notes(&report(&ended)).contains(&"agent_api_unasked"),
        "{}",
        ended.out
    );
    assert!(
        std::fs::read_to_string(&asked)
            .unwrap()
            .contains("obx_test_hush")
    );
}

/// A client that heeds nothing and asks off this machine, where nobody is.
const OFF: &str = r#"
import socket, sys, time
held = socket.create_connection(("198.51.100.7", 443))
print("connected", flush=True)
time.sleep(float(sys.argv[1]))
"#;

#[test]
fn what_the_kernel_leads_to_the_sidecar_is_no_finding_whatever_the_tables_and_variables_say() {
    let setup = Setup::new()
        .policy(ALLOW)
        .config("listen:\n  transparent: 127.0.0.1:15802\n");
    setup.write("off.py", OFF);
    let captured = format!(
        "ip link add off0 type veth peer name off1 && ip addr add 198.51.100.1/24 dev off0 && ip link set off0 up && ip link set off1 up
        printf 'nameserver 192.0.2.53\n' > $HOME/resolv.conf && {BINARY} init-net install --resolv-conf $HOME/resolv.conf >&2 || exit 9
        doctor() {{ {BINARY} doctor --no-probes --json \"$@\"; }}"
    );
    let rows = [
        (
            "rm -f $HOME/said; mkfifo $HOME/said; env -i python3 $HOME/off.py 60 > $HOME/said & read said < $HOME/said; doctor; found=$?; kill $!; exit $found",
            vec!["process_captured"],
        ),
        ("doctor -- python3 $HOME/off.py 1", vec!["process_captured"]),
        (
            "unset HTTPS_PROXY NODE_USE_ENV_PROXY JAVA_TOOL_OPTIONS; doctor",
            vec!["proxy_unset", "tool_unset", "jvm_unset"],
        ),
        ("JAVA_TOOL_OPTIONS=-Xmx1g doctor", vec!["jvm_elsewhere"]),
        (
            "NO_PROXY=localhost,127.0.0.1,api.openai.com doctor",
            vec!["bypass_public"],
        ),
        (
            "DATABASE_URL=postgres://db.internal/x doctor",
            vec!["database_past"],
        ),
    ];
    for (script, expected) in rows {
        let ended = alone(&setup, &format!("{captured}\n{script}"));
        assert_eq!(
            ended.status.code(),
            Some(0),
            "{script}: {} {}",
            ended.out,
            ended.err
        );
        let report = report(&ended);
        assert_eq!(notes(&report), expected, "{script}: {report:#}");
        let why = report["notes"][0]["why"].as_str().unwrap();
        assert!(why.contains("the rules of init-net"), "{why}");
    }
}

#[test]
fn clients_heed_nothing_of_the_folder_that_it_is_begun_in() {
    let setup = Setup::new().policy(ALLOW).env("PATH", &path());
    let theirs = "open(__file__ + '.was_run', 'w')\nraise SystemExit('theirs')\n";
    let folder = setup.folder().join("theirs");
    std::fs::create_dir_all(folder.join("http")).unwrap();
    for name in ["requests.py", "httpx.py", "asyncio.py", "http/__init__.py"] {
        std::fs::write(folder.join(name), theirs).unwrap();
    }
    let script = format!(
        "cd {} && git init -q . && git config http.proxy http://127.0.0.1:9 && doctor",
        folder.display()
    );
    let ended = under_run(&setup, &script);
    let report = report(&ended);
    assert_eq!(codes(&report), of_node(), "{report:#}");
    let was_run = |name: &str| Path::exists(&folder.join(format!("{name}.was_run")));
    assert!(!was_run("requests.py") && !was_run("http/__init__.py"));
    // Whom they would have misled, had they been begun there.
    let through = report["through"].as_array().unwrap();
    for client in ["Python's urllib", "Python's requests", "git"] {
        assert!(through.iter().any(|name| name == client), "{report:#}");
    }
}
