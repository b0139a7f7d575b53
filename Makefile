# `make` works with a system Python (3.11 to 3.13) and nothing else: where node is missing it comes as a wheel.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
ALONE := -m alone tests/threshold tests/seams/test_signers.py tests/cli/test_demo.py

.PHONY: demo test lint bench setup mpc nightly clean
.DEFAULT_GOAL := demo

demo: setup
	@$(BIN)/isthmus demo $(ARGS)

# Ceremonies of the threshold engine go on with both cores when a test has dropped them: they run last and alone.
# Where it is not built these tests say so.
test: lint
	@$(BIN)/pytest -q -n 2 --dist loadgroup -m "not alone" --ignore=tests/threshold $(ARGS)
	@$(if $(ARGS),true,$(BIN)/pytest -q $(ALONE))

nightly: lint
	@$(BIN)/pytest -q -n 2 --dist loadgroup -m "not alone" --ignore=tests/threshold --nightly $(ARGS)
	@$(if $(ARGS),true,$(BIN)/pytest -q $(ALONE) --nightly)

lint: setup
	@$(BIN)/ruff format --check -q .
	@$(BIN)/ruff check -q .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache | tail -n 3

bench: setup
	@$(BIN)/python -m benchmarks all $(ARGS)

# The threshold engine (MPC keys) is optional and needs Rust; everything else works without it.
mpc: .venv/.mpc

.venv/.mpc: $(READY) requirements/mpc.txt $(wildcard threshold/* threshold/src/*)
	@$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements/mpc.txt
	@echo "building the threshold engine, a minute or two the first time ..."
	@$(BIN)/python threshold/build.py $(ARGS)
	@touch $@

setup: $(READY)

$(READY): requirements/dev.txt requirements/node.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || \
	  { echo "isthmus needs Python 3.11, 3.12 or 3.13; name one: make PYTHON=python3.12"; exit 1; }
	@echo "installing pinned packages into .venv ..."
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@{ command -v node && command -v npm; } > /dev/null || \
	  $(BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements/node.txt
	@$(BIN)/pip install -q --disable-pip-version-check --no-build-isolation --no-deps -e .
	@echo "fetching pinned contract packages and building the sandbox chain ..."
	@$(BIN)/python -m agent.simulation.chain
	@touch $(READY)

clean:
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis
