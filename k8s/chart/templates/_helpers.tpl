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
{{- toYaml (mergeOverwrite $health (deepCopy .Values.config)) }}
{{- end }}

{{- /* The controller's: what agents are told, so that it judges policies as they do; served on the Pod's address. */}}
{{- define "localredirect.controllerConfig" -}}
{{- $base := mergeOverwrite (deepCopy .Values.config) (dict "health" (dict "address" "0.0.0.0")) }}
{{- toYaml (mergeOverwrite $base (deepCopy .Values.controller.config)) }}
{{- end }}

{{- /* Where the kubelet asks for the agent's health. */}}
{{- define "localredirect.agentHealth" -}}
{{- with .Values.hostNetwork -}}
host: 127.0.0.1
{{ end -}}
port: {{ .Values.config.health.port }}
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
