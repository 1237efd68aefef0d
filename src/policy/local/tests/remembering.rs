//! A remembered verdict is the verdict, or there is no memory.

use super::*;
use crate::domain::Headers;

/// Policies whose reads are proved, and what they read.
const TRACKED: [(&str, &[&str]); 33] = [
    (
        "result := \"BLOCK\" if input.spans[0].http_method == \"GET\"",
        &["Method"],
    ),
    (
        "result := \"BLOCK\" if input.spans[_].http_method == \"GET\"",
        &["Method"],
    ),
    (
        "result := \"BLOCK\" if input[\"spans\"][0][\"http_method\"] == \"GET\"",
        &["Method"],
    ),
    (
        "result := \"BLOCK\" if { some s in input.spans; s.http_method == \"GET\" }",
        &["Method"],
    ),
    (
        "result := \"BLOCK\" if { some i; input.spans[i].name == \"GET\" }",
        &["SpanName"],
    ),
    (
        "result := \"BLOCK\" if { s := input.spans[0]; a := s.attributes; a[\"url.path\"] == \"/b\" }",
        &["Path"],
    ),
    (
        "result := \"BLOCK\" if { i := input; s := i.spans; s[0].http_url == \"https://a/a?q=1\" }",
        &["Url"],
    ),
    (
        "result := \"BLOCK\" if { every s in input.spans { s.http_method == \"PUT\" } }",
        &["Method"],
    ),
    (
        "result := \"BLOCK\" if not input.spans[0].error",
        &["Error"],
    ),
    (
        "result := \"BLOCK\" if input.spans[0].status.code == \"ERROR\"",
        &["StatusWord"],
    ),
    (
        "result := \"BLOCK\" if input.spans[0].http_status_code >= 400",
        &["StatusCode"],
    ),
    (
        "result := \"BLOCK\" if { f(input.spans[0].http_method) }\nf(x) if x == \"GET\"",
        &["Method"],
    ),
    (
        "result := \"BLOCK\" if method == \"GET\"\nmethod := input.spans[0].http_method",
        &["Method"],
    ),
    (
        "result := \"BLOCK\" if count([m | some s in input.spans; m := s.http_method; m == \"GET\"]) > 0",
        &["Method"],
    ),
    (
        "result := \"BLOCK\" if \"GET\" in {m | m := input.spans[_].http_method}",
        &["Method"],
    ),
    (
        "result := \"BLOCK\" if data.p.hosts[input.spans[0].attributes[\"server.address\"]]\nhosts := {\"b\"}",
        &["Host"],
    ),
    (
        "result := \"BLOCK\" if input.spans[0].request_headers[\"x-team\"] == \"blue, green\"",
        &["request header x-team"],
    ),
    (
        "result := \"BLOCK\" if { h := input.spans[0].response_headers; h.etag == \"1\" }",
        &["response header etag"],
    ),
    // Only that there is an answer matters, and the key knows that by itself.
    (
        "result := \"BLOCK\" if { h := input.spans[0].response_headers; true }",
        &[],
    ),
    (
        "result := \"BLOCK\" if contains(input.spans[0].response_body, \"b\")",
        &["ResponseBody contains \"b\""],
    ),
    (
        "result := \"BLOCK\" if not contains(input.spans[0].http_url, `/b`)",
        &["Url contains \"/b\""],
    ),
    (
        "result := \"BLOCK\" if { s := input.spans[0]; contains(s.response_body, \"b\"); s.response_body == \"b\" }",
        &["ResponseBody"],
    ),
    (
        "result := \"BLOCK\" if contains(input.spans[0].http_url, input.spans[0].http_method)",
        &["Method", "Url"],
    ),
    (
        "result := \"BLOCK\" if contains(input.activity_input[0].id, \"1\")",
        &["ActivityInput contains \"1\""],
    ),
    (
        "result := \"BLOCK\" if contains(lower(input.spans[0].response_body), \"b\")",
        &["ResponseBody"],
    ),
    (
        "result := \"BLOCK\" if input.activity_input[0].id == 1",
        &["ActivityInput"],
    ),
    (
        "result := \"BLOCK\" if input.spans[0].db_reading.class == \"write\"",
        &["db_reading.class"],
    ),
    (
        "result := \"BLOCK\" if { some f in input.spans[0].db_reading.flags; f == \"no_where\" }",
        &["db_reading.flags"],
    ),
    (
        "result := \"BLOCK\" if { r := input.spans[0].db_reading.relations; r[0].name == \"a\" }",
        &["db_reading.relations"],
    ),
    (
        "result := \"BLOCK\" if { r := input.spans[0].db_reading; r[\"class\"] == \"write\" }",
        &["Told(DatabaseReading)"],
    ),
    (
        "result := \"BLOCK\" if { some k; input.spans[0].db_reading[k] == \"write\" }\nelse := \"HALT\" if input.spans[0].db_reading.class == \"x\"",
        &["Told(DatabaseReading)"],
    ),
    (
        "result := \"BLOCK\" if { input.event_type == \"ActivityStarted\"; input.operation.type == \"x\"; input.spans[0].stage == \"started\" }",
        &[],
    ),
    (
        "result := \"BLOCK\" if input.spans[count({m | m := input.spans[0].http_method; m == \"GET\"}) - 1].span_count == 1\nelse := \"HALT\" if input.spans[count({m | m := input.spans[0].http_method; m == \"GET\"}) - 1].hook_type == \"http_request\"",
        &["HookType", "Method"],
    ),
];

