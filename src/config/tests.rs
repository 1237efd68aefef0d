//! What a configuration means, and what is told about a bad one.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use super::*;
use crate::gate::{FailMode, Govern, HaltScope, Unasked, Unheld};
use crate::policy::core::{Own, Unsigned, rsa_pem};

fn env(variables: &[(&str, &str)]) -> Source {
    let home = [("HOME", "/home/someone")];
    Source::new(home.iter().chain(variables).copied(), "the-host")
}

fn serve<const N: usize>(
    flags: [(&'static str, &str); N],
    variables: &[(&str, &str)],
) -> Result<Config, Problems> {
    check(&Flags::from(flags), &env(variables), For::Serve)
}

fn places(result: Result<Config, Problems>) -> Vec<String> {
    result
        .unwrap_err()
        .0
        .into_iter()
        .map(|problem| problem.at)
        .collect()
}

/// A file that lives as long as the folder.
fn file(text: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.yaml");
    std::fs::write(&path, text).unwrap();
    (folder, path.to_str().unwrap().to_owned())
}

#[test]
fn the_annotated_file_says_exactly_the_defaults() {
    let (_folder, path) = file(ANNOTATED);
    for purpose in [For::Serve, For::Run] {
        let with = check(
            &Flags::from([("--config", path.as_str())]),
            &env(&[]),
            purpose,
        );
        let without = check(&Flags::default(), &env(&[]), purpose);
        // It says who said it, and that is another.
        let shown = |config: Config| {
            let resolved = Vec::new();
            format!("{:#?}", Config { resolved, ..config })
        };
        assert_eq!(with.map(shown), without.map(shown), "{purpose:?}");
    }
}

#[test]
fn a_credential_that_everybody_can_read_is_warned_of_and_not_shown() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "hush-hush-1").unwrap();
    let secret_at = secret.display();
    let yaml = format!("http: {{credentials: [\"a.test file={secret_at}\"]}}");
    let (_folder, path) = file(&yaml);
    for (mode, warnings) in [(0o600, 0), (0o640, 0), (0o644, 1)] {
        std::fs::set_permissions(&secret, PermissionsExt::from_mode(mode)).unwrap();
        let config = serve([("--config", &path)], &[]).unwrap();
        assert_eq!(config.warnings.len(), warnings, "{mode:o}");
        let told = config.warnings.iter();
        assert!(told.clone().all(|told| told.contains("chmod 600")));
        assert!(!format!("{config:?}").contains("hush"));
    }
}

#[test]
fn the_annotated_file_shows_every_key_with_a_comment() {
    let mut path: Vec<(usize, &str)> = Vec::new();
    let mut keys = Vec::new();
    let mut before = "";
    for line in ANNOTATED.lines() {
        let indent = line.len() - line.trim_start().len();
        if let Some((key, value)) = line
            .trim()
            .split_once(':')
            .filter(|_| !line.trim().starts_with('#'))
        {
            path.retain(|(at, _)| *at < indent);
            path.push((indent, key));
            assert!(
                before.trim().starts_with('#'),
                "{key} has no comment above it"
            );
            if !value.is_empty() {
                let names: Vec<_> = path.iter().map(|(_, name)| *name).collect();
                keys.push(names.join("."));
            }
        }
        before = line;
    }
    let mut known: Vec<_> = documented(&schema()).into_iter().map(|row| row.0).collect();
    keys.sort_unstable();
    known.sort_unstable();
    assert_eq!(keys, known);
}

#[test]
fn the_annotated_file_names_every_flag_and_variable() {
    for setting in SETTINGS {
        for name in setting.env.iter().chain([&setting.flag]) {
            assert!(ANNOTATED.contains(name), "{name} is missing");
        }
    }
}

#[test]
fn the_http_defaults_are_those_of_the_module() {
    let config = serve([], &[]).unwrap();
    let module = http_proxy::Settings::default();
    assert_eq!(format!("{:?}", config.http), format!("{module:?}"));
}

