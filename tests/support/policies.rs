//! Policies that tests write down as files.

/// Everything passes.
pub(crate) const ALLOW: &str = r#"
package test
default result := {"decision": "ALLOW"}
"#;

/// A statement that says `forbidden` is blocked, by a policy of which it is proved what
/// it reads.
pub(crate) const STEADY: &str = r#"
package test

default result := {"decision": "ALLOW"}

result := {"decision": "BLOCK", "reason": "the test says block"} if {
	input.spans[0].stage == "started"
	contains(input.spans[0].db_statement, "forbidden")
}
"#;

/// A statement that names whom it is not for is refused to whoever logs in so.
pub(crate) const OF_WHOM: &str = r#"
package test

default result := {"decision": "ALLOW"}

user := input.spans[0].db_user

result := {"decision": "BLOCK", "reason": concat(" ", ["not for", user])} if {
	input.spans[0].stage == "started"
	contains(input.spans[0].db_statement, concat("_", ["NOT_FOR", user]))
}
"#;

/// The path of a request says what is decided about it and when:
/// `/started/block/anything`, `/completed/halt`. All else passes.
pub(crate) const AS_THE_PATH_SAYS: &str = r#"
package test

default result := {"decision": "ALLOW"}

result := {"decision": word, "reason": concat(" ", ["the test says", word])} if {
	word != "constrain"
}

result := {"decision": "CONSTRAIN", "reason": "the test says constrain", "constraints": ["audit"]} if {
	word == "constrain"
}

word := parts[2] if {
	input.hook_trigger
	parts := split(input.spans[0].attributes["url.path"], "/")
	count(parts) > 2
	parts[1] == input.spans[0].stage
}
"#;

/// The type of an activity, or the word of a signal, says what is decided
/// about it: `block`, `halt`. Operations pass.
pub(crate) const AS_THE_EVENT_SAYS: &str = r#"
package test

default result := {"decision": "ALLOW"}

result := {"decision": input.activity_type, "reason": concat(" ", ["the test says", input.activity_type])} if {
	not input.hook_trigger
	input.activity_type in {"block", "halt", "require_approval", "constrain"}
}
"#;
