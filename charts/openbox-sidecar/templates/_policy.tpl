{{/* What a pod says, and what holds where it does not: one variable for each annotation, empty where nothing is said. */}}
{{- define "openbox.variables" -}}
{{- $defaults := (index . 0).Values.injection.defaults }}
- name: said
  expression: 'has(object.metadata.annotations) ? object.metadata.annotations : {}'
{{- range index . 1 }}
{{- $full := printf "openbox.ai/%s" . | toJson }}
- name: {{ replace "-" "_" . }}
  expression: {{ printf "(%s in variables.said ? string(variables.said[%s]) : %s).trim()" $full $full (get $defaults . | toString | toJson) | toJson }}
{{- end }}
{{- end }}

{{/* The patches that place the sidecar; none where it is there already, as policies are asked again. */}}
{{- define "openbox.patches" -}}
{{- $there := `has(object.spec.initContainers) && object.spec.initContainers.exists(c, c.name == "openbox-sidecar")` }}
{{- $parts := list }}
{{- $parts = append $parts (include "openbox.made" (list "has(object.spec.initContainers)" "/spec/initContainers" "[]")) }}
{{- $parts = append $parts (printf "[JSONPatch{op: \"add\", path: \"/spec/initContainers/0\", value: %s}]" (include "openbox.container" .)) }}
{{- $parts = append $parts (include "openbox.made" (list "has(object.spec.volumes)" "/spec/volumes" "[]")) }}
{{- $volume := `JSONPatch{op: "add", path: "/spec/volumes/-", value: %s}` }}
{{- range include "openbox-sidecar.volumes" dict | fromYamlArray }}
{{- if ne .name "openbox-state" }}
{{- $parts = append $parts (printf "[%s]" (printf $volume (include "openbox.cel" (list "Object.spec.volumes" .)))) }}
{{- end }}
{{- end }}
{{- $claim := `(variables.journal_claim == "" ? Object.spec.volumes{name: "openbox-state", emptyDir: Object.spec.volumes.emptyDir{}} : Object.spec.volumes{name: "openbox-state", persistentVolumeClaim: Object.spec.volumes.persistentVolumeClaim{claimName: variables.journal_claim}})` }}
{{- $parts = append $parts (printf "[%s]" (printf $volume $claim)) }}
{{- $map := `Object.spec.volumes{name: "openbox-%s", configMap: Object.spec.volumes.configMap{name: variables.%s_configmap}}` }}
{{- range list "config" "policy" }}
{{- $parts = append $parts (include "openbox.if" (list (printf "%s-configmap" .) (printf $volume (printf $map . .)))) }}
{{- end }}
{{- $secret := `Object.spec.volumes{name: "openbox-api-key", secret: Object.spec.volumes.secret{secretName: variables.api_key_secret.split("/")[0], defaultMode: 292, items: [Object.spec.volumes.secret.items{key: (variables.api_key_secret.contains("/") ? variables.api_key_secret.split("/")[1] : "api-key"), path: "api-key"}]}}` }}
{{- $parts = append $parts (include "openbox.if" (list "api-key-secret" (printf $volume $secret))) }}
{{- $parts = append $parts (printf `(variables.journal_claim == "" ? [] : %s + %s)` (include "openbox.made" (list "has(object.spec.securityContext)" "/spec/securityContext" "Object.spec.securityContext{}")) (include "openbox.made" (list "has(object.spec.securityContext) && has(object.spec.securityContext.fsGroup)" "/spec/securityContext/fsGroup" "1580"))) }}
{{- $parts = append $parts (include "openbox.made" (list "has(object.metadata.annotations)" "/metadata/annotations" "Object.metadata.annotations{}")) }}
{{- $parts = append $parts (printf "[JSONPatch{op: \"add\", path: \"/metadata/annotations/openbox.ai~1injected\", value: %s}]" (toJson .Chart.AppVersion)) }}
{{- printf "%s ? [] : (%s)" $there (join " + " $parts) }}
{{- end }}

{{/* The sidecar's container, with what the pod says in it. */}}
{{- define "openbox.container" -}}
{{- $container := include "openbox-sidecar.container" (dict "image" "-" "imagePullPolicy" .Values.image.pullPolicy "resources" .Values.injection.resources) | fromYaml }}
{{- $env := list }}
{{- range $container.env }}
{{- if ne .name "OPENBOX_LOG_FORMAT" }}{{ $env = append $env . }}{{ end }}
{{- end }}
{{- $env = include "openbox.cel" (list "Object.spec.initContainers.env" $env) }}
{{- $variable := `Object.spec.initContainers.env{name: "%s", value: %s}` }}
{{- range $annotation, $name := include "openbox-sidecar.annotations" . | fromJson }}
{{- $said := printf `%s.replace("$(", "$$(")` (include "openbox.variable" $annotation) }}
{{- if eq $name "OPENBOX_LOG_FORMAT" }}
{{- $env = printf `%s + [%s]` $env (printf $variable $name (printf `(variables.log_format == "" ? "json" : %s)` $said)) }}
{{- else }}
{{- $env = printf "%s + %s" $env (include "openbox.if" (list $annotation (printf $variable $name $said))) }}
{{- end }}
{{- end }}
{{- $mounts := include "openbox.cel" (list "Object.spec.initContainers.volumeMounts" $container.volumeMounts) }}
{{- $mount := `Object.spec.initContainers.volumeMounts{name: "openbox-%s", mountPath: "/etc/openbox/%s", readOnly: true}` }}
{{- range $annotation, $of := dict "config-configmap" (list "config" "OPENBOX_CONFIG" "/openbox-sidecar.yaml") "policy-configmap" (list "policy" "OPENBOX_POLICY" "") "api-key-secret" (list "api-key" "OPENBOX_API_KEY_FILE" "/api-key") }}
{{- $folder := index $of 0 }}
{{- $env = printf "%s + %s" $env (include "openbox.if" (list $annotation (printf $variable (index $of 1) (printf "/etc/openbox/%s%s" $folder (index $of 2) | toJson)))) }}
{{- $mounts = printf "%s + %s" $mounts (include "openbox.if" (list $annotation (printf $mount $folder $folder))) }}
{{- end }}
{{- $rest := include "openbox.cel" (list "Object.spec.initContainers" (omit $container "env" "volumeMounts" "image")) | trimSuffix "}" }}
{{- $image := printf `(variables.image == "" ? %s : variables.image)` (include "openbox.image" . | toJson) }}
{{- printf "%s, image: %s, env: %s, volumeMounts: %s}" $rest $image $env $mounts }}
{{- end }}

