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

{{- define "openbox.secret" -}}
{{ .Values.certificate.existingSecret | default (include "openbox.name" .) }}
{{- end }}
