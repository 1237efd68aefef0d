{{- define "openbox.companion" -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}-companion
{{- end }}

{{- define "openbox.companionSelector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: companion
{{- end }}

{{- define "openbox.companionLabels" -}}
{{ include "openbox.labels" . | replace "component: injector" "component: companion" }}
{{- end }}

{{/* Ports that apps come to: each way in has its own. */}}
{{- define "openbox.companionPorts" -}}
- {name: http-proxy, port: 15801}
- {name: agent, port: 15800}
- {name: postgres, port: 15432}
- {name: mysql, port: 13306}
- {name: redis, port: 16379}
{{- end }}

{{/* The argument of the library's templates. */}}
{{- define "openbox.companionOf" -}}
{{- $of := omit .Values.companion "enabled" }}
{{- range $name, $value := $of }}{{ if not $value }}{{ $of = omit $of $name }}{{ end }}{{ end }}
{{- merge (dict "image" (include "openbox.image" .) "imagePullPolicy" .Values.image.pullPolicy) $of | toYaml }}
{{- end }}

{{/* The sidecar's container where apps reach it by the network. */}}
{{- define "openbox.companionContainer" -}}
{{- $of := include "openbox.companionOf" . | fromYaml }}
{{- $container := include "openbox-sidecar.container" $of | fromYaml }}
{{- $env := list }}
{{- range $container.env }}
{{- if not (has .name (list "OPENBOX_AGENT_SOCKET" "OPENBOX_AGENT_SOCKET_MODE" "OPENBOX_CA_DIR" "OPENBOX_WORKFLOW_ID" "OPENBOX_RUN_ID")) }}{{ $env = append $env . }}{{ end }}
{{- end }}
{{- $agent := ternary "[::]:15800" "off" (hasKey $of "agentTokenSecret") }}
{{- range $name, $value := dict "OPENBOX_HTTP_LISTEN" "[::]:15801" "OPENBOX_AGENT_LISTEN" $agent "OPENBOX_CA_DIR" "/etc/openbox/ca" }}
{{- $env = append $env (dict "name" $name "value" $value) }}
{{- end }}
{{- $mounts := append $container.volumeMounts (dict "name" "openbox-ca" "mountPath" "/etc/openbox/ca" "readOnly" true) }}
{{- merge (dict "env" $env "volumeMounts" $mounts) (omit $container "restartPolicy" "env" "volumeMounts") | toYaml }}
{{- end }}

{{/* The environment of apps: that of a pod with a sidecar, with the companion's address, and what it signs with alone to trust. */}}
{{- define "openbox.companionEnv" -}}
{{- $host := printf "%s.%s.svc" (include "openbox.companion" .) .Release.Namespace }}
{{- $agent := hasKey (include "openbox.companionOf" . | fromYaml) "agentTokenSecret" }}
{{- range include "openbox-sidecar.env" . | fromYamlArray }}
{{- $own := hasPrefix "OPENBOX_" .name }}
{{- /* A store of Java's must have been made; and sockets and tokens are of one pod. */}}
{{- if not (or (has .name (list "JAVA_TOOL_OPTIONS" "OPENBOX_SIDECAR_SOCKET" "OPENBOX_SIDECAR_TOKEN_FILE")) (and $own (not $agent))) }}
{{- $value := .value | replace "127.0.0.1:158" (printf "%s:158" $host) | replace "/openbox/bundle.pem" "/openbox/ca.pem" }}
{{ .name }}: {{ ternary $host $value (eq .name "CLOUDSDK_PROXY_ADDRESS") | quote }}
{{- end }}
{{- end }}
{{- end }}
