{{- define "openbox.name" -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}-injector
{{- end }}

{{- define "openbox.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "openbox.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: injector
{{- end }}

{{- define "openbox.labels" -}}
{{ include "openbox.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{/* Who puts the sidecar into pods: `webhook` or `policy`. */}}
{{- define "openbox.by" -}}
{{- $has := .Capabilities.APIVersions.Has "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy" }}
{{- if eq .Values.injection.by "auto" }}{{ ternary "policy" "webhook" $has }}{{ else }}{{ .Values.injection.by }}{{ end }}
{{- end }}

{{/* Which pods ask for a sidecar, for whoever is asked about them. */}}
{{- define "openbox.namespaces" -}}
namespaceSelector:
  matchLabels: {openbox.ai/injection: enabled}
  matchExpressions:
    - {key: kubernetes.io/metadata.name, operator: NotIn, values: [kube-system, {{ .Release.Namespace }}]}
{{- end }}

{{- define "openbox.selected" -}}
{{ include "openbox.namespaces" . }}
objectSelector:
  matchLabels: {openbox.ai/inject: enabled}
{{- end }}

{{/* The rule of an admission policy, too, for which `rules` are called otherwise. */}}
{{- define "openbox.pods" -}}
- {apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [pods], scope: Namespaced}
{{- end }}

{{/* Which running pods: those with a sidecar, as a label can be taken off. */}}
{{- define "openbox.governed" -}}
- name: governed
  expression: 'has(object.spec.initContainers) && object.spec.initContainers.exists(c, c.name == "openbox-sidecar")'
{{- end }}

{{/* Containers that are put into a running pod. */}}
{{- define "openbox.running" -}}
- {apiGroups: [""], apiVersions: [v1], operations: [UPDATE], resources: [pods/ephemeralcontainers], scope: Namespaced}
{{- end }}

{{- define "openbox.secret" -}}
{{ .Values.certificate.existingSecret | default (include "openbox.name" .) }}
{{- end }}
