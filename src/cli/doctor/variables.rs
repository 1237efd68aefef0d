//! The variables by which programs find the sidecar and trust it, compared with what `run` would set.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;

use crate::app::child_env::{self, Agent, Given, Proxy, Purpose, value_of};
use crate::app::env_text::sh_quoted;
use crate::net::trust;

use super::super::operator_client::shown;
use super::finding::{Finding, Report, Weight};
use super::sidecar::{Sidecar, parts_of, place_of};

type Variables = [(OsString, OsString)];

/// All that a JVM heeds.
const JVM: &str = "JAVA_TOOL_OPTIONS";

/// A variable and what it should be.
type Wanted = (String, String);

pub(super) fn look(sidecar: &Sidecar, parent: &Variables, report: &mut Report) {
    let wanted = wanted(sidecar, parent);
    let mut missing: BTreeMap<Purpose, Vec<Wanted>> = BTreeMap::new();
    let mut files: BTreeMap<OsString, Vec<Wanted>> = BTreeMap::new();
    for (name, value) in wanted {
        let Some(purpose) = Purpose::of(&name) else {
            continue;
        };
        let is = value_of(parent, &name).filter(|is| !is.is_empty());
        match (purpose, is) {
            (_, None) => missing.entry(purpose).or_default().push((name, value)),
            (Purpose::Authorities, Some(file)) => {
                files
                    .entry(file.to_owned())
                    .or_default()
                    .push((name, value));
            }
            (Purpose::Proxy, Some(is)) => elsewhere(sidecar, (&name, &value), is, report),
            (Purpose::Jvm, Some(is)) => of_jvm(sidecar, &value, is, report),
            (Purpose::Tool | Purpose::Api, Some(is)) => {
                other(sidecar, purpose, (&name, &value), is, report);
            }
            (Purpose::Bypass, Some(is)) => without_loopback(&name, &value, is, report),
        }
    }
    for (purpose, all) in missing {
        let finding = unset(purpose, &all);
        match purpose {
            Purpose::Proxy | Purpose::Tool | Purpose::Jvm => report.add_way_past(finding),
            Purpose::Bypass | Purpose::Authorities | Purpose::Api => report.add(finding),
        }
    }
    for (file, all) in files {
        of_authorities(sidecar, &file, &all, report);
    }
}

/// What `run` would have its child have, secrets left out; of a JVM's options those alone that it adds.
fn wanted(sidecar: &Sidecar, parent: &Variables) -> Vec<Wanted> {
    let told = &sidecar.told;
    // What is there may say passwords, which are not ours to print.
    let mut parent = parent.to_vec();
    parent.retain(|(name, _)| name != JVM);
    let given = Given {
        proxy: Some(Proxy {
            address: sidecar.proxy,
            ca: &told.ca,
            bundle: &told.bundle,
            java_store: Some(&told.java_store),
        }),
        agent: told.agent.map(|listen| Agent {
            address: Some(sidecar.reached(listen)),
            socket: None,
            token: None,
        }),
        databases: &[],
    };
    let changes = child_env::changes(&parent, &given).into_iter();
    changes
        .filter_map(|change| {
            Some((
                change.name.into_string().ok()?,
                change.value?.into_string().ok()?,
            ))
        })
        .collect()
}

/// Lines of a shell that have a JVM go through the sidecar and trust it.
pub(super) fn java(sidecar: &Sidecar, parent: &Variables) -> Vec<String> {
    let mut wanted = wanted(sidecar, parent);
    wanted.retain(|(name, _)| Purpose::of(name) == Some(Purpose::Jvm));
    match value_of(parent, JVM) {
        Some(is) if !is.is_empty() => wanted.iter().map(|(_, ours)| added(ours)).collect(),
        _ => exports(&wanted),
    }
}

/// The line of a shell that adds `ours` to a JVM's options. They come last, as the last wins.
fn added(ours: &str) -> String {
    format!("export {JVM}=\"${JVM} \"{}", sh_quoted(ours))
}

/// Lines of a shell that set these, those of one value together.
pub(super) fn exports(wanted: &[Wanted]) -> Vec<String> {
    let mut lines: Vec<(&str, String)> = Vec::new();
    for (name, value) in wanted {
        let word = format!(" {name}={}", sh_quoted(value));
        match lines.iter_mut().find(|(known, _)| known == value) {
            Some((_, line)) => line.push_str(&word),
            None => lines.push((value, format!("export{word}"))),
        }
    }
    lines.into_iter().map(|(_, line)| line).collect()
}

fn names(wanted: &[Wanted]) -> String {
    let names: Vec<&str> = wanted.iter().map(|(name, _)| &**name).collect();
    names.join(", ")
}

