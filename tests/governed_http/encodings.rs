//! Compressed bodies: policy reads what they say, and they go on as they came.

use crate::clients::{python_of_tests, script};
use crate::support::process;
use crate::support::sidecar::{Setup, Sidecar};

const FORBIDDEN: &str = r#"
package test
default result := {"decision": "ALLOW"}
result := {"decision": "BLOCK", "reason": "forbidden"} if {
	contains(input.spans[0].request_body, "forbidden")
}
result := {"decision": "BLOCK", "reason": "forbidden"} if {
	contains(input.spans[0].response_body, "forbidden")
}
result := {"decision": "BLOCK", "reason": "unread"} if {
	input.spans[0].request_body_state == "binary"
}
"#;

const MAILS: &str = r"
guardrails:
  - {name: sent, type: pii, entities: [EMAIL_ADDRESS], stage: input, action: redact, operations: [http_request]}
  - {name: got, type: pii, entities: [EMAIL_ADDRESS], stage: output, action: redact, operations: [http_request]}
";

const CODINGS: [&str; 5] = ["gzip", "deflate", "br", "zstd", "gzip, br"];

fn found(sidecar: &Sidecar, case: &str) -> Vec<String> {
    let python = python_of_tests().display().to_string();
    let mut command = process::command(&python);
    command.args([&script("encodings.py"), case, &sidecar.http.to_string()]);
    let ended = process::run(&mut command);
    assert!(ended.status.success(), "{}\n{}", ended.out, ended.err);
    ended.out.lines().map(str::to_owned).collect()
}

fn loopback() -> Setup {
    Setup::new().flag("--allow-address", "127.0.0.1/32")
}

#[test]
fn compressed_bodies_are_judged_by_what_they_say_and_pass_byte_for_byte() {
    let sidecar = loopback().policy(FORBIDDEN).start();
    let mut expected = Vec::new();
    for coding in CODINGS {
        expected.push(format!("{coding} got True True 403 outcome_blocked"));
        expected.push(format!("{coding} sent heard True 403 blocked 1"));
    }
    expected.push("two members 403 blocked 0".to_owned());
    assert_eq!(found(&sidecar, "judged"), expected);
}

#[test]
fn what_stands_for_a_compressed_body_is_sent_as_it_is() {
    let setup = loopback().policy(crate::support::policies::ALLOW);
    setup.write("policy_rules.yaml", MAILS);
    let sidecar = setup.start();
    let mut expected = Vec::new();
    for coding in CODINGS {
        expected.push(format!("{coding} got True None"));
        expected.push(format!("{coding} sent None b'to <EMAIL_ADDRESS>'"));
    }
    assert_eq!(found(&sidecar, "redacted"), expected);
}
