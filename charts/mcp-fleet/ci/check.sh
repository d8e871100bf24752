#!/usr/bin/env bash
# The chart's offline tests: lint and render with every values file beside this script, and check what
# must hold of the result. Needs helm only ($HELM, else the one on the PATH, else the one that the test
# cluster built); no cluster. Prints one line per failure and the count; exits 1 on any failure.
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
chart=$(dirname "$here")
root=$(cd "$chart/../.." && pwd)

helm=${HELM:-$(command -v helm || true)}
[ -n "$helm" ] || helm=$("$root/tests/cluster/binaries.sh" --check --tier 1 2>/dev/null)/helm
[ -x "$helm" ] || { echo "check.sh: no helm: set HELM, put it on the PATH, or run 'make cluster-binaries'" >&2; exit 1; }
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
export HELM_CACHE_HOME=$scratch/cache HELM_CONFIG_HOME=$scratch/config HELM_DATA_HOME=$scratch/data

checks=0 failures=0
# ok WHAT COMMAND…: the command succeeds.
ok() {
  local what=$1; shift
  checks=$((checks + 1))
  "$@" >"$scratch/out" 2>&1 && return
  failures=$((failures + 1))
  echo "FAILED: $what"; sed 's/^/    /' "$scratch/out" | head -n 20
}
not() { if "$@"; then echo "expected not: $*"; return 1; fi; }
render() { "$helm" template mcp-fleet "$chart" --namespace mcp-fleet-system "$@"; }
# refused WORD ARGS…: these values do not render, and the message holds WORD.
refused() {
  local word=$1; shift
  if render "$@" >"$scratch/refused" 2>&1; then echo "rendered, but should have been refused: $*"; return 1; fi
  grep -qF -- "$word" "$scratch/refused" || { cat "$scratch/refused"; return 1; }
}
# rules FILE KIND: the lines under `rules:` of the first object of that kind.
rules() { awk -v kind="kind: $2" '$0 == kind { found = 1 } found && /^rules:/ { on = 1; next } on && !/^ / { exit } on' "$1"; }
# rights FILE: a line for each rule of all its roles: groups, resources, names (or -), verbs.
rights() {
  awk '
    function flush() { if (groups) print groups, resources, (names ? names : "-"), verbs; groups = "" }
    { gsub(/, /, ",") }
    /^ *- apiGroups: / { flush(); groups = $3; names = "" }
    /^    resources: / { resources = $2 } /^    resourceNames: / { names = $2 } /^    verbs: / { verbs = $2 }
    /^---|^roleRef/ { flush() }
    END { flush() }' "$1"
}
same() { diff "$1" "$2"; }
kinds() { grep -h '^kind: ' "$@" | sort -u; }

