"""Ways to break what is known of OpenBox Core, as its client and in its place. Data of `run.py`."""

TESTS = [["--lib", "--", "policy::core::", "config::", "control::agent::", "app::", "domain::"],
         ["--test", "command_line", "--", "a_core_that_is_the_sidecar_itself"]]

CORE = "src/policy/core/"
AGENT = "src/control/agent/"

# what is broken, file, text that is there once, text that takes its place
MUTANTS = [
    # Bad input.
    ("a key goes in the clear to another host", CORE + "settings.rs", "Scheme::Http if is_loopback => 80,", "Scheme::Http if is_loopback || true => 80,"),
    ("a URL may carry credentials", CORE + "settings.rs", "if authority.as_str().contains('@') {", "if authority.as_str().contains('@') && false {"),
    ("any text is a DID", CORE + "identity.rs", "Some(uuid) if is_uuid(uuid) => Ok(Self(text.into())),", "Some(_) => Ok(Self(text.into())),"),
    ("a seed of any length is taken for one", CORE + "identity.rs",
     "if seed.len() != Self::SEED_BYTES {", "if seed.is_empty() {"),
    ("a clock that is off is not told in words", CORE + "reasons.rs", '    ("timestamp_outside_window", CLOCK),\n', '    ("timestamp_skew_", CLOCK),\n'),
    ("an approval that has expired is pending", CORE + "approvals.rs", "_ if is_expired => Ok(ApprovalState::Expired),", "_ if is_expired && false => Ok(ApprovalState::Expired),"),
    ("an approval expires by Core's flag alone", CORE + "approvals.rs", "expires_at.is_some_and(|expires_at| expires_at <= now);", "expires_at.is_some_and(|expires_at| expires_at <= now && false);"),
    ("a Core that is this sidecar is asked", "src/app/judge.rs", "if own.iter().any(is_ours) {", "if own.iter().any(|at| is_ours(at) && false) {"),
    ("only the address written is ours", "src/app/judge.rs", "at.ip() == *ip || (at.ip().is_unspecified() && ip.is_loopback());", "at.ip() == *ip;"),
    # What Core says.
    ("the rules that Core names are lost", CORE + "answer.rs", "ruling.violations = violations(&said);", "ruling.violations = Vec::new().into();"),
    ("a Core may name as many rules as it likes", CORE + "answer.rs", "        .take(FINDINGS_MAX)\n        .map(|name| Box::from", "        .map(|name| Box::from"),
    # As a Core.
    ("what is stopped by guardrails is a block of policy", AGENT + "served/evaluate.rs", "if said.is_stopped_by_guardrails() {", "if said.is_stopped_by_guardrails() && false {"),
    ("a block of policy is one of guardrails", AGENT + "served/evaluate.rs", "guardrails.is_some_and(|guardrails| !guardrails.passed)", "guardrails.is_none_or(|guardrails| !guardrails.passed)"),
    ("what stands beside a span is lost", CORE + "wire/told.rs", "hook.reported.envelope = self.around_hooks();", "hook.reported.envelope = Vec::new();"),
    ("a retry says when to come again, wherever it fails", "src/domain/refusal.rs", "self.is_retryable().then_some(1)", "Some(1)"),
    ("a retry may come at once", "src/domain/refusal.rs", "Some(retry_after.as_secs().max(1))", "Some(retry_after.as_secs())"),
    # Okta, told by Core.
    ("who the agent is stays untold", CORE + "proof.rs", "    okta.told.keep(Arc::clone(&names), answered.body.into());\n", ""),
    ("assertions are checked before Core told", CORE + "verify.rs", "okta.names().ok_or(Rejection::NotToldYet)?", "okta.names().ok_or(Rejection::NoVerifier)?"),
    # A whole event.
    ("a completion's own error is lost", AGENT + "events.rs", 'take_field(&mut fields, "error").filter(|error| &*error.0 != "null")', 'take_field(&mut fields, "error").filter(|_| false)'),
    ("a completion's output is lost", AGENT + "events.rs", 'output: take_field(&mut fields, "activity_output").unwrap_or_else', 'output: None.unwrap_or_else'),
    ("a run fails without a reason", AGENT + "events.rs", "                failure(&fields)?;\n", ""),
    ("an activity is opened without its type", AGENT + "events.rs", 'kind: required("activity_type", kind)?,', 'kind: kind.unwrap_or("x").into(),'),
]
