{{- define "mcp-fleet.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* 40 characters leave room for the longest suffix within the 63 of a label. */}}
{{- define "mcp-fleet.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "mcp-fleet.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "mcp-fleet.operatorName" -}}
{{- printf "%s-operator" (include "mcp-fleet.fullname" .) -}}
{{- end -}}

{{/* Immutable once installed: the Deployment's selector. */}}
{{- define "mcp-fleet.selectorLabels" -}}
app.kubernetes.io/name: {{ include "mcp-fleet.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end -}}

{{- define "mcp-fleet.labels" -}}
{{ include "mcp-fleet.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end -}}

{{/* Of the job that ends the metrics API: no Service and no budget of the operator may count its pod. */}}
{{- define "mcp-fleet.cleanupSelectorLabels" -}}
app.kubernetes.io/name: {{ include "mcp-fleet.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: cleanup
{{- end -}}

{{- define "mcp-fleet.cleanupLabels" -}}
{{ include "mcp-fleet.cleanupSelectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end -}}

{{- define "mcp-fleet.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "mcp-fleet.operatorName" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name: name the ServiceAccount to use, or set serviceAccount.create to true" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* repository, tag and digest to one reference; the digest wins where there is one. */}}
{{- define "mcp-fleet.imageReference" -}}
{{- if .digest -}}
{{- printf "%s@%s" .repository .digest -}}
{{- else -}}
{{- printf "%s:%s" .repository .tag -}}
{{- end -}}
{{- end -}}

{{- define "mcp-fleet.image" -}}
{{- $i := .Values.image -}}
{{- include "mcp-fleet.imageReference" (dict "repository" $i.repository "tag" (default .Chart.AppVersion $i.tag) "digest" $i.digest) -}}
{{- end -}}

{{/*
The agent's image: each empty field comes from the operator's. A tag of its own switches the
operator's digest off, which would belong to another image; so does a repository without a digest,
for a mirror may hold another manifest.
*/}}
{{- define "mcp-fleet.agentImage" -}}
{{- $i := .Values.image -}}
{{- $a := .Values.agent.image -}}
{{- $digest := $a.digest -}}
{{- if not (or $a.digest $a.tag $a.repository) -}}
{{- $digest = $i.digest -}}
{{- end -}}
{{- include "mcp-fleet.imageReference" (dict "repository" (default $i.repository $a.repository) "tag" (default (default .Chart.AppVersion $i.tag) $a.tag) "digest" $digest) -}}
{{- end -}}

{{/* Not empty if gateways report to the operator. */}}
{{- define "mcp-fleet.autoscaler" -}}
{{- if and .Values.autoscaler.enabled .Values.gateway.enabled }}true{{ end -}}
{{- end -}}

{{/* Not empty if the operator serves the metrics API, which is cluster-wide by nature. */}}
{{- define "mcp-fleet.metricsAPI" -}}
{{- if and (include "mcp-fleet.autoscaler" .) .Values.autoscaler.metricsAPI.enabled (not .Values.watchNamespace) }}true{{ end -}}
{{- end -}}

{{- define "mcp-fleet.loadTokenSecret" -}}
{{- default (printf "%s-load" (include "mcp-fleet.operatorName" .)) .Values.autoscaler.loadTokenSecret -}}
{{- end -}}

{{/* The one audience of the tokens that gateways show to the operator: good for nothing else. */}}
{{- define "mcp-fleet.loadAudience" -}}
mcp-fleet-operator
{{- end -}}

{{/*
What the operator may do with fleets and their parts. The one list: it becomes a ClusterRole, or a
Role in watchNamespace. It has no secrets, no configmaps, no roles, no exec, no creation of pods and
no wildcard, and SECURITY.md says what each line is for. What the metrics API needs beside it is in rbac.yaml.
*/}}
{{- define "mcp-fleet.operatorRules" -}}
- apiGroups: [mcpfleet.io]
  resources: [mcpfleets]
  verbs: [list, watch, patch]
- apiGroups: [mcpfleet.io]
  resources: [mcpfleets/status]
  verbs: [patch]
# From 0 and to 0, and every step where no HPA does it.
- apiGroups: [mcpfleet.io]
  resources: [mcpfleets/scale]
  verbs: [get, patch]
# Owner references with blockOwnerDeletion, where the OwnerReferencesPermissionEnforcement admission is on.
- apiGroups: [mcpfleet.io]
  resources: [mcpfleets/finalizers]
  verbs: [update]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [services, serviceaccounts]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [autoscaling]
  resources: [horizontalpodautoscalers]
  verbs: [get, list, watch, create, patch, delete]
# Read only: why a pod does not start, and whether endpoints are really ready.
- apiGroups: [""]
  resources: [pods, events]
  verbs: [list, watch]
{{- if .Values.gateway.enabled }}
# One annotation: which pods a scale-down takes first. Whoever may patch pods may not change what they run,
# except for their images and deadlines; see SECURITY.md.
- apiGroups: [""]
  resources: [pods]
  verbs: [patch]
{{- end }}
{{- if include "mcp-fleet.autoscaler" . }}
# What the pods of fleets use.
- apiGroups: [metrics.k8s.io]
  resources: [pods]
  verbs: [list]
{{- end }}
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [list, watch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create]
{{- end -}}

{{- define "mcp-fleet.gatewayName" -}}
{{- printf "%s-gateway" (include "mcp-fleet.fullname" .) -}}
{{- end -}}

{{- define "mcp-fleet.gatewaySelectorLabels" -}}
app.kubernetes.io/name: {{ include "mcp-fleet.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: gateway
{{- end -}}

{{- define "mcp-fleet.gatewayLabels" -}}
{{ include "mcp-fleet.gatewaySelectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end -}}

{{- define "mcp-fleet.gatewayServiceAccountName" -}}
{{- if .Values.gateway.serviceAccount.create -}}
{{- default (include "mcp-fleet.gatewayName" .) .Values.gateway.serviceAccount.name -}}
{{- else -}}
{{- required "gateway.serviceAccount.name: name the ServiceAccount to use, or set gateway.serviceAccount.create to true" .Values.gateway.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "mcp-fleet.gatewayKeysSecret" -}}
{{- default (printf "%s-keys" (include "mcp-fleet.gatewayName" .)) .Values.gateway.keys.existingSecret -}}
{{- end -}}

{{/* Where clients reach the gateway; the port stands there unless it is the scheme's own. */}}
{{- define "mcp-fleet.gatewayUrl" -}}
{{- if .Values.gateway.url -}}
{{- .Values.gateway.url -}}
{{- else -}}
{{- printf "http://%s.%s" (include "mcp-fleet.gatewayName" .) .Release.Namespace -}}
{{- if ne (int .Values.gateway.service.port) 80 }}:{{ .Values.gateway.service.port }}{{ end -}}
{{- end -}}
{{- end -}}

{{/* Hosts that requests may ask for beside the names of the Service, comma separated; perhaps none. */}}
{{- define "mcp-fleet.gatewayHosts" -}}
{{- $g := .Values.gateway -}}
{{- $hosts := $g.allowedHosts -}}
{{- if $g.ingress.enabled }}{{ $hosts = concat $hosts $g.ingress.hosts }}{{ end -}}
{{- if $g.httpRoute.enabled }}{{ $hosts = concat $hosts $g.httpRoute.hostnames }}{{ end -}}
{{- with $g.url }}{{ $hosts = append $hosts (get (urlParse .) "host" | splitList ":" | first) }}{{ end -}}
{{- uniq $hosts | join "," -}}
{{- end -}}

{{/* All that the gateway may do in the cluster: read fleets and the addresses of their pods. */}}
{{- define "mcp-fleet.gatewayRules" -}}
- apiGroups: [mcpfleet.io]
  resources: [mcpfleets]
  verbs: [get, list, watch]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [get, list, watch]
{{- end -}}
