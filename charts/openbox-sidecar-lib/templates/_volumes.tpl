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
{{- end }}

{{/*
What a container of the app mounts, to read.
*/}}
{{- define "openbox-sidecar.volumeMounts" -}}
- {name: openbox-share, mountPath: /openbox, readOnly: true}
{{- end }}
