#!/usr/bin/env bash
# Writes build/gateway.ld and build/operator.ld: the functions that a gateway runs under load, at its start and at its
# end, and those of an operator, as callgrind sees them; those that cost most first.
#
#   layout.sh [--only gateway|operator] [BINARY]
#
# Needs valgrind, for the operator the programs of the test cluster, and some twenty minutes, most of them for a binary
# with its symbols: BINARY names one that is there already.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
command -v valgrind >/dev/null || { echo "layout: valgrind is missing (apt-get install valgrind)" >&2; exit 1; }
only=''
if [ "${1:-}" = --only ]; then only=${2:?--only takes gateway or operator}; shift 2; fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
binary=${1:-}
if [ -z "$binary" ]; then
  echo "building the program with its symbols …"
  cargo rustc --quiet --release --bin mcp-fleet -- -C strip=none
  binary=target/release/mcp-fleet
fi
cp "$binary" "$work/mcp-fleet"

callgrind="valgrind --quiet --tool=callgrind --demangle=no"
# What runs instead of the program: the same under callgrind.
wrapper() {
  printf '#!/bin/sh\nexec %s --callgrind-out-file=%s "%s" "$@" 2>/dev/null\n' "$callgrind" "$work/$1" "$work/mcp-fleet" \
    >"$work/run-$1"
  chmod +x "$work/run-$1"
}
# The benchmarks kill what they have started, which leaves no dump: there is one every few seconds, the first of the start.
dump_while() {
  while kill -0 "$1" 2>/dev/null; do
    sleep 3
    for pid in $(pgrep -f "callgrind-out-file=$work/$2"); do
      timeout 20 callgrind_control --dump "$pid" >/dev/null 2>&1 || true
    done
  done
  wait "$1" || true # under valgrind its targets do not hold
  mapfile -t dumps < <(ls -tr "$work/$2".*)
  [ "${#dumps[@]}" -gt 2 ] || { cat "$work/log" >&2; echo "layout: callgrind has seen no load" >&2; exit 1; }
}

# Functions that the binary itself has, each with what it cost.
nm "$work/mcp-fleet" | awk 'tolower($2) == "t" || tolower($2) == "w" { print $3 }' >"$work/names"
costs() {
  awk '
    FNR == 1 { delete name; current = ""; skip = 0 }
    match($0, /^c?fn=\([0-9]+\)/) {
      id = substr($0, index($0, "("), RLENGTH - index($0, "(") + 1)
      if (length($0) > RLENGTH) name[id] = substr($0, RLENGTH + 2)
      if ($0 ~ /^fn=/) { current = name[id]; sub(/\x27[0-9]+$/, "", current); cost[current] += 0 }
      next
    }
    /^calls=/ { skip = 1; next }
    /^[0-9+*-]/ { if (skip) skip = 0; else if (current != "") cost[current] += $2 }
    END { for (f in cost) print cost[f], f }' "$@" | LC_ALL=C sort -k1,1nr -k2,2 | cut -d' ' -f2-
}
# The order on its input as a section of a linker script.
script() {
  awk 'NR == FNR { has[$1]; next } $1 in has' "$work/names" - |
    # The same function in the next version: another hash of its crate, another number of its unit.
    sed -E -e '/^_R/s/Cs[0-9A-Za-z]{6,13}_/Cs*_/g' -e 's/\.llvm\.[0-9]+$/*/' |
    awk '!seen[$0]++' >"$work/order"
  {
    echo "/* Written by build/layout.sh, which says what it is; build.rs says what for. */"
    echo "SECTIONS {"
    echo "  .text.$1 : {"
    sed -e 's/^/    *(.text*./' -e 's/$/)/' "$work/order"
    echo "  }"
    echo "} INSERT BEFORE .text;"
  } >"build/$1.ld"
  echo "build/$1.ld: $(wc -l <"$work/order") functions"
}

if [ "$only" != operator ]; then
  cargo build --quiet --release -p mcp-fleet-bench-gateway
  echo "a gateway whose server is away, from its start to its end …"
  cat >"$work/config.yaml" <<'CONFIG'
listen: 127.0.0.1:0
adminListen: 127.0.0.1:0
debugListen: 127.0.0.1:0
fleets:
- namespace: demo
  name: away
  path: /mcp
  endpoints:
  - address: 127.0.0.1:9
CONFIG
  timeout --signal=TERM 30 $callgrind --callgrind-out-file="$work/idle" \
    "$work/mcp-fleet" gateway --ephemeral-key --config "$work/config.yaml" >/dev/null 2>&1 || true

  echo "calls and streams of both eras …"
  wrapper gateway
  target/release/mcp-fleet-bench-gateway --gateway "$work/run-gateway" --only load,streams --peers ours --rounds 1 \
    --seconds 6 --rate 50 --foreign 8 --again 0 >"$work/log" 2>&1 &
  dump_while $! gateway
  { costs "${dumps[@]:1}"; costs "${dumps[0]}" "$work/idle"; } | script gateway
fi

if [ "$only" != gateway ]; then
  echo "an operator that makes some fleets …"
  wrapper operator
  cargo bench --quiet --bench reconcile -- --n 10 --creation-only --operator "$work/run-operator" >"$work/log" 2>&1 &
  dump_while $! operator
  costs "${dumps[@]}" | script operator
fi
