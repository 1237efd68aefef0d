//! The command line: one file per verb, and what verbs share.

pub mod child_env;
pub mod env_text;