#[test]
fn defaults_are_those_of_the_modules() {
    let config = serve([], &[]).unwrap();
    let PolicyMode::Local(policy) = config.policy else {
        panic!("not local")
    };
    assert_eq!(policy, local::Settings::default());
    let dial = dial::Settings::default();
    assert_eq!(format!("{:?}", config.upstream.dial), format!("{dial:?}"));
}

#[test]
fn a_flag_wins_over_a_variable_and_a_variable_over_the_file() {
    let (_folder, path) =
        file("fail_mode: closed\nlisten: {http: '127.0.0.1:1'}\nlog: {format: json}\n");
    let config = serve(
        [
            ("--config", path.as_str()),
            ("--http-listen", "127.0.0.1:3"),
        ],
        &[
            ("OPENBOX_HTTP_LISTEN", "127.0.0.1:2"),
            ("OPENBOX_GOVERNANCE_POLICY", "fail_open"),
        ],
    )
    .unwrap();
    assert_eq!(
        config.listen.http,
        Listener::At("127.0.0.1:3".parse().unwrap())
    );
    assert_eq!(config.gate.fail_mode, FailMode::Open);
    assert_eq!(config.log.format, LogFormat::Json);
}

#[test]
fn what_is_not_governed_is_warned_about() {
    for (word, govern, warned) in [
        ("both", Govern::Both, ""),
        ("boundary", Govern::Boundary, "what SDKs tell"),
        ("hooks", Govern::Hooks, "over the wire"),
    ] {
        let (_folder, path) = file(&format!("govern: {word}\n"));
        let config = serve([("--config", path.as_str())], &[]).unwrap();
        assert_eq!(config.gate.govern, govern, "{word}");
        let warnings = config.warnings.join("\n");
        assert_eq!(warnings.contains("`govern`"), !warned.is_empty(), "{word}");
        assert!(warnings.contains(warned), "{warnings}");
    }
    let (_folder, path) = file("govern: all\n");
    let problems = serve([("--config", path.as_str())], &[]).unwrap_err();
    let text = format!("{problems:?}");
    assert!(text.contains("boundary, hooks or both"), "{text}");
}

#[test]
fn half_of_a_signer_is_a_problem_and_a_whole_one_is_taken() {
    const DID: &str = "agent_did: did:aip:7b9d6c1e-4f3a-4c55-9a1b-0f6f3b0c2d11";
    const KEY: &str = "agent_public_key: 11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
    for (one, other, problem) in [
        (DID, KEY, ""),
        (DID, "", "no public key"),
        ("", KEY, "no DID"),
        (DID, "agent_public_key: AAAA", "not the base64 of 32 bytes"),
        ("agent_did: me", KEY, "no agent DID"),
    ] {
        let (_folder, path) = file(&format!(
            "sdk:\n  event_bytes_max: 2048\n  {one}\n  {other}\n"
        ));
        let row = format!("{one} {other}");
        match serve([("--config", path.as_str())], &[]) {
            Ok(config) => {
                assert_eq!(problem, "", "{row}");
                let (_, unsigned) = config.sdk.signer.unwrap();
                assert_eq!(unsigned, Unsigned::Rejected, "{row}");
                assert_eq!(config.sdk.served.event_bytes_max, 2_048);
            }
            Err(problems) => {
                let text = format!("{problems:?}");
                assert!(
                    !problem.is_empty() && text.contains(problem),
                    "{row}: {text}"
                );
            }
        }
    }
}

#[test]
fn run_takes_free_ports_and_halts_everything() {
    let config = check(&Flags::default(), &env(&[]), For::Run).unwrap();
    assert_eq!(
        config.listen.operator,
        Listener::At("127.0.0.1:0".parse().unwrap())
    );
    assert_eq!(config.gate.halt_scope, HaltScope::Agent);
    let config = serve([], &[]).unwrap();
    assert_eq!(
        config.listen.operator,
        Listener::At("127.0.0.1:15810".parse().unwrap())
    );
    assert_eq!(config.gate.halt_scope, HaltScope::Run);
}