fn are(all: &[Wanted]) -> &'static str {
    if all.len() == 1 { "is" } else { "are" }
}

fn unset(purpose: Purpose, all: &[Wanted]) -> Finding {
    let (weight, code, why) = match purpose {
        Purpose::Proxy => (
            Weight::Finding,
            "proxy_unset",
            "programs that find their proxy by them connect past the sidecar",
        ),
        Purpose::Authorities => (
            Weight::Finding,
            "authorities_unset",
            "programs that find whom to trust by them refuse the sidecar's certificates, so their https fails",
        ),
        Purpose::Tool => (
            Weight::Finding,
            "tool_unset",
            "Node from 24 on heeds the proxy only where NODE_USE_ENV_PROXY says so; gcloud and uv have variables of their own",
        ),
        Purpose::Jvm => (
            Weight::Finding,
            "jvm_unset",
            "a JVM reads no other variable: Java connects past the sidecar",
        ),
        Purpose::Bypass => (
            Weight::Note,
            "loopback_proxied",
            "what the agent asks of its own machine goes to the sidecar, which refuses loopback",
        ),
        Purpose::Api => (
            Weight::Note,
            "agent_api_unset",
            "an SDK does not find the agent API by them; what goes over the network is governed all the same",
        ),
    };
    Finding {
        weight,
        code,
        what: format!("{} {} not set", names(all), are(all)),
        why: why.to_owned(),
        set: exports(all),
    }
}

fn elsewhere(sidecar: &Sidecar, (name, value): (&str, &str), is: &OsStr, report: &mut Report) {
    let is = is.to_string_lossy();
    if sidecar.is_named_by(&is) {
        return;
    }
    report.add(Finding {
        weight: Weight::Finding,
        code: "proxy_elsewhere",
        what: format!(
            "{name} names {}, which is not this sidecar",
            without_login(&is)
        ),
        why: "programs that heed it go there, past the sidecar".to_owned(),
        set: [
            exports(&[(name.to_owned(), value.to_owned())]),
            vec![
                "a proxy of the network that the sidecar is to go through is its `upstream.proxy`"
                    .to_owned(),
            ],
        ]
        .concat(),
    });
}

/// A proxy or URL, and no more of it than its scheme and place: user, password, path and query may be secrets.
pub(in crate::cli) fn without_login(url: &str) -> String {
    let (scheme, rest) = match url.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), url),
    };
    let place = rest.rsplit_once('@').map_or(rest, |(_, place)| place);
    let place = place.split(['/', '?', '#']).next().unwrap_or_default();
    let is_of_place = |c: char| c.is_alphanumeric() || "-._:[]".contains(c);
    if !place.chars().all(is_of_place) {
        return "what is no address".to_owned();
    }
    shown(&format!("{scheme}{place}"))
}

fn of_jvm(sidecar: &Sidecar, value: &str, is: &OsStr, report: &mut Report) {
    let is = is.to_string_lossy();
    let last = |key: &str| {
        let options = is.split_ascii_whitespace();
        let mut all =
            options.filter_map(|option| option.trim_matches(['"', '\'']).strip_prefix(key));
        all.next_back().map(str::to_owned)
    };
    let port = sidecar.proxy.port().to_string();
    let leads = ["http", "https"].iter().all(|scheme| {
        last(&format!("-D{scheme}.proxyPort=")) == Some(port.clone())
            && last(&format!("-D{scheme}.proxyHost=")).is_some()
    });
    if !leads {
        report.add_way_past(Finding {
            weight: Weight::Finding,
            code: "jvm_elsewhere",
            what: "JAVA_TOOL_OPTIONS does not name this sidecar as the proxy of http and https"
                .to_owned(),
            why: "a JVM reads no other variable: Java connects past the sidecar".to_owned(),
            set: vec![added(value)],
        });
    }
    if let Some(store) = last("-Djavax.net.ssl.trustStore=")
        && let Err(error) = std::fs::metadata(&store)
    {
        report.add(Finding {
            weight: Weight::Finding,
            code: "authorities_unreadable",
            what: format!(
                "JAVA_TOOL_OPTIONS names the key store {}, which cannot be read: {error}",
                shown(&store)
            ),
            why: "Java then trusts nobody, so its https fails".to_owned(),
            set: vec![added(value)],
        });
    }
}

