# The project's one door: people, and .ci/run, call these targets. `make` alone lists them.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory
SHELL := /bin/bash

export CARGO_TERM_COLOR ?= never

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-17s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: ## check for what is needed, install what can be installed, name what cannot
	@tools/setup

.PHONY: build
build: ## build the library with its default features
	cargo build

.PHONY: test
test: setup ## run everything but soaks, benches and sanitizers
	@tools/run-tests test

.PHONY: test-qemu
test-qemu: setup ## devices of QEMU machines, over every register interface
	@tools/run-tests qemu

.PHONY: qemu-table
qemu-table: setup ## QEMU's device types by register interface; print the table that docs/qemu.md keeps
	@cargo run --quiet --example qemu_table

.PHONY: test-sanitizers
test-sanitizers: setup ## address, leak and thread sanitizers over the Rust tests
	@tools/run-tests sanitizers

.PHONY: loom
loom: ## check the ring under all interleavings; print the table of models and mutants
	@tools/run-tests loom

.PHONY: soak
soak: ## the long runs (not in CI); print the table that the documents keep
	@tools/run-tests soak

.PHONY: bench-ring
bench-ring: ## ring: ours, its peers, the floor and the cache line round trip in one run
	cargo run --release --manifest-path benches/Cargo.toml --bin bench_ring

.PHONY: bench-copy
bench-copy: ## bulk copies beside memcpy
	cargo run --release --manifest-path benches/Cargo.toml --bin bench_copy

.PHONY: bench-vhost-user
bench-vhost-user: ## block devices behind vhost-user: ours, its peers in Rust and Python, in one run (ARGS="--quick")
	@tools/bench-vhost-user $(ARGS)

.PHONY: bench-python
bench-python: ## the Python face beside the same in Rust, a ring in plain Python, and os.pread
	@tools/bench-python

.PHONY: fmt
fmt: ## format the Rust sources
	cargo fmt

.PHONY: lint
lint: ## formatting, clippy, the layer rules, links in the documents
	@tools/run-tests lint

.PHONY: doc
doc: ## build the API reference, warnings denied
	@tools/run-tests doc

.PHONY: clean
clean: ## remove all that was built
	cargo clean
