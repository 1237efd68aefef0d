#!/usr/bin/env bash
# The agent API from bash with curl. `openbox-sidecar run -- bash examples/openbox.sh`
set -euo pipefail

token=${OPENBOX_SIDECAR_TOKEN:-$(<"${OPENBOX_SIDECAR_TOKEN_FILE:-}")} # in a pod, a file that is shared
through=(${OPENBOX_SIDECAR_SOCKET:+--unix-socket "$OPENBOX_SIDECAR_SOCKET"})

call() { # method, path, JSON: the answer, and its status on a line of its own
	local data=()
	[[ $1 == GET ]] || data=(--data "${3:-}")
	curl --silent --show-error --noproxy '*' "${through[@]}" --request "$1" "$OPENBOX_SIDECAR_URL$2" \
		--header "Authorization: Bearer $token" "${data[@]}" --write-out '\n%{http_code}'
}
ask() { # the same, until a person has decided, where one must; fails on a no
	local answer
	while
		answer=$(call "$@")
		[[ ${answer##*$'\n'} == 202 ]]
	do :; done
	[[ ${answer##*$'\n'} == 200 ]] || { echo "$2: $answer" >&2; return 1; }
	[[ $answer == *'"verdict":"allow"'* || $answer == *'"verdict":"constrain"'* ]] || { echo "refused: $answer" >&2; return 1; }
	echo "$answer"
}
of() { sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p"; } # a string of an answer

if [[ ${1:-} == - ]]; then # any request at all, a line each: METHOD PATH JSON
	while read -r method path json; do
		if [[ $path == /v1/stream ]]; then # never ends: its head says enough here
			status=$(curl --silent --noproxy '*' "${through[@]}" --max-time 1 --output /dev/null --write-out '%{http_code}' \
				"$OPENBOX_SIDECAR_URL$path" --header "Authorization: Bearer $token" || true)
			echo "$status"
		else
			answer=$(call "$method" "$path" "$json")
			echo "${answer##*$'\n'} ${answer%%$'\n'*}"
		fi
	done
	exit
fi

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
