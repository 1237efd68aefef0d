{{/*
A value of a manifest as an expression of CEL: (list "Object.spec.initContainers" VALUE). Aggregates of CEL are of one type,
so an object is an Object of that path, and only what Kubernetes has as a map of words is one.
*/}}
{{- define "openbox.cel" -}}
{{- $path := index . 0 }}{{ $value := index . 1 }}
{{- $parts := list }}
{{- if kindIs "slice" $value }}
{{- range $value }}{{ $parts = append $parts (include "openbox.cel" (list $path .)) }}{{ end }}
{{- printf "[%s]" (join ", " $parts) }}
{{- else if and (kindIs "map" $value) (has (splitList "." $path | last) (list "requests" "limits")) }}
{{- range $key, $one := $value }}{{ $parts = append $parts (printf "%s: %s" (toJson $key) (toString $one | toJson)) }}{{ end }}
{{- printf "{%s}" (join ", " $parts) }}
{{- else if kindIs "map" $value }}
{{- range $key, $one := $value }}{{ $parts = append $parts (printf "%s: %s" $key (include "openbox.cel" (list (printf "%s.%s" $path $key) $one))) }}{{ end }}
{{- printf "%s{%s}" $path (join ", " $parts) }}
{{- else }}
{{- toJson $value }}
{{- end }}
{{- end }}

{{/* The name of an annotation as a variable of CEL. */}}
{{- define "openbox.variable" -}}
variables.{{ . | replace "-" "_" }}
{{- end }}

{{/* What is there if an annotation is said: (list ANNOTATION LIST-OF-CEL). */}}
{{- define "openbox.if" -}}
({{ include "openbox.variable" (index . 0) }} == "" ? [] : [{{ index . 1 }}])
{{- end }}

{{/* A change of the pod where a part of it is not there yet: (list HAS PATH VALUE). */}}
{{- define "openbox.made" -}}
({{ index . 0 }} ? [] : [JSONPatch{op: "add", path: {{ index . 1 | toJson }}, value: {{ index . 2 }}}])
{{- end }}
