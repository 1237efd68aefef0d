//! `k8s patch`: a manifest with the sidecar in its pods, by the code that injects in a cluster.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};

use serde_json::{Value, json};

use crate::cli::{Streams, exit};

use super::annotations::{PREFIX, Refused, Wanted};
use super::manifest;
use super::pod::{Asked, Done, Injection, inject};

/// How the result is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Emit {
    /// The manifest, patched
    Manifest,
    /// A JSON Patch (RFC 6902), for `kubectl patch --type=json`
    Patch,
    /// A Kustomize component with a patch for each object
    Kustomize,
}

/// What is patched, and with what.
#[derive(clap::Args, Debug)]
pub(in crate::cli) struct Args {
    /// Manifest, YAML or JSON; - reads standard input
    #[arg(short, long, value_name = "FILE")]
    filename: String,
    /// What is printed
    #[arg(long, value_enum, default_value = "manifest")]
    emit: Emit,
    /// Settings of an injector, as the chart writes them: image, resources, defaults
    #[arg(long, value_name = "FILE")]
    injection: Option<String>,
    /// Image of the sidecar
    #[arg(long)]
    image: Option<String>,
    /// Annotation that holds where a pod does not say otherwise, such as pg=postgres://orders-db:5432; repeatable
    #[arg(short, long, value_name = "NAME=VALUE")]
    annotation: Vec<String>,
}

pub(super) fn patch(args: &Args, streams: &mut Streams<'_>) -> io::Result<u8> {
    match patched(args, streams.err) {
        Ok(text) => {
            streams.out.write_all(text.as_bytes())?;
            Ok(exit::OK)
        }
        Err(Refused(all)) => {
            for told in all {
                writeln!(streams.err, "openbox-sidecar: {told}")?;
            }
            Ok(exit::FAILED)
        }
    }
}

fn patched(args: &Args, warnings: &mut dyn io::Write) -> Result<String, Refused> {
    let injection = injection(args)?;
    let before = manifest::read(&text(&args.filename)?)?;
    let mut after = before.clone();
    let mut told = Vec::new();
    let mut pods = 0_usize;
    for object in &mut after {
        for pointer in manifest::pods(object) {
            let title = manifest::title(object, &pointer);
            let Some(template) = object.pointer_mut(&pointer) else {
                continue;
            };
            match inject(template, &injection, Asked::ByHand) {
                Ok(Done::Injected(all)) => {
                    pods = pods.saturating_add(1);
                    told.extend(all.iter().map(|one| format!("{title}: {one}")));
                }
                Ok(Done::Left(why)) => told.push(format!("{title} is left as it is: {why}")),
                Err(Refused(all)) => {
                    return Err(Refused(
                        all.iter().map(|one| format!("{title}: {one}")).collect(),
                    ));
                }
            }
        }
    }
    if pods == 0 && told.is_empty() {
        return Err(Refused::one(format!(
            "{}: no pod in it, nor a template of one",
            args.filename
        )));
    }
    for one in told {
        // Standard error that cannot be written is nobody's to tell.
        drop(writeln!(warnings, "openbox-sidecar: {one}"));
    }
    match args.emit {
        Emit::Manifest => documents(&after),
        Emit::Patch => one_patch(&before, &after),
        Emit::Kustomize => kustomize(&before, &after),
    }
}

fn injection(args: &Args) -> Result<Injection, Refused> {
    let mut injection = match &args.injection {
        Some(path) => read_injection(path)?,
        None => Injection::default(),
    };
    if let Some(image) = &args.image {
        image.clone_into(&mut injection.image);
    }
    injection.defaults.extend(annotations(&args.annotation)?);
    Ok(injection)
}

