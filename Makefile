# SPDX-License-Identifier: Apache-2.0
# Thin: CMake presets build, scripts/ does the rest. V=1 shows the commands.
ifeq ($(V),1)
Q :=
VERBOSE := --verbose
else
Q := @
VERBOSE :=
endif

BUILD := build
.DEFAULT_GOAL := build
.PHONY: help build test test-unit test-dataplane demo lint format clean

help: ## shows this list
	$(Q)awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## builds the programs into build/bin (release preset); installs missing packages if root
	$(Q)scripts/install-packages.sh build run
	$(Q)cmake --preset release
	$(Q)cmake --build --preset release $(VERBOSE)

.PHONY: build-ci
build-ci:
	$(Q)scripts/install-packages.sh build run test
	$(Q)cmake --preset ci
	$(Q)cmake --build --preset ci $(VERBOSE)

test: build-ci ## installs packages, builds with warnings as errors, runs the tests but those of slower tiers (25 minutes)
	$(Q)scripts/run-tests.sh $(BUILD)

test-unit: build-ci ## runs the tests that need no root
	$(Q)scripts/run-tests.sh $(BUILD) unit

test-dataplane: build-ci ## runs the tests that attach programs in a lab of their own (root)
	$(Q)scripts/run-tests.sh $(BUILD) 'dataplane|e2e'

demo: ## shows redirection, exclusions and failover in a lab of network namespaces (root, about a minute)
	$(Q)scripts/demo.sh

.PHONY: bench
bench: ## measures against no mesh, HAProxy, and HAProxy and Envoy as sidecars (root, half an hour; BENCH_QUICK=1: 5 minutes)
	$(Q)scripts/install-packages.sh build run bench
	$(Q)cmake --preset release
	$(Q)cmake --build --preset release --target st_bench $(VERBOSE)
	$(Q)python3 -B tests/bench/run.py $(BUILD)

.PHONY: scale
scale: build-ci ## measures 9,000 connections and 1,000 pods on one node (root, about a minute)
	$(Q)ST_SCALE_PODS=1000 $(BUILD)/tests/scale_test

.PHONY: scale-cluster
scale-cluster: build-ci ## measures the agent with 5,000 pods in a real API server, 250 on the node (root, programs of make test-kubernetes; a minute)
	$(Q)ST_SCALE_CLUSTER=1 $(BUILD)/tests/kube_scale_test

.PHONY: soak
soak: build-ci ## mixed traffic by fast path and handoff under kills and flips (root, half an hour; SOAK_SECONDS=1800, SOAK_SEED=)
	$(Q)$(BUILD)/tests/st_soak $(or $(SOAK_SECONDS),1800) $(SOAK_SEED)

.PHONY: test-go
test-go: build-ci ## runs Go's own tests of net and net/http with and without the fast path (root, Go; 4 minutes)
	$(Q)$(BUILD)/tests/go_suite_test --gtest_filter=GoSuite.net* || [ $$? -eq 77 ] # skipped: it has said why

.PHONY: test-kernels
test-kernels: build-ci ## runs dataplane tests on Debian's 5.10, 6.1, 6.12 and newest kernels in qemu (root, an hour; KERNEL_TESTS=smoke)
	$(Q)scripts/install-packages.sh kernels
	$(Q)tests/kernels/run.sh $(BUILD)

.PHONY: image
image: build ## builds the container image without a container engine: build/image/sidetrack-VERSION.oci.tar and its SBOM
	$(Q)python3 -B image/build.py --bin $(BUILD)/bin --out $(BUILD)/image --revision "$$(git rev-parse HEAD 2>/dev/null)"

.PHONY: test-reproducible
test-reproducible: build ## compiles the programs once more, in another folder and without ccache: the image has the same bytes (10 minutes)
	$(Q)tests/image/reproducible.sh $(BUILD)

.PHONY: test-containerfile
test-containerfile: build ## builds image/Containerfile with buildah: the image is that of make image (root, packages; 15 minutes)
	$(Q)scripts/install-packages.sh containerfile
	$(Q)tests/image/containerfile.sh $(BUILD)

.PHONY: test-kubernetes
test-kubernetes: build-ci ## runs the chart in a real cluster of one node, and the agent against a real API server (root, Go 1.24; half an hour; CASES='install redirect*')
	$(Q)tests/kubernetes/run.sh $(BUILD) $(CASES)
	$(Q)$(if $(filter-out --quick,$(CASES)),,$(if $(CASES),,ST_SCALE_CLUSTER=1 )scripts/run-tests.sh $(BUILD) kubernetes)

.PHONY: fuzz
fuzz: ## fuzzes each parser for a minute with libFuzzer and sanitizers (FUZZ_SECONDS=60)
	$(Q)scripts/install-packages.sh build run fuzz
	$(Q)cmake --preset fuzz
	$(Q)cmake --build build-fuzz --target st_fuzzers $(VERBOSE)
	$(Q)scripts/fuzz.sh build-fuzz/fuzz $(or $(FUZZ_SECONDS),60)

lint: ## checks format, scripts, YAML and the dependencies between folders
	$(Q)scripts/lint.sh

format: ## formats all C and C++ files
	$(Q)scripts/lint.sh --fix

clean: ## removes the build folder
	$(Q)rm -rf $(BUILD)