#[test]
fn every_problem_is_told_at_once_and_names_its_place() {
    let (_folder, path) =
        file("fail_mod: open\nhttp: {hold_within: soon, over_cap: deny}\nhalt_scope: all\n");
    let result = serve(
        [
            ("--config", path.as_str()),
            ("--fail-mode", "ajar"),
            ("--resolve", "a:1=127.0.0.1"),
            ("--resolve", "b"),
            ("--workers", "0"),
        ],
        &[
            ("OPENBOX_ALLOW_ADDRESS", "127.0.0.0/8, nowhere"),
            ("OPENBOX_GOVERNANCE_TIMEOUT", "soon"),
            ("OPENBOX_POLICY", "/nonexistent/p.rego"),
            ("OPENBOX_SKIP_ANYTHING", "x"),
            ("OPENBOX_AGENT_DID", "did:x"),
            ("OPENBOX_AGENT_PRIVATE_KEY", "zqx"),
            ("OPENBOX_HITL_ENABLED", "perhaps"),
            ("OPENBOX_DEBUG", "maybe"),
        ],
    );
    let mut found = places(result);
    found.sort_unstable();
    let mut expected = [
        format!("fail_mod ({path})"),
        format!("http.hold_within ({path})"),
        format!("halt_scope ({path})"),
        "--fail-mode".to_owned(),
        "--resolve".to_owned(),
        "--workers".to_owned(),
        "OPENBOX_ALLOW_ADDRESS".to_owned(),
        "OPENBOX_GOVERNANCE_TIMEOUT".to_owned(),
        "OPENBOX_POLICY".to_owned(),
        "OPENBOX_SKIP_ANYTHING".to_owned(),
        "OPENBOX_AGENT_DID".to_owned(),
        "OPENBOX_AGENT_PRIVATE_KEY".to_owned(),
        "OPENBOX_HITL_ENABLED".to_owned(),
        "OPENBOX_DEBUG".to_owned(),
    ];
    expected.sort_unstable();
    assert_eq!(found, expected);
}

#[test]
fn a_wrong_proxy_is_shown_unless_it_may_have_a_login() {
    for (text, shown) in [
        ("https://me:hunter2@proxy:3128", false),
        ("http://me:hunter2@proxy:3128", false),
        ("http://me:hunter2@proxy", false),
        ("http://me:hunter2/@proxy:3128", false),
        ("me:hunter2@proxy", false),
        ("http://me:hunter 2@proxy:3128", false),
        ("http://proxy", true),
        ("ftp://proxy:1", true),
    ] {
        let told = serve([], &[("OPENBOX_UPSTREAM_PROXY", text)]).unwrap_err();
        let told = told.to_string();
        assert!(told.contains("OPENBOX_UPSTREAM_PROXY"), "{told}");
        assert!(!told.contains("hunter"), "{told}");
        assert_eq!(told.contains(&format!("{text:?}")), shown, "{told}");
    }
    let long = format!("ftp://{}", "x".repeat(9_000));
    let told = serve([], &[("OPENBOX_UPSTREAM_PROXY", &long)]).unwrap_err();
    assert!(told.to_string().len() < 600, "{told}");
}

#[test]
fn a_core_needs_a_url_a_key_and_no_local_policy() {
    let key = ("OPENBOX_API_KEY", "obx_live_secret1");
    let url = ("OPENBOX_URL", "https://core.example");
    let (_folder, policy) = file("package x");
    type Row<'a> = (&'a [(&'a str, &'a str)], &'a [&'a str]);
    let rows: &[Row<'_>] = &[
        (&[url, key], &[]),
        (
            &[("OPENBOX_CORE_URL", "https://core.example"), url, key],
            &[],
        ),
        (
            &[("OPENBOX_CORE_URL", "https://other.example"), url, key],
            &["OPENBOX_URL"],
        ),
        (&[url], &["OPENBOX_API_KEY"]),
        (&[url, ("OPENBOX_API_KEY", "secret1")], &["OPENBOX_API_KEY"]),
        (
            &[("OPENBOX_URL", "http://core.example"), key],
            &["OPENBOX_URL"],
        ),
        (&[("OPENBOX_URL", "http://127.0.0.1:1"), key], &[]),
        (
            &[url, key, ("OPENBOX_POLICY", &policy)],
            &["OPENBOX_POLICY"],
        ),
        (
            &[url, key, ("OPENBOX_API_KEY_FILE", &policy)],
            &["OPENBOX_API_KEY_FILE"],
        ),
        (
            &[url, ("OPENBOX_API_KEY_FILE", "/nonexistent")],
            &["OPENBOX_API_KEY_FILE"],
        ),
    ];
    for (variables, told) in rows {
        let result = serve([], variables);
        let text = format!("{result:?}");
        assert!(!text.contains("secret1"), "{text}");
        match result {
            Ok(config) => {
                assert!(told.is_empty(), "{variables:?}");
                assert!(matches!(config.policy, PolicyMode::Core(_)));
            }
            Err(problems) => assert_eq!(places(Err(problems)), *told, "{variables:?}"),
        }
    }
}

