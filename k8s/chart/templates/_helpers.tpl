{{- define "localredirect.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- /* Labels of an object; give (list $ "agent"), with the component "" for what belongs to all. */}}
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
{{- $health := dict "health" (dict "address" (ternary "127.0.0.1" "0.0.0.0" .Values.hostNetwork)) }}
{{- $config := mergeOverwrite $health (deepCopy .Values.config) }}
{{- include "localredirect.checkPorts" (list "config" $config) }}
{{- if not .Values.hostNetwork }}
{{- include "localredirect.checkHealth" (list "config" $config "hostNetwork is false") }}
{{- end }}
{{- toYaml $config }}
{{- end }}

{{- /* The controller's: what agents are told, so that it judges policies as they do; served on the Pod's address. */}}
{{- define "localredirect.controllerConfig" -}}
{{- $base := mergeOverwrite (deepCopy .Values.config) (dict "health" (dict "address" "0.0.0.0")) }}
{{- $config := mergeOverwrite $base (deepCopy .Values.controller.config) }}
{{- include "localredirect.checkPorts" (list "controller.config" $config) }}
{{- include "localredirect.checkHealth" (list "controller.config" $config "it is the controller's") }}
{{- toYaml $config }}
{{- end }}

{{- /* Whether an address is 0.0.0.0 or ::, however it is written: "true", or nothing. */}}
{{- define "localredirect.isAny" -}}
{{- if regexMatch "^[0.:]+$" . }}true{{ end }}
{{- end }}

{{- /* Refuses what the agent and the controller would refuse at their start. Give (list "config" CONFIG). */}}
{{- define "localredirect.checkPorts" -}}
{{- $name := index . 0 }}
{{- $health := (index . 1).health }}
{{- $metrics := mergeOverwrite (dict "address" "0.0.0.0") (index . 1).metrics }}
{{- $any := or (include "localredirect.isAny" $health.address) (include "localredirect.isAny" $metrics.address) }}
{{- if and (eq (int $health.port) (int $metrics.port)) (or $any (eq $health.address $metrics.address)) }}
{{- fail (printf "%s.health.port: %d is not allowed: %s.metrics.port is the same, and the addresses %s and %s overlap; allowed: another port for one of the two" $name (int $health.port) $name $health.address $metrics.address) }}
{{- end }}
{{- end }}

{{- /* Probes ask at the Pod's address, which nobody knows before. Give (list "config" CONFIG "why it is so"). */}}
{{- define "localredirect.checkHealth" -}}
{{- $address := (index . 1).health.address }}
{{- if not (include "localredirect.isAny" $address) }}
{{- fail (printf "%s.health.address: %s is not allowed, since %s and the kubelet asks at the Pod's address; allowed: 0.0.0.0 or ::, which both mean all addresses" (index . 0) $address (index . 2)) }}
{{- end }}
{{- end }}

{{- /* Where the kubelet asks for the agent's health: on the node's network where it listens. */}}
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

{{- /* What the controller reads and the agent reads, and all that the agent may do. */}}
{{- define "localredirect.readRules" -}}
- apiGroups: [balancing.elf.io]
  resources: [localredirectpolicies, balancingpolicies]
  verbs: [get, list, watch]
- apiGroups: [""]
  resources: [services, pods, nodes]
  verbs: [get, list, watch]
{{- end }}
