#!/usr/bin/env bash
# The product on a real cluster, from nothing to MCP calls that survive rollouts and dead pods, and to a fleet that
# follows its load, down to nothing; leaves it running.
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
# The autoscaler makes the second gateway.
kubectl -n mcp-fleet-system wait --for=jsonpath='{.status.readyReplicas}'=2 deployment/mcp-fleet-gateway --timeout=2m >/dev/null
show kubectl -n mcp-fleet-system get pods -o wide

say "4. kubectl apply -f deploy/demo/fleet.yaml"
kubectl create namespace demo --dry-run=client -o yaml | kubectl apply -f - >/dev/null
sed "s|$published|$SAMPLE_IMAGE|" deploy/demo/fleet.yaml | kubectl apply -f -
show kubectl -n demo wait --for=condition=Ready mcpfleet/weather --timeout=180s
show kubectl -n demo get mcpfleet -o wide

url=$(kubectl -n demo get mcpfleet weather -o jsonpath='{.status.url}')
say "5. A real MCP client in a pod calls $url"
# start NAME ARG…: runs the client in a pod.
start() {
  local name=$1 args
  shift
  args=$(printf "'%s', " "$@"); args="[${args%, }]"
  kubectl -n demo delete pod "$name" --ignore-not-found --wait >/dev/null
  printf '%s$ mcp-call %s%s\n' "$dim" "$*" "$plain"
  sed -e "s|CLIENT|$name|" -e "s|ARGS|$args|" -e "s|$published|$SAMPLE_IMAGE|" \
    deploy/demo/client.yaml | kubectl apply -f - >/dev/null
  until_phase "$name" 'Running|Succeeded|Failed'
}
# until_phase NAME PHASES: waits until the client is in one of them.
until_phase() {
  local end=$((SECONDS + 120)) phase
  until phase=$(kubectl -n demo get pod "$1" -o jsonpath='{.status.phase}') && [[ $phase =~ ^($2)$ ]]; do
    [ $SECONDS -lt $end ] || { kubectl -n demo describe pod "$1" | tail -20; return 1; }
    sleep 0.5
  done
}
# finish NAME: waits for its end, prints what it printed.
finish() {
  until_phase "$1" 'Succeeded|Failed'
  kubectl -n demo logs "$1"
  [ "$(kubectl -n demo get pod "$1" -o jsonpath='{.status.phase}')" = Succeeded ]
}
mcp() { start "$@" && finish "$1"; }
mcp client-list --url "$url" list | sed -n 1,10p
mcp client-call --url "$url" call whoami

say "6. Other replicas and another pod template, while clients of both eras call: no call is lost"
load=(load --tool sleep --arguments '{"milliseconds": 100}' --duration 30s --progress-seconds 60)
start client-modern --url "$url" "${load[@]}" --connections per-call
start client-legacy --url "$url" --lifecycle legacy "${load[@]}" --connections pool
show kubectl -n demo patch mcpfleet weather --type=merge -p '{"spec":{"autoscaling":{"minReplicas":3}}}'
sleep 3
show kubectl -n demo annotate mcpfleet weather --overwrite mcpfleet.io/restartedAt="$(date -u +%FT%TZ)"
sleep 2
show kubectl -n demo wait --for=condition=Ready mcpfleet/weather --timeout=180s
show kubectl -n demo get mcpfleet
for client in client-modern client-legacy; do
  echo "$client:"
  finish $client
done

say "7. A session outlives its pod"
start client-session --url "$url" --lifecycle legacy call counter --count 30 --every 500ms
# counted: a line "COUNT POD" for each answer so far.
counted() { kubectl -n demo logs client-session | sed -n 's/.*"count":\([0-9]*\),"pod":"\([^"]*\)".*/\1 \2/p'; }
until [ "$(counted | wc -l)" -ge 8 ]; do sleep 0.3; done
victim=$(counted | sed -n '1s/.* //p')
show kubectl -n demo delete pod "$victim" --force --grace-period=0
finish client-session >/dev/null || { kubectl -n demo logs client-session; exit 1; }
echo "The pod keeps the session's counter in its memory. The same client with the same session id saw:"
counted | awk '
  $2 != pod { if (pod) print "  " pod " counted " first " to " last; pod = $2; first = $1 }
  { last = $1; n++ }
  END { print "  " pod " counted " first " to " last "\n  " n " calls, " n " answers" }'

say "8. Thirty calls at once, where a pod should have six: the fleet grows, READY ahead of DESIRED until the HPA has looked"
# follow WANTED LIMIT: the fleet's line whenever it changes, until WANTED holds of it (ready, desired), in seconds.
follow() {
  local wanted=$1 end=$((SECONDS + $2)) line ready desired last='' begin=$SECONDS
  printf '%s$ kubectl -n demo get mcpfleet weather --watch%s\n' "$dim" "$plain"
  while :; do
    line=$(kubectl -n demo get mcpfleet weather)
    [ -n "$last" ] || printf '        %s\n' "${line%%$'\n'*}"
    line=${line#*$'\n'}
    # The last column is the age, which always changes.
    [ "${line% *}" = "$last" ] || printf '%4d s  %s\n' $((SECONDS - begin)) "$line"
    last=${line% *}
    read -r _ ready desired _ <<<"$line"
    # shellcheck disable=SC1102,SC2086
    if (( $wanted )); then return; fi
    [ $SECONDS -lt $end ] || { kubectl -n demo describe mcpfleet weather | tail -60; return 1; }
    sleep 1
  done
}
show kubectl -n demo patch mcpfleet weather --type=merge -p '{"spec":{"autoscaling":{"minReplicas":2}}}'
start client-many --url "$url" load --tool sleep --arguments '{"milliseconds": 300}' --concurrency 30 \
  --duration 45s --connections pool --progress-seconds 60
follow 'ready >= 5' 90
finish client-many

say "9. Nobody calls: it shrinks, and may shrink to nothing"
show kubectl -n demo patch mcpfleet weather --type=merge \
  -p '{"spec":{"autoscaling":{"minReplicas":0,"scaleToZero":{"idleSeconds":15}}}}'
follow 'desired == 0 && ready == 0' 180
say "10. A call wakes it: the gateway holds the call until a pod serves"
called=$SECONDS
mcp client-wake --url "$url" call whoami
echo "answered after $((SECONDS - called)) s, with the start of the client's and of the server's pod"
show kubectl -n demo get events --sort-by=.eventTime \
  --field-selector involvedObject.kind=McpFleet,reason=SuccessfulRescale -o custom-columns=TIME:.eventTime,WHY:.message

say "What there is now"
show kubectl -n demo get deployment,service,hpa,pdb,networkpolicy,pods -l mcpfleet.io/fleet=weather

say "Done. It runs on; go on with"
cat <<MSG
${own:+  export KUBECONFIG=$KUBECONFIG
  export PATH=$(dirname "$(command -v kubectl)"):\$PATH
}  kubectl -n demo get mcpfleet --watch
  kubectl -n demo describe mcpfleet weather
  kubectl explain mcpfleet.spec.server
  kubectl -n demo edit mcpfleet weather
with an MCP client on this machine, such as the inspector (Streamable HTTP, http://127.0.0.1:8080/demo/weather/mcp)
  kubectl -n mcp-fleet-system port-forward service/mcp-fleet-gateway 8080:80
  npx @modelcontextprotocol/inspector
and end it with
  $([ -n "$own" ] && echo "make cluster-down" || echo "CLEAN=1 make demo KUBECONFIG=$KUBECONFIG")
MSG
