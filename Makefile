# `make help` lists the targets. Python packages live in .venv; BCC and the tools come from the distribution.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.ONESHELL:

PYTHON := .venv/bin/python
REQUIREMENTS := requirements.txt tests/requirements.txt
# Named after the content of the requirements, so that setup runs again when they change, and only then.
STATE := $(shell cat $(REQUIREMENTS) .ci/setup | sha256sum | cut -c 1-16)
READY := .venv/ready-$(STATE)
READY_CLUSTER := .venv/ready-cluster-$(STATE)
READY_KERNELS := .venv/ready-kernels-$(STATE)
READY_ARM64 := .venv/ready-arm64-$(STATE)
ARCH ?= amd64

.PHONY: help setup setup-cluster setup-kernels setup-arm64 demo test lint unit kernel kernels kernels-test cluster
.PHONY: install-yaml cluster-test versions systemd-test lock bench clean

help: ## lists the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 15

setup: $(READY) ## installs what the other targets need (packages of the distribution, .venv)

$(READY):
	.ci/setup $(REQUIREMENTS)
	touch $@

setup-cluster: $(READY_CLUSTER) ## installs what tests on a real Kubernetes need, too

$(READY_CLUSTER):
	.ci/setup --cluster $(REQUIREMENTS)
	touch $(READY) $@

setup-kernels: $(READY_KERNELS) ## installs what tests on other kernels need, too

$(READY_KERNELS):
	.ci/setup --kernels $(REQUIREMENTS)
	touch $(READY) $@

setup-arm64: $(READY_ARM64) ## installs what `make kernels ARCH=arm64` needs, too

$(READY_ARM64):
	.ci/setup --arm64 $(REQUIREMENTS)
	touch $(READY) $(READY_CLUSTER) $(READY_KERNELS) $@

demo: setup ## shows real redirects on this machine, step by step, and leaves nothing behind (root)
	$(PYTHON) -m tests.demo

test: ## lint, unit, kernel, kernels and cluster tests; what the CI runs (root)
	@$(MAKE) --no-print-directory setup
	@$(MAKE) --no-print-directory lint
	@$(MAKE) --no-print-directory unit
	@$(MAKE) --no-print-directory kernel
	@$(MAKE) --no-print-directory kernels-test
	@$(MAKE) --no-print-directory cluster-test

lint: setup ## ruff, mypy, clang-format; all of them, so that one run shows all faults
	@status=0
	$(PYTHON) -m ruff check . || status=1
	$(PYTHON) -m ruff format --check . || status=1
	$(PYTHON) -m mypy || status=1
	clang-format --dry-run -Werror bpf/programs/*.c bpf/programs/*.h || status=1
	exit $$status

# With slipcover, since coverage.py doubles the time on Python 3.11, which has no sys.monitoring yet.
unit: setup ## tests without root, and how many lines of the code they run
	$(PYTHON) -m slipcover --immediate --source actors,bpf,config,k8s --skip-covered --out .coverage.txt \
		-m pytest -q -p tests.no_skips -W ignore::pytest.PytestAssertRewriteWarning tests/unit
	@echo "coverage: $$(awk '/^\(summary\)/ {print $$NF}' .coverage.txt) % of the lines; .coverage.txt names the others"

# Two laboratories side by side, each with network namespaces and a cgroup of its own.
kernel: setup ## tests with real hooks and sockets (root); fails, with the reason, where they can't run
	$(PYTHON) -m tests.kernel_ready
	$(PYTHON) -m pytest -q -p tests.no_skips -n 2 --dist loadfile tests/kernel

# The Python files are compiled here, since each machine would need some twenty seconds to compile them for itself.
kernels-test: setup-kernels ## chosen kernel tests on other kernels, in two virtual machines at a time (root)
	$(PYTHON) -m tests.kernels.ready
	$(PYTHON) -m compileall -q actors bpf config k8s tests
	$(PYTHON) -m pytest -q -p tests.no_skips -n 2 --dist worksteal tests/kernels

kernels: export COMMAND ?= $(PYTHON) -m tests.demo
kernels: $(if $(filter arm64,$(ARCH)),setup-arm64)
kernels: setup-kernels ## runs COMMAND (default: the demo) on KERNEL (6.1) of ARCH; without KERNEL, lists kernels (root)
	$(PYTHON) -m tests.kernels $(ARCH) $(if $(KERNEL),$(KERNEL) bash -c "$$COMMAND")

cluster-test: setup-cluster ## tests on a real Kubernetes (root); the first run builds it, about ten minutes
	$(PYTHON) -m tests.cluster.ready
	$(PYTHON) -m pytest -q -p tests.no_skips tests/cluster

versions: setup-cluster ## tests on API servers of other Kubernetes versions, or of KUBERNETES, such as 1.31 (root)
	$(PYTHON) -m tests.versions $(KUBERNETES)

systemd-test: setup-cluster setup-kernels ## tests on a node that boots systemd, in a virtual machine; slow (root)
	$(PYTHON) -m tests.systemd.ready
	$(PYTHON) -m pytest -q -p tests.no_skips tests/systemd

cluster: setup-cluster ## a Kubernetes of one node (NODES=2, 3) to try things on, until Ctrl-C (root)
	exec $(PYTHON) -m tests.cluster $(NODES)

install-yaml: setup-cluster ## renders k8s/install.yaml from the chart
	$(PYTHON) -m tests.cluster.install_yaml

lock: setup ## writes requirements.lock: what requirements.txt asks for and all that this needs, with hashes
	CUSTOM_COMPILE_COMMAND="make lock" $(PYTHON) -m piptools compile --quiet --generate-hashes --allow-unsafe \
		--strip-extras --no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
		--output-file=requirements.lock requirements.txt

bench: setup-cluster ## prints the table of measurements (root)
	$(PYTHON) -m tests.bench

clean: ## removes .venv, .cluster, .kernels and caches
	rm -rf .cluster .kernels .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage.txt
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
