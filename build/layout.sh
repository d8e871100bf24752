#!/usr/bin/env bash
# Writes build/layout.ld: the functions that a gateway runs under load, at its start and at its end, as callgrind sees
# them; those that cost most first. Needs valgrind, and some fifteen minutes, most of them for a binary with its symbols: a path
# names one that is there already.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
command -v valgrind >/dev/null || { echo "layout: valgrind is missing (apt-get install valgrind)" >&2; exit 1; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
binary=${1:-}
if [ -z "$binary" ]; then
  echo "building the gateway with its symbols …"
  cargo rustc --quiet --release --bin mcp-fleet -- -C strip=none
  binary=target/release/mcp-fleet
fi
cp "$binary" "$work/mcp-fleet"
cargo build --quiet --release -p mcp-fleet-bench-gateway

callgrind="valgrind --quiet --tool=callgrind --demangle=no"
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
printf '#!/bin/sh\nexec %s --callgrind-out-file=%s "%s" "$@" 2>/dev/null\n' \
  "$callgrind" "$work/calls" "$work/mcp-fleet" >"$work/gateway"
chmod +x "$work/gateway"
target/release/mcp-fleet-bench-gateway --gateway "$work/gateway" --only load,streams --peers ours --rounds 1 \
  --seconds 6 --rate 50 --foreign 8 --again 0 >"$work/log" 2>&1 &
bench=$!
# The benchmark kills what it has started, which leaves no dump: there is one every few seconds, the first of the start.
while kill -0 "$bench" 2>/dev/null; do
  sleep 3
  for pid in $(pgrep -f "callgrind-out-file=$work/calls"); do
    timeout 20 callgrind_control --dump "$pid" >/dev/null 2>&1 || true
  done
done
wait "$bench" || true # under valgrind its targets do not hold
mapfile -t dumps < <(ls -tr "$work"/calls.*)
[ "${#dumps[@]}" -gt 2 ] || { cat "$work/log" >&2; echo "layout: callgrind has seen no load" >&2; exit 1; }

# Functions that the binary itself has, each with what it cost; of the runs under load first.
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
{ costs "${dumps[@]:1}"; costs "${dumps[0]}" "$work/idle"; } |
  awk 'NR == FNR { has[$1]; next } $1 in has' "$work/names" - |
  # The same function in the next version: another hash of its crate, another number of its unit.
  sed -E -e '/^_R/s/Cs[0-9A-Za-z]{6,13}_/Cs*_/g' -e 's/\.llvm\.[0-9]+$/*/' |
  awk '!seen[$0]++' >"$work/order"
{
  echo "/* Written by build/layout.sh, which says what it is; build.rs says what for. */"
  echo "SECTIONS {"
  echo "  .text.gateway : {"
  sed -e 's/^/    *(.text*./' -e 's/$/)/' "$work/order"
  echo "  }"
  echo "} INSERT BEFORE .text;"
} >build/layout.ld
echo "build/layout.ld: $(wc -l <"$work/order") functions"