#[test]
fn a_key_file_is_trimmed_bounded_and_complained_about_when_everybody_reads_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    let with = |content: &str, mode: u32| {
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let variables = [
            ("OPENBOX_URL", "https://core.example"),
            ("OPENBOX_API_KEY_FILE", path.to_str().unwrap()),
        ];
        serve([], &variables)
    };
    let config = with("obx_test_abc\n", 0o600).unwrap();
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    let PolicyMode::Core(core) = config.policy else {
        panic!("no Core")
    };
    assert!(!format!("{core:?}").contains("obx_test"));
    let config = with("obx_test_abc", 0o644).unwrap();
    assert!(
        config.warnings[0].contains("chmod 600"),
        "{:?}",
        config.warnings
    );
    assert_eq!(
        places(with(&"x".repeat(5_000), 0o600)),
        ["OPENBOX_API_KEY_FILE"]
    );
}

#[test]
fn the_names_of_the_sdks_work() {
    let config = serve(
        [],
        &[
            ("OPENBOX_URL", "https://core.example"),
            ("OPENBOX_API_KEY", "obx_live_abc"),
            ("OPENBOX_GOVERNANCE_TIMEOUT", "2.5"),
            ("OPENBOX_GOVERNANCE_POLICY", "fail_closed"),
            ("OPENBOX_HTTP_CAPTURE", "false"),
            ("OPENBOX_HITL_ENABLED", "true"),
            ("OPENBOX_VALIDATE", "0"),
            ("OPENBOX_DEBUG", "1"),
        ],
    )
    .unwrap();
    assert_eq!(config.gate.judge_within, Duration::from_millis(2_500));
    assert_eq!(config.gate.fail_mode, FailMode::Closed);
    assert_eq!(config.http.treatment.capture_bytes_max, 0);
    assert_eq!(config.log.filter, "debug");
    let PolicyMode::Core(core) = config.policy else {
        panic!("no Core")
    };
    assert_eq!(
        (core.validate, core.client.answer_within),
        (Validate::Never, Duration::from_millis(2_500))
    );
}

#[test]
fn what_policy_sees_of_one_body_has_room_among_all() {
    #[rustfmt::skip]
    let table: [(&str, &[&str], usize); 7] = [
        // http                                                       wrong                       warnings
        ("bodies_bytes_max: 131072",                                  &[],                        1),
        ("bodies_bytes_max: 131071",                                  &["http.capture_bytes_max"], 0),
        ("bodies_bytes_max: 262144",                                  &[],                        0),
        ("capture_bytes_max: 20971520",                               &[],                        1),
        ("capture_bytes_max: 40000000",                               &["http.capture_bytes_max"], 0),
        ("capture: false, capture_bytes_max: 40000000",               &[],                        0),
        ("capture: false, capture_bytes_max: 40000000, routes: [\"a.test capture=true\"]", &["http.capture_bytes_max"], 0),
    ];
    for (http, wrong, warnings) in table {
        let (_folder, path) = file(&format!("http: {{{http}}}\n"));
        match serve([("--config", &path)], &[]) {
            Ok(config) => {
                assert!(wrong.is_empty(), "{http}");
                assert_eq!(config.warnings.len(), warnings, "{http}");
            }
            Err(problems) => assert_eq!(places(Err(problems)), wrong, "{http}"),
        }
    }
}

