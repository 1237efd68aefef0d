# The starter policy of openbox-sidecar: useful on the first day, short enough
# to read, and meant to be changed. Copy it, edit it, and start the sidecar with
# `--policy my.rego`; it is reloaded whenever the file changes.
#
# It is asked twice about every operation: at `started`, before anything leaves,
# and at `completed`, with the answer. `input.spans[0]` says what it does. The rules
# are tried from top to bottom and the first that matches decides. A decision is
# one of
#
#   ALLOW              go ahead
#   CONSTRAIN          go ahead, within the `constraints` that are named
#   REQUIRE_APPROVAL   wait until a person has decided
#   BLOCK              refuse this operation
#   HALT               refuse it, and everything this run does afterwards
package openbox

# What no rule below knows (a method of its own, say) waits for a person.
default result := {
	"decision": "REQUIRE_APPROVAL",
	"reason": "no rule of the policy knows this kind of operation",
}

# Lifecycle events report what the agent's own code does; they pass. Only the
# operations that the sidecar sees on the wire carry `hook_trigger`.
result := {"decision": "ALLOW"} if {
	not input.hook_trigger
}

# An answer that carries a private key does not reach the agent, nor whatever
# the agent would send it to next: an answer in text, if all of it is here soon
# enough (http.capture_bytes_max, http.capture_within); where http.over_cap is
# deny, no other goes out. Of one that has gone out by then the activity is
# aborted.
else := {
	"decision": "BLOCK",
	"reason": "the answer contains a private key",
} if {
	input.spans[0].stage == "completed"
	contains(input.spans[0].response_body, "PRIVATE KEY-----")
	contains(input.spans[0].response_body, "-----BEGIN ")
}

# Every other answer passes: the operation was judged before it left.
else := {"decision": "ALLOW"} if {
	input.spans[0].stage == "completed"
}

# Request catchers exist to receive what somebody else's program sends out. An
# agent that is led there is being used: stop the run. Each name stands for
# itself and everything under it.
else := {
	"decision": "HALT",
	"reason": "the agent contacts a request catcher, where stolen data goes",
} if {
	strings.any_suffix_match(concat("", [".", input.spans[0].attributes["server.address"]]), {
		".burpcollaborator.net",
		".interact.sh",
		".oast.fun",
		".oast.live",
		".oast.me",
		".oast.online",
		".oast.pro",
		".oast.site",
		".oastify.com",
		".requestbin.net",
		".requestcatcher.com",
		".webhook.site",
	})
}

# Clouds tell a machine its credentials at these addresses. Libraries look there
# by themselves, so this refuses without stopping the run. AWS, Google Cloud,
# Azure, Oracle, DigitalOcean and Hetzner share the first; others have their own.
else := {
	"decision": "BLOCK",
	"reason": "cloud metadata addresses are not for agents",
} if {
	input.spans[0].attributes["server.address"] in {
		"169.254.169.254",
		"169.254.170.2",
		"169.254.170.23",
		"fd00:ec2::254",
		"fd20:ce::254",
		"metadata.google.internal",
		"metadata.google.internal.",
		"metadata.goog",
		"metadata",
		"instance-data",
		"instance-data.ec2.internal",
		"168.63.129.16",
		"100.100.100.200",
		"192.0.0.192",
	}
}

# Reading passes.
else := {"decision": "ALLOW"} if {
	input.spans[0].http_method in {"GET", "HEAD", "OPTIONS"}
}

# Calls of language models are POSTs, and what an agent does all day. The
# sidecar knows the public providers by their host.
else := {"decision": "ALLOW"} if {
	startswith(input.spans[0].semantic_type, "llm_")
}

# A program on the database server, its files, and who may do what there are not
# for agents.
else := {
	"decision": "BLOCK",
	"reason": "the statement reaches beyond the database",
} if {
	some flag in input.spans[0].db_reading.flags
	flag in {"program", "server_file"}
}

# Statements that only read, or change rows they name, pass. What changes every
# row, what there is or who may do what, and what cannot be understood, waits.
# What functions, triggers and views of the database do is in no statement.
else := {"decision": "ALLOW"} if {
	input.spans[0].db_reading.class in {"session", "read"}
}

else := {"decision": "ALLOW"} if {
	input.spans[0].db_reading.class == "write"
	not "no_where" in input.spans[0].db_reading.flags
}

else := {
	"decision": "REQUIRE_APPROVAL",
	"reason": concat(" ", ["a statement of class", input.spans[0].db_reading.class, "waits for a person"]),
} if {
	input.spans[0].db_reading.class
}

# Hosts you trust with everything an agent may do there. Add your own: names as
# they stand in URLs, lower case, without a port.
else := {"decision": "ALLOW"} if {
	input.spans[0].attributes["server.address"] in {
		"api.github.com",
		"api.linear.app",
		"api.notion.com",
		"api.tavily.com",
		"google.serper.dev",
		"slack.com",
		"localhost",
		"127.0.0.1",
	}
}

# Writing anywhere else passes, marked for whoever reads the journal: the agent
# sees `openbox-constraints: audit`.
else := {
	"decision": "CONSTRAIN",
	"reason": "writing to a host that the policy does not list as trusted",
	"constraints": ["audit"],
} if {
	input.spans[0].http_method in {"POST", "PUT", "PATCH"}
}

# Deleting what nobody listed needs a person.
else := {
	"decision": "REQUIRE_APPROVAL",
	"reason": "deleting at a host that the policy does not list as trusted",
} if {
	input.spans[0].http_method == "DELETE"
}