/// Policies whose reads are not proved, with a part of the reason.
const UNTRACKED: [(&str, &str); 30] = [
    (
        "result := \"BLOCK\" if input == {\"a\": 1}",
        "`input` is used as a whole",
    ),
    (
        "result := \"BLOCK\" if { some k; input[k] == \"run\" }",
        "known only at run time",
    ),
    (
        "result := \"BLOCK\" if { x := \"run_id\"; input[x] == \"run\" }",
        "known only at run time",
    ),
    (
        "result := \"BLOCK\" if { i := input; x := \"run_id\"; i[x] == \"run\" }",
        "known only at run time",
    ),
    (
        "result := \"BLOCK\" if { some s in input.spans; x := \"http_method\"; s[x] == \"GET\" }",
        "known only at run time",
    ),
    (
        "result := \"BLOCK\" if { some k, v in input; v == \"run\" }",
        "`input` is used as a whole",
    ),
    (
        "result := \"BLOCK\" if { some v in input.spans[0]; v == \"GET\" }",
        "is used as a whole",
    ),
    (
        "result := \"BLOCK\" if { some v in input.spans[0].attributes; v == \"GET\" }",
        "is used as a whole",
    ),
    (
        "result := \"BLOCK\" if { some k, s in input.spans; s.http_method == \"GET\" }",
        "is used as a whole",
    ),
    (
        "result := \"BLOCK\" if { every k, v in input.spans[0] { v != \"GET\" } }",
        "is used as a whole",
    ),
    (
        "result := \"BLOCK\" if f(input)\nf(x) if x.spans[0].http_method == \"GET\"",
        "`input` is used as a whole",
    ),
    (
        "result := \"BLOCK\" if f(input.spans[0])\nf(x) if x.http_method == \"GET\"",
        "is used as a whole",
    ),
    (
        "result := \"BLOCK\" if object.get(input, \"run_id\", \"\") == \"run\"",
        "`input` is used as a whole",
    ),
    (
        "result := \"BLOCK\" if { walk(input, [_, v]); v == \"GET\" }",
        "`input` is used as a whole",
    ),
    (
        "result := \"BLOCK\" if { s = input.spans[0]; s.http_method == \"GET\" }",
        "is used as a whole",
    ),
    (
        "result := \"BLOCK\" if { [s] := input.spans; s.http_method == \"GET\" }",
        "is used as a whole",
    ),
    (
        "result := \"BLOCK\" if { [a, s] := [1, input.spans[0]]; s.http_method == \"GET\" }",
        "is used as a whole",
    ),
    (
        "result := \"BLOCK\" if span.http_method == \"GET\"\nspan := input.spans[0]",
        "is used as a whole",
    ),
    (
        "result := \"BLOCK\" if { s := [x | x := input.spans[0]][0]; s.http_method == \"GET\" }",
        "is used as a whole",
    ),
    (
        "result := \"BLOCK\" if { s := {\"a\": input.spans[0]}; s.a.http_method == \"GET\" }",
        "is used as a whole",
    ),
    (
        "result := \"BLOCK\" if { s := input.spans[0]; t := s; json.marshal(t) != \"\" }",
        "is used as a whole",
    ),
    (
        "import input.spans as s\nresult := \"BLOCK\" if s[0].http_method == \"GET\"",
        "it imports input",
    ),
    (
        "result := \"BLOCK\" if { input.run_id == \"run\" with input as {\"run_id\": \"run\"} }",
        "it uses `with`",
    ),
    (
        "result := \"BLOCK\" if time.now_ns() % 2 == 0",
        "time.now_ns does not depend on input alone",
    ),
    (
        "result := \"BLOCK\" if uuid.rfc4122(\"a\") > \"8\"",
        "uuid.rfc4122 does not depend",
    ),
    (
        "result := \"BLOCK\" if input.spans[0].span_id > \"8\"",
        "is new with every operation",
    ),
    (
        "result := \"BLOCK\" if { s := input.spans[0]; s.http_method == \"GET\"; count([1 | s := {1}]) == 1 }",
        "for something else",
    ),
    (
        "result := \"BLOCK\" if { x := \"url.path\"; input.spans[0].attributes[x] == \"/a\" }",
        "known only at run time",
    ),
    (
        "result := \"BLOCK\" if { x := \"x-team\"; input.spans[0].request_headers[x] == \"red\" }",
        "known only at run time",
    ),
    (
        "result := \"BLOCK\" if { some v in input; v.http_method == \"GET\" }",
        "is used as a whole",
    ),
];

