# Every target creates what it needs by itself.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
PYTHON ?= python3

ENVIRONMENT := .venv/.installed

.PHONY: help
help: ## list the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

# On a Pulsar: one that is named, here or in the settings, or, as BROKER=pulsar, one of the demo's own.
BROKER ?= $(filter pulsar%,$(MAGNETAR_BROKER))
ifeq ($(BROKER),pulsar)
override BROKER := $(or $(filter pulsar%,$(MAGNETAR_BROKER)),pulsar)
endif
# Tables belong to the log that they were made from: each has a folder of its own.
DATA ?= .demo$(if $(BROKER),-$(subst /,,$(subst :,-,$(subst ://,-,$(BROKER)))))
OWN_PULSAR = .venv/bin/python -m tests.pulsar_rig --keep $(DATA)/broker run

.PHONY: demo
demo: $(ENVIRONMENT) ## run January's flights through everything; ALL=1 the whole year; BROKER=pulsar on a real Pulsar
	$(if $(filter pulsar,$(BROKER)),$(OWN_PULSAR),$(if $(BROKER),MAGNETAR_BROKER='$(BROKER)')) \
		.venv/bin/python -m examples.flights.demo --data $(DATA) $(if $(ALL),--all) $(if $(FIRST),--first $(FIRST))

.PHONY: clean-demo
clean-demo: ## remove the demo's data
	rm -rf .demo .demo-*

# In the environment, not in the shell line: a query is full of quotes and dollar signs.
unexport SQL
.PHONY: query
query: export QUERY_SQL = $(value SQL)
query: export QUERY_FORMAT = $(or $(FORMAT),table)
query: $(ENVIRONMENT) ## ask the demo's data: make query SQL="SELECT count() FROM flights.Departed" FORMAT=json
	@[ -n "$$QUERY_SQL" ] || { echo 'Say what to ask: make query SQL="SELECT count() FROM flights.Departed"' >&2; exit 2; }
	@.venv/bin/magnetar query --data $(DATA) --format "$$QUERY_FORMAT" -- "$$QUERY_SQL"

.PHONY: test
test: $(ENVIRONMENT) .venv-wheel/.locked ## run all tests, against the checkout and against the wheel
	@tools/test

.PHONY: check
check: $(ENVIRONMENT) ## format, lint, types (mypy and pyright), import arrows, the docs' site
	@tools/check

.PHONY: chaos
chaos: $(ENVIRONMENT) ## kill and freeze: 200,000 events, 140 random kills, rebuilds; on Pulsar, 20 kills, also of the broker; SEED=…
	MAGNETAR_TEST_SOAK=1 MAGNETAR_CHAOS_FLIGHTS=68000 MAGNETAR_CHAOS_KILLS=140 MAGNETAR_CHAOS_ASKS=1000 $(if $(SEED),MAGNETAR_CHAOS_SEED='$(SEED)') \
		.venv/bin/pytest -s -o faulthandler_timeout=3600 tests/chaos

.PHONY: test-cluster
test-cluster: $(ENVIRONMENT) ## kill a bookie and a broker of a small Pulsar cluster on loopback; takes 5 GB of memory
	MAGNETAR_TEST_SOAK=1 .venv/bin/pytest -s tests/cluster

.PHONY: test-k8s
test-k8s: $(ENVIRONMENT) ## install the chart on a real API server; builds it first, once: twelve minutes of processor time
	.venv/bin/python -m tests.kubernetes.control_plane
	.venv/bin/pytest tests/kubernetes

.PHONY: test-image
test-image: $(ENVIRONMENT) ## build a new project's image and run it as the chart does; wants root, buildah, podman, runc, mmdebstrap
	MAGNETAR_TEST_IMAGE=1 .venv/bin/pytest tests/image

.PHONY: test-node
test-node: $(ENVIRONMENT) ## run the flights in containers, on a real node beside a real Pulsar; wants root and packages of the system
	.venv/bin/python -m tests.kubernetes.control_plane
	.venv/bin/python -m tests.node_rig
	MAGNETAR_TEST_NODE=1 .venv/bin/pytest tests/node

.PHONY: docs
docs: $(ENVIRONMENT) ## build the docs' site, build/site/index.html; any warning is an error
	@tools/check docs

.PHONY: recordings
recordings: $(ENVIRONMENT) ## play the main flows on a terminal, and write docs/recordings.md and docs/changing.md
	.venv/bin/python -m tools.record
	.venv/bin/python -m tools.record_change

.PHONY: bench
bench: $(ENVIRONMENT) ## measure speeds beside their floors; BROKER=pulsar on a real Pulsar
	$(if $(filter-out pulsar,$(BROKER)),MAGNETAR_BROKER='$(BROKER)') .venv/bin/python -m benchmarks $(if $(BROKER),--broker pulsar)

.PHONY: dist
dist: $(ENVIRONMENT) ## build what is released into dist/: sdist, wheel, SHA256SUMS (docs/releasing.md)
	@.venv/bin/python -P tools/dist.py

.PHONY: format
format: $(ENVIRONMENT) ## format the code and apply the safe fixes of the linter
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

.PHONY: surface
surface: $(ENVIRONMENT) ## write the public names to tests/project/surface.txt, after an intended change
	.venv/bin/python tests/project/test_surface.py

.PHONY: lock
lock: $(ENVIRONMENT) ## lock what pyproject.toml asks for; UPGRADE=1 takes the newest versions
	.venv/bin/pip-compile --quiet $(if $(UPGRADE),--upgrade) --extra embedded --extra tracing --extra dev --generate-hashes --allow-unsafe \
		--strip-extras --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-header \
		--output-file requirements-dev.lock pyproject.toml

%/.locked: requirements-dev.lock
	@$(PYTHON) -c 'import sys; sys.exit("Magnetar needs Python 3.11 or newer: make PYTHON=…" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $*
	$*/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements-dev.lock
	@touch $@

# Lenient: a strict editable install would not see a file that is added later.
.venv/.installed: .venv/.locked pyproject.toml setup.py
	.venv/bin/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation \
		--config-settings editable_mode=lenient --editable .
	@touch $@
