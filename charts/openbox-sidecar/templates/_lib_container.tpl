{{/* A copy of that of openbox-sidecar-lib. Made by tests/charts/charts.py. */}}
{{/*
The first of a pod's init containers: the sidecar, and before it, with `mode: redirect`, what sets the kernel's rules. Their
argument says what README.md of this chart lists.
*/}}
{{- define "openbox-sidecar.initContainers" -}}
{{- if eq (.mode | default "cooperative") "redirect" }}
- {{- include "openbox-sidecar.initNet" . | nindent 2 }}
{{- end }}
- {{- include "openbox-sidecar.container" . | nindent 2 }}
{{- end }}

{{/*
The container that sets the rules; the only one that may.
*/}}
{{- define "openbox-sidecar.initNet" -}}
name: openbox-init-net
image: {{ .initNetImage | default "ghcr.io/openbox-ai/openbox-sidecar-init-net:0.1.0" | quote }}
imagePullPolicy: {{ .imagePullPolicy | default "IfNotPresent" }}
args: [init-net, install]
resources: {requests: {cpu: 10m, memory: 16Mi}, limits: {memory: 64Mi}}
securityContext:
  allowPrivilegeEscalation: false
  capabilities: {add: [NET_ADMIN], drop: [ALL]}
  readOnlyRootFilesystem: true
  runAsGroup: 0
  runAsNonRoot: false
  runAsUser: 0
  seccompProfile: {type: RuntimeDefault}
{{- end }}

{{/*
What a container of the app must be for the rules to hold for it: it cannot become the sidecar's user, nor change them.
Its argument has `runAsUser`, as without it an image says who it is.
*/}}
{{- define "openbox-sidecar.securityContext" -}}
{{- $user := int (.runAsUser | default 0) }}
{{- if has $user (list 0 1580) }}
{{- fail "openbox-sidecar: securityContext needs runAsUser, the number of a user other than root and 1580, which is the sidecar" }}
{{- end }}
allowPrivilegeEscalation: false
capabilities: {drop: [ALL]}
runAsNonRoot: true
runAsUser: {{ $user }}
{{- end }}

{{/*
How long the sidecar drains, where the pod's grace is shorter than its own time; empty otherwise.
*/}}
{{- define "openbox-sidecar.drain" -}}
{{- $grace := 30 }}
{{- if hasKey . "terminationGracePeriodSeconds" }}{{ $grace = int .terminationGracePeriodSeconds }}{{ end }}
{{- $said := dig "settings" "OPENBOX_DRAIN_WITHIN" "" (merge (dict) .) | toString }}
{{- if $said }}
{{- if not (regexMatch "^[0-9]+(ms|s|m|h)?$" $said) }}
{{- fail (printf "openbox-sidecar: settings.OPENBOX_DRAIN_WITHIN is %q; expected a whole number and ms, s, m or h" $said) }}
{{- end }}
{{- $number := regexFind "^[0-9]+" $said }}
{{- $unit := trimPrefix $number $said }}
{{- $ms := mul $number (get (dict "ms" 1 "" 1000 "s" 1000 "m" 60000 "h" 3600000) $unit) }}
{{- if gt (add $ms 2000) (mul $grace 1000) }}
{{- fail (printf "openbox-sidecar: settings.OPENBOX_DRAIN_WITHIN is %s, and terminationGracePeriodSeconds %d: the sidecar would be killed while it drains; say at least 2 s less, or a longer grace" $said $grace) }}
{{- end }}
{{- else if lt $grace 12 }}
{{- max 1 (sub $grace 2) }}s
{{- end }}
{{- end }}

