#!/usr/bin/env bash
# Starts the cluster `demo` with two real nodes, or finds it running, and loads the images of this tree under
# the names that the chart and the samples use, as if they were published. Prints the cluster's kubeconfig.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
cluster() { cargo run --quiet -p mcp-fleet-cluster --bin cluster -- "$@"; }
version=$(sed -n 's/^appVersion: *"\{0,1\}\([^"]*\)"\{0,1\}$/\1/p' charts/mcp-fleet/Chart.yaml)

if ! reason=$(cluster check 2>&1); then
  echo "$reason" >&2
  echo "No cluster can run on this machine; give one of yours: make demo KUBECONFIG=~/.kube/config (see README)" >&2
  exit 1
fi
kubectl=$(tests/cluster/binaries.sh)/kubectl
tests/images.sh >/dev/null
# release NAME PROGRAM…: the same programs under the published name.
release() {
  local name=$1 files=() program
  shift
  for program in "$@"; do files+=("target/images/$program:/usr/local/bin/$program"); done
  cluster image --name "ghcr.io/mcp-fleet/$name:$version" --out "target/images/release-$name.tar" \
    --entrypoint "/usr/local/bin/$1" "${files[@]}" >&2
}
release mcp-fleet mcp-fleet mcp-fleet-agent
release mcp-fleet-sample mcp-server mcp-call
images=(target/images/release-mcp-fleet.tar target/images/release-mcp-fleet-sample.tar)

kubeconfig=${MCP_FLEET_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/mcp-fleet}/clusters/demo/kubeconfig
if "$kubectl" --kubeconfig "$kubeconfig" get --raw /readyz >/dev/null 2>&1; then
  echo "the cluster demo runs already; its images are replaced" >&2
  cluster load --name demo "${images[@]}" >&2
  # The same names, maybe other programs behind them.
  "$kubectl" --kubeconfig "$kubeconfig" -n mcp-fleet-system rollout restart deployment --selector app.kubernetes.io/name=mcp-fleet >&2 2>/dev/null || true
else
  cluster down --name demo >/dev/null 2>&1 || true
  cluster up --name demo --image "${images[0]}" --image "${images[1]}" >&2
fi
echo "$kubeconfig"
