//! What the agent itself asks Core.
//!
//! An SDK inside the agent speaks to the same Core. Were those requests
//! evaluated, each would ask Core about asking Core. They pass by name: the
//! routes of the contract at the configured Core, of every version, with their
//! method and without a query. Anything else at that host is judged like any host.

use crate::domain::{Action, HttpCall, Operation, Verdict};
use crate::policy::Ruling;

use super::client::Route;
use super::proof::{BOOTSTRAP_V2, BOOTSTRAP_V3, Version};
use super::settings::CoreUrl;

/// What the journal calls the decision.
const POLICY: &str = "openbox-sidecar/core_api";

/// The ruling about `operation`, if it is one of the agent's own calls to the
/// API of the Core at `url`, seen on the wire.
pub(super) fn ruling(operation: &Operation, url: &CoreUrl) -> Option<Ruling> {
    let Action::Http(call) = &operation.action else {
        return None;
    };
    let passes = operation.reported.is_none() && is_api_of(call, url);
    passes.then(|| Ruling {
        policy: Some(POLICY.into()),
        ..Ruling::new(Verdict::Allow, 0)
    })
}

fn is_api_of(call: &HttpCall, url: &CoreUrl) -> bool {
    let is_there = call.scheme == url.scheme().as_str()
        && *call.host == *url.host()
        && call.port == url.port();
    is_there
        && !call.url.contains('?')
        && call
            .path
            .strip_prefix(url.base())
            .is_some_and(|path| is_route(&call.method, path))
}

fn is_route(method: &str, path: &str) -> bool {
    let is_bootstrap = [BOOTSTRAP_V2, BOOTSTRAP_V3].contains(&path);
    (method == "GET" && is_bootstrap)
        || Route::ALL.iter().any(|route| {
            let versions = [Version::V1, Version::V2, Version::V3];
            method == route.method().as_str()
                && versions.iter().any(|version| path == route.path(*version))
        })
}

#[cfg(test)]
mod tests {
    use super::super::tests::operation;
    use super::*;
    use crate::domain::{JsonText, Reported};

    const EVALUATE: &str = "/base/api/v1/governance/evaluate";

    fn passes(method: &str, host: &str, port: u16, path: &str, query: &str) -> bool {
        let core = CoreUrl::parse("https://core.example/base/").unwrap();
        let mut operation = operation(super::super::tests::context(None));
        let Action::Http(call) = &mut operation.action else {
            panic!("an HTTP request");
        };
        call.method = method.into();
        call.scheme = "https";
        call.host = host.into();
        call.port = port;
        call.path = path.into();
        call.url = format!("https://{host}:{port}{path}{query}").into();
        let ruling = ruling(&operation, &core);
        // A hook may say what it wants.
        operation.reported = Some(Box::new(Reported {
            name: "POST".into(),
            kind: "CLIENT".into(),
            attributes: JsonText("{}".into()),
            envelope: Vec::new(),
        }));
        assert_eq!(super::ruling(&operation, &core), None);
        ruling.is_some_and(|ruling| ruling.verdict == Verdict::Allow)
    }

    #[test]
    fn the_routes_of_the_contract_pass_and_nothing_beside_them() {
        let host = "core.example";
        #[rustfmt::skip]
        let table = [
            ("POST", host,           443,  EVALUATE,                           "",     true),
            ("POST", host,           443,  "/base/api/v1/governance/approval", "",     true),
            ("GET",  host,           443,  "/base/api/v1/auth/validate",       "",     true),
            ("POST", host,           443,  "/base/api/v2/governance/evaluate", "",     true),
            ("POST", host,           443,  "/base/api/v3/governance/approval", "",     true),
            ("POST", host,           443,  "/base/api/v1/handoffs",            "",     true),
            ("GET",  host,           443,  "/base/api/v1/handoffs",            "",     false),
            ("GET",  host,           443,  "/base/api/v2/auth/bootstrap",      "",     true),
            ("GET",  host,           443,  "/base/api/v3/auth/bootstrap",      "",     true),
            ("POST", host,           443,  "/base/api/v3/auth/bootstrap",      "",     false),
            ("POST", host,           443,  "/base/api/v4/governance/evaluate", "",     false),
            ("POST", host,           443,  "/base/api/v2/auth/transition-proof", "",   false),
            ("GET",  host,           443,  EVALUATE,                           "",     false),
            ("post", host,           443,  EVALUATE,                           "",     false),
            ("POST", host,           443,  EVALUATE,                           "?a=b", false),
            ("POST", host,           443,  EVALUATE,                           "?a=/base/api/v1/governance/evaluate", false),
            ("POST", host,           443,  "/api/v1/governance/evaluate",      "",     false),
            ("POST", host,           443,  "/base/api/v1/governance/evaluate/", "",    false),
            ("POST", host,           443,  "/base/api/v1/governance/evaluate/../../agents", "", false),
            ("POST", host,           443,  "/base/api/v1/agents",              "",     false),
            ("POST", host,           8443, EVALUATE,                           "",     false),
            ("POST", "evil.example", 443,  EVALUATE,                           "",     false),
        ];
        for (method, host, port, path, query, expected) in table {
            let found = passes(method, host, port, path, query);
            assert_eq!(found, expected, "{method} {host}:{port}{path}{query}");
        }
    }
}