/// Reads the settings of an injector.
///
/// # Errors
/// The file cannot be read, or says something else.
pub(super) fn read_injection(path: &str) -> Result<Injection, Refused> {
    let text = text(path)?;
    let read: Injection =
        serde_norway::from_str(&text).map_err(|error| Refused::one(format!("{path}: {error}")))?;
    Wanted::check_defaults(&read.defaults).map_err(|Refused(told)| {
        Refused(told.iter().map(|one| format!("{path}: {one}")).collect())
    })?;
    Ok(read)
}

fn annotations(all: &[String]) -> Result<BTreeMap<String, String>, Refused> {
    let pair = |text: &String| {
        let (name, value) = text
            .split_once('=')
            .ok_or_else(|| Refused::one(format!("--annotation {text}: it is not NAME=VALUE")))?;
        let name = name.strip_prefix(PREFIX).unwrap_or(name);
        Ok((name.to_owned(), value.to_owned()))
    };
    all.iter().map(pair).collect()
}

fn text(path: &str) -> Result<String, Refused> {
    let mut text = String::new();
    let limit = u64::try_from(manifest::BYTES_MAX)
        .unwrap_or(u64::MAX)
        .saturating_add(1);
    let read = match path {
        "-" => io::stdin().lock().take(limit).read_to_string(&mut text),
        path => File::open(path).and_then(|file| file.take(limit).read_to_string(&mut text)),
    };
    read.map_err(|error| Refused::one(format!("{path}: {error}")))?;
    if text.len() > manifest::BYTES_MAX {
        let told = format!("{path}: it is larger than {} bytes", manifest::BYTES_MAX);
        return Err(Refused::one(told));
    }
    Ok(text)
}

fn yaml(value: &Value) -> Result<String, Refused> {
    serde_norway::to_string(value).map_err(|error| Refused::one(error.to_string()))
}

fn documents(all: &[Value]) -> Result<String, Refused> {
    let all: Result<Vec<_>, _> = all.iter().map(yaml).collect();
    Ok(all?.join("---\n"))
}

/// The objects that were changed, with their patches.
fn patches<'b>(before: &'b [Value], after: &[Value]) -> Vec<(&'b Value, json_patch::Patch)> {
    let pairs = before.iter().zip(after);
    let all = pairs.flat_map(|(before, after)| match (items(before), items(after)) {
        (Some(before), Some(after)) => before.iter().zip(after).collect::<Vec<_>>(),
        _ => vec![(before, after)],
    });
    all.map(|(before, after)| (before, json_patch::diff(before, after)))
        .filter(|(_, patch)| !patch.is_empty())
        .collect()
}

fn items(object: &Value) -> Option<&Vec<Value>> {
    object.get("items")?.as_array()
}

fn one_patch(before: &[Value], after: &[Value]) -> Result<String, Refused> {
    let mut all = patches(before, after);
    match (all.pop(), all.len()) {
        (Some((_, patch)), 0) => Ok(format!("{:#}\n", json!(patch))),
        (None, _) => Ok("[]\n".to_owned()),
        (Some(_), more) => Err(Refused::one(format!(
            "{} objects are changed, and a JSON Patch is for one; --emit kustomize writes one for each",
            more.saturating_add(1)
        ))),
    }
}

fn kustomize(before: &[Value], after: &[Value]) -> Result<String, Refused> {
    let mut listed = Vec::new();
    for (object, patch) in patches(before, after) {
        listed.push(json!({"target": target(object), "patch": yaml(&json!(patch))?}));
    }
    yaml(&json!({
        "apiVersion": "kustomize.config.k8s.io/v1alpha1",
        "kind": "Component",
        "patches": listed,
    }))
}

fn target(object: &Value) -> Value {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
    let (group, version) = match text("/apiVersion").unwrap_or_default().split_once('/') {
        Some((group, version)) => (Some(group), Some(version)),
        None => (None, text("/apiVersion")),
    };
    let parts = [
        ("group", group),
        ("version", version),
        ("kind", text("/kind")),
        ("name", text("/metadata/name")),
        ("namespace", text("/metadata/namespace")),
    ];
    let said = parts
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?.into())));
    Value::Object(said.collect())
}