/// Whether the variable `name` says by `is` what it says by `value`, as the program reads it that heeds it.
fn says_the_same(sidecar: &Sidecar, (name, value): (&str, &str), is: &str) -> bool {
    if is == value {
        return true;
    }
    match name {
        "UV_NATIVE_TLS" => YES.iter().any(|yes| yes.eq_ignore_ascii_case(is)),
        "CLOUDSDK_PROXY_ADDRESS" => sidecar.is_reached(is, sidecar.proxy.port(), sidecar.proxy),
        "OPENBOX_URL" | "OPENBOX_API_URL" | "OPENBOX_SIDECAR_URL" => {
            let is = is.strip_suffix('/').unwrap_or(is);
            let place = is
                .strip_prefix("http://")
                .filter(|rest| !rest.contains('/'));
            let (Some((host, port)), Some(api)) = (place.and_then(parts_of), place_of(value))
            else {
                return false;
            };
            sidecar.is_reached(host, port, api)
        }
        // NODE_USE_ENV_PROXY is 1 or nothing to Node.
        _ => false,
    }
}

/// What uv takes for yes.
const YES: [&str; 6] = ["1", "on", "t", "true", "y", "yes"];

fn other(
    sidecar: &Sidecar,
    purpose: Purpose,
    (name, value): (&str, &str),
    is: &OsStr,
    report: &mut Report,
) {
    if is
        .to_str()
        .is_some_and(|is| says_the_same(sidecar, (name, value), is))
    {
        return;
    }
    let (code, why) = match purpose {
        Purpose::Api => (
            "agent_api_elsewhere",
            "an SDK tells its events there, and not to this sidecar",
        ),
        Purpose::Proxy | Purpose::Bypass | Purpose::Authorities | Purpose::Tool | Purpose::Jvm => (
            "tool_elsewhere",
            "the program that reads it does not go through the sidecar",
        ),
    };
    report.add(Finding {
        weight: Weight::Finding,
        code,
        what: format!("{name} is {}", without_login(&is.to_string_lossy())),
        why: why.to_owned(),
        set: exports(&[(name.to_owned(), value.to_owned())]),
    });
}

fn without_loopback(name: &str, value: &str, is: &OsStr, report: &mut Report) {
    let is = is.to_string_lossy();
    let has = |host: &str| is.split([',', ' ']).any(|one| one.trim() == host);
    if has("*") || (has("localhost") && has("127.0.0.1")) {
        return;
    }
    report.add(unset(
        Purpose::Bypass,
        &[(name.to_owned(), value.to_owned())],
    ));
}

/// What is wrong with a file of authorities.
enum Wrong {
    Unreadable(io::Error),
    Another,
}

fn wrong_with(sidecar: &Sidecar, file: &Path) -> Option<Wrong> {
    match trust::holds(file, &sidecar.told.authority_sha256) {
        Ok(true) => None,
        Ok(false) => Some(Wrong::Another),
        Err(error) => Some(Wrong::Unreadable(error)),
    }
}

fn of_authorities(sidecar: &Sidecar, file: &OsStr, all: &[Wanted], report: &mut Report) {
    let Some(wrong) = wrong_with(sidecar, Path::new(file)) else {
        return;
    };
    let (names, path) = (names(all), shown(&file.to_string_lossy()));
    let (code, what) = match wrong {
        Wrong::Unreadable(error) => (
            "authorities_unreadable",
            format!("{names}: {path} cannot be read: {error}"),
        ),
        Wrong::Another => (
            "authorities_of_another",
            format!("{names}: {path} does not hold the authority of the sidecar that runs"),
        ),
    };
    let mut set = exports(all);
    let ours = &sidecar.told.bundle;
    if Path::new(file) == ours || wrong_with(sidecar, ours).is_some() {
        // The same again would not help: its files are not here.
        set = vec![
            format!("the sidecar writes its certificates to {}; make that folder visible here", shown(&folder_of(ours))),
            "or write what `GET /v1/ca.pem` of the agent API answers, behind the system's authorities, to a file, and name that".to_owned(),
        ];
    }
    report.add(Finding {
        weight: Weight::Finding,
        code,
        what,
        why: "programs that read it refuse the sidecar's certificates, so their https fails"
            .to_owned(),
        set,
    });
}

