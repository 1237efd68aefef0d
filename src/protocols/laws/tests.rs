//! The laws, for what fuzzing has found worth keeping and for random bytes.

use std::path::PathBuf;

use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

use super::ALL;

/// Cases of a law that are random, and the longest of them, bytes.
const ROUNDS: u64 = 1_500;
const BYTES_MAX: usize = 400;

fn corpus(name: &str) -> Vec<PathBuf> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let folder = root.join("tests/fuzz/corpus").join(name);
    let files = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{folder:?} is empty");
    files
}

/// Prints what broke the law, in the form `tests/fuzz` takes it in.
fn check(name: &str, what: &str, bytes: &[u8]) {
    let law = ALL.iter().find(|law| law.name == name).unwrap();
    let held = std::panic::catch_unwind(|| (law.check)(bytes));
    if let Err(broken) = held {
        eprintln!("{name} does not hold for {what}: {bytes:?}");
        std::panic::resume_unwind(broken);
    }
}

fn holds(name: &str) {
    for file in corpus(name) {
        let bytes = std::fs::read(&file).unwrap();
        check(name, &file.display().to_string(), &bytes);
    }
    for seed in 0..ROUNDS {
        let mut random = StdRng::seed_from_u64(seed);
        let mut bytes = vec![0; random.random_range(0..BYTES_MAX)];
        random.fill_bytes(&mut bytes);
        check(name, &format!("seed {seed}"), &bytes);
    }
}

#[test]
fn what_is_read_from_a_statement_obeys_its_laws() {
    holds("sql");
}

#[test]
fn pg_27_messages_of_postgres_obey_their_laws() {
    holds("postgres_codec");
}

#[test]
fn pg_38_a_client_hears_what_a_server_would_tell_it_that_judges_for_itself() {
    holds("postgres_machine");
}

#[test]
fn my_22_my_23_packets_of_mysql_obey_their_laws() {
    holds("mysql_codec");
}

#[test]
fn my_9_my_25_c_2_a_client_hears_what_a_server_of_mysql_would_tell_it_that_judges_for_itself() {
    holds("mysql_machine");
}

#[test]
fn rd_1_messages_of_redis_obey_their_laws() {
    holds("redis_codec");
}

#[test]
fn rd_2_a_client_hears_what_a_server_would_tell_it_that_judges_for_itself() {
    holds("redis_machine");
}

#[test]
fn every_law_has_a_corpus_and_every_corpus_a_law() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let folders = std::fs::read_dir(root.join("tests/fuzz/corpus")).unwrap();
    let mut folders: Vec<_> = folders
        .map(|folder| folder.unwrap().file_name().into_string().unwrap())
        .collect();
    let mut laws: Vec<_> = ALL.iter().map(|law| law.name.to_owned()).collect();
    folders.sort();
    laws.sort();
    assert_eq!(folders, laws);
}
