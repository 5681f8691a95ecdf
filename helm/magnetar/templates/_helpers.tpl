{{- /* A release's name may have dots, and a Service's may not. */ -}}
{{- define "magnetar.fullname" -}}
{{- default .Release.Name .Values.fullnameOverride | replace "." "-" | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "magnetar.selector" -}}
app.kubernetes.io/name: magnetar
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "magnetar.labels" -}}
{{ include "magnetar.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: {{ .Values.pipeline.context | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "magnetar.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ required "image.tag or image.digest must say which image runs" $image.tag }}
{{- end -}}
{{- end -}}

{{- /* What the schema cannot say: names that belong together, and more processes than partitions. */ -}}
{{- define "magnetar.check" -}}
{{- $values := .Values -}}
{{- if not (regexMatch "^[a-z]" (include "magnetar.fullname" .)) -}}
{{- fail (printf "the release's name %q begins with a digit, and a Service's may not: set fullnameOverride" .Release.Name) -}}
{{- end -}}
{{- if and $values.pulsar.auth.token $values.pulsar.auth.existingSecret -}}
{{- fail "pulsar.auth.token and pulsar.auth.existingSecret are both set: leave one of them empty" -}}
{{- end -}}
{{- if and $values.clickhouse.auth.password $values.clickhouse.auth.existingSecret -}}
{{- fail "clickhouse.auth.password and clickhouse.auth.existingSecret are both set: leave one of them empty" -}}
{{- end -}}
{{- range $worker, $given := $values.workers -}}
{{- if and $given.topic (not (hasPrefix (printf "persistent://%s/" $values.pulsar.tenant) $given.topic)) -}}
{{- fail (printf "workers.%s.topic is %s, and pulsar.tenant is %s: derive the values anew with that tenant, by MAGNETAR_TENANT=%s magnetar helm values" $worker $given.topic $values.pulsar.tenant $values.pulsar.tenant) -}}
{{- end -}}
{{- end -}}
{{- /* Not the schema's, since Helm shows what a schema refuses. */ -}}
{{- range $name, $url := dict "pulsar.url" $values.pulsar.url "pulsar.adminUrl" $values.pulsar.adminUrl "clickhouse.url" $values.clickhouse.url -}}
{{- if regexMatch "^[a-z+]+://[^/]*@" $url -}}
{{- fail (printf "%s has a user or a password in it, where everybody can read it: %s.auth is for secrets" $name (splitList "." $name | first)) -}}
{{- end -}}
{{- end -}}
{{- if and $values.clickhouse.cluster (not $values.clickhouse.url) -}}
{{- fail "clickhouse.cluster needs clickhouse.url: the embedded engine is of no cluster" -}}
{{- end -}}
{{- range $place := list "projector" "workerDefaults" "jobs" -}}
{{- include "magnetar.checkEnv" (list $place (get $values $place)) -}}
{{- end -}}
{{- range $place := list "projectors" "workers" -}}
{{- range $name, $given := get $values $place -}}
{{- include "magnetar.checkEnv" (list (printf "%s.%s" $place $name) $given) -}}
{{- end -}}
{{- end -}}
{{- range $name, $tls := dict "pulsar" $values.pulsar.tls "clickhouse" $values.clickhouse.tls -}}
{{- if and $tls.caConfigMap $tls.caSecret -}}
{{- fail (printf "%s.tls.caConfigMap and %s.tls.caSecret are both set: leave one of them empty" $name $name) -}}
{{- end -}}
{{- end -}}
{{- if and (gt (int $values.projector.replicas) 1) (not $values.clickhouse.url) -}}
{{- fail "projector.replicas needs clickhouse.url: the embedded engine is open in one process alone" -}}
{{- end -}}
{{- if gt (int $values.projector.replicas) (int $values.pipeline.partitions) -}}
{{- fail (printf "projector.replicas is %d, and there are %d partitions: the rest would never have work" (int $values.projector.replicas) (int $values.pipeline.partitions)) -}}
{{- end -}}
{{- if and $values.projectors (not $values.clickhouse.url) -}}
{{- fail "projectors needs clickhouse.url: the embedded engine is open in one process alone" -}}
{{- end -}}
{{- $groups := dict -}}
{{- range $name, $given := $values.projectors -}}
{{- $group := mergeOverwrite (deepCopy $values.projector) $given -}}
{{- if gt (int $group.replicas) (int $values.pipeline.partitions) -}}
{{- fail (printf "projectors.%s.replicas is %d, and there are %d partitions: the rest would never have work" $name (int $group.replicas) (int $values.pipeline.partitions)) -}}
{{- end -}}
{{- range $given.tables -}}
{{- if hasKey $groups . -}}
{{- fail (printf "projectors.%s.tables has %s, and projectors.%s.tables has it too: one group fills it" $name . (get $groups .)) -}}
{{- end -}}
{{- $_ := set $groups . $name -}}
{{- end -}}
{{- if gt (len (printf "%s-projector-%s" (include "magnetar.fullname" $) $name)) 63 -}}
{{- fail (printf "projectors.%s is too long a name behind the release's name %q" $name $.Release.Name) -}}
{{- end -}}
{{- end -}}
{{- if and $values.rebuild.enabled (not $values.clickhouse.url) -}}
{{- fail "rebuild.enabled needs clickhouse.url: without a server, the engine is open in the projector alone" -}}
{{- end -}}
{{- if gt (len (printf "%s-projector" (include "magnetar.fullname" .))) 52 -}}
{{- fail (printf "the release's name %q is too long for the names of its objects" .Release.Name) -}}
{{- end -}}
{{- range $name, $given := $values.workers -}}
{{- $worker := mergeOverwrite (deepCopy $values.workerDefaults) $given -}}
{{- if gt (int $worker.replicas) (int $values.pipeline.partitions) -}}
{{- fail (printf "workers.%s.replicas is %d, and there are %d partitions: the rest would never have work" $name (int $worker.replicas) (int $values.pipeline.partitions)) -}}
{{- end -}}
{{- $fewest := int $worker.autoscaling.minReplicas -}}
{{- $its := ternary (printf "workers.%s" $name) "workerDefaults" (hasKey (default dict $given.autoscaling) "minReplicas") -}}
{{- if gt $fewest (int $worker.autoscaling.maxReplicas) -}}
{{- fail (printf "%s.autoscaling.minReplicas is %d, and maxReplicas is %d" $its $fewest (int $worker.autoscaling.maxReplicas)) -}}
{{- end -}}
{{- if gt $fewest (int $values.pipeline.partitions) -}}
{{- fail (printf "%s.autoscaling.minReplicas is %d, and there are %d partitions: the rest would never have work" $its $fewest (int $values.pipeline.partitions)) -}}
{{- end -}}
{{- if and $worker.autoscaling.enabled (not $worker.topic) -}}
{{- fail (printf "workers.%s.topic must be there for its backlog to be followed: `magnetar helm values` derives it" $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* Takes a place in the values, and what stands there: what its pods were told by a variable, the Jobs before them, and
       what scales them, would not know. */ -}}
{{- define "magnetar.checkEnv" -}}
{{- $names := dict
  "MAGNETAR_CLICKHOUSE_CLUSTER" "clickhouse.cluster"
  "MAGNETAR_CLICKHOUSE" "clickhouse.url"
  "MAGNETAR_BROKER" "pulsar.url"
  "MAGNETAR_BROKER_ADMIN" "pulsar.adminUrl"
  "MAGNETAR_TENANT" "pulsar.tenant" -}}
{{- range (index . 1).env -}}
{{- $variable := .name -}}
{{- with get $names $variable -}}
{{- fail (printf "%s.env has %s: set %s, which the Jobs are told too" (index $ 0) $variable .) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* What the values name and somebody else makes, where a cluster can be asked: without it a pod would wait for its
       volume until the Job's deadline. `helm template` asks none, nor does an installation that makes the namespace: each
       namespace has a ServiceAccount `default`, so that none means that there is nobody to ask. */ -}}
{{- define "magnetar.checkOthers" -}}
{{- if lookup "v1" "ServiceAccount" .Release.Namespace "default" -}}
{{- $values := .Values -}}
{{- include "magnetar.checkOther" (list . "Secret" "pulsar.auth.existingSecret" $values.pulsar.auth.existingSecret "pulsar.auth.key" $values.pulsar.auth.key) -}}
{{- range $worker, $given := $values.workers -}}
{{- $auth := (mergeOverwrite (deepCopy $values.workerDefaults) $given).auth -}}
{{- include "magnetar.checkOther" (list $ "Secret" (printf "workers.%s.auth.existingSecret" $worker) $auth.existingSecret (printf "workers.%s.auth.key" $worker) $auth.key) -}}
{{- end -}}
{{- include "magnetar.checkOther" (list . "Secret" "projector.auth.existingSecret" $values.projector.auth.existingSecret "projector.auth.key" $values.projector.auth.key) -}}
{{- range $group, $given := $values.projectors -}}
{{- $auth := (mergeOverwrite (deepCopy $values.projector) $given).auth -}}
{{- include "magnetar.checkOther" (list $ "Secret" (printf "projectors.%s.auth.existingSecret" $group) $auth.existingSecret (printf "projectors.%s.auth.key" $group) $auth.key) -}}
{{- end -}}
{{- include "magnetar.checkOther" (list . "Secret" "provision.auth.existingSecret" $values.provision.auth.existingSecret "provision.auth.key" $values.provision.auth.key) -}}
{{- include "magnetar.checkOther" (list . "ConfigMap" "pulsar.tls.caConfigMap" $values.pulsar.tls.caConfigMap "pulsar.tls.key" $values.pulsar.tls.key) -}}
{{- include "magnetar.checkOther" (list . "Secret" "pulsar.tls.caSecret" $values.pulsar.tls.caSecret "pulsar.tls.key" $values.pulsar.tls.key) -}}
{{- if $values.clickhouse.url -}}
{{- include "magnetar.checkOther" (list . "Secret" "clickhouse.auth.existingSecret" $values.clickhouse.auth.existingSecret "clickhouse.auth.key" $values.clickhouse.auth.key) -}}
{{- include "magnetar.checkOther" (list . "ConfigMap" "clickhouse.tls.caConfigMap" $values.clickhouse.tls.caConfigMap "clickhouse.tls.key" $values.clickhouse.tls.key) -}}
{{- include "magnetar.checkOther" (list . "Secret" "clickhouse.tls.caSecret" $values.clickhouse.tls.caSecret "clickhouse.tls.key" $values.clickhouse.tls.key) -}}
{{- end -}}
{{- range $values.image.pullSecrets -}}
{{- include "magnetar.checkOther" (list $ "Secret" "image.pullSecrets" . "" "") -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* Takes the root, a kind, the value that names one, the name, and the value that names its key, with the key. */ -}}
{{- define "magnetar.checkOther" -}}
{{- $namespace := (index . 0).Release.Namespace -}}
{{- $kind := index . 1 -}}
{{- $name := index . 3 -}}
{{- if $name -}}
{{- $found := lookup "v1" $kind $namespace $name -}}
{{- if not $found -}}
{{- fail (printf "%s is %q, and there is no such %s in the namespace %s" (index . 2) $name $kind $namespace) -}}
{{- end -}}
{{- $keys := concat (keys (default dict $found.data)) (keys (default dict $found.binaryData)) -}}
{{- if and (index . 4) (not (has (index . 5) $keys)) -}}
{{- fail (printf "%s is %q, and the %s %s has only: %s" (index . 4) (index . 5) $kind $name (sortAlpha $keys | join ", ")) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "magnetar.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "magnetar.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- /* The settings that are no secret, as one map: the ConfigMap's, and the hook's, which runs before there is one. */ -}}
{{- define "magnetar.settings" -}}
{{- $pulsar := .Values.pulsar -}}
MAGNETAR_BROKER: {{ $pulsar.url | quote }}
MAGNETAR_BROKER_ADMIN: {{ $pulsar.adminUrl | quote }}
MAGNETAR_TENANT: {{ $pulsar.tenant | quote }}
MAGNETAR_TLS_VALIDATE_HOSTNAME: {{ $pulsar.tls.validateHostname | quote }}
{{- if or $pulsar.tls.caConfigMap $pulsar.tls.caSecret }}
MAGNETAR_TLS_CA: /etc/magnetar/ca/{{ $pulsar.tls.key }}
{{- end }}
{{- if or $pulsar.auth.token $pulsar.auth.existingSecret }}
MAGNETAR_TOKEN_FILE: /etc/magnetar/token/{{ $pulsar.auth.key }}
{{- end }}
{{- with $pulsar.roles.worker }}
MAGNETAR_WORKER_ROLE: {{ . | quote }}
{{- end }}
{{- with $pulsar.roles.projector }}
MAGNETAR_PROJECTOR_ROLE: {{ . | quote }}
{{- end }}
{{- with $pulsar.roles.client }}
MAGNETAR_CLIENT_ROLE: {{ . | quote }}
{{- end }}
MAGNETAR_CHART_SETTINGS: {{ include "magnetar.named" . | quote }}
MAGNETAR_DATA: /var/lib/magnetar
MAGNETAR_HEALTH_HOST: "0.0.0.0"
MAGNETAR_HEALTH_PORT: {{ .Values.health.port | quote }}
HOME: /tmp
PYTHONDONTWRITEBYTECODE: "1"
{{- end -}}

{{- /* Of which value each setting is: what an error says of a setting leads to it (pipelines/chart_settings.py). */ -}}
{{- define "magnetar.named" -}}
{{- $pulsar := .Values.pulsar -}}
{{- dict
  "MAGNETAR_BROKER" "pulsar.url"
  "MAGNETAR_BROKER_ADMIN" "pulsar.adminUrl"
  "MAGNETAR_TENANT" "pulsar.tenant"
  "MAGNETAR_TOKEN_FILE" (include "magnetar.secretNamed" (list (default "pulsar.auth" $pulsar.auth.at) "token" $pulsar.auth.token $pulsar.auth))
  "MAGNETAR_TLS_CA" (include "magnetar.authorityNamed" (list "pulsar.tls" $pulsar.tls))
  "MAGNETAR_TLS_VALIDATE_HOSTNAME" "pulsar.tls.validateHostname"
  "MAGNETAR_WORKER_ROLE" "pulsar.roles.worker"
  "MAGNETAR_PROJECTOR_ROLE" "pulsar.roles.projector"
  "MAGNETAR_CLIENT_ROLE" "pulsar.roles.client"
  | toJson -}}
{{- end -}}

{{- define "magnetar.clickhouseNamed" -}}
{{- with .Values.clickhouse -}}
{{- dict
  "MAGNETAR_CLICKHOUSE" "clickhouse.url"
  "MAGNETAR_CLICKHOUSE_USER" "clickhouse.user"
  "MAGNETAR_CLICKHOUSE_CLUSTER" "clickhouse.cluster"
  "MAGNETAR_CLICKHOUSE_PASSWORD_FILE" (include "magnetar.secretNamed" (list "clickhouse.auth" "password" .auth.password .auth))
  "MAGNETAR_CLICKHOUSE_CA" (include "magnetar.authorityNamed" (list "clickhouse.tls" .tls))
  | toJson -}}
{{- end -}}
{{- end -}}

{{- /* Takes where the values stand, the one that has the secret itself, whether it is set, and the values. */ -}}
{{- define "magnetar.secretNamed" -}}
{{- $auth := index . 3 -}}
{{- if $auth.existingSecret -}}
{{ index . 0 }}.existingSecret (the key {{ $auth.key }} of the Secret {{ $auth.existingSecret }})
{{- else if index . 2 -}}
{{ index . 0 }}.{{ index . 1 }}
{{- else -}}
{{ index . 0 }}.existingSecret (not set)
{{- end -}}
{{- end -}}

{{- define "magnetar.authorityNamed" -}}
{{- $tls := index . 1 -}}
{{- if $tls.caSecret -}}
{{ index . 0 }}.caSecret (the key {{ $tls.key }} of the Secret {{ $tls.caSecret }})
{{- else if $tls.caConfigMap -}}
{{ index . 0 }}.caConfigMap (the key {{ $tls.key }} of the ConfigMap {{ $tls.caConfigMap }})
{{- else -}}
{{ index . 0 }}.caSecret (not set)
{{- end -}}
{{- end -}}

{{- /* What leads to the ClickHouse server, for those that write there; `volumes` takes the root and the Secret's name. */ -}}
{{- define "magnetar.clickhouse" -}}
{{- with .Values.clickhouse -}}
{{- if .url -}}
- {name: MAGNETAR_CHART_SETTINGS_CLICKHOUSE, value: {{ include "magnetar.clickhouseNamed" $ | quote }}}
- {name: MAGNETAR_CLICKHOUSE, value: {{ .url | quote }}}
- {name: MAGNETAR_CLICKHOUSE_USER, value: {{ .user | quote }}}
{{- with .cluster }}
- {name: MAGNETAR_CLICKHOUSE_CLUSTER, value: {{ . | quote }}}
{{- end }}
{{- if or .auth.password .auth.existingSecret }}
- {name: MAGNETAR_CLICKHOUSE_PASSWORD_FILE, value: /etc/magnetar/clickhouse/{{ .auth.key }}}
{{- end }}
{{- if or .tls.caConfigMap .tls.caSecret }}
- {name: MAGNETAR_CLICKHOUSE_CA, value: /etc/magnetar/clickhouse-ca/{{ .tls.key }}}
{{- end }}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "magnetar.clickhouseMounts" -}}
{{- with .Values.clickhouse -}}
{{- if and .url (or .auth.password .auth.existingSecret) }}
- {name: clickhouse, mountPath: /etc/magnetar/clickhouse, readOnly: true}
{{- end }}
{{- if and .url (or .tls.caConfigMap .tls.caSecret) }}
- {name: clickhouse-ca, mountPath: /etc/magnetar/clickhouse-ca, readOnly: true}
{{- end }}
{{- end -}}
{{- end -}}

