{{- define "localredirect.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- /* The labels of an object. The argument is (list $ "agent"), with the component "" for what belongs to all. */}}
{{- define "localredirect.labels" -}}
{{ include "localredirect.selector" . }}
app.kubernetes.io/version: {{ (index . 0).Chart.AppVersion | quote }}
{{- end }}

{{- define "localredirect.selector" -}}
app.kubernetes.io/name: localredirect
{{- with index . 1 }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end }}

{{- /* The agent's configuration as YAML. */}}
{{- define "localredirect.agentConfig" -}}
{{- $base := dict "health" (dict "address" (ternary "127.0.0.1" "0.0.0.0" .Values.hostNetwork)) }}
{{- if not .Values.feature.closeStaleSockets }}
{{- $_ := set $base "redirect" (dict "close_stale_sockets" false) }}
{{- end }}
{{- toYaml (mergeOverwrite $base (deepCopy .Values.config)) }}
{{- end }}

{{- /* The controller's configuration. It is the agents' configuration, so that the controller judges policies as they do,
except that metrics and health are served at the Pod's address. */}}
{{- define "localredirect.controllerConfig" -}}
{{- $base := mergeOverwrite (deepCopy .Values.config) (dict "health" (dict "address" "0.0.0.0")) }}
{{- $_ := unset $base.metrics "address" }}
{{- toYaml (mergeOverwrite $base (deepCopy .Values.controller.config)) }}
{{- end }}

{{- /* "true" if an address is 0.0.0.0 or ::, however it is written; else nothing. */}}
{{- define "localredirect.isAny" -}}
{{- if regexMatch "^[0.:]+$" . }}true{{ end }}
{{- end }}

{{- /* Refuses what the schema can't check, with all faults in one message. */}}
{{- define "localredirect.check" -}}
{{- $why := ternary "" "hostNetwork is false" .Values.hostNetwork }}
{{- $faults := include "localredirect.faults" (list "config" (include "localredirect.agentConfig" . | fromYaml) $why) }}
{{- if .Values.controller.enabled }}
{{- $config := include "localredirect.controllerConfig" . | fromYaml }}
{{- $faults = print $faults (include "localredirect.faults" (list "controller.config" $config "the controller is not on the node's network")) }}
{{- end }}
{{- with $faults }}
{{- fail . }}
{{- end }}
{{- end }}

{{- /* One line for each fault. The arguments are (list "config" CONFIG WHY), where WHY is the reason why the kubelet uses
the Pod's address, which is not known in advance; "" when it does not. */}}
{{- define "localredirect.faults" -}}
{{- $name := index . 0 }}
{{- $health := (index . 1).health }}
{{- $metrics := mergeOverwrite (dict "address" "0.0.0.0") (index . 1).metrics }}
{{- $any := include "localredirect.isAny" $health.address }}
{{- if and (index . 2) (not $any) }}
{{- printf "\n%s.health.address: %s is wrong, since %s and the kubelet uses the Pod's address; it must be 0.0.0.0 or ::, which both mean all addresses" $name $health.address (index . 2) }}
{{- end }}
{{- $overlap := or $any (include "localredirect.isAny" $metrics.address) (eq $health.address $metrics.address) }}
{{- if and (eq (int $health.port) (int $metrics.port)) $overlap }}
{{- printf "\n%s.health.port: %d is wrong: %s.metrics.port is the same, and the addresses %s and %s overlap; it must be another port" $name (int $health.port) $name $health.address $metrics.address }}
{{- end }}
{{- end }}

{{- /* Where the kubelet checks the agent's health: if the agent is on the node's network, at the address at which it
listens; else at the Pod's address, which is the default. */}}
{{- define "localredirect.agentHealth" -}}
{{- $health := (include "localredirect.agentConfig" . | fromYaml).health -}}
{{- if .Values.hostNetwork -}}
host: {{ if include "localredirect.isAny" $health.address }}127.0.0.1{{ else }}{{ toYaml $health.address }}{{ end }}
{{ end -}}
port: {{ $health.port }}
{{- end }}

{{- define "localredirect.pullSecrets" -}}
{{- with .Values.image.pullSecrets -}}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{- /* What both the agent and the controller read. The agent may do nothing else. */}}
{{- define "localredirect.readRules" -}}
- apiGroups: [balancing.elf.io]
  resources: [localredirectpolicies, balancingpolicies]
  verbs: [get, list, watch]
- apiGroups: [""]
  resources: [services, pods, nodes]
  verbs: [get, list, watch]
{{- end }}