#[test]
fn what_the_sdks_leave_out_is_left_out_by_the_same_names() {
    let config = serve([], &[]).unwrap();
    assert_eq!(
        (&config.gate.unasked, &config.gate.unheld),
        (&Unasked::default(), &Unheld::default())
    );
    assert_eq!(config.warnings, [""; 0]);
    let config = serve(
        [],
        &[
            ("OPENBOX_SEND_START_EVENT", "false"),
            ("OPENBOX_SEND_ACTIVITY_START_EVENT", "0"),
            ("OPENBOX_SKIP_WORKFLOW_TYPES", "a, b"),
            ("OPENBOX_SKIP_ACTIVITY_TYPES", "c"),
            ("OPENBOX_SKIP_SIGNALS", "say \"hi\""),
            ("OPENBOX_HITL_ENABLED", "false"),
            ("OPENBOX_SKIP_HITL_ACTIVITY_TYPES", "e,"),
        ],
    )
    .unwrap();
    let names = |names: &[&str]| names.iter().map(|name| Box::from(*name)).collect();
    let unasked = Unasked {
        workflow_starts: true,
        activity_starts: true,
        workflow_types: names(&["a", "b"]),
        activity_types: names(&["c"]),
        signals: names(&[r#""say \"hi\"""#]),
    };
    let unheld = Unheld {
        all: true,
        activity_types: names(&["e"]),
    };
    assert_eq!((config.gate.unasked, config.gate.unheld), (unasked, unheld));
    assert_eq!(config.warnings.len(), 2, "{:?}", config.warnings);
    let (_folder, path) = file(
        "events: {send_start: false, skip_signals: [s, \" \"]}\napprovals: {enabled: false}\n",
    );
    let told = places(serve([("--config", path.as_str())], &[]));
    assert_eq!(told, [format!("events.skip_signals[1] ({path})")]);
}

#[test]
fn what_the_sdks_know_and_this_does_not_do_is_refused_and_not_ignored() {
    #[rustfmt::skip]
    let table = [
        // variable, value, is refused
        ("OPENBOX_SKIP_ANYTHING",             "a",       true),
        ("OPENBOX_SKIP_WORKFLOW_TYPES",       "a, b",    false),
        ("OPENBOX_OKTA_ANYTHING",             "zqx",     true),
        ("OPENBOX_WORKLOAD_ANYTHING",         "zqx",     true),
        ("OPENBOX_SEND_START_EVENT",          "true",    false),
        ("OPENBOX_SEND_START_EVENT",          "false",   false),
        ("OPENBOX_SEND_ACTIVITY_START_EVENT", "perhaps", true),
    ];
    for (name, value, is_refused) in table {
        let result = serve([], &[(name, value)]);
        assert!(!format!("{result:?}").contains("zqx"), "{name}");
        let expected: &[&str] = if is_refused { &[name] } else { &[] };
        let told = result.err().map(|problems| places(Err(problems)));
        assert_eq!(told.unwrap_or_default(), expected, "{name}={value}");
    }
}

#[test]
fn an_agent_signs_with_a_did_and_a_key_or_not_at_all() {
    const DID: (&str, &str) = (
        "OPENBOX_AGENT_DID",
        "did:aip:7b9d6c1e-4f3a-4c55-9a1b-0f6f3b0c2d11",
    );
    const KEY: (&str, &str) = (
        "OPENBOX_AGENT_PRIVATE_KEY",
        "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
    );
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("seed");
    std::fs::write(&path, format!("{}\n", KEY.1)).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let file = ("OPENBOX_AGENT_PRIVATE_KEY_FILE", path.to_str().unwrap());
    type Row<'a> = (&'a [(&'a str, &'a str)], bool, &'a [&'a str]);
    let rows: &[Row<'_>] = &[
        (&[], false, &[]),
        (&[DID, KEY], true, &[]),
        (&[DID, file], true, &[]),
        (&[DID], false, &["OPENBOX_AGENT_DID"]),
        (&[KEY], false, &["OPENBOX_AGENT_PRIVATE_KEY"]),
        (&[file], false, &["OPENBOX_AGENT_PRIVATE_KEY_FILE"]),
        (
            &[DID, KEY, file],
            false,
            &["OPENBOX_AGENT_PRIVATE_KEY_FILE"],
        ),
        (
            &[("OPENBOX_AGENT_DID", "did:web:x"), KEY],
            false,
            &["OPENBOX_AGENT_DID"],
        ),
        (
            &[DID, ("OPENBOX_AGENT_PRIVATE_KEY", "zqxzqx")],
            false,
            &["OPENBOX_AGENT_PRIVATE_KEY"],
        ),
    ];
    for (variables, signs, told) in rows {
        let core = [
            ("OPENBOX_URL", "https://core.example"),
            ("OPENBOX_API_KEY", "obx_test_abc"),
        ];
        let variables: Vec<_> = core.iter().chain(*variables).copied().collect();
        let result = serve([], &variables);
        let text = format!("{result:?}");
        assert!(!text.contains("zqx") && !text.contains(KEY.1), "{text}");
        match result {
            Ok(config) => {
                assert!(told.is_empty(), "{variables:?}");
                let checks = config.sdk.signer.map(|(_, unsigned)| unsigned);
                assert_eq!(checks, signs.then_some(Unsigned::Taken), "{variables:?}");
                let PolicyMode::Core(core) = config.policy else {
                    panic!("no Core")
                };
                assert_eq!(
                    core.client.identity.did().is_some(),
                    *signs,
                    "{variables:?}"
                );
            }
            Err(problems) => assert_eq!(places(Err(problems)), *told, "{variables:?}"),
        }
    }
    let warnings = serve([], &[DID, KEY]).unwrap().warnings;
    assert!(warnings[0].contains("OPENBOX_AGENT_DID"), "{warnings:?}");
}