{{- define "magnetar.clickhouseVolumes" -}}
{{- $clickhouse := (index . 0).Values.clickhouse -}}
{{- if and $clickhouse.url (or $clickhouse.auth.password $clickhouse.auth.existingSecret) }}
- name: clickhouse
  secret: {secretName: {{ default (index . 1) $clickhouse.auth.existingSecret }}, defaultMode: 0440}
{{- end }}
{{- if $clickhouse.url }}
{{- include "magnetar.authority" (list "clickhouse-ca" $clickhouse.tls) }}
{{- end }}
{{- end -}}

{{- define "magnetar.mounts" -}}
- {name: tmp, mountPath: /tmp}
{{- if or .Values.pulsar.auth.token .Values.pulsar.auth.existingSecret }}
- {name: token, mountPath: /etc/magnetar/token, readOnly: true}
{{- end }}
{{- if or .Values.pulsar.tls.caConfigMap .Values.pulsar.tls.caSecret }}
- {name: ca, mountPath: /etc/magnetar/ca, readOnly: true}
{{- end }}
{{- end -}}

{{- /* Takes the root and the name of the Secret that the chart itself makes. */ -}}
{{- define "magnetar.volumes" -}}
{{- $root := index . 0 -}}
{{- $pulsar := $root.Values.pulsar -}}
- {name: tmp, emptyDir: {}}
{{- if or $pulsar.auth.token $pulsar.auth.existingSecret }}
- name: token
  secret: {secretName: {{ default (index . 1) $pulsar.auth.existingSecret }}, defaultMode: 0440}
{{- end }}
{{- include "magnetar.authority" (list "ca" $pulsar.tls) }}
{{- end -}}

