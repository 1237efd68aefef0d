//! Policies that cannot be used, and what their authors are told.

use super::*;

fn problem(rego: &str) -> String {
    try_load(&[("policy.rego", rego)], Settings::default())
        .unwrap_err()
        .to_string()
}

#[test]
fn a_load_error_names_file_line_column_and_text() {
    let table = [
        (
            "package p\nresult := {",
            "policy.rego:2:12",
            "expecting expression",
        ),
        (
            "package p\nresult := \"ALLOW\" if input.x ==\n",
            "policy.rego:3:1",
            "expecting expression",
        ),
        ("result := 1\n", "policy.rego:1:1", "package"),
        (
            "package p\nresult := \"ALLOW\" if foo.bar(1)\n",
            "policy.rego:2:",
            "unknown function foo.bar",
        ),
        (
            "package p\nresult := \"ALLOW\" if false\nf(x) := never_there(x)\n",
            "policy.rego:3:",
            "unknown function never_there",
        ),
        (
            "package p\nresult := http.send({\"method\": \"GET\", \"url\": \"http://x\"}).body\n",
            "policy.rego:2:",
            "http.send is not available",
        ),
        (
            "package p\nresult := \"ALLOW\" if opa.runtime().config\n",
            "policy.rego:2:",
            "opa.runtime is not available",
        ),
        (
            "package p\nresult := \"ALLOW\" if startswith(\"a\")\n",
            "policy.rego:2:",
            "takes 2 arguments, 1 are given",
        ),
        (
            "package p\nresult := \"ALLOW\" if f(1, 2, 3)\nf(x) := x\n",
            "policy.rego:2:",
            "takes 1 arguments, 3 are given",
        ),
        (
            "package p\nresult := f(1)\nf(x) := g(x)\ng(x) := f(x)\n",
            "policy.rego:3:",
            "depends on itself: data.p.f -> data.p.g -> data.p.f",
        ),
        (
            "package p\nresult := f(1)\nf(x) := data.p.f(x + 1)\n",
            "policy.rego:3:",
            "depends on itself",
        ),
        (
            "package p\nresult := a\na := b\nb := [x | x := a][0]\n",
            "policy.rego:3:",
            "depends on itself: data.p.a -> data.p.b -> data.p.a",
        ),
        (
            "package p\nresult := x if { x := y; y := x }\n",
            "policy.rego:2:",
            "error: ",
        ),
    ];
    for (rego, place, message) in table {
        let problem = problem(rego);
        assert!(problem.contains(place), "{rego}\n{problem}");
        assert!(problem.contains(message), "{rego}\n{problem}");
        assert!(problem.starts_with("--> "), "{rego}\n{problem}");
    }
}

#[test]
fn names_that_only_look_like_recursion_load() {
    let table = [
        // A local name that a rule has too.
        "package p\nresult := \"ALLOW\" if ok(input.run_id)\nok(host) if host == \"run\"\nhost := \"x\" if ok(\"y\")\n",
        // A rule below another's name.
        "package p\na.b := 1\na.c := data.p.a.b\nresult := \"ALLOW\" if a.c == 1\n",
        // Several definitions of one rule, and `else`.
        "package p\ndefault result := \"BLOCK\"\nresult := \"ALLOW\" if input.run_id\nelse := \"HALT\" if true\n",
        // A function called twice, and through an import.
        "package p\nimport data.p.f as g\nresult := \"ALLOW\" if f(1) == g(1)\nf(x) := x\n",
    ];
    for rego in table {
        assert_eq!(
            verdict(&policy(rego), &operation("GET", "a", "/")),
            Verdict::Allow,
            "{rego}"
        );
    }
}

#[test]
fn every_problem_of_every_file_is_shown_at_once() {
    let files = [
        ("a.rego", "package a\nresult := {\n"),
        ("b.rego", "package b\nresult = [\n"),
        ("c.rego", "package c\nresult := \"ALLOW\"\n"),
    ];
    let error = try_load(&files, Settings::default()).unwrap_err();
    assert_eq!(error.problems().len(), 2, "{error}");
    let files = [("a.rego", "package a\nresult := f(1)\nx := g(1)\n")];
    let error = try_load(&files, Settings::default()).unwrap_err();
    assert_eq!(error.problems().len(), 2, "{error}");
}

#[test]
fn the_whole_text_of_a_load_error_is_a_compilers() {
    let problem = problem("package p\n\nresult := lower(inputs(1))\n");
    let (place, rest) = problem.split_once('\n').unwrap();
    assert!(place.ends_with("policy.rego:3:17"), "{place}");
    assert_eq!(
        rest,
        "  |\n3 | result := lower(inputs(1))\n  |                 ^\nerror: unknown function inputs"
    );
}

#[test]
fn a_folder_without_a_usable_policy_is_an_error() {
    let table: [(&[(&str, &str)], &str); 6] = [
        (&[("readme.txt", "")], "no .rego file"),
        (
            &[(".hidden/p.rego", "package p\nresult := 1\n")],
            "no .rego file",
        ),
        (
            &[("p_test.rego", "package p\nresult := 1\n")],
            "no .rego file",
        ),
        (
            &[("p.rego", "package p\nallow := true\n")],
            "expected   a rule `result` in data.p",
        ),
        (
            &[
                ("p.rego", "package p\nresult := \"ALLOW\"\n"),
                ("data.json", "[1]"),
            ],
            "data must be a JSON object",
        ),
        (
            &[
                ("p.rego", "package p\nresult := \"ALLOW\"\n"),
                ("data.yaml", "a: 1"),
            ],
            "write it as data.json",
        ),
    ];
    for (files, expected) in table {
        let error = try_load(files, Settings::default())
            .unwrap_err()
            .to_string();
        assert!(error.contains(expected), "{error}");
    }
    let missing = LocalPolicy::load(Settings {
        path: Some("/nonexistent/policy.rego".into()),
        ..Settings::default()
    });
    let error = missing.unwrap_err().to_string();
    assert!(
        error.starts_with("/nonexistent/policy.rego: cannot be read"),
        "{error}"
    );
}

#[test]
fn a_keyword_is_not_taken_for_a_name_of_an_old_policy() {
    // Each is wrong in its last line, and each would load as old Rego, with a
    // `result` that does not depend on anything.
    let table = [
        "package p\nresult := \"ALLOW\" if {\n  input.x\n}\ny = 1 { true }\n",
        "package p\nimport future.keywords.in\nresult := \"ALLOW\"\nif { input.x }\ny = 1 { true }\n",
        "package p\nresult := \"ALLOW\"\ncontains { input.x }\n",
    ];
    for rego in table {
        let problem = problem(rego);
        assert!(
            problem.contains("`if` keyword is required"),
            "{rego}\n{problem}"
        );
    }
    // In comments and strings they are only words.
    let old = "package p # if\nresult = \"ALLOW\" { x := \"\\\"if\"; y := `if`; x != y }\n";
    assert_eq!(
        verdict(&policy(old), &operation("GET", "a", "/")),
        Verdict::Allow
    );
}