#[test]
fn an_agent_is_of_okta_or_a_workload_with_all_that_belongs_to_it_or_not_at_all() {
    const NAMES: [(&str, &str); 6] = [
        ("OPENBOX_AGENT_ID", "a"),
        ("OPENBOX_ORGANIZATION_ID", "b"),
        ("OPENBOX_DEPLOYMENT_ID", "c"),
        ("OPENBOX_AGENT_PROOF_AUDIENCE", "d"),
        ("OPENBOX_OKTA_AGENT_ID", "e"),
        ("OPENBOX_OKTA_AGENT_KEY_ID", "f"),
    ];
    const OKTA: &str = "OPENBOX_OKTA_AGENT_PRIVATE_KEY";
    const WORKLOAD: &str = "OPENBOX_WORKLOAD_PRIVATE_KEY";
    const METHOD: &str = "OPENBOX_AGENT_IDENTITY_METHOD";
    const DID: (&str, &str) = (
        "OPENBOX_AGENT_DID",
        "did:aip:7b9d6c1e-4f3a-4c55-9a1b-0f6f3b0c2d11",
    );
    const SEED: (&str, &str) = (
        "OPENBOX_AGENT_PRIVATE_KEY",
        "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
    );
    type Row<'a> = (Vec<(&'a str, &'a str)>, &'a str, &'a [&'a str]);
    let (_folder, path) = file(rsa_pem());
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let pem = rsa_pem();
    let all = |more: &[(&'static str, &'static str)]| [&NAMES, more].concat();
    #[rustfmt::skip]
    let rows: Vec<Row<'_>> = vec![
        // variables, what is shown, what is told
        (vec![(OKTA, pem)],                                "okta workload",  &[]),
        (vec![("OPENBOX_OKTA_AGENT_PRIVATE_KEY_FILE", &path)], "okta workload", &[]),
        (vec![(OKTA, pem), (METHOD, "okta_ai_agent")],     "okta workload",  &[]),
        (vec![(OKTA, pem), ("OPENBOX_OKTA_AGENT_ALGORITHM", "RS256")], "okta workload", &[]),
        (all(&[(OKTA, pem)]),                              "named workload", &[]),
        (vec![(WORKLOAD, pem)],                            "workload",       &[]),
        (vec![("OPENBOX_WORKLOAD_PRIVATE_KEY_FILE", &path)], "workload",     &[]),
        (vec![(WORKLOAD, pem), DID, SEED],                 "did workload",   &[]),
        (vec![DID, SEED, (METHOD, "openbox_did")],         "did",            &[]),
        // Halves, and what does not go together.
        (NAMES.to_vec(),                                   "",               &["OPENBOX_AGENT_ID"]),
        (vec![NAMES[4]],                                   "",               &["OPENBOX_OKTA_AGENT_ID", "OPENBOX_OKTA_AGENT_ID"]),
        ([&NAMES[1..], &[(OKTA, pem)]].concat(),           "",               &["OPENBOX_ORGANIZATION_ID"]),
        (vec![NAMES[5], (OKTA, pem)],                      "",               &["OPENBOX_OKTA_AGENT_KEY_ID"]),
        (vec![(METHOD, "okta_ai_agent")],                  "",               &[METHOD]),
        (vec![(METHOD, "openbox_did")],                    "",               &[METHOD]),
        (vec![(METHOD, "openbox_did"), (OKTA, pem)],       "",               &[METHOD]),
        (vec![(METHOD, "okta_ai_agent"), DID, SEED],       "",               &[METHOD]),
        (vec![(METHOD, "legacy_unsigned")],                "",               &[METHOD]),
        (vec![DID, SEED, (OKTA, pem)],                     "",               &[OKTA]),
        (vec![DID, SEED, NAMES[0]],                        "",               &["OPENBOX_AGENT_ID"]),
        (vec![(OKTA, pem), ("OPENBOX_OKTA_AGENT_ALGORITHM", "ES256")], "",   &["OPENBOX_OKTA_AGENT_ALGORITHM"]),
        (vec![(OKTA, "zqx")],                              "",               &[OKTA]),
        (vec![(WORKLOAD, "zqx")],                          "",               &[WORKLOAD]),
        (vec![("OPENBOX_WORKLOAD_PRIVATE_KEY_FILE", "/nowhere")], "",        &["OPENBOX_WORKLOAD_PRIVATE_KEY_FILE"]),
        (vec![(OKTA, pem), ("OPENBOX_OKTA_AGENT_PRIVATE_KEY_FILE", &path)], "", &["OPENBOX_OKTA_AGENT_PRIVATE_KEY_FILE"]),
    ];
    for (variables, shown, told) in rows {
        let core = [
            ("OPENBOX_URL", "https://core.example"),
            ("OPENBOX_API_KEY", "obx_test_abc"),
        ];
        let names: Vec<_> = variables.iter().map(|(name, _)| *name).collect();
        let result = serve([], &[&core, &*variables].concat());
        let text = format!("{result:?}");
        let line = pem.lines().nth(1).unwrap();
        assert!(!text.contains("zqx") && !text.contains(line), "{names:?}");
        match result {
            Ok(config) => {
                let PolicyMode::Core(core) = config.policy else {
                    panic!("no Core")
                };
                let identity = core.client.identity;
                let mut is: Vec<_> = match &identity.own {
                    Own::Unsigned => vec![],
                    Own::Did(_) => vec!["did"],
                    Own::Okta(okta) if okta.names.is_some() => vec!["named"],
                    Own::Okta(_) => vec!["okta"],
                };
                is.extend(identity.workload.map(|_| "workload"));
                assert_eq!(is.join(" "), shown, "{names:?}");
                assert!(told.is_empty(), "{names:?}");
            }
            Err(problems) => assert_eq!(places(Err(problems)), *told, "{names:?}"),
        }
    }
    let half = serve([], &[NAMES[4], (OKTA, pem)]).unwrap_err();
    let half = half.to_string();
    for (name, _) in NAMES {
        assert!(half.contains(name), "{half}");
    }
    let warnings = serve([], &[(WORKLOAD, pem)]).unwrap().warnings;
    assert!(warnings[0].contains(WORKLOAD), "{warnings:?}");
}

