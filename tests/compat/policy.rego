# What the checks of the SDKs need decided: the type of an activity, or the path
# of a request, says what is said about it.
package test

default result := {"decision": "ALLOW"}

said(word) := {"decision": word, "reason": concat(" ", ["the test says", word])}

result := said(input.activity_type) if {
	not input.hook_trigger
	input.event_type == "ActivityStarted"
	input.activity_type in {"block", "halt", "require_approval", "constrain"}
}

result := {"decision": "ALLOW", "redacted": [object.union(input.activity_input[0], {"to": "[PERSON]"})]} if {
	not input.hook_trigger
	input.event_type == "ActivityStarted"
	input.activity_type == "redact_in"
}

result := {"decision": "ALLOW", "redacted": {"card": "[CARD]"}} if {
	input.event_type == "ActivityCompleted"
	input.activity_type == "redact_out"
}

result := said(parts[2]) if {
	input.hook_trigger
	parts := split(input.spans[0].attributes["url.path"], "/")
	count(parts) > 2
	parts[1] == input.spans[0].stage
}

result := said("block") if {
	input.hook_trigger
	input.spans[0].stage == "started"
	forbidden
}

forbidden if endswith(input.spans[0].file_path, "/forbidden.txt")

forbidden if endswith(input.spans[0].function, "forbidden")
