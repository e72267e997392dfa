{{/* Names of what runs, their labels, and what every pod of ours is allowed. */}}
{{- define "trimtab.control" -}}{{ .Release.Name }}-control{{- end }}
{{- define "trimtab.envoy" -}}{{ .Release.Name }}-envoy{{- end }}
{{- define "trimtab.modelCache" -}}{{ .Release.Name }}-model-cache{{- end }}

{{- define "trimtab.labels" -}}
app.kubernetes.io/name: trimtab
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "trimtab.marks" -}}
{{ include "trimtab.labels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "trimtab.pod" -}}
securityContext:
  runAsNonRoot: true
  seccompProfile: {type: RuntimeDefault}
{{- with .Values.pullSecrets }}
imagePullSecrets:
{{- range . }}
- name: {{ . | quote }}
{{- end }}
{{- end }}
{{- end }}

{{/* Evenly, and never at the price of a pod that waits. `helm upgrade --reuse-values` brings no new value. */}}
{{- define "trimtab.spread" -}}
topologySpreadConstraints:
{{- range .of.Values.topologyKeys | default (list "kubernetes.io/hostname") }}
- maxSkew: 1
  topologyKey: {{ . | quote }}
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels: {{- include "trimtab.labels" $.of | nindent 6 }}
      app.kubernetes.io/component: {{ $.component }}
{{- end }}
{{- end }}

{{- define "trimtab.container" -}}
imagePullPolicy: {{ .Values.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}