#[test]
fn an_sdk_spelling_stays_in_the_environment() {
    assert_eq!(
        places(serve([("--fail-mode", "fail_open")], &[])),
        ["--fail-mode"]
    );
}

#[test]
fn the_state_folder_is_found_without_being_told() {
    for (variables, folder) in [
        (&[][..], "/home/someone/.local/state/openbox-sidecar"),
        (&[("XDG_STATE_HOME", "/x")][..], "/x/openbox-sidecar"),
        (
            &[("XDG_STATE_HOME", "relative")][..],
            "/home/someone/.local/state/openbox-sidecar",
        ),
        (&[("HOME", "")][..], "/var/lib/openbox-sidecar"),
        (&[("OPENBOX_STATE_DIR", "/s")][..], "/s"),
    ] {
        let config = serve([], variables).unwrap();
        assert_eq!(config.state_dir, PathBuf::from(folder), "{variables:?}");
        assert_eq!(config.journal.folder, config.state_dir);
    }
}

#[test]
fn what_agents_see_is_apart_from_the_state_folder() {
    let config = serve([("--state-dir", "/s")], &[("OPENBOX_SHARE_DIR", "/shared")]).unwrap();
    assert_eq!(config.share_dir, Some(PathBuf::from("/shared")));
    assert_eq!(serve([], &[]).unwrap().share_dir, None);
    for wrong in ["/s", "/s/inside", "/", "relative"] {
        let told = serve([("--state-dir", "/s")], &[("OPENBOX_SHARE_DIR", wrong)]);
        assert_eq!(places(told), ["OPENBOX_SHARE_DIR"], "{wrong}");
    }
}

