//! What is secret in a URL reaches its origin and nobody else.

use crate::core_mode;
use crate::support::core::Core;
use crate::support::origin::Origin;
use crate::support::policies::AS_THE_PATH_SAYS;
use crate::support::sidecar::Setup;

const QUERY: &str = "?q=shown&api_key=hush-1&X-Amz-Signature=hush-2&access%5Ftoken=hush-3";
const SHOWN: &str =
    "?q=shown&api_key=[REDACTED]&X-Amz-Signature=[REDACTED]&access%5Ftoken=[REDACTED]";

#[test]
fn a_secret_in_a_query_stays_out_of_journal_log_and_approvals() {
    let site = Origin::site();
    let setup = Setup::new().policy(AS_THE_PATH_SAYS).reach(&site);
    let sidecar = setup
        .config("http:\n  hold_within: 100ms\nlog:\n  level: debug\n")
        .start();
    assert_eq!(sidecar.get(&site.url(&format!("/x{QUERY}"))).status(), 200);
    assert_eq!(site.heard()[0].head.path(), format!("/x{QUERY}"));
    let started = sidecar.recorded("the request", |line| line["stage"] == "started");
    assert_eq!(started["http_url"], site.url(&format!("/x{SHOWN}")));
    // What one key was granted, another was not.
    let held =
        |key: &str| sidecar.get(&site.url(&format!("/started/require_approval?key=hush-{key}")));
    assert_eq!(held("4").code(), "approval_pending");
    let approval = sidecar.pending_approval();
    assert!(!approval.to_string().contains("hush"), "{approval}");
    sidecar.approve(&approval);
    assert_eq!(held("5").code(), "approval_pending");
    assert_eq!(held("4").status(), 200);
    for text in [
        format!("{:?}", sidecar.journal()),
        sidecar.log(),
        sidecar.operator("GET", "/v1/approvals", "").1.to_string(),
    ] {
        assert!(!text.contains("hush"), "{text}");
    }
}

#[test]
fn a_secret_in_a_query_is_not_told_to_core() {
    let (core, site) = (Core::start(), Origin::site());
    let sidecar = core_mode::setup(&core.url(), "closed", &site).start();
    let answer = sidecar.get(&site.url(&format!("/ack/x{QUERY}")));
    assert_eq!(answer.text(), "acknowledged");
    let told = format!("{:?}", core.asked("evaluate"));
    assert!(
        told.contains("[REDACTED]") && !told.contains("hush"),
        "{told}"
    );
}