{{/* The environment and the mount of every container that is not the sidecar. */}}
{{- define "openbox.apps" -}}
{{- $parts := list }}
{{- range list "containers" "initContainers" }}
{{- $path := printf "Object.spec.%s" . }}
{{- $env := include "openbox-sidecar.env" $ | fromYamlArray | list (printf "%s.env" $path) | include "openbox.cel" }}
{{- $mounts := include "openbox-sidecar.volumeMounts" $ | fromYamlArray | list (printf "%s.volumeMounts" $path) | include "openbox.cel" }}
{{- $parts = append $parts (printf `%s: object.spec.%s.filter(c, c.name != "openbox-sidecar").map(c, %s{name: c.name, env: %s, volumeMounts: %s})` . . $path $env $mounts) }}
{{- end }}
{{- printf "Object{spec: Object.spec{%s}}" (join ", " $parts) }}
{{- end }}

{{/* What a pod may not say or be; each refusal names the annotation or the field. */}}
{{- define "openbox.validations" -}}
- expression: {{ printf `variables.said.all(name, !name.startsWith("openbox.ai/") || name == "openbox.ai/injected" || name.substring(11) in %s)` (toJson .) | toJson }}
  message: {{ printf "an annotation openbox.ai/… is not known to injection by policy; known are %s" (join ", " .) | toJson }}
- expression: 'variables.mode in ["", "cooperative"]'
  message: annotation openbox.ai/mode is not cooperative; redirect needs injection by webhook, which looks whether containers can go around it
- expression: 'variables.core_url == "" || variables.api_key_secret != ""'
  message: "annotation openbox.ai/core-url needs openbox.ai/api-key-secret: NAME, or NAME/KEY, of a Secret with the agent's API key"
- expression: 'variables.core_url == "" || variables.policy_configmap == ""'
  message: "annotations openbox.ai/policy-configmap and openbox.ai/core-url exclude each other: either the embedded policy judges, or OpenBox Core"
- expression: '!has(object.spec.hostNetwork) || !object.spec.hostNetwork'
  message: "spec.hostNetwork is true: the sidecar's listeners, and everybody on the node who reaches them, would not be the pod's own"
- expression: '!has(object.spec.securityContext) || !has(object.spec.securityContext.runAsUser) || object.spec.securityContext.runAsUser != 1580'
  message: "spec.securityContext.runAsUser is 1580, which is the sidecar's own user"
# The mutation leaves a pod alone that has a container of this name: it must be the mutation's own.
- expression: '"openbox.ai/injected" in variables.said || !has(object.spec.initContainers) || !object.spec.initContainers.exists(c, c.name == "openbox-sidecar")'
  message: "there is a container openbox-sidecar already, in spec.initContainers; take it out, or set the label openbox.ai/inject: disabled"
- expression: '!object.spec.containers.exists(c, c.name == "openbox-sidecar")'
  message: "there is a container openbox-sidecar already, in spec.containers; take it out, or set the label openbox.ai/inject: disabled"
{{- range list "containers" "initContainers" }}
- expression: {{ printf `!has(object.spec.%s) || object.spec.%s.all(c, c.name == "openbox-sidecar" || !has(c.volumeMounts) || !c.volumeMounts.exists(m, m.name in ["openbox-state", "openbox-keys", "openbox-config", "openbox-policy", "openbox-api-key"]))` . . | toJson }}
  message: {{ printf "a container of spec.%s mounts a volume openbox-…, which is for the sidecar alone" . | toJson }}
- expression: {{ printf `!has(object.spec.%s) || object.spec.%s.all(c, c.name == "openbox-sidecar" || !has(c.securityContext) || !has(c.securityContext.runAsUser) || c.securityContext.runAsUser != 1580)` . . | toJson }}
  message: {{ printf "a container of spec.%s has securityContext.runAsUser 1580, which is the sidecar's own user" . | toJson }}
- expression: {{ printf `!has(object.spec.%s) || object.spec.%s.all(c, c.name == "openbox-sidecar" || !has(c.env) || !c.env.exists(e, e.name == "OPENBOX_API_KEY"))` . . | toJson }}
  message: {{ printf "a container of spec.%s has OPENBOX_API_KEY: the key is the sidecar's (openbox.ai/api-key-secret), and only injection by webhook takes it out" . | toJson }}
{{- end }}
{{- end }}
