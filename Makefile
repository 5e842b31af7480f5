# Everything a person types. Each environment is made once, from the lock files, and needs Python >= 3.11 alone.
# Wheels are kept in WHEELS, so a second checkout on the same machine needs no network.

PYTHON ?= python3
VENV ?= .venv
WHEELS ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/gin-sidecar/wheels
BIN := $(VENV)/bin
PYTEST_ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help demo test e2e lint format types check bench generate lock clean

help: ## Say what there is to do
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.run ## Run the whole job with a built-in service
	$(BIN)/sidecar demo

test: $(VENV)/.dev ## Run the tests
	$(BIN)/python -m pytest -n auto -m "not e2e and not slow" $(PYTEST_ARGS)

check: lint types ## Lint, types and import layers

lint: $(VENV)/.dev ## Check format, style, import layers, the Dockerfile, YAML, workflows
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/hadolint Dockerfile
	$(BIN)/yamllint --strict .
	$(BIN)/zizmor --offline --no-progress --quiet .github

types: $(VENV)/.dev ## Check types
	$(BIN)/mypy

format: $(VENV)/.dev ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.dev ## Measure speed and memory beside their budgets
	$(BIN)/python -m tests.bench

generate: $(VENV)/.dev ## Write what is generated: schemas, README tables, the chart's values, policies, the dashboard
	$(BIN)/python -m tools.generate
	$(BIN)/python -m tools.chart
	$(BIN)/python -m tools.dashboard

LOCK := uv pip compile --universal --generate-hashes --no-emit-index-url --no-header --quiet --python-version 3.11

lock: ## Write the lock files anew (needs uv)
	$(LOCK) pyproject.toml -o requirements.lock
	$(LOCK) --group build -o requirements-build.lock
	$(LOCK) pyproject.toml --group dev -o requirements-dev.lock
	$(LOCK) --group e2e -o requirements-e2e.lock

e2e: $(VENV)/.e2e ## Run the slow and the end-to-end tests; .ci/run installs the programs they need
	$(BIN)/python -m pytest -n auto --dist loadgroup -m "slow or e2e" $(PYTEST_ARGS)

clean: ## Remove environments and caches
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# $(1): lock files, each behind -r. Wheels already there are enough; only a miss asks the package index.
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
define install
	$(PIP) install --no-index --find-links $(WHEELS) --require-hashes $(1) 2>/dev/null \
	|| { mkdir -p $(WHEELS) \
	  && $(PIP) download --only-binary :all: --dest $(WHEELS) --require-hashes $(1) \
	  && $(PIP) install --no-index --find-links $(WHEELS) --require-hashes $(1); }
	$(PIP) install --no-index --no-deps --no-build-isolation --editable .
endef

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: requirements.lock requirements-build.lock pyproject.toml | $(BIN)/python
	$(call install,-r requirements.lock -r requirements-build.lock)
	@touch $@

$(VENV)/.dev: requirements-dev.lock pyproject.toml | $(BIN)/python
	$(call install,-r requirements-dev.lock)
	@touch $@ $(VENV)/.run

$(VENV)/.e2e: requirements-e2e.lock $(VENV)/.dev
	$(call install,-r requirements-dev.lock -r requirements-e2e.lock)
	@touch $@
