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
- name: grace
  expression: 'has(object.spec.terminationGracePeriodSeconds) ? object.spec.terminationGracePeriodSeconds : 30'
# What the sidecar takes of it where nobody says; its default otherwise.
- name: drain
  expression: 'variables.drain_within != "" ? variables.drain_within : variables.grace >= 12 ? "" : variables.grace > 3 ? string(variables.grace - 2) + "s" : "1s"'
{{- end }}

{{/* What the sidecar of a pod must be, if it is the mutation's: by the same container that the mutation puts there. */}}
{{- define "openbox.expected" -}}
{{- $container := include "openbox-sidecar.container" (dict "image" "-") | fromYaml }}
{{- $values := list }}{{ $fields := list }}
{{- range $container.env }}
{{- if hasKey . "valueFrom" }}
{{- $fields = append $fields (printf "%s: %s" (toJson .name) (toJson .valueFrom.fieldRef.fieldPath)) }}
{{- else if ne .name "OPENBOX_LOG_FORMAT" }}
{{- $values = append $values (printf "%s: %s" (toJson .name) (toJson .value)) }}
{{- end }}
{{- end }}
{{- range $annotation, $name := include "openbox-sidecar.annotations" . | fromJson }}
{{- $values = append $values (printf "%s: %s" (toJson $name) (include "openbox.said" (list $annotation $name))) }}
{{- end }}
{{- $mounts := list }}
{{- range $container.volumeMounts }}
{{- $mounts = append $mounts (printf "%s: %s" (toJson .name) (toJson .mountPath)) }}
{{- end }}
{{- range $annotation, $of := include "openbox.objects" . | fromJson }}
{{- $variable := include "openbox.variable" $annotation }}
{{- $values = append $values (printf `%s: (%s == "" ? "" : %s)` (toJson $of.env) $variable (toJson $of.value)) }}
{{- $mounts = append $mounts (printf `%s: (%s == "" ? "" : %s)` (toJson $of.volume) $variable (toJson $of.path)) }}
{{- end }}
- name: ours
  expression: 'has(object.spec.initContainers) ? object.spec.initContainers.filter(c, c.name == "openbox-sidecar") : []'
- name: values
  expression: {{ printf "{%s}" (join ", " $values) | toJson }}
- name: fields
  expression: {{ printf "{%s}" (join ", " $fields) | toJson }}
- name: mounts
  expression: {{ printf "{%s}" (join ", " $mounts) | toJson }}
{{- end }}

{{/* The objects that a pod may name: what they are to the sidecar. */}}
{{- define "openbox.objects" -}}
{
  "api-key-secret": {"volume": "openbox-api-key", "path": "/etc/openbox/api-key", "env": "OPENBOX_API_KEY_FILE", "value": "/etc/openbox/api-key/api-key"},
  "config-configmap": {"volume": "openbox-config", "path": "/etc/openbox/config", "env": "OPENBOX_CONFIG", "value": "/etc/openbox/config/openbox-sidecar.yaml"},
  "policy-configmap": {"volume": "openbox-policy", "path": "/etc/openbox/policy", "env": "OPENBOX_POLICY", "value": "/etc/openbox/policy"}
}
{{- end }}

{{/* What a setting of the sidecar's is, by what the pod says, empty where it is not set: (list ANNOTATION VARIABLE). */}}
{{- define "openbox.said" -}}
{{- $said := printf `%s.replace("$(", "$$(")` (include "openbox.variable" (index . 0)) }}
{{- if eq (index . 1) "OPENBOX_LOG_FORMAT" }}
{{- printf `(variables.log_format == "" ? "json" : %s)` $said }}
{{- else if eq (index . 1) "OPENBOX_DRAIN_WITHIN" -}}
variables.drain
{{- else }}
{{- $said }}
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
{{- $said := include "openbox.said" (list $annotation $name) }}
{{- $env = printf `%s + (%s == "" ? [] : [%s])` $env $said (printf $variable $name $said) }}
{{- end }}
{{- $mounts := include "openbox.cel" (list "Object.spec.initContainers.volumeMounts" $container.volumeMounts) }}
{{- $mount := `Object.spec.initContainers.volumeMounts{name: %s, mountPath: %s, readOnly: true}` }}
{{- range $annotation, $of := include "openbox.objects" . | fromJson }}
{{- $env = printf "%s + %s" $env (include "openbox.if" (list $annotation (printf $variable $of.env (toJson $of.value)))) }}
{{- $mounts = printf "%s + %s" $mounts (include "openbox.if" (list $annotation (printf $mount (toJson $of.volume) (toJson $of.path)))) }}
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

