//! One fuzzer for every law of `openbox_sidecar::protocols::laws`: which, is
//! what the environment says. `scripts/fuzz.sh` builds it so that it sees which
//! code its bytes reach, and runs it.

#![no_main]

use std::sync::LazyLock;

use openbox_sidecar::protocols::laws::{ALL, Law};

/// The environment variable that names the law.
const NAMES: &str = "OPENBOX_FUZZ_TARGET";

static LAW: LazyLock<&Law> = LazyLock::new(|| {
    let name = std::env::var(NAMES).unwrap_or_default();
    let law = ALL.iter().find(|law| law.name == name);
    law.unwrap_or_else(|| {
        let known: Vec<_> = ALL.iter().map(|law| law.name).collect();
        eprintln!("{NAMES} is {name:?}; expected one of {}", known.join(", "));
        std::process::exit(2)
    })
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| (LAW.check)(bytes));
