# The least policy there is. The rules beside it say the rest.
package example

result := {"decision": "ALLOW"}
