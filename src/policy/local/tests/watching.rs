//! Reloading, by hand and by watching.

use std::path::Path;
use std::time::Duration;

use super::*;
use crate::policy::local::{Reloaded, Watcher};

const ALLOW: &str = "package p\nresult := \"ALLOW\"\n";
const BLOCK: &str = "package p\nresult := \"BLOCK\"\n";
const BROKEN: &str = "package p\nresult := {";

fn load(path: &Path) -> LocalPolicy {
    LocalPolicy::load(Settings {
        path: Some(path.to_owned()),
        ..Settings::default()
    })
    .unwrap()
}

fn get() -> Operation {
    operation("GET", "example.com", "/")
}

#[test]
fn a_bad_file_leaves_the_last_good_policy_and_a_good_one_replaces_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("policy.rego");
    std::fs::write(&file, ALLOW).unwrap();
    let policy = load(&file);
    assert_eq!(
        (verdict(&policy, &get()), policy.generation()),
        (Verdict::Allow, 1)
    );
    assert_eq!(policy.reload(), Ok(Reloaded::Unchanged));

    std::fs::write(&file, BROKEN).unwrap();
    let error = policy.reload().unwrap_err().to_string();
    assert!(error.contains("policy.rego:2:12"), "{error}");
    assert_eq!(
        (verdict(&policy, &get()), policy.generation()),
        (Verdict::Allow, 1)
    );

    std::fs::remove_file(&file).unwrap();
    assert!(policy.reload().is_err());
    assert_eq!(verdict(&policy, &get()), Verdict::Allow);

    let hash = policy.hash();
    std::fs::write(&file, BLOCK).unwrap();
    assert_eq!(policy.reload(), Ok(Reloaded::Changed { generation: 2 }));
    let ruling = started(&policy, &get()).unwrap();
    assert_eq!((ruling.verdict, ruling.generation), (Verdict::Block, 2));
    assert_ne!(policy.hash(), hash);
}

#[test]
fn the_starter_policy_needs_no_watcher() {
    let policy = Arc::new(LocalPolicy::load(Settings::default()).unwrap());
    assert!(Watcher::start(policy, Box::new(|_| ())).unwrap().is_none());
}

/// Waits for the watcher to have reloaded, for as long as a slow machine needs.
fn until(policy: &LocalPolicy, expected: Verdict) {
    for _ in 0..1_500 {
        if verdict(policy, &get()) == expected {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("the policy was not reloaded");
}

#[test]
fn a_watched_file_is_reloaded_however_it_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("policy.rego");
    std::fs::write(&file, ALLOW).unwrap();
    let policy = Arc::new(load(&file));
    let watcher = Watcher::start(Arc::clone(&policy), Box::new(|_| ()))
        .unwrap()
        .unwrap();

    std::fs::write(&file, BLOCK).unwrap();
    until(&policy, Verdict::Block);

    std::fs::write(&file, BROKEN).unwrap();
    let other = folder.path().join("policy.rego.new");
    std::fs::write(&other, ALLOW).unwrap();
    std::fs::rename(&other, &file).unwrap();
    until(&policy, Verdict::Allow);

    drop(watcher);
    assert_eq!(Arc::strong_count(&policy), 1, "the thread is gone");
}

#[test]
#[cfg(unix)]
fn a_config_map_is_reloaded_when_its_link_is_swapped() {
    use std::os::unix::fs::symlink;
    let mount = tempfile::tempdir().unwrap();
    let root = mount.path();
    for (name, text) in [("..1", ALLOW), ("..2", BLOCK)] {
        std::fs::create_dir(root.join(name)).unwrap();
        std::fs::write(root.join(name).join("policy.rego"), text).unwrap();
    }
    symlink("..1", root.join("..data")).unwrap();
    symlink("..data/policy.rego", root.join("policy.rego")).unwrap();
    for path in [root.to_owned(), root.join("policy.rego")] {
        let policy = Arc::new(load(&path));
        assert_eq!(policy.rules(), 1, "hidden folders are not read");
        let _watcher = Watcher::start(Arc::clone(&policy), Box::new(|_| ()))
            .unwrap()
            .unwrap();
        symlink("..2", root.join("..data_tmp")).unwrap();
        std::fs::rename(root.join("..data_tmp"), root.join("..data")).unwrap();
        until(&policy, Verdict::Block);
        symlink("..1", root.join("..data_tmp")).unwrap();
        std::fs::rename(root.join("..data_tmp"), root.join("..data")).unwrap();
        until(&policy, Verdict::Allow);
    }
}

#[test]
fn a_folder_that_is_replaced_is_still_watched() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("policies");
    let put = |at: &Path, text: &str| {
        std::fs::create_dir(at).unwrap();
        std::fs::write(at.join("p.rego"), text).unwrap();
    };
    put(&folder, ALLOW);
    let policy = Arc::new(load(&folder));
    let _watcher = Watcher::start(Arc::clone(&policy), Box::new(|_| ()))
        .unwrap()
        .unwrap();
    let next = parent.path().join("next");
    put(&next, BLOCK);
    std::fs::rename(&folder, parent.path().join("old")).unwrap();
    std::fs::rename(&next, &folder).unwrap();
    until(&policy, Verdict::Block);
    std::fs::write(folder.join("p.rego"), ALLOW).unwrap();
    until(&policy, Verdict::Allow);
}
