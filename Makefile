# What people do here. `make` alone shows the list.
SHELL := bash
.DEFAULT_GOAL := help
KUBECONFIG ?=
N ?= 500
CLUSTER := cargo run --quiet -p mcp-fleet-cluster --bin cluster --

.PHONY: help
help: ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{ printf "  \033[36m%-20s\033[0m %s\n", $$1, $$2 }' | if [ -t 1 ]; then cat; else sed 's/\x1b\[[0-9;]*m//g'; fi

.PHONY: demo
demo: ## A real local cluster with the chart, a fleet and MCP calls through it (KUBECONFIG=… for a cluster of yours)
	@KUBECONFIG="$(KUBECONFIG)" deploy/demo.sh

.PHONY: test
test: ## Every test: units, real API server, real controllers, real nodes
	@tests/run.sh

.PHONY: test-fast
test-fast: ## Formatting, lints, units and generated files: no cluster
	@tests/run.sh t0

.PHONY: t1 t2 t3
t1: ## The suite on etcd and the API server
	@tests/run.sh t1
t2: ## The suite on the controllers and fake nodes
	@tests/run.sh t2
t3: ## The suite on real nodes
	@tests/run.sh t3

.PHONY: build
build: ## The binaries, for this machine
	cargo build --release --bins

.PHONY: layout
layout: ## Which functions lie side by side in the binary (build/gateway.ld, operator.ld); needs valgrind
	@build/layout.sh

.PHONY: generate
generate: ## The CRD and everything that is made of it and of the chart
	cargo run --quiet --bin mcp-fleet -- crds > crds/mcpfleets.yaml.part
	mv crds/mcpfleets.yaml.part crds/mcpfleets.yaml
	deploy/render.sh

.PHONY: format
format: ## Format the code
	cargo fmt --all

.PHONY: lint
lint: ## Lints; no warning is left standing
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

.PHONY: deny
deny: ## Licences, bans and sources of the dependencies (needs cargo-deny)
	cargo deny check bans licenses sources

.PHONY: images
images: ## Images of the product and of the sample server as tar files in target/images
	@tests/images.sh

.PHONY: cluster-binaries
cluster-binaries: ## Build the test cluster's programs (some 20 minutes, once)
	@tests/cluster/binaries.sh >/dev/null

.PHONY: cluster
cluster: ## A real cluster with two nodes to play with, and the images of this tree in it
	@deploy/cluster.sh >/dev/null

.PHONY: cluster-down
cluster-down: ## End it
	@$(CLUSTER) down --name demo

.PHONY: conformance-fixture
conformance-fixture: ## The official MCP conformance suite against the sample server
	@node tests/conformance/run.mjs

.PHONY: conformance
conformance: ## The conformance suite through 2 gateways before 3 replicas, and without them as control
	@node tests/conformance/run.mjs --gateways 2 --replicas 3 --report conformance

.PHONY: interop
interop: ## Real MCP servers and clients of others, each with each, through the gateways
	@node tests/interop/run.mjs

.PHONY: chaos
chaos: ## Kill, hang, roll and scale servers and gateways under load; what clients see
	@node tests/chaos/run.mjs

.PHONY: fuzz
fuzz: ## Mutated inputs for everything that strangers' bytes reach (SECONDS=60, over all targets)
	@cargo run --quiet -p mcp-fleet-fuzz -- --target all --seconds $(or $(SECONDS),60)

.PHONY: bench-reconcile
bench-reconcile: ## Cost of N fleets against the API server's own limit (N=500)
	cargo build --release --bin mcp-fleet
	cp target/release/mcp-fleet target/operator-under-test # cargo bench puts a build of its own there
	cargo bench --bench reconcile -- --n $(N) --operator $(CURDIR)/target/operator-under-test $(ARGS)

.PHONY: bench-gateway
bench-gateway: ## The gateway beside nginx, haproxy and envoy: cost, delay, streams, balancing (ARGS=--quick for a look)
	@benches/gateway/peers.sh
	cargo build --release --bin mcp-fleet
	cargo run --release --quiet -p mcp-fleet-bench-gateway -- --gateway target/release/mcp-fleet $(ARGS)

.PHONY: bench-autoscaler-cost
bench-autoscaler-cost: ## What the autoscaler costs the operator at 10,000 fleets, as a share of a core
	cargo bench --bench autoscaler_cost

.PHONY: bench-autoscaler
bench-autoscaler: ## Balanced beside five other autoscalers in simulated scenarios, 20 seeds each (some minutes)
	cargo bench --bench autoscaler -- $(ARGS)