fn rego(body: &str) -> String {
    let (imports, rules) = match body.split_once('\n') {
        Some((import, rules)) if import.starts_with("import") => (import, rules),
        _ => ("", body),
    };
    format!("package p\n{imports}\ndefault result := \"ALLOW\"\n{rules}\n")
}

#[test]
fn what_a_policy_reads_is_found() {
    for (body, expected) in TRACKED {
        assert_eq!(
            policy(&rego(body)).reads().as_deref(),
            Ok(&*strings(expected)),
            "{body}"
        );
    }
}

#[test]
fn what_is_not_understood_turns_the_memory_off_and_says_why() {
    for (body, expected) in UNTRACKED {
        let Ok(policy) = try_load(&[("policy.rego", &rego(body))], Settings::default()) else {
            panic!("{body} does not load");
        };
        let why = policy.reads().unwrap_err();
        assert!(why.contains(expected), "{body}: {why}");
        assert!(why.contains("policy.rego:"), "{body}: {why}");
        assert!(policy.describe().contains(&why), "{body}");
    }
}

#[test]
fn a_name_input_of_an_old_policys_own_turns_the_memory_off() {
    for body in [
        "result = \"BLOCK\" { some input; input = 3 }",
        "result = \"BLOCK\" { f(3) }\nf(input) { input == 3 }",
    ] {
        let why = policy(&format!("package p\n{body}\n")).reads().unwrap_err();
        assert!(
            why.contains("`input` or `data` of its own"),
            "{body}: {why}"
        );
    }
}

