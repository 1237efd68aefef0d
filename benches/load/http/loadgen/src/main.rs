//! Everything the HTTP load benchmark runs besides the proxies: the origin, the stubs, the client.
//!
//! Every address is a loopback address; anything else is refused, so that a typo cannot load a stranger.

mod client;
mod content;
mod copy;
mod grpc;
mod hold;
mod idle;
mod load;
mod loopback;
mod multiplexed;
mod origin;
mod origin_h2;
mod plan;
mod relay;
mod server;
mod stub;
mod tally;
mod threads;
mod tls;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(
    name = "loadgen",
    about = "Origin, stubs and closed-loop client of the HTTP load benchmark"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write a certificate authority for the intercepting peers: ca.pem, ca-key.pem, ca-bundle.pem
    Ca(tls::CaOptions),
    /// Answer every request with 1,024 bytes or 64 KiB, over HTTP and HTTPS
    Origin(origin::Options),
    /// Stand in for OpenBox Core: the same verdict for every event, at once
    CoreStub(stub::CoreOptions),
    /// Answer 200 to everything, for Envoy's ext_authz
    AuthzStub(stub::AuthzOptions),
    /// Load a proxy, or the origin itself, and print one JSON line
    Load(plan::Options),
    /// Open many requests that are held, and keep them open
    Hold(hold::Options),
    /// Open tunnels, make a request in each, and keep them open
    Idle(idle::Options),
    /// Stand between two TLS connections and do nothing else: what an intercepting proxy cannot avoid
    Relay(relay::Options),
    /// Stand between two TCP connections and copy: what a proxy cannot avoid
    Copy(copy::Options),
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            eprintln!("loadgen: {text}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<(), String> {
    // One thread: the machine's other cores belong to what is measured. What is measured starts its own.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start the runtime: {error}"))?;
    runtime.block_on(async {
        match command {
            Command::Ca(options) => tls::write_ca(&options),
            Command::Origin(options) => origin::run(options).await,
            Command::CoreStub(options) => stub::run_core(options).await,
            Command::AuthzStub(options) => stub::run_authz(options).await,
            Command::Load(options) => load::run(options).await,
            Command::Hold(options) => hold::run(options).await,
            Command::Idle(options) => idle::run(options).await,
            Command::Relay(options) => relay::run(options).await,
            Command::Copy(options) => copy::run(options).await,
        }
    })
}
