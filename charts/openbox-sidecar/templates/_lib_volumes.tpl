{{/* A copy of that of openbox-sidecar-lib. Made by tests/charts/charts.py. */}}
{{/*
The pod's volumes that are the sidecar's. Same argument as "openbox-sidecar.container".
*/}}
{{- define "openbox-sidecar.volumes" -}}
- {name: openbox-share, emptyDir: {medium: Memory, sizeLimit: 16Mi}}
{{- if .journalClaim }}
- {name: openbox-state, persistentVolumeClaim: {claimName: {{ .journalClaim | quote }}}}
{{- else }}
- {name: openbox-state, emptyDir: {}}
{{- end }}
- {name: openbox-keys, emptyDir: {medium: Memory, sizeLimit: 16Mi}}
{{- if .configConfigMap }}
- {name: openbox-config, configMap: {name: {{ .configConfigMap | quote }}}}
{{- end }}
{{- if .policyConfigMap }}
- {name: openbox-policy, configMap: {name: {{ .policyConfigMap | quote }}}}
{{- end }}
{{- with .apiKeySecret }}
- name: openbox-api-key
  secret:
    secretName: {{ required "openbox-sidecar: apiKeySecret has no name" .name | quote }}
    defaultMode: 292
    items: [{key: {{ .key | default "api-key" | quote }}, path: api-key}]
{{- end }}
{{- with .agentTokenSecret }}
- name: openbox-agent-token
  secret:
    secretName: {{ required "openbox-sidecar: agentTokenSecret has no name" .name | quote }}
    defaultMode: 292
    items: [{key: {{ .key | default "agent-token" | quote }}, path: agent-token}]
{{- end }}
{{- if .credentialsSecret }}
- name: openbox-credentials
  secret:
    secretName: {{ .credentialsSecret | quote }}
    defaultMode: 292
{{- end }}
{{- end }}

{{/*
The agent's token for SDKs, where the sidecar takes it from a Secret. Same argument as "openbox-sidecar.container".
*/}}
{{- define "openbox-sidecar.tokenEnv" -}}
{{- $from := dict "secretKeyRef" (dict "name" .agentTokenSecret.name "key" (.agentTokenSecret.key | default "agent-token")) }}
{{- range list "OPENBOX_API_KEY" "OPENBOX_SIDECAR_TOKEN" }}
- {{ dict "name" . "valueFrom" $from | toJson }}
{{- end }}
{{- end }}

{{/*
What a container of the app mounts, to read.
*/}}
{{- define "openbox-sidecar.volumeMounts" -}}
- {name: openbox-share, mountPath: /openbox, readOnly: true}
{{- end }}