fn folder_of(file: &Path) -> String {
    file.parent().unwrap_or(file).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::super::names::Names;
    use super::*;
    use crate::protocols::http::canary::Told;

    fn sidecar() -> Sidecar {
        Sidecar {
            proxy: "127.0.0.1:4000".parse().unwrap(),
            told: Told {
                ca: "/nonexistent/ca.pem".into(),
                bundle: "/nonexistent/bundle.pem".into(),
                ..Told::default()
            },
            names: Names::default(),
        }
    }

    fn codes(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        let sidecar = sidecar();
        let mut report = Report::new(&sidecar);
        let parent: Vec<_> = pairs.iter().map(|(n, v)| (n.into(), v.into())).collect();
        look(&sidecar, &parent, &mut report);
        let json = report.json();
        let all = json["findings"].as_array().unwrap().iter();
        all.map(|one| {
            (
                one["code"].as_str().unwrap().to_owned(),
                one["what"].as_str().unwrap().to_owned(),
            )
        })
        .collect()
    }

    #[test]
    fn a_login_in_a_proxys_url_is_not_shown() {
        let found = codes(&[("HTTPS_PROXY", "http://me:secret@proxy.corp:3128")]);
        let one = found
            .iter()
            .find(|(code, _)| code == "proxy_elsewhere")
            .unwrap();
        assert_eq!(
            one.1,
            "HTTPS_PROXY names http://proxy.corp:3128, which is not this sidecar"
        );
    }

    #[test]
    fn of_a_url_scheme_and_place_alone_are_shown() {
        for (url, expected) in [
            ("http://u:p@proxy.corp:3128/x", "http://proxy.corp:3128"),
            ("u:p/?@w@[::1]:3128", "[::1]:3128"),
            (
                "https://core.example.com/x?key=hush",
                "https://core.example.com",
            ),
            (
                "https://core.example.com/?to=a@b&key=hush",
                "what is no address",
            ),
            ("0", "0"),
        ] {
            assert_eq!(without_login(url), expected, "{url}");
        }
    }

    #[test]
    fn options_are_added_to_those_of_a_jvm_which_are_not_printed() {
        let theirs = "-Djavax.net.ssl.keyStorePassword=hush";
        let parent: Vec<(OsString, OsString)> = vec![(JVM.into(), theirs.into())];
        let lines = java(&sidecar(), &parent);
        let [line] = &lines[..] else {
            panic!("{lines:?}");
        };
        assert!(
            line.starts_with("export JAVA_TOOL_OPTIONS=\"$JAVA_TOOL_OPTIONS \"'-Dhttp.proxyHost="),
            "{line}"
        );
        assert!(java(&sidecar(), &[])[0].starts_with("export JAVA_TOOL_OPTIONS='-D"));
    }

    #[test]
    fn what_names_the_same_place_in_other_words_is_no_finding() {
        let mut sidecar = sidecar();
        sidecar.told.agent = "127.0.0.1:15802".parse().ok();
        for (name, is, expected) in [
            ("OPENBOX_SIDECAR_URL", "http://localhost:15802", true),
            ("OPENBOX_SIDECAR_URL", "http://127.0.0.1:15802/", true),
            ("OPENBOX_SIDECAR_URL", "http://127.0.0.1:15803", false),
            ("OPENBOX_URL", "https://127.0.0.1:15802", false),
            ("OPENBOX_URL", "http://127.0.0.1:15802/other", false),
            ("CLOUDSDK_PROXY_ADDRESS", "localhost", true),
            ("CLOUDSDK_PROXY_ADDRESS", "192.0.2.7", false),
            ("CLOUDSDK_PROXY_PORT", "4001", false),
            ("UV_NATIVE_TLS", "True", true),
            ("UV_NATIVE_TLS", "0", false),
            ("NODE_USE_ENV_PROXY", "true", false),
        ] {
            let mut report = Report::new(&sidecar);
            look(&sidecar, &[(name.into(), is.into())], &mut report);
            let found = report.json().to_string().contains("_elsewhere");
            assert_eq!(!found, expected, "{name}={is}");
        }
    }

    #[test]
    fn the_last_option_of_a_jvm_is_the_one_that_counts() {
        let ours = "-Dhttp.proxyHost=127.0.0.1 -Dhttp.proxyPort=4000 -Dhttps.proxyHost=127.0.0.1 -Dhttps.proxyPort=4000";
        let has = |options: &str, code: &str| {
            codes(&[("JAVA_TOOL_OPTIONS", options)])
                .iter()
                .any(|(found, _)| found == code)
        };
        assert!(!has(ours, "jvm_elsewhere"));
        assert!(has(&format!("{ours} -Dhttps.proxyPort=1"), "jvm_elsewhere"));
        assert!(has("-Xmx1g", "jvm_elsewhere"));
        assert!(has(
            &format!("{ours} -Djavax.net.ssl.trustStore=/nonexistent/x"),
            "authorities_unreadable"
        ));
    }

    #[test]
    fn variables_of_one_value_are_set_on_one_line() {
        let wanted = [("A", "x"), ("B", "it's"), ("C", "x")];
        let wanted: Vec<Wanted> = wanted
            .iter()
            .map(|(n, v)| ((*n).into(), (*v).into()))
            .collect();
        assert_eq!(
            exports(&wanted),
            ["export A='x' C='x'", "export B='it'\\''s'"]
        );
    }
}
