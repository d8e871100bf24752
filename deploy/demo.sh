#!/usr/bin/env bash
# The product on a real cluster, from nothing to answered MCP calls; leaves it running.
#
#   deploy/demo.sh                     a cluster of our own on this machine (needs root, no Docker)
#   KUBECONFIG=… deploy/demo.sh        a cluster of yours; it must be able to pull both images:
#     IMAGE=registry.example.com/mcp-fleet:dev SAMPLE_IMAGE=registry.example.com/mcp-fleet-sample:dev
#   CLEAN=1 deploy/demo.sh             take the demo away again
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
version=$(sed -n 's/^appVersion: *"\{0,1\}\([^"]*\)"\{0,1\}$/\1/p' charts/mcp-fleet/Chart.yaml)
published=ghcr.io/mcp-fleet/mcp-fleet-sample:$version
IMAGE=${IMAGE:-ghcr.io/mcp-fleet/mcp-fleet:$version}
SAMPLE_IMAGE=${SAMPLE_IMAGE:-$published}
own=''; [ -n "${KUBECONFIG:-}" ] || own=1
start=$SECONDS

if [ -t 1 ]; then bold=$'\e[1m' dim=$'\e[2m' plain=$'\e[0m'; else bold='' dim='' plain=''; fi
say() { printf '\n%s%s%s  %s%d s%s\n' "$bold" "$*" "$plain" "$dim" $((SECONDS - start)) "$plain"; }
show() { printf '%s$ %s%s\n' "$dim" "$*" "$plain"; "$@"; }

if [ -n "$own" ]; then
  say "1. Programs and images (the first time takes some 25 minutes: Kubernetes is built from source)"
  PATH=$(tests/cluster/binaries.sh):$PATH
  say "2. A cluster with two nodes, and the images in it"
  KUBECONFIG=$(deploy/cluster.sh)
  export KUBECONFIG PATH
else
  say "1.–2. Your cluster: $(kubectl config current-context)"
fi
for tool in kubectl helm; do command -v $tool >/dev/null || { echo "demo: $tool is not on the PATH" >&2; exit 1; }; done

if [ -n "${CLEAN:-}" ]; then
  say "Taking the demo away"
  kubectl delete namespace demo --ignore-not-found
  helm uninstall mcp-fleet --namespace mcp-fleet-system --ignore-not-found --wait
  exit
fi

say "3. helm install"
tag=${IMAGE##*:}
show helm upgrade --install mcp-fleet charts/mcp-fleet --namespace mcp-fleet-system --create-namespace \
  --set image.repository="${IMAGE%:*}" --set image.tag="$tag" \
  --wait --timeout 3m >/dev/null
kubectl -n mcp-fleet-system rollout status deployment --timeout=2m >/dev/null
kubectl -n mcp-fleet-system get pods

say "4. kubectl apply -f deploy/demo/fleet.yaml"
kubectl create namespace demo --dry-run=client -o yaml | kubectl apply -f - >/dev/null
sed "s|$published|$SAMPLE_IMAGE|" deploy/demo/fleet.yaml | kubectl apply -f -
show kubectl -n demo wait --for=condition=Ready mcpfleet/weather --timeout=180s
show kubectl -n demo get mcpfleet -o wide

url=$(kubectl -n demo get mcpfleet weather -o jsonpath='{.status.url}')
say "5. A real MCP client in a pod calls $url"
# mcp NAME ARG…: runs the client in a pod, prints what it prints.
mcp() {
  local name=$1 args
  shift
  args=$(printf "'%s', " "$@"); args="[${args%, }]"
  kubectl -n demo delete pod "$name" --ignore-not-found --wait >/dev/null
  sed -e "s|CLIENT|$name|" -e "s|ARGS|$args|" -e "s|$published|$SAMPLE_IMAGE|" \
    deploy/demo/client.yaml | kubectl apply -f - >/dev/null
  printf '%s$ mcp-call %s%s\n' "$dim" "$*" "$plain"
  kubectl -n demo wait --for=jsonpath='{.status.phase}'=Succeeded "pod/$name" --timeout=120s >/dev/null ||
    { kubectl -n demo describe pod "$name" | tail -20; kubectl -n demo logs "$name" || true; return 1; }
  kubectl -n demo logs "$name"
}
mcp client-list --url "$url" list | sed -n 1,10p
mcp client-call --url "$url" call whoami

say "6. Other replicas and another pod template, while a client calls: no call is lost"
mcp client-load --url "$url" load --tool sleep --arguments '{"milliseconds": 100}' --duration 25s --connections per-call \
  --progress-seconds 60 >/tmp/demo-load.$$ 2>&1 &
load=$!
trap 'rm -f /tmp/demo-load.$$' EXIT
until [ "$(kubectl -n demo get pod client-load -o jsonpath='{.status.phase}' 2>/dev/null)" = Running ]; do sleep 0.5; done
show kubectl -n demo patch mcpfleet weather --type=merge -p '{"spec":{"autoscaling":{"minReplicas":3}}}'
sleep 3
show kubectl -n demo annotate mcpfleet weather --overwrite mcpfleet.io/restartedAt="$(date -u +%FT%TZ)"
sleep 2
show kubectl -n demo wait --for=condition=Ready mcpfleet/weather --timeout=180s
show kubectl -n demo get mcpfleet
wait $load || { cat /tmp/demo-load.$$; exit 1; }
cat /tmp/demo-load.$$
show kubectl -n demo get deployment,service,hpa,pdb,networkpolicy,pods -l mcpfleet.io/fleet=weather
show kubectl -n demo get events --field-selector involvedObject.kind=McpFleet

say "Done. It runs on; go on with"
cat <<MSG
${own:+  export KUBECONFIG=$KUBECONFIG
  export PATH=$(dirname "$(command -v kubectl)"):\$PATH
}  kubectl -n demo get mcpfleet --watch
  kubectl -n demo describe mcpfleet weather
  kubectl explain mcpfleet.spec.server
  kubectl -n demo edit mcpfleet weather
and end it with
  $([ -n "$own" ] && echo "make cluster-down" || echo "CLEAN=1 make demo KUBECONFIG=$KUBECONFIG")
MSG
