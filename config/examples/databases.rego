# Statements judged by what they do (`db_reading`), not by how they are written.
package databases

default result := {"decision": "ALLOW"}

reading := input.spans[0].db_reading

result := {"decision": "BLOCK", "reason": "only rows that are named may be changed"} if {
	"no_where" in reading.flags
} else := {"decision": "BLOCK", "reason": "salaries are nobody's business"} if {
	some relation in reading.relations
	relation.name in {"salaries", "public.salaries"}
} else := {"decision": "BLOCK", "reason": "what names mean is not for a session to say"} if {
	some flag in reading.flags
	flag in {"sets_path", "sets_role"}
} else := {"decision": "REQUIRE_APPROVAL", "reason": "it changes what there is, or cannot be understood"} if {
	reading.class in {"schema", "admin", "opaque"}
}