{{/* What a pod may not say or be, by the annotations that are known and the image: each refusal names the annotation or the field. */}}
{{- define "openbox.validations" -}}
- expression: {{ printf `variables.said.all(name, !name.startsWith("openbox.ai/") || name == "openbox.ai/injected" || name.substring(11) in %s)` (toJson .known) | toJson }}
  message: {{ printf "an annotation openbox.ai/… is not known to injection by policy; known are %s" (join ", " .known) | toJson }}
- expression: 'variables.mode in ["", "cooperative"]'
  message: annotation openbox.ai/mode is not cooperative; redirect needs injection by webhook, which looks whether containers can go around it
- expression: 'variables.core_url == "" || variables.api_key_secret != ""'
  message: "annotation openbox.ai/core-url needs openbox.ai/api-key-secret: NAME, or NAME/KEY, of a Secret with the agent's API key"
- expression: 'variables.core_url == "" || variables.policy_configmap == ""'
  message: "annotations openbox.ai/policy-configmap and openbox.ai/core-url exclude each other: either the embedded policy judges, or OpenBox Core"
- expression: '!has(object.spec.hostNetwork) || !object.spec.hostNetwork'
  message: "spec.hostNetwork is true: the sidecar's listeners, and everybody on the node who reaches them, would not be the pod's own"
- expression: 'variables.drain_within == "" || variables.drain_within.matches("^[0-9]+(ms|s|m|h)?$")'
  message: 'annotation openbox.ai/drain-within is no duration; expected a whole number and ms, s, m or h, for example 20s'
- expression: '!variables.drain_within.matches("^[0-9]+(ms|s|m|h)?$") || duration(variables.drain_within + (variables.drain_within.matches("^[0-9]+$") ? "s" : "")) + duration("2s") <= duration(string(variables.grace) + "s")'
  message: 'annotation openbox.ai/drain-within is longer than spec.terminationGracePeriodSeconds less 2 s: the sidecar would be killed while it drains'
{{ include "openbox.identities" (list "spec" "[object.spec]") }}
- expression: 'variables.journal_claim == "" || !has(object.spec.volumes) || !object.spec.volumes.exists(v, v.name != "openbox-state" && has(v.persistentVolumeClaim) && v.persistentVolumeClaim.claimName == variables.journal_claim)'
  message: a volume of spec.volumes is the claim of annotation openbox.ai/journal-claim, whose journal and state are for the sidecar alone
- expression: '!object.spec.containers.exists(c, c.name == "openbox-sidecar")'
  message: "there is a container openbox-sidecar already, in spec.containers; take it out, or set the label openbox.ai/inject: disabled"
# The mutation leaves a pod alone that has a container of this name: it must be the mutation's own, whatever the pod says of it.
{{- $there := "there is a container openbox-sidecar already, in spec.initContainers, that is not the one of this injection" }}
{{- range $what, $is := dict
  "image" `c.image == (variables.image == "" ? IMAGE : variables.image)`
  "args, command, restartPolicy or startupProbe" `!has(c.command) && has(c.args) && c.args == ["serve"] && has(c.restartPolicy) && c.restartPolicy == "Always" && has(c.startupProbe) && !has(c.lifecycle)`
  "securityContext" `has(c.securityContext) && has(c.securityContext.runAsUser) && c.securityContext.runAsUser == 1580 && has(c.securityContext.readOnlyRootFilesystem) && c.securityContext.readOnlyRootFilesystem && has(c.securityContext.allowPrivilegeEscalation) && !c.securityContext.allowPrivilegeEscalation && (!has(c.securityContext.privileged) || !c.securityContext.privileged) && has(c.securityContext.capabilities) && !has(c.securityContext.capabilities.add)`
  "env" `!has(c.envFrom) && has(c.env) && c.env.all(e, e.name in variables.values ? has(e.value) && e.value == variables.values[e.name] : e.name in variables.fields ? has(e.valueFrom) && has(e.valueFrom.fieldRef) && e.valueFrom.fieldRef.fieldPath == variables.fields[e.name] : !e.name.startsWith("OPENBOX_") && !e.name.startsWith("SSL_CERT_")) && variables.values.all(name, variables.values[name] == "" || c.env.exists(e, e.name == name)) && variables.fields.all(name, c.env.exists(e, e.name == name))`
  "volumeMounts" `has(c.volumeMounts) && c.volumeMounts.all(m, m.name in variables.mounts ? m.mountPath == variables.mounts[m.name] && !has(m.subPath) && !has(m.subPathExpr) : m.mountPath.startsWith("/var/run/secrets/") && !m.mountPath.contains("..") && !has(m.subPath) && !has(m.subPathExpr)) && variables.mounts.all(name, variables.mounts[name] == "" || c.volumeMounts.exists(m, m.name == name))`
}}
- expression: {{ printf "variables.ours.all(c, %s)" ($is | replace "IMAGE" ($.image | toJson)) | toJson }}
  message: {{ printf "%s (%s); take it out, or set the label openbox.ai/inject: disabled" $there $what | toJson }}
{{- end }}
- expression: {{ printf `variables.ours.size() == 0 || (has(object.spec.volumes) && object.spec.volumes.all(v, !(v.name in variables.mounts) || (%s)))` (join " || " (list
    `v.name in ["openbox-share", "openbox-keys"] && has(v.emptyDir)`
    `v.name == "openbox-state" && (variables.journal_claim == "" ? has(v.emptyDir) : has(v.persistentVolumeClaim) && v.persistentVolumeClaim.claimName == variables.journal_claim)`
    `v.name == "openbox-config" && has(v.configMap) && v.configMap.name == variables.config_configmap`
    `v.name == "openbox-policy" && has(v.configMap) && v.configMap.name == variables.policy_configmap`
    `v.name == "openbox-api-key" && has(v.secret) && v.secret.secretName == variables.api_key_secret.split("/")[0]`)) | toJson }}
  message: a volume openbox-… of spec.volumes is not the one of this injection
{{- range list "containers" "initContainers" }}
{{ include "openbox.identities" (list (printf "a container of spec.%s" .) (printf `(has(object.spec.%s) ? object.spec.%s.filter(c, c.name != "openbox-sidecar") : [])` . .)) }}
{{ include "openbox.mounted" . }}
- expression: {{ printf `!has(object.spec.%s) || object.spec.%s.all(c, c.name == "openbox-sidecar" || !has(c.env) || !c.env.exists(e, e.name == "OPENBOX_API_KEY"))` . . | toJson }}
  message: {{ printf "a container of spec.%s has OPENBOX_API_KEY: the key is the sidecar's (openbox.ai/api-key-secret), and only injection by webhook takes it out" . | toJson }}
{{- end }}
{{- end }}

