# syntax=docker/dockerfile:1
#
# Two images, each one static file tree on nothing:
#   docker build -t localhost/mcp-fleet:dev .                          the product: operator and agent
#   docker build -t localhost/mcp-fleet-sample:dev --target sample .   the sample MCP server
#
# For several platforms use native builders or emulation (docker buildx build --platform …): the
# build compiles for the platform that it runs on.

FROM rust:1.95-slim-bookworm AS toolchain
WORKDIR /src
# Static binaries from the GNU target: the slim image holds the static C library, and no second target
# has to be installed. The explicit --target below keeps the flag away from build scripts and macros,
# which have to be shared objects. How symbols are named stands in .cargo/config.toml too, which this replaces.
ENV RUSTFLAGS="-C target-feature=+crt-static -C symbol-mangling-version=v0" \
    CARGO_TERM_COLOR=never

FROM toolchain AS build
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    set -eu; \
    host=$(rustc -vV | sed -n 's/^host: //p'); \
    cargo build --locked --release --package mcp-fleet --bins --target "$host"; \
    mkdir -p /out; \
    for name in mcp-fleet mcp-fleet-agent; do \
        install -m 0755 "target/$host/release/$name" /out/; \
        # The image has no loader: a file that asks for one would fail only in the cluster.
        if readelf -lW "/out/$name" | grep -q INTERP; then echo "$name is not static" >&2; exit 1; fi; \
    done

FROM toolchain AS build-sample
COPY tests/fixtures/mcp-server tests/fixtures/mcp-server
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/tests/fixtures/mcp-server/target \
    set -eu; \
    cd tests/fixtures/mcp-server; \
    host=$(rustc -vV | sed -n 's/^host: //p'); \
    cargo build --locked --release --bins --target "$host"; \
    mkdir -p /out; \
    for name in mcp-server mcp-call; do \
        install -m 0755 "target/$host/release/$name" /out/; \
        if readelf -lW "/out/$name" | grep -q INTERP; then echo "$name is not static" >&2; exit 1; fi; \
    done

FROM scratch AS sample
LABEL org.opencontainers.image.title="mcp-fleet-sample" \
      org.opencontainers.image.description="A sample MCP server with knobs, and a small MCP client" \
      org.opencontainers.image.source="https://github.com/mcp-fleet/mcp-fleet" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build-sample /out/ /usr/local/bin/
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["/usr/local/bin/mcp-server"]

# The last stage is the default one. No shell, no package, no file but the two binaries and the licence.
# No CA certificates either: the only TLS peer is the API server, whose CA Kubernetes mounts into the pod.
FROM scratch AS product
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="mcp-fleet" \
      org.opencontainers.image.description="A Kubernetes operator that manages fleets of MCP servers" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="https://github.com/mcp-fleet/mcp-fleet" \
      org.opencontainers.image.documentation="https://github.com/mcp-fleet/mcp-fleet#readme" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY LICENSE /LICENSE
COPY --from=build /out/ /usr/local/bin/
# A number, not a name: runAsNonRoot cannot judge a name.
USER 65532:65532
EXPOSE 9090
ENTRYPOINT ["/usr/local/bin/mcp-fleet"]
CMD ["--help"]
