#!/usr/bin/env bash
# Runs the tests tier by tier and sums up what ran, what failed and what was skipped.
#
#   tests/run.sh            everything
#   tests/run.sh t0         formatting, lints, unit tests, properties, generated files: no cluster
#   tests/run.sh t0 t1 t2   some tiers
#
# A tier that cannot run on this machine is counted as skipped, with the reason, never as passed.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
tiers=("$@"); [ ${#tiers[@]} -gt 0 ] || tiers=(t0 t1 t2 t3)
logs=target/test-logs; mkdir -p "$logs"
rows=() failures=() passed=0 failed=0 skipped=0

# step TIER NAME command…: runs it, shows its output, counts the runners' closing lines in it.
step() {
  local tier=$1 name=$2 log start status=0 p f i
  shift 2
  log=$logs/$tier-${name//[^a-z0-9]/-}.log start=$SECONDS
  printf '\n== %s: %s\n' "$tier" "$name"
  "$@" 2>&1 | tee "$log" || status=${PIPESTATUS[0]}
  read -r p f i < <(awk '
    /^test result:/ { for (k = 1; k <= NF; k++) { if ($k ~ /^passed/) p += $(k-1); if ($k ~ /^failed/) f += $(k-1); if ($k ~ /^ignored/) i += $(k-1) } }
    /^[0-9]+ passed, [0-9]+ failed/ { p += $1; f += $3; i += $5 }
    END { printf "%d %d %d\n", p, f, i }' "$log")
  if [ "$status" -ne 0 ]; then
    failures+=("$tier: $name ($log)")
    [ "$f" -gt 0 ] || f=1
  elif [ $((p + f + i)) -eq 0 ]; then
    p=1 # a check without a runner of its own, such as formatting
  fi
  passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + i))
  rows+=("$(printf '%-4s %-34s %7d %7d %8d %6d s' "$tier" "$name" "$p" "$f" "$i" $((SECONDS - start)))")
}

has() { local t; for t in "${tiers[@]}"; do [ "$t" = "$1" ] && return 0; done; return 1; }

if has t0; then
  step t0 "formatting" cargo fmt --all --check
  step t0 "lints" cargo clippy --workspace --all-targets -- -D warnings
  step t0 "units, properties, generated files" cargo test --no-fail-fast --workspace --lib --bins \
    --test arrows --test generated --test admission_offline --test network_policy
  step t0 "the gateway as a process" cargo test --no-fail-fast -p mcp-fleet --test gateway --test hygiene
  step t0 "mutated inputs" cargo run --quiet -p mcp-fleet-fuzz -- --target all --seconds 20
  step t0 "sample server" cargo test --manifest-path tests/fixtures/mcp-server/Cargo.toml
fi
if has t1 || has t2 || has t3; then
  for tier in 3 2 1; do has t$tier && break; done
  step t$tier "programs of the test cluster" tests/cluster/binaries.sh --tier $tier
fi
if has t1; then step t1 "API server" cargo test -p mcp-fleet --test t1; fi
if has t2; then step t2 "controllers, fake nodes" cargo test -p mcp-fleet --test t2; fi
if has t3; then
  step t3 "images" tests/images.sh
  step t3 "the cluster itself" cargo test -p mcp-fleet-cluster --test selftest
  step t3 "real nodes" cargo test -p mcp-fleet --test t3
fi

printf '\n%-4s %-34s %7s %7s %8s %8s\n' tier what passed failed skipped time
printf '%s\n' "${rows[@]}"
grep -hE '^test .*ignored' "$logs"/*.log 2>/dev/null | sort | uniq -c | sort -rn | head -5
if [ ${#failures[@]} -gt 0 ]; then
  printf '\nfailed:\n'
  printf '  %s\n' "${failures[@]}"
fi
printf '\n%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
[ "$failed" -eq 0 ]