{{/* Nobody else is the sidecar's user or of its group: (list WHO LIST-OF-CEL), each with a securityContext. */}}
{{- define "openbox.identities" -}}
{{- $who := index . 0 }}{{ $all := index . 1 }}
{{- range $field, $whose := dict "runAsUser" "user" "runAsGroup" "group" }}
- expression: {{ printf `%s.all(c, !has(c.securityContext) || !has(c.securityContext.%s) || c.securityContext.%s != 1580)` $all $field $field | toJson }}
  message: {{ printf "%s has securityContext.%s 1580, which is the sidecar's own %s" $who $field $whose | toJson }}
{{- end }}
{{- if eq $who "spec" }}
- expression: {{ printf `%s.all(c, !has(c.securityContext) || !has(c.securityContext.supplementalGroups) || !(1580 in c.securityContext.supplementalGroups))` $all | toJson }}
  message: {{ printf "%s has 1580 among securityContext.supplementalGroups, which is the sidecar's own group" $who | toJson }}
{{- end }}
{{- end }}

{{/* Nobody else mounts what is the sidecar's alone. */}}
{{- define "openbox.mounted" -}}
- expression: {{ printf `!has(object.spec.%s) || object.spec.%s.all(c, c.name == "openbox-sidecar" || !has(c.volumeMounts) || !c.volumeMounts.exists(m, m.name in ["openbox-state", "openbox-keys", "openbox-config", "openbox-policy", "openbox-api-key"]))` . . | toJson }}
  message: {{ printf "a container of spec.%s mounts a volume openbox-…, which is for the sidecar alone" . | toJson }}
{{- end }}

{{/* Containers that are put into a running pod are not sent through the sidecar, but must not become it. */}}
{{- define "openbox.debugging" -}}
{{ include "openbox.identities" (list "a container of spec.ephemeralContainers" "(has(object.spec.ephemeralContainers) ? object.spec.ephemeralContainers : [])") }}
- expression: '!has(object.spec.ephemeralContainers) || !object.spec.ephemeralContainers.exists(c, c.name in ["openbox-sidecar", "openbox-init-net"])'
  message: a container of spec.ephemeralContainers has a name of the sidecar's
{{ include "openbox.mounted" "ephemeralContainers" }}
- expression: '!has(object.spec.ephemeralContainers) || !object.spec.ephemeralContainers.exists(c, has(c.targetContainerName) && c.targetContainerName == "openbox-sidecar")'
  message: "a container of spec.ephemeralContainers has targetContainerName openbox-sidecar: it would see the sidecar's processes, and as root its files and keys"
{{- end }}
