#!/usr/bin/env bash
# The agent API from bash with curl. `openbox-sidecar run -- bash examples/openbox.sh`
set -euo pipefail

token=${OPENBOX_SIDECAR_TOKEN:-$(<"${OPENBOX_SIDECAR_TOKEN_FILE:-}")} # in a pod, a file that is shared
through=(${OPENBOX_SIDECAR_SOCKET:+--unix-socket "$OPENBOX_SIDECAR_SOCKET"})

ask() { # method, path, JSON: the answer; a person may have to decide, and then the same request waits on
	local answer
	while
		answer=$(curl --silent --show-error --noproxy '*' "${through[@]}" --request "$1" "$OPENBOX_SIDECAR_URL$2" \
			--header "Authorization: Bearer $token" --data "${3:-}" --write-out '\n%{http_code}')
		[[ ${answer##*$'\n'} == 202 ]]
	do :; done
	[[ ${answer##*$'\n'} == 200 ]] || { echo "$2: $answer" >&2; return 1; }
	[[ $answer == *'"verdict":"allow"'* || $answer == *'"verdict":"constrain"'* ]] || { echo "refused: $answer" >&2; return 1; }
	echo "$answer"
}
of() { sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p"; } # a string of an answer

run='"workflow_id":"bash","run_id":"'$$'"'
ask POST /v1/workflows "{$run}" >/dev/null
ask POST '/v1/activities?wait=55s' "{$run,\"activity_id\":\"a1\",\"activity_type\":\"refund\",\"input\":[{\"amount\":90}]}" >/dev/null

# What no wire shows is told before it happens, and with its outcome.
event=$(ask POST /v1/evaluate "{$run,\"activity_id\":\"a1\",\"kind\":\"file_operation\",\"stage\":\"started\",\"span\":{\"file_path\":\"/etc/hostname\",\"file_operation\":\"read\"}}" | of event_id)
bytes=$(wc -c </etc/hostname)
ask POST /v1/evaluate "{\"stage\":\"completed\",\"event_id\":\"$event\",\"span\":{\"bytes_read\":$bytes}}" >/dev/null

ask POST /v1/activities/a1/complete "{$run,\"output\":{\"done\":true}}" >/dev/null
ask POST "/v1/workflows/bash/runs/$$/complete" '{}' >/dev/null
echo done