{{- /* Takes a volume's name and the values that say where the authority is: a Secret may hold a private key as well. */ -}}
{{- define "magnetar.authority" -}}
{{- $tls := index . 1 }}
{{- with $tls.caConfigMap }}
- name: {{ index $ 0 }}
  configMap: {name: {{ . }}}
{{- end }}
{{- with $tls.caSecret }}
- name: {{ index $ 0 }}
  secret: {secretName: {{ . }}, defaultMode: 0440, items: [{key: {{ $tls.key }}, path: {{ $tls.key }}}]}
{{- end }}
{{- end -}}

{{- define "magnetar.probes" -}}
startupProbe:
  httpGet: {path: /readyz, port: health}
  periodSeconds: 5
  failureThreshold: {{ div (add (int .Values.health.startSeconds) 4) 5 }}
readinessProbe:
  httpGet: {path: /readyz, port: health}
  periodSeconds: 10
livenessProbe:
  httpGet: {path: /healthz, port: health}
  periodSeconds: 15
  timeoutSeconds: 5
  failureThreshold: 3
{{- end -}}

{{- /* What decides when pods are made anew: a change of the settings or of the token that stands in the values. */ -}}
{{- define "magnetar.checksum" -}}
checksum/settings: {{ printf "%s%s" (include "magnetar.settings" .) .Values.pulsar.auth.token | sha256sum }}
{{- end -}}