/// Operations that differ in one respect at a time, and some in several.
fn operations() -> Vec<(Operation, Option<Completion>)> {
    let mut all = Vec::new();
    for method in ["GET", "POST", "PUT"] {
        for host in ["a", "b", "api.openai.com"] {
            for path in ["/a", "/b"] {
                let plain = operation(method, host, path);
                let mut inside = plain.clone();
                inside.context = context(Some(activity("[{\"id\": 1}]")));
                let mut other = plain.clone();
                other.context = context(Some(activity("[{\"id\": 2}]")));
                let mut headers = Headers::default();
                headers.push("X-TEAM", "blue, green");
                let mut one_header = plain.clone();
                call(&mut one_header).headers = headers;
                let mut no_header = plain.clone();
                call(&mut no_header).headers = Headers::default();
                let mut body = plain.clone();
                call(&mut body).body = text("b");
                for operation in [plain, inside, other, one_header, no_header, body] {
                    let mut completions = vec![None, Some(failed())];
                    for status in [200, 404] {
                        for body in ["", "a", "b"] {
                            completions.push(Some(answered(status, text(body))));
                        }
                    }
                    let mut tagged = answered(200, text(""));
                    if let Some(Answer::Http(answer)) = &mut tagged.answer {
                        answer.headers.push("ETag", "1");
                    }
                    completions.push(Some(tagged));
                    all.extend(completions.into_iter().map(|c| (operation.clone(), c)));
                }
            }
        }
    }
    for verb in ["SELECT", "DELETE"] {
        for rest in ["FROM a", "FROM b"] {
            for rows in [None, Some(1), Some(2)] {
                let answer = Answer::Database(DatabaseAnswer { rows });
                all.push((statement(verb, rest), Some(done(answer))));
            }
            all.push((statement(verb, rest), None));
        }
    }
    all.extend(readings().map(|reading| {
        let mut read = statement("UPDATE", "a");
        if let Action::Database(call) = &mut read.action {
            call.reading = Some(JsonText(reading.into()));
        }
        (read, None)
    }));
    all.push((function("[1]"), None));
    for attributes in ["{}", r#"{"url.path": "/b"}"#] {
        let mut told = function("[1]");
        told.reported = reported("GET", attributes);
        all.push((told, None));
    }
    all
}