for values in "$here"/*-values.yaml; do
  name=$(basename "$values" -values.yaml)
  ok "lint $name" "$helm" lint --strict "$chart" --values "$values"
  ok "render $name" render --values "$values" --output-dir "$scratch/$name"
  cat "$scratch/$name"/mcp-fleet/templates/*.yaml >"$scratch/$name.yaml"

  # The operator's rights, in whatever form they come.
  rbac=$scratch/$name/mcp-fleet/templates/rbac.yaml
  if [ -f "$rbac" ]; then
    rights "$rbac" >"$scratch/rights"
    ok "$name: every rule was found" [ "$(wc -l <"$scratch/rights")" = "$(grep -c apiGroups: "$rbac")" ]
    ok "$name: no wildcard in the operator's rights" not grep -n '\*' "$scratch/rights"
    ok "$name: no right on what the operator must not touch" not grep -nE \
      'secrets|roles|rolebindings|customresourcedefinitions|namespaces|nodes|exec|attach|portforward|ephemeralcontainers|escalate|impersonate|\bbind\b|deletecollection|webhook|serviceaccounts/' \
      "$scratch/rights"
    # Beside the reading, one annotation on them, for the gateway's sake, and what they use.
    with=; [ ! -f "$scratch/$name/mcp-fleet/templates/gateway-deployment.yaml" ] || with=1
    ok "$name: pods are read, and annotated" same <(grep '[[,]pods[],]' "$scratch/rights") \
      <(printf '%s\n' '[""] [pods,events] - [list,watch]' ${with:+'[""] [pods] - [patch]' '[metrics.k8s.io] [pods] - [list]'})
    # Of ConfigMaps the one with its own certificates, and of API registrations its own.
    ok "$name: one ConfigMap" same <(grep configmaps "$scratch/rights") \
      <(printf '%s' ${with:+$'[""] [configmaps] - [create]\n[""] [configmaps] [mcp-fleet-operator-ca] [get,list,watch,patch,delete]\n'})
    wide=$with; [ "$name" != namespaced ] || wide=
    ok "$name: one API registration" same <(grep -E 'apiservices|reviews' "$scratch/rights") <(printf '%s' ${wide:+$'[authentication.k8s.io] [tokenreviews] - [create]\n[authorization.k8s.io] [subjectaccessreviews] - [create]\n[apiregistration.k8s.io] [apiservices] - [list,watch,create]\n[apiregistration.k8s.io] [apiservices] [v1beta2.custom.metrics.k8s.io] [get,update,delete]\n'})
  fi

  # The gateway's: reading fleets and addresses, and nothing else.
  rbac=$scratch/$name/mcp-fleet/templates/gateway-rbac.yaml
  if [ -f "$rbac" ] && grep -q '^rules:' "$rbac"; then
    ok "$name: the gateway reads only" not grep -nE 'create|update|patch|delete|\*' <(grep 'verbs:' "$rbac")
    reports=; ! grep -q -- --reports-ca-config-map= "${rbac/rbac/deployment}" || reports=1
    ok "$name: the gateway sees fleets, addresses and whom it reports to" same <(rights "$rbac" | sort -u) \
      <(printf '%s' ${reports:+$'[""] [configmaps] [mcp-fleet-operator-ca] [get,list,watch]\n'} \
        $'[discovery.k8s.io] [endpointslices] - [get,list,watch]\n' $'[mcpfleet.io] [mcpfleets] - [get,list,watch]\n')
  fi

  # Our own pods meet the restricted profile.
  for deployment in "$scratch/$name"/mcp-fleet/templates/{*deployment,cleanup}.yaml; do
    [ -f "$deployment" ] || continue
    of="$name, $(basename "$deployment" .yaml)"
    for line in 'runAsNonRoot: true' 'allowPrivilegeEscalation: false' 'drop: [ALL]' 'readOnlyRootFilesystem: true' 'type: RuntimeDefault'; do
      ok "$of: $line" grep -qF "$line" "$deployment"
    done
    ok "$of: no host access" not grep -nE 'hostPath|hostNetwork|hostPID|hostIPC|hostPort' "$deployment"
  done
done

# The values behind the names.
ok "default: the CRD is kept on uninstall" grep -q 'helm.sh/resource-policy: keep' "$scratch/default/mcp-fleet/templates/crds.yaml"
ok "crds.keep=false: it is not" not grep -q 'helm.sh/resource-policy' <(render --set crds.keep=false -s templates/crds.yaml)
ok "namespaced: nothing cluster-wide" not grep -nE '^kind: (Cluster|CustomResource)' "$scratch/namespaced.yaml"
rules "$scratch/default/mcp-fleet/templates/rbac.yaml" ClusterRole >"$scratch/wide"
rules "$scratch/namespaced/mcp-fleet/templates/rbac.yaml" Role >"$scratch/narrow"
ok "namespaced: the same rights as cluster-wide" same "$scratch/wide" "$scratch/narrow"
ok "rights are there at all" grep -q mcpfleets "$scratch/wide"
ok "namespaced: the Role is in the watched namespace" grep -q 'namespace: tools' "$scratch/namespaced/mcp-fleet/templates/rbac.yaml"
ok "namespaced: the operator is told" grep -qF -- '--watch-namespace=tools' "$scratch/namespaced/mcp-fleet/templates/deployment.yaml"
ok "ha: the digest wins" grep -qF 'mcp-fleet@sha256:0123' "$scratch/ha/mcp-fleet/templates/deployment.yaml"
ok "ha: podLabels do not break the selector" not grep -q 'component: other' "$scratch/ha/mcp-fleet/templates/deployment.yaml"
ok "ha: the agent's image does not take a foreign digest" grep -qF -- '--agent-image=mirror.example.com/mcp-fleet/mcp-fleet:0.1.0' "$scratch/ha/mcp-fleet/templates/deployment.yaml"
ok "minimal: nothing optional" not grep -qE '^kind: (PodDisruptionBudget|NetworkPolicy|Service)$' "$scratch/minimal.yaml"
ok "servicemonitor: it is there" grep -q '^kind: ServiceMonitor$' "$scratch/servicemonitor.yaml"
ok "external-account: no rights, no account" not grep -qE '^kind: (Role|ClusterRole|RoleBinding|ClusterRoleBinding|ServiceAccount)$' "$scratch/external-account.yaml"

# The autoscaler.
wide=$scratch/default/mcp-fleet/templates narrow=$scratch/namespaced/mcp-fleet/templates
args() { grep -oE -- '"--(api|load|ca|metrics-api|gateway-service|reports)[a-z-]*=[^"]*' "$1" | tr -d '"'; }
ok "default: what the operator is told" same <(args "$wide/deployment.yaml") <(printf '%s\n' --api-listen=0.0.0.0:8443 \
  --load-service=mcp-fleet-operator-load --ca-config-map=mcp-fleet-operator-ca \
  --gateway-service-account=mcp-fleet-gateway --load-audience=mcp-fleet-operator --metrics-api-service=mcp-fleet-operator-api)
reports=--reports=https://mcp-fleet-operator-load.mcp-fleet-system.svc:8443/v1/load
files=(--reports-token-file=/var/run/secrets/mcp-fleet/token --reports-ca-file=/etc/mcp-fleet/operator-ca/ca.crt
  --reports-ca-config-map=mcp-fleet-operator-ca)
ok "default: what the gateway is told" same <(args "$wide/gateway-deployment.yaml") <(printf '%s\n' $reports "${files[@]}")
ok "namespaced: the gateway is told the same" same <(args "$wide/gateway-deployment.yaml") <(args "$narrow/gateway-deployment.yaml")
ok "namespaced: no metrics API, no reviews, a file" same <(args "$narrow/deployment.yaml") <(printf '%s\n' --api-listen=0.0.0.0:8443 \
  --load-service=mcp-fleet-operator-load --ca-config-map=mcp-fleet-operator-ca --load-token-file=/var/run/secrets/mcp-fleet/token)
ok "default: the gateway's token is for the operator alone" grep -A1 'audience: mcp-fleet-operator$' "$wide/gateway-deployment.yaml"
ok "default: and lives an hour" grep -q 'expirationSeconds: 3600$' "$wide/gateway-deployment.yaml"
ok "default: no Secret for it" not grep -q 'secretName: mcp-fleet-operator-load' "$scratch/default.yaml"
ok "namespaced: the Secret is in both" [ "$(grep -c 'secretName: mcp-fleet-operator-load$' "$scratch/namespaced.yaml")" = 2 ]
ok "namespaced: one that was named" grep -q 'secretName: mine$' <(render --values "$here/namespaced-values.yaml" --set autoscaler.loadTokenSecret=mine -s templates/deployment.yaml)
ok "default: gateways start before the operator's certificates are there" grep -A1 'name: mcp-fleet-operator-ca$' "$wide/gateway-deployment.yaml"
ok "default: replicas that are not ready get reports too" grep -q 'publishNotReadyAddresses: true' "$wide/service-api.yaml"
ok "namespaced: nothing in kube-system" not grep -q 'namespace: kube-system' "$scratch/namespaced.yaml"
ok "default: one object in kube-system" [ "$(grep -c 'namespace: kube-system' "$scratch/default.yaml")" = 1 ]
ok "default: a binding to Kubernetes' own role" grep -q 'name: extension-apiserver-authentication-reader$' \
  <(sed -n '/namespace: kube-system/,/^subjects:/p' "$wide/rbac.yaml")
ok "default: whatever ends the API runs before anything goes" grep -q 'helm.sh/hook: pre-delete$' "$wide/cleanup.yaml"
ok "default: it knows what is ours" same <(args "$wide/cleanup.yaml") <(printf '%s\n' --ca-config-map=mcp-fleet-operator-ca --metrics-api-service=mcp-fleet-operator-api)
ok "namespaced: only certificates to take away" same <(args "$narrow/cleanup.yaml") <(printf '%s\n' --ca-config-map=mcp-fleet-operator-ca)
ok "default: no Service or budget counts the pod of the job" not grep -q 'component: operator' <(sed -n '/template:/,/spec:/p' "$wide/cleanup.yaml")
ok "default: reports come in" grep -q 'port: 8443' <(sed -n '/ingress:/,/egress:/p' "$wide/networkpolicy.yaml")
ok "ha: the API server's place is known" grep -q 'cidr: 10.0.0.0/24' <(sed -n '/ingress:/,/egress:/p' "$scratch/ha/mcp-fleet/templates/networkpolicy.yaml")
ok "ha: then gateways are named too" grep -q 'component: gateway' <(sed -n '/ingress:/,/egress:/p' "$scratch/ha/mcp-fleet/templates/networkpolicy.yaml")
ok "namespaced: gateways alone" grep -q 'component: gateway' <(sed -n '/port: 8443/,/egress:/p' "$narrow/networkpolicy.yaml")
for off in autoscaler.enabled gateway.enabled; do
  ok "$off=false: nothing of it" not grep -nE '8443"|-load|operator-ca|apiservices|reviews|kube-system|cleanup' \
    <(render --set $off=false | grep -v '^ *#')
done
ok "metricsAPI off: no registration" not grep -nE 'apiservices|subjectaccess|kube-system|metrics-api' <(render --set autoscaler.metricsAPI.enabled=false | grep -v '^ *#')
ok "metricsAPI off: no Service for it" [ "$(render --set autoscaler.metricsAPI.enabled=false -s templates/service-api.yaml | grep -c '^kind: Service')" = 1 ]
ok "metricsAPI off: reports all the same" grep -q -- --load-service <(render --set autoscaler.metricsAPI.enabled=false)
ok "another port, everywhere" [ "$(render --set autoscaler.port=9443 | grep -c 9443)" = 5 ]

# The gateway.
gateway=$scratch/default/mcp-fleet/templates
ok "default: the gateway is there" grep -q 'name: mcp-fleet-gateway$' "$gateway/gateway-deployment.yaml"
ok "default: the HPA has the number of its pods" not grep -q '^  replicas:' "$gateway/gateway-deployment.yaml"
ok "default: no keys without a cluster to keep them" not grep -q '^kind: Secret' "$scratch/default.yaml"
ok "default: it asks for the Secret all the same" grep -q 'secretName: mcp-fleet-gateway-keys' "$gateway/gateway-deployment.yaml"
ok "default: fleets get its address" grep -qF -- '--gateway-url=http://mcp-fleet-gateway.mcp-fleet-system"' "$gateway/deployment.yaml"
ok "default: its Service's names are accepted" grep -qF -- '--service=mcp-fleet-gateway"' "$gateway/gateway-deployment.yaml"
ok "default: and no other host" not grep -qF -- '--allowed-hosts' "$gateway/gateway-deployment.yaml"
ok "default: it ends within its grace" grep -q 'terminationGracePeriodSeconds: 45' "$gateway/gateway-deployment.yaml"
ok "namespaced: the gateway is told" grep -qF -- '--watch-namespace=tools' "$scratch/namespaced/mcp-fleet/templates/gateway-deployment.yaml"
full=$scratch/gateway/mcp-fleet/templates
ok "gateway: the keys that were named" grep -q 'secretName: gateway-keys' "$full/gateway-deployment.yaml"
ok "gateway: replicas without the HPA" grep -q '^  replicas: 3' "$full/gateway-deployment.yaml"
ok "gateway: no HPA" not grep -q '^kind: HorizontalPodAutoscaler' "$scratch/gateway.yaml"
ok "gateway: all its hosts are accepted" grep -qF -- '--allowed-hosts=*.apps.example.com,mcp.example.com,mcp.example.org"' "$full/gateway-deployment.yaml"
ok "gateway: podLabels do not break the selector" not grep -q 'component: other' "$full/gateway-deployment.yaml"
ok "gateway: its class reaches the operator" grep -qF -- '--gateway-class=public' "$full/deployment.yaml"
ok "gateway: the address of the values" grep -qF -- '--gateway-url=https://mcp.example.com"' "$full/deployment.yaml"
for kind in Ingress HTTPRoute ServiceMonitor; do
  ok "gateway: $kind" grep -q "^kind: $kind$" "$scratch/gateway.yaml"
done
ok "minimal: no gateway" not grep -q 'mcp-fleet-gateway' "$scratch/minimal.yaml"

# What must be refused, with a message that names it.
ok "a misspelt value" refused replica --set replica=3
ok "a misspelt nested value" refused enable --set networkPolicy.enable=false
ok "a wrong type" refused replicas --set-string replicas=two
ok "a digest that is none" refused digest --set image.digest=latest
ok "lease times out of order" refused leaderElection --set leaderElection.leaseDurationSeconds=10
ok "a ServiceMonitor without a Service" refused metrics.service.enabled --set serviceMonitor.enabled=true,metrics.service.enabled=false
ok "a gateway's bounds out of order" refused gateway.autoscaling --set gateway.autoscaling.maxReplicas=1
ok "an Ingress without hosts" refused gateway.ingress.hosts --set gateway.ingress.enabled=true
ok "a route without a Gateway" refused gateway.httpRoute.parentRefs --set gateway.httpRoute.enabled=true
ok "a load balancer's field without one" refused gateway.service --set gateway.service.externalTrafficPolicy=Local
ok "a gateway's ServiceMonitor without a Service" refused gateway.metrics.service.enabled --set gateway.serviceMonitor.enabled=true,gateway.metrics.service.enabled=false
ok "a gateway without an account" refused gateway.serviceAccount.name --set gateway.serviceAccount.create=false
ok "an address with a path" refused url --set gateway.url=http://a/b
ok "a port that is taken" refused port --set autoscaler.port=9090
ok "no account" refused serviceAccount.name --set serviceAccount.create=false
ok "an old cluster" refused 1.30 --kube-version 1.29.0
ok "a managed cluster's version is taken" render --kube-version v1.31.2-gke.100

ok "deploy/ and the chart's CRD are up to date" env HELM="$helm" "$root/deploy/render.sh" --check

echo "chart: $checks checks, $failures failed"
[ "$failures" = 0 ]
