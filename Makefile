# Consort: every command that the README, CI and you use. `make help` lists them.

# Compiled files live outside the clone, so that a second clone builds in minutes. Override to keep them elsewhere.
CACHE_HOME := $(if $(XDG_CACHE_HOME),$(XDG_CACHE_HOME),$(HOME)/.cache)
CONSORT_TARGET ?= $(CACHE_HOME)/consort/target
export CARGO_TARGET_DIR := $(CONSORT_TARGET)
export CONSORT_BIN := $(CARGO_TARGET_DIR)/debug
export PATH := $(HOME)/.cargo/bin:$(PATH)

NETWORK ?= two-org-raft
CONFIG := network-configs/$(NETWORK)
DATA ?= .consort/$(NETWORK)
CONSORT := $(CONSORT_BIN)/consort

.DEFAULT_GOAL := help
SEEDS ?= 1000
SEED ?=
BASE ?=
PARTS ?=

.PHONY: help setup build demo demo-hospital up down status logs clean-network test unit lint fix bench bench-compare simulate clean

help: ## list the commands
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  Variables: NETWORK=<folder of network-configs> (now $(NETWORK)), DATA=<folder> (now $(DATA)),"
	@echo "             CONSORT_TARGET=<folder for compiled files> (now $(CONSORT_TARGET))"

setup: ## install what the build needs and this machine lacks (says what and why)
	@.ci/setup build

build: setup ## build the servers, the command line and the demo's needs
	@[ -x $(CONSORT) ] || echo "Building Consort into $(CARGO_TARGET_DIR); the first time takes about 20 minutes on two cores (RocksDB and the WebAssembly compiler are large) ..."
	@cargo build --workspace --bins --locked

demo: build ## the main job from nothing: a network, a chaincode, transactions, explained step by step
	@$(CONSORT) network demo --config network-configs/two-org-raft --data .consort/two-org-raft

demo-hospital: build ## sealed data from nothing: a patient's record is sealed, granted, read, revoked, audited
	@$(CONSORT) network demo --config network-configs/hospital --data .consort/hospital

up: build ## start the network NETWORK (default two-org-raft) and keep it running
	@$(CONSORT) network up --config $(CONFIG) --data $(DATA)

down: ## stop the network, keep its data
	@$(CONSORT) network down --config $(CONFIG) --data $(DATA)

status: ## what runs, where, how healthy
	@$(CONSORT) network status --config $(CONFIG) --data $(DATA)

logs: ## the last lines of every process
	@$(CONSORT) network logs --config $(CONFIG) --data $(DATA)

clean-network: ## stop the network and forget its data
	@$(CONSORT) network clean --config $(CONFIG) --data $(DATA)

test: ## everything: format, lints, unit, property, golden, process-level and real-client tests
	@.ci/setup test
	@.ci/test

lint: setup ## format and lints, warnings are errors
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --features consort-fuzz/targets --locked -- -D warnings

fix: setup ## format, and apply the lints' own suggestions
	cargo fmt --all
	cargo clippy --workspace --all-targets --fix --allow-dirty --allow-staged
	cargo fmt --all

simulate: setup ## the orderers in SEEDS simulated networks (now $(SEEDS)); SEED=<number> runs one again
	@CONSORT_SIMULATION_SEEDS=$(SEEDS) CONSORT_SIMULATION_SEED=$(SEED) cargo test --locked -q -p consort-orderer --lib simulation -- --nocapture

bench: ## measure everything (under 20 minutes once built); writes docs/performance.md and bench.json; PARTS="load replay": only these
	@.ci/setup bench
	@.ci/bench run $(PARTS)

bench-compare: ## measure the commit BASE and the present files in turn and print the ratios; PARTS="policy load": only these
	@[ -n "$(BASE)" ] || { echo "Say which commit to compare with: make bench-compare BASE=<commit>" >&2; exit 1; }
	@.ci/setup bench
	@.ci/bench compare $(BASE) $(PARTS)

clean: ## remove compiled files
	cargo clean
