#!/usr/bin/env bash
# Writes what is derived from the chart and from crds/mcpfleets.yaml, so that there is one source each:
#
#   charts/mcp-fleet/files/crds/mcpfleets.yaml   copy of crds/mcpfleets.yaml: a chart cannot reach outside itself
#   deploy/crd.yaml                              the same, for `kubectl apply -k deploy/`
#   deploy/operator.yaml, deploy/gateway.yaml    the chart with its default values, without what only Helm needs,
#                                                among that the job before an uninstall (see kustomization.yaml)
#
#   render.sh           write them
#   render.sh --check   write nothing; print the difference and exit 1 if one is stale
#
# helm: $HELM, else the one on the PATH, else the one that the test cluster built.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
case ${1:-} in
  '') check='' ;;
  --check) check=1 ;;
  *) sed -n '2,13s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 2 ;;
esac

helm=${HELM:-$(command -v helm || true)}
[ -n "$helm" ] || helm=$(tests/cluster/binaries.sh --check --tier 1 2>/dev/null)/helm
[ -x "$helm" ] || { echo "render.sh: no helm: set HELM, put it on the PATH, or run 'make cluster-binaries'" >&2; exit 1; }
[ -s crds/mcpfleets.yaml ] || { echo "render.sh: crds/mcpfleets.yaml is missing: run 'make crds'" >&2; exit 1; }

# Everything that helm might write goes here and away again.
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
export HELM_CACHE_HOME=$scratch/cache HELM_CONFIG_HOME=$scratch/config HELM_DATA_HOME=$scratch/data

stale=0
# put FILE: standard input becomes FILE, or is compared with it.
put() {
  if [ -n "$check" ]; then
    diff -u --label "$1 (committed)" --label "$1 (rendered)" "$1" - || stale=1
  else
    mkdir -p "$(dirname "$1")"
    cat >"$scratch/out" && cp "$scratch/out" "$1"
  fi
}

put charts/mcp-fleet/files/crds/mcpfleets.yaml <crds/mcpfleets.yaml
put deploy/crd.yaml <crds/mcpfleets.yaml

# The CRD is a file of its own here. Labels that only Helm needs would tie these objects to a release
# that does not exist.
"$helm" template mcp-fleet charts/mcp-fleet --namespace mcp-fleet-system --set crds.install=false --no-hooks >"$scratch/rendered"
# objects gateway|operator: the objects of that part, by the template that they come from.
objects() {
  awk -v part="$1" '
    /^# Source: / { keep = (($0 ~ /templates\/gateway-/) == (part == "gateway") && $0 !~ /templates\/cleanup/); if (keep) print "---" }
    keep && $0 != "---"' "$scratch/rendered"
}
for part in operator gateway; do
  {
    echo "# Generated from charts/mcp-fleet by deploy/render.sh. Do not edit: change the chart and run 'make manifests'."
    objects "$part" | sed -e '/^# Source: /d' -e '/^ *helm\.sh\/chart: /d' -e '/^ *app\.kubernetes\.io\/managed-by: Helm$/d' |
      cat -s | awk 'held && !($0 == "---") { print "" } { held = ($0 == ""); if (!held) print }'
  } | put "deploy/$part.yaml"
done

if [ "$stale" = 1 ]; then
  echo "render.sh: stale, see above: run 'make manifests' and commit the result" >&2
  exit 1
fi
