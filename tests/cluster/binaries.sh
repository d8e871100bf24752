#!/usr/bin/env bash
# Builds the programs of the test cluster from the Go modules pinned in go/ into a cache outside the
# tree, and prints the folder that holds them. What is there already is not built again.
#
#   binaries.sh            build what is missing, print the folder
#   binaries.sh --check    build nothing; exit 1 and name what is missing
#   binaries.sh --tier 1   only what a tier needs (1: etcd, API server, kubectl, helm; 2: + controllers; 3: all)
#
# Cache: $MCP_FLEET_CACHE, else $XDG_CACHE_HOME/mcp-fleet, else ~/.cache/mcp-fleet. A component is keyed
# by its go.mod, go.sum, sources and the Go version, so a new pin of one rebuilds that one alone.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${MCP_FLEET_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/mcp-fleet}/cluster
check='' tier=3
while [ $# -gt 0 ]; do
  case $1 in
    --check) check=1 ;;
    --tier) tier=${2:?--tier takes 1, 2 or 3}; shift ;;
    *) sed -n '2,10s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 2 ;;
  esac
  shift
done

export CGO_ENABLED=0 GOFLAGS=-mod=readonly GOTOOLCHAIN=local
command -v go >/dev/null || { echo "binaries.sh: no 'go' on the PATH; Go 1.26 builds the test cluster" >&2; exit 1; }
kubernetes=$(sed -n 's/^require k8s.io\/kubernetes v//p' "$here/go/kubernetes/go.mod")
minor=${kubernetes#*.}
stamp="-X k8s.io/component-base/version.gitVersion=v$kubernetes -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=${minor%%.*}"
helm=$(sed -n 's/^require helm.sh\/helm\/v4 //p' "$here/go/helm/go.mod")

# tier  component  binary  package  linker flags
table() {
  local k=k8s.io/kubernetes/cmd
  echo "1|etcd|etcd|go.etcd.io/etcd/server/v3|"
  echo "1|kubernetes|kube-apiserver|$k/kube-apiserver|$stamp"
  echo "1|kubernetes|kubectl|$k/kubectl|$stamp"
  echo "2|kubernetes|kube-controller-manager|$k/kube-controller-manager|$stamp"
  echo "2|kubernetes|kube-scheduler|$k/kube-scheduler|$stamp"
  echo "2|kwok|kwok|sigs.k8s.io/kwok/cmd/kwok|"
  echo "1|helm|helm|helm.sh/helm/v4/cmd/helm|-X helm.sh/helm/v4/internal/version.version=$helm"
  echo "2|metrics-server|metrics-server|sigs.k8s.io/metrics-server/cmd/metrics-server|"
  echo "3|kubernetes|kubelet|$k/kubelet|$stamp"
  echo "3|kubernetes|kube-proxy|$k/kube-proxy|$stamp"
  echo "3|coredns|coredns|mcpfleet.test/coredns|"
}
key() { { go env GOVERSION GOARCH; cat "$here/go/$1"/go.mod "$here/go/$1"/go.sum "$here/go/$1"/*.go; } | sha256sum | cut -c1-16; }
declare -A keys
for component in etcd kubernetes kwok helm metrics-server coredns; do keys[$component]=$(key "$component"); done

all=$(printf '%s' "${keys[@]}" | sha256sum | cut -c1-16)
bin=$cache/bin-$all
mkdir -p "$bin"
# One builder at a time; a second one waits here and then finds everything done.
exec 9>"$cache/.lock"; flock 9

missing=()
while IFS='|' read -r t component name package flags; do
  [ "$t" -le "$tier" ] || continue
  file=$cache/$component-${keys[$component]}/$name
  if [ -x "$file" ]; then ln -sfn "$file" "$bin/$name"; else missing+=("$component|$name|$package|$flags"); fi
done < <(table)

n=0 total=${#missing[@]}
if [ "$total" -gt 0 ] && [ -n "$check" ]; then
  echo "binaries.sh: $total of the test cluster's programs are not built yet (make cluster-binaries):" >&2
  for m in "${missing[@]}"; do echo "  ${m#*|}" | cut -d'|' -f1 >&2; done
  exit 1
fi
[ "$total" -eq 0 ] || echo "building $total programs of the test cluster into $cache; the first time takes some 20 minutes on two cores" >&2
for m in ${missing[@]+"${missing[@]}"}; do
  IFS='|' read -r component name package flags <<<"$m"
  n=$((n + 1)) start=$SECONDS
  printf '[%d/%d] %-24s ' "$n" "$total" "$name" >&2
  dir=$cache/$component-${keys[$component]}
  mkdir -p "$dir"
  # To a name of its own first: a build that is cut off must not look like a finished one.
  if ! (cd "$here/go/$component" && go build -trimpath -ldflags "-s -w $flags" -o "$dir/.$name.part" "$package") >"$dir/$name.log" 2>&1; then
    echo "failed" >&2; tail -n 20 "$dir/$name.log" >&2; exit 1
  fi
  mv "$dir/.$name.part" "$dir/$name"
  ln -sfn "$dir/$name" "$bin/$name"
  printf '%4d s\n' $((SECONDS - start)) >&2
done
echo "$bin"