#[test]
fn the_end_file_is_said_in_full() {
    let said = |path| serve([], &[("OPENBOX_END_FILE", path)]);
    assert_eq!(
        said("/done").unwrap().end_file,
        Some(PathBuf::from("/done"))
    );
    assert_eq!(serve([], &[]).unwrap().end_file, None);
    assert_eq!(places(said("done")), ["OPENBOX_END_FILE"]);
}

#[test]
fn two_listeners_do_not_share_an_address() {
    let told = places(serve([("--agent-listen", "127.0.0.1:15801")], &[]));
    assert_eq!(told, ["listen.agent"]);
    let free = serve(
        [
            ("--agent-listen", "127.0.0.1:0"),
            ("--http-listen", "127.0.0.1:0"),
        ],
        &[],
    );
    assert!(free.is_ok());
    let off = serve([("--agent-listen", "off"), ("--health-listen", "off")], &[]);
    assert!(off.is_ok());
}

#[test]
fn a_listener_that_others_reach_is_warned_about() {
    let config = serve([("--operator-listen", "0.0.0.0:15810")], &[]).unwrap();
    assert!(
        config.warnings[0].contains("operator API"),
        "{:?}",
        config.warnings
    );
    assert!(
        serve([("--health-listen", "0.0.0.0:15820")], &[])
            .unwrap()
            .warnings
            .is_empty()
    );
}

#[test]
fn the_clients_address_is_kept_where_the_kernel_has_kept_it() {
    let (_folder, path) = file("upstream:\n  source: client\n");
    let said = |mode| {
        let env: &[_] = &[("OPENBOX_TRANSPARENT_MODE", mode)];
        serve([("--config", path.as_str())], env)
    };
    assert_eq!(
        said("tproxy").unwrap().upstream.source,
        dial::Source::Client
    );
    assert_eq!(places(said("redirect")), ["upstream.source"]);
    assert_eq!(
        places(said("divert")),
        ["OPENBOX_TRANSPARENT_MODE", "upstream.source"]
    );
    let default = serve([], &[]).unwrap();
    assert_eq!(default.listen.capture, listen::Capture::Redirect);
    assert_eq!(default.upstream.source, dial::Source::Own);
}

#[test]
fn a_file_that_cannot_be_read_is_one_problem() {
    assert_eq!(
        places(serve([("--config", "/nonexistent.yaml")], &[])),
        ["--config"]
    );
    assert_eq!(
        places(serve([], &[("OPENBOX_CONFIG", "/")])),
        ["OPENBOX_CONFIG"]
    );
    let (_folder, path) = file(&"#".repeat(1_100_000));
    assert_eq!(
        places(serve([("--config", path.as_str())], &[])),
        ["--config"]
    );
}
