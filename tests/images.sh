#!/usr/bin/env bash
# Builds the two images for clusters without a registry, as tar files in target/images:
#
#   mcp-fleet.tar          localhost/mcp-fleet:dev          the operator, and the agent for pods
#   mcp-fleet-sample.tar   localhost/mcp-fleet-sample:dev   the sample MCP server and its client
#
# Progress on standard error, the paths of the files on standard output. Of the same programs nothing is
# written again. The programs are those of cargo's dev profile, which the tests have built already, without
# their symbols; they bring the libraries of this machine. The agent must be static instead, since it runs in
# images of other people: `cargo rustc` links that one program so and compiles nothing else again.
# For images to publish see the Dockerfile.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Called by a test, cargo's variables for that test would make build scripts run, and all be built, again.
for name in $(compgen -e); do
  case $name in
    CARGO_PKG_* | CARGO_MANIFEST_* | CARGO_BIN_* | CARGO_CRATE_NAME | CARGO_PRIMARY_PACKAGE | LD_LIBRARY_PATH)
      unset "$name" ;;
  esac
done

target=${CARGO_TARGET_DIR:-$PWD/target}
sample_target=${CARGO_TARGET_DIR:-$PWD/tests/fixtures/mcp-server/target}
images=$target/images
mkdir -p "$images"
exec 9>"$images/.lock"
flock 9

say() { printf 'images: %s\n' "$*" >&2; }
quiet() { # shows the output of a build only if it fails
  local log status=0
  log=$(mktemp)
  "$@" >"$log" 2>&1 || status=$?
  [ "$status" -eq 0 ] || cat "$log" >&2
  rm -f "$log"
  return "$status"
}
# stripped SOURCE NAME: a copy without symbols.
stripped() { strip -o "$images/$2.part" "$1" && mv "$images/$2.part" "$images/$2"; }

# pack NAME REFERENCE ENTRYPOINT PROGRAM…: writes NAME.tar unless it was made of the very same programs.
pack() {
  local name=$1 reference=$2 entrypoint=$3 key files=() program
  shift 3
  key=$(cd "$images" && printf '%s %s\n' "$reference" "$entrypoint" && sha256sum "$@")
  if [ "$key" != "$(cat "$images/$name.key" 2>/dev/null)" ] || [ ! -f "$images/$name.tar" ]; then
    for program in "$@"; do files+=("$images/$program:/usr/local/bin/$program"); done
    "$target/debug/cluster" image --name "$reference" --out "$images/$name.tar.part" \
      --entrypoint "$entrypoint" "${files[@]}" >&2
    mv "$images/$name.tar.part" "$images/$name.tar"
    printf '%s\n' "$key" >"$images/$name.key"
  fi
  printf '%s\n' "$images/$name.tar"
}

started=$SECONDS
say "the programs"
quiet cargo build --package mcp-fleet-cluster --bin cluster
quiet cargo rustc --package mcp-fleet --bin mcp-fleet-agent -- -C target-feature=+crt-static
stripped "$target/debug/mcp-fleet-agent" mcp-fleet-agent
quiet cargo build --package mcp-fleet --bin mcp-fleet
stripped "$target/debug/mcp-fleet" mcp-fleet
quiet cargo build --manifest-path tests/fixtures/mcp-server/Cargo.toml --target-dir "$sample_target" --bins
stripped "$sample_target/debug/mcp-server" mcp-server
stripped "$sample_target/debug/mcp-call" mcp-call

say "the images, after $((SECONDS - started)) s"
if ldd "$images/mcp-fleet-agent" >/dev/null 2>&1 && ! ldd "$images/mcp-fleet-agent" | grep -q 'statically'; then
  say "mcp-fleet-agent is not static: it would not start in images without this machine's libraries"
  exit 1
fi
pack mcp-fleet localhost/mcp-fleet:dev /usr/local/bin/mcp-fleet mcp-fleet mcp-fleet-agent
pack mcp-fleet-sample localhost/mcp-fleet-sample:dev /usr/local/bin/mcp-server mcp-server mcp-call
say "done after $((SECONDS - started)) s"
