//! Into the pod: manifests patched by hand, and pods injected as they are made, by the same code.

mod annotations;
mod apart;
mod app;
mod confined;
mod ephemeral;
mod grace;
mod injector;
mod manifest;
mod patch;
mod pod;
mod review;
mod sidecar;
#[cfg(test)]
mod tests;

use std::io;

use super::Streams;

pub(super) use injector::{Args as InjectorArgs, injector};

/// What is done for Kubernetes.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Verb {
    /// Print a manifest with the sidecar in its pods
    Patch(patch::Args),
}

pub(super) fn k8s(verb: &Verb, streams: &mut Streams<'_>) -> io::Result<u8> {
    match verb {
        Verb::Patch(args) => patch::patch(args, streams),
    }
}