{{- /* The projector's besides, for the password, which is read at the start. Workers have no use for it. */ -}}
{{- define "magnetar.clickhouseChecksum" -}}
{{- if .Values.clickhouse.auth.password }}
checksum/clickhouse: {{ printf "%s%s" (include "magnetar.clickhouse" .) .Values.clickhouse.auth.password | sha256sum }}
{{- end }}
{{- end -}}

{{- /* Takes the root and the component. A node that is lost takes one pod with it, where there are others. */ -}}
{{- define "magnetar.spread" -}}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{- include "magnetar.selector" (index . 0) | nindent 8 }}
        app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- /* Takes the root, the object's name and the component. */ -}}
{{- define "magnetar.budget" -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ index . 1 }}
  labels: {{- include "magnetar.labels" (index . 0) | nindent 4 }}
spec:
  maxUnavailable: 1
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels: {{- include "magnetar.selector" (index . 0) | nindent 6 }}
      app.kubernetes.io/component: {{ index . 2 }}
{{- end -}}

{{- /* Takes ports, and a list of URLs, each with the ports that it means without one, in the clear and with TLS. */ -}}
{{- define "magnetar.ports" -}}
{{- $ports := index . 0 -}}
{{- range index . 1 -}}
{{- $meant := ternary (index . 2) (index . 1) (regexMatch "^(https|pulsar\\+ssl)://" (index . 0)) -}}
{{- range regexReplaceAll "^[a-z+]+://([^/]*).*$" (index . 0) "${1}" | splitList "," -}}
{{- $ports = append $ports (regexFind ":[0-9]+$" . | trimPrefix ":" | default $meant | int) -}}
{{- end -}}
{{- end -}}
{{- range $ports | uniq }}
- {port: {{ . }}, protocol: TCP}
{{- end }}
{{- end -}}

