//! The command line: one file per verb, and what verbs share.
//!
//! Verbs write to the streams they are given and answer with an exit code;
//! `main` owns the process.

mod approvals;
mod args;
mod around;
mod audit;
mod audit_export;
mod awaited;
mod banner;
mod ca;
mod check;
mod check_http;
mod child;
mod doctor;
mod dumps;
mod env;
mod halt;
mod health;
mod identity;
mod init_net;
mod k8s;
mod logs;
mod operator_client;
mod policy;
mod privileges;
mod question;
mod report;
mod run;
mod runs;
mod runtime;
mod schema;
mod serve;
mod tail;
mod version;

use std::io::{self, Write};

use clap::{Parser, Subcommand};

use crate::config::Source;

pub use args::Shared;

/// Exit codes that mean something of their own.
pub mod exit {
    /// Everything was done.
    pub const OK: u8 = 0;
    /// It was not done, and the text says why.
    pub const FAILED: u8 = 1;
    /// The run was halted.
    pub const HALTED: u8 = 77;
    /// The configuration has problems (`EX_CONFIG`).
    pub const CONFIG: u8 = 78;
    /// The command was found and cannot be executed.
    pub const NOT_EXECUTABLE: u8 = 126;
    /// The command was not found.
    pub const NOT_FOUND: u8 = 127;
}

/// Governs what an AI agent does to the outside world, from beside it.
#[derive(Debug, Parser)]
#[command(name = "openbox-sidecar", version, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run a command whose network traffic is governed
    Run(run::Args),
    /// Serve agents until told to stop
    Serve(serve::Args),
    /// Check a configuration and tell every problem at once
    Check(check::Args),
    /// Ask the embedded policy, and test what it answers
    #[command(subcommand)]
    Policy(policy::Verb),
    /// Print the environment that sends a program through a serving sidecar
    Env(env::Args),
    /// The certificate authority of this sidecar
    #[command(subcommand)]
    Ca(ca::Verb),
    /// The configuration file
    #[command(subcommand)]
    Config(schema::Verb),
    /// Print the version
    Version,
    /// Ask a serving sidecar whether it is ready
    Health(health::Args),
    /// Find what does not go through the sidecar, and say what to set
    Doctor(doctor::Args),
    /// Begin a command once a serving sidecar is ready
    Await(awaited::Args),
    /// What waits for a person
    #[command(subcommand)]
    Approvals(approvals::Verb),
    /// The runs of agents
    #[command(subcommand)]
    Runs(runs::Verb),
    /// Show what a sidecar does, as it happens
    Tail(tail::Args),
    /// Refuse everything, or everything that one run does
    Halt(halt::Halt),
    /// Let go on what was halted
    Resume(halt::Resume),
    /// Who the agent is to OpenBox Core
    #[command(subcommand)]
    Identity(identity::Verb),
    /// The journal of a sidecar, offline
    #[command(subcommand)]
    Audit(audit::Verb),
    /// Pods with a sidecar
    #[command(subcommand)]
    K8s(k8s::Verb),
    /// The rules of the kernel that send a pod's connections through its sidecar
    #[command(subcommand)]
    InitNet(init_net::Verb),
    /// Serve the admission webhook that puts sidecars into pods
    Injector(k8s::InjectorArgs),
}

/// Where a verb writes.
pub struct Streams<'a> {
    /// What was asked for.
    pub out: &'a mut dyn Write,
    /// Everything else.
    pub err: &'a mut dyn Write,
}

impl std::fmt::Debug for Streams<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Streams")
    }
}

/// Does what `cli` says and answers with the exit code.
///
/// # Errors
/// A stream cannot be written.
pub fn dispatch(cli: Cli, env: &Source, streams: &mut Streams<'_>) -> io::Result<u8> {
    match cli.verb {
        Verb::Run(args) => run::run(args, env, streams),
        Verb::Serve(args) => serve::serve(&args, env, streams),
        Verb::Check(args) => check::check(&args, env, streams),
        Verb::Policy(verb) => policy::policy(&verb, env, streams),
        Verb::Env(args) => env::env(&args, env, streams),
        Verb::Ca(verb) => ca::ca(&verb, env, streams),
        Verb::Config(verb) => schema::schema(&verb, streams),
        Verb::Version => version::version(streams),
        Verb::Health(args) => health::health(&args, env, streams),
        Verb::Doctor(args) => doctor::doctor(&args, env, streams),
        Verb::Await(args) => awaited::awaited(&args, env, streams),
        Verb::Approvals(verb) => approvals::approvals(&verb, env, streams),
        Verb::Runs(verb) => runs::runs(&verb, env, streams),
        Verb::Tail(args) => tail::tail(&args, env, streams),
        Verb::Halt(args) => halt::halt(&args, env, streams),
        Verb::Resume(args) => halt::resume(&args, env, streams),
        Verb::Identity(verb) => identity::identity(&verb, env, streams),
        Verb::Audit(verb) => audit::audit(&verb, env, streams),
        Verb::K8s(verb) => k8s::k8s(&verb, streams),
        Verb::InitNet(verb) => init_net::init_net(&verb, streams),
        Verb::Injector(args) => k8s::injector(&args, streams),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