{{/*
The sidecar. Its argument says what README.md of this chart lists.
*/}}
{{- define "openbox-sidecar.container" -}}
{{- include "openbox-sidecar.checked" . -}}
name: openbox-sidecar
image: {{ .image | default "ghcr.io/openbox-ai/openbox-sidecar:0.1.0" | quote }}
imagePullPolicy: {{ .imagePullPolicy | default "IfNotPresent" }}
restartPolicy: Always
args: [serve]
env:
  - {name: OPENBOX_POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
  - {name: OPENBOX_HEALTH_LISTEN, value: "[$(OPENBOX_POD_IP)]:15820"}
  - {name: OPENBOX_WORKFLOW_ID, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
  - {name: OPENBOX_RUN_ID, valueFrom: {fieldRef: {fieldPath: metadata.uid}}}
  - {name: OPENBOX_STATE_DIR, value: /var/lib/openbox-sidecar/state}
  - {name: OPENBOX_CA_DIR, value: /run/openbox-sidecar/ca}
  - {name: OPENBOX_SHARE_DIR, value: /openbox}
  - {name: OPENBOX_AGENT_SOCKET, value: /openbox/agent.sock}
  - {name: OPENBOX_AGENT_SOCKET_MODE, value: "0666"}
  {{- if not (hasKey (.settings | default dict) "OPENBOX_LOG_FORMAT") }}
  - {name: OPENBOX_LOG_FORMAT, value: json}
  {{- end }}
  {{- with include "openbox-sidecar.drain" . }}
  - {name: OPENBOX_DRAIN_WITHIN, value: {{ . | quote }}}
  {{- end }}
  {{- range $name, $value := .settings }}
  - {name: {{ $name }}, value: {{ toString $value | replace "$(" "$$(" | quote }}}
  {{- end }}
  {{- if eq (.mode | default "cooperative") "redirect" }}
  - {name: OPENBOX_TRANSPARENT_LISTEN, value: "127.0.0.1:15802"}
  - {name: OPENBOX_OPERATOR_LISTEN, value: "127.0.0.1:15810"}
  {{- end }}
  {{- if .configConfigMap }}
  - {name: OPENBOX_CONFIG, value: /etc/openbox/config/openbox-sidecar.yaml}
  {{- end }}
  {{- if .policyConfigMap }}
  - {name: OPENBOX_POLICY, value: /etc/openbox/policy}
  {{- end }}
  {{- if .apiKeySecret }}
  - {name: OPENBOX_API_KEY_FILE, value: /etc/openbox/api-key/api-key}
  {{- end }}
  {{- if .agentTokenSecret }}
  - {name: OPENBOX_AGENT_TOKEN_FILE, value: /etc/openbox/agent-token/agent-token}
  {{- end }}
ports:
  - {name: openbox-health, containerPort: 15820, protocol: TCP}
startupProbe: {httpGet: {path: /readyz, port: 15820}, periodSeconds: 1, failureThreshold: 120, timeoutSeconds: 2}
livenessProbe: {httpGet: {path: /livez, port: 15820}, periodSeconds: 10, failureThreshold: 3, timeoutSeconds: 2}
readinessProbe: {httpGet: {path: /readyz, port: 15820}, periodSeconds: 5, failureThreshold: 2, timeoutSeconds: 2}
resources:
  {{- .resources | default (dict "requests" (dict "cpu" "50m" "memory" "64Mi") "limits" (dict "memory" "512Mi")) | toYaml | nindent 2 }}
securityContext:
  allowPrivilegeEscalation: false
  capabilities: {drop: [ALL]}
  readOnlyRootFilesystem: true
  runAsGroup: 1580
  runAsNonRoot: true
  runAsUser: 1580
  seccompProfile: {type: RuntimeDefault}
volumeMounts:
  - {name: openbox-share, mountPath: /openbox}
  - {name: openbox-state, mountPath: /var/lib/openbox-sidecar}
  - {name: openbox-keys, mountPath: /run/openbox-sidecar}
  {{- if .configConfigMap }}
  - {name: openbox-config, mountPath: /etc/openbox/config, readOnly: true}
  {{- end }}
  {{- if .policyConfigMap }}
  - {name: openbox-policy, mountPath: /etc/openbox/policy, readOnly: true}
  {{- end }}
  {{- if .apiKeySecret }}
  - {name: openbox-api-key, mountPath: /etc/openbox/api-key, readOnly: true}
  {{- end }}
  {{- if .agentTokenSecret }}
  - {name: openbox-agent-token, mountPath: /etc/openbox/agent-token, readOnly: true}
  {{- end }}
  {{- if .credentialsSecret }}
  - {name: openbox-credentials, mountPath: /etc/openbox/credentials, readOnly: true}
  {{- end }}
{{- end }}

{{/*
What cannot be is refused while the chart is rendered.
*/}}
{{- define "openbox-sidecar.checked" -}}
{{- $known := list "image" "initNetImage" "mode" "imagePullPolicy" "resources" "settings" "apiKeySecret" "agentTokenSecret" "credentialsSecret" "policyConfigMap" "configConfigMap" "journalClaim" "terminationGracePeriodSeconds" }}
{{- range $name, $_ := . }}
{{- if not (has $name $known) }}
{{- fail (printf "openbox-sidecar: %q is not known; known are %s" $name (join ", " $known)) }}
{{- end }}
{{- end }}
{{- if not (has (.mode | default "cooperative") (list "cooperative" "redirect")) }}
{{- fail (printf "openbox-sidecar: mode is %q; it is cooperative or redirect" .mode) }}
{{- end }}
{{- $settings := .settings | default dict }}
{{- $variables := include "openbox-sidecar.settings" . | fromYamlArray }}
{{- range $name, $_ := $settings }}
{{- if not (has $name $variables) }}
{{- fail (printf "openbox-sidecar: settings.%s is no setting of a pod's; known are %s" $name (join ", " $variables)) }}
{{- end }}
{{- end }}
{{- if and (hasKey $settings "OPENBOX_CORE_URL") (not .apiKeySecret) }}
{{- fail "openbox-sidecar: settings.OPENBOX_CORE_URL needs apiKeySecret: {name: NAME, key: KEY}, a Secret with the agent's API key" }}
{{- end }}
{{- if and (hasKey $settings "OPENBOX_CORE_URL") .policyConfigMap }}
{{- fail "openbox-sidecar: policyConfigMap and settings.OPENBOX_CORE_URL exclude each other: either the embedded policy judges, or OpenBox Core" }}
{{- end }}
{{- end }}
