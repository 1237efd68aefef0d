//! git's smart protocol through the sidecar: bodies that are chunked and compressed by git itself, packs in both
//! directions. What comes of it is what comes of it directly.

use std::collections::HashMap;

use serde_json::Value;

use crate::clients::{python_of_tests, script};
use crate::support::authority::Authority;
use crate::support::process;
use crate::support::sidecar::journal;
use crate::trust::before_a_script;

#[test]
fn git_clones_fetches_and_pushes_as_it_does_directly() {
    let authority = Authority::new();
    let (setup, [port, certificate, key]) = before_a_script(&authority);
    let trusted = setup.write("authority.pem", &authority.pem);
    let folder = setup.folder().join("work").display().to_string();
    let python = python_of_tests().display().to_string();
    let words = [
        &python,
        &script("git_smart.py"),
        &port,
        &certificate,
        &key,
        &trusted,
        &folder,
    ];
    let ended = process::run(&mut setup.run_command(&words.map(String::as_str)));
    assert!(ended.status.success(), "{}\n{}", ended.out, ended.err);
    let ways: HashMap<String, Value> = ended
        .out
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .map(|way| (way["way"].as_str().unwrap().to_owned(), way))
        .collect();
    let direct = &ways["direct"];
    assert_eq!(direct["push"], direct["head"], "{direct}");
    // What is of interest happens at all.
    let framed = direct["framed"].to_string();
    assert!(framed.contains("POST git-receive-pack chunked"), "{framed}");
    assert!(
        framed.contains("POST git-upload-pack length gzip"),
        "{framed}"
    );
    for way in ["http1", "http2"] {
        for what in ["clone", "fetch", "push", "head"] {
            assert_eq!(ways[way][what], direct[what], "{way}: {what}");
        }
    }
    // Over HTTP/1.1 each request is framed as git framed it.
    assert_eq!(ways["http1"]["framed"], direct["framed"]);
    let pushed = format!("https://secure.test:{port}/http1.git/git-receive-pack");
    let journal = journal(&setup.state());
    let of_push = |line: &&Value| line["http_url"] == *pushed && line["record"] == "completion";
    let answered = journal.iter().filter(of_push);
    assert!(answered.clone().all(|line| line["outcome"] == "answered"));
    assert!(answered.count() >= 1);
}