/// What the sidecar may have read of a statement; the last two as nobody writes it.
fn readings() -> impl Iterator<Item = String> {
    let mut all = Vec::new();
    for class in ["read", "write", "schema"] {
        for relation in ["a", "b", r#"\",\"class\":\"read"#] {
            for flags in ["", r#""no_where""#, r#""no_where","program""#] {
                all.push(format!(
                    r#"{{"class":"{class}","verbs":["UPDATE"],"relations":[{{"name":"{relation}"}}],"functions":[],"flags":[{flags}]}}"#
                ));
            }
        }
    }
    all.push(r#"{"cl\u0061ss":"write","flags":[]}"#.to_owned());
    all.push(r#"{"class":"read","class":"write","flags":[]}"#.to_owned());
    all.into_iter()
}

#[test]
fn statements_alike_in_what_a_policy_reads_of_them_are_evaluated_once() {
    let policy = policy(&rego(
        "result := \"BLOCK\" if input.spans[0].db_reading.class == \"write\"",
    ));
    let judged = |reading: &str| {
        let mut read = statement("UPDATE", "a");
        if let Action::Database(call) = &mut read.action {
            call.reading = Some(JsonText(reading.into()));
        }
        started(&policy, &read).unwrap()
    };
    let first = judged(r#"{"class":"write","relations":["a"]}"#);
    let alike = judged(r#"{"class":"write","relations":["b"]}"#);
    assert!(Arc::ptr_eq(&first, &alike));
    let other = judged(r#"{"class":"read","relations":["a"]}"#);
    assert_ne!(first.verdict, other.verdict);
}

#[test]
fn what_a_hook_told_is_never_remembered() {
    let policy = policy(&rego(TRACKED[0].0));
    let mut operation = function("[1]");
    operation.reported = reported("charge", "{}");
    let first = started(&policy, &operation).unwrap();
    assert!(!Arc::ptr_eq(&first, &started(&policy, &operation).unwrap()));
    operation.reported = None;
    let first = started(&policy, &operation).unwrap();
    assert!(Arc::ptr_eq(&first, &started(&policy, &operation).unwrap()));
}

#[test]
fn with_memory_and_without_every_verdict_is_the_same() {
    let operations = operations();
    let starter = include_str!("../../../../config/policies/starter.rego").to_owned();
    let bodies = TRACKED.iter().map(|(body, _)| rego(body));
    for text in bodies.chain([starter]) {
        let with = policy(&text);
        assert!(with.reads().is_ok(), "{text}");
        // A rule that nobody asks, but which reads everything: no memory, and
        // whole documents.
        let without = policy(&format!("{text}\nwhole := input\n"));
        assert!(without.reads().is_err());
        // Twice, and the second time backwards: whatever was remembered first
        // must not answer for anything else.
        for (operation, completion) in operations.iter().chain(operations.iter().rev()) {
            let question = match completion {
                None => Question::Started(operation),
                Some(completion) => Question::Completed(operation, completion),
            };
            assert_eq!(
                judge(&with, question),
                judge(&without, question),
                "{text}\n{question:?}"
            );
        }
    }
}

#[test]
fn the_same_question_is_evaluated_once() {
    let policy = policy(&rego(TRACKED[0].0));
    let operation = operation("GET", "a", "/");
    let first = started(&policy, &operation).unwrap();
    let mut later = operation.clone();
    later.id = OperationId::new(9, 9);
    later.started_at = Timestamp(9);
    assert!(Arc::ptr_eq(&first, &started(&policy, &later).unwrap()));
}

#[test]
fn a_memory_of_no_bytes_is_none() {
    let settings = Settings {
        memory_bytes_max: 0,
        evaluate_within: std::time::Duration::from_secs(30),
        ..Settings::default()
    };
    let policy = policy_with(&rego(TRACKED[0].0), settings);
    let operation = operation("GET", "a", "/");
    let first = started(&policy, &operation).unwrap();
    assert!(!Arc::ptr_eq(&first, &started(&policy, &operation).unwrap()));
    assert!(policy.describe().contains("it is turned off"));
}

#[test]
fn an_error_is_not_remembered_and_a_long_body_is_not_a_key() {
    let policy = policy(&rego(
        "result := \"BLOCK\" if startswith(input.spans[0].request_body, \"x\")",
    ));
    let mut operation = operation("POST", "a", "/");
    for (length, remembered) in [(4 << 10, true), ((4 << 10) + 1, false)] {
        call(&mut operation).body = text(&"y".repeat(length));
        let first = started(&policy, &operation).unwrap();
        let again = started(&policy, &operation).unwrap();
        assert_eq!(Arc::ptr_eq(&first, &again), remembered, "{length}");
    }
}

#[test]
fn bodies_of_any_length_are_alike_where_a_policy_finds_the_same_in_them() {
    let policy = policy(&rego(
        "result := \"BLOCK\" if contains(input.spans[0].request_body, \"secret\")",
    ));
    let mut operation = operation("POST", "a", "/");
    let mut judged = |body: String| {
        call(&mut operation).body = text(&body);
        started(&policy, &operation).unwrap()
    };
    let [a, b] = ["a", "b"].map(|one| judged(one.repeat(100_000)));
    let [c, d] = ["c", "d"].map(|one| judged(one.repeat(100_000) + "secret"));
    assert!(Arc::ptr_eq(&a, &b) && Arc::ptr_eq(&c, &d));
    assert_eq!((a.verdict, c.verdict), (Verdict::Allow, Verdict::Block));
}

#[test]
fn a_memory_stays_within_its_bytes() {
    let policy = policy_with(
        &rego("result := \"BLOCK\" if input.spans[0].http_url == \"x\""),
        Settings {
            memory_bytes_max: 64 << 10,
            evaluate_within: std::time::Duration::from_secs(30),
            ..Settings::default()
        },
    );
    for n in 0..2_000 {
        let operation = operation("GET", "a", &format!("/{n}"));
        started(&policy, &operation).unwrap();
    }
    let loaded = policy.current.load();
    let memory = loaded.memory.as_ref().unwrap();
    // An entry is never lighter than what holds it.
    assert!((10..256).contains(&memory.len()), "{}", memory.len());
    assert!(memory.weight() <= 64 << 10, "{}", memory.weight());
}

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}
