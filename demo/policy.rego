# The policy of the demonstration. Each rule shows one verdict; the first that
# matches decides. It is asked at `started`, before a request leaves, and at
# `completed`, with its answer.
package demo

# Lifecycle events and everything that no rule below knows.
default result := {"decision": "ALLOW"}

# Stops the run: nobody who means well sends customers to a paste site.
result := {
	"decision": "HALT",
	"reason": "customer data was on its way to a paste site",
} if {
	input.spans[0].stage == "started"
	input.spans[0].attributes["url.path"] == "/paste"
}

# Refused before it leaves.
else := {
	"decision": "BLOCK",
	"reason": "customers are not deleted by agents",
} if {
	input.spans[0].stage == "started"
	input.spans[0].http_method == "DELETE"
	startswith(input.spans[0].attributes["url.path"], "/customers/")
}

# Waits for a person.
else := {
	"decision": "REQUIRE_APPROVAL",
	"reason": "refunds need a person",
} if {
	input.spans[0].stage == "started"
	input.spans[0].attributes["url.path"] == "/refunds"
}

# Refused after the origin has answered: the answer is not handed out.
else := {
	"decision": "BLOCK",
	"reason": "the answer contains card numbers",
} if {
	input.spans[0].stage == "completed"
	contains(input.spans[0].response_body, "4111 1111 1111 1111")
}

# Goes on, marked.
else := {
	"decision": "CONSTRAIN",
	"reason": "orders are audited",
	"constraints": ["audit"],
} if {
	input.spans[0].stage == "started"
	input.spans[0].attributes["url.path"] == "/orders"
}