{{- define "magnetar.placement" -}}
{{- with .nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "magnetar.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
  - {name: {{ . }}}
{{- end }}
{{- end }}
{{- end -}}

{{- define "magnetar.hookEnvironment" -}}
{{- range $key, $value := include "magnetar.settings" . | fromYaml }}
- {name: {{ $key }}, value: {{ $value | quote }}}
{{- end }}
{{- with .Values.jobs.env }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- /* Takes the root, an empty dict, where the values of a token of its own stand, and those: the dict becomes the root
       with that token, if there is one. */ -}}
{{- define "magnetar.withToken" -}}
{{- $root := index . 0 -}}
{{- $own := index . 1 -}}
{{- $auth := index . 3 -}}
{{- $values := deepCopy $root.Values -}}
{{- if $auth.existingSecret -}}
{{- $_ := set $values.pulsar "auth" (dict "token" "" "existingSecret" $auth.existingSecret "key" $auth.key "at" (index . 2)) -}}
{{- end -}}
{{- range $key, $value := dict "Values" $values "Release" $root.Release "Chart" $root.Chart "Template" $root.Template -}}
{{- $_ := set $own $key $value -}}
{{- end -}}
{{- end -}}

{{- /* Takes a root that has a token of its own, and the values of that: what it has other than the ConfigMap says. */ -}}
{{- define "magnetar.tokenEnvironment" -}}
{{- if (index . 1).existingSecret -}}
{{- $settings := include "magnetar.settings" (index . 0) | fromYaml -}}
- {name: MAGNETAR_TOKEN_FILE, value: {{ $settings.MAGNETAR_TOKEN_FILE | quote }}}
- {name: MAGNETAR_CHART_SETTINGS, value: {{ $settings.MAGNETAR_CHART_SETTINGS | quote }}}
{{- end -}}
{{- end -}}

{{- define "magnetar.egress" -}}
- ports:
    - {port: 53, protocol: UDP}
    - {port: 53, protocol: TCP}
- ports:
    {{- $pulsar := list (list .Values.pulsar.url 6650 6651) (list .Values.pulsar.adminUrl 80 443) }}
    {{- include "magnetar.ports" (list .Values.networkPolicy.pulsarPorts $pulsar) | nindent 4 }}
  {{- with .Values.networkPolicy.pulsarTo }}
  to: {{- toYaml . | nindent 4 }}
  {{- end }}
{{- if .Values.clickhouse.url }}
- ports:
    {{- $clickhouse := list (list .Values.clickhouse.url 8123 8443) }}
    {{- include "magnetar.ports" (list .Values.networkPolicy.clickhousePorts $clickhouse) | nindent 4 }}
  {{- with .Values.networkPolicy.clickhouseTo }}
  to: {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
{{- end -}}

{{- /* The names in the values that follow from the declaration: `magnetar provision` refuses others. */ -}}
{{- define "magnetar.derived" -}}
{{- $workers := dict -}}
{{- range $name, $worker := .Values.workers -}}
{{- $_ := set $workers $name (pick $worker "aggregate" "topic") -}}
{{- end -}}
{{- $projectors := dict -}}
{{- range $name, $group := .Values.projectors -}}
{{- $_ := set $projectors $name (pick $group "tables") -}}
{{- end -}}
{{- $projector := pick .Values.projector "enabled" -}}
{{- dict "pipeline" (pick .Values.pipeline "context" "partitions") "workers" $workers "projector" $projector "projectors" $projectors | toJson -}}
{{- end -}}

{{- /* What can be asked about the tables, as kubectl names it; empty if nobody fills them. */ -}}
{{- define "magnetar.aProjector" -}}
{{- $name := include "magnetar.fullname" . -}}
{{- if .Values.projector.enabled -}}
{{ ternary "deployment" "statefulset" (not (empty .Values.clickhouse.url)) }}/{{ $name }}-projector
{{- else if .Values.projectors -}}
deployment/{{ $name }}-projector-{{ keys .Values.projectors | sortAlpha | first }}
{{- end -}}
{{- end -}}
