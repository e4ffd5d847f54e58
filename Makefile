# make demo needs Python 3.11 or newer and nothing else: the environment is made here, once.
# With uv it is exactly that of uv.lock; without, pip takes the newest versions that pyproject.toml allows.

PYTHON := $(shell for name in python3.13 python3.12 python3.11 python3.14 python3 python; do \
	"$$name" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null && echo "$$name" && break; done)
UV := $(shell command -v uv 2>/dev/null)
BIN := .venv/bin
READY := .venv/.ready
# Tests start hundreds of programs: each would compile all modules again where the shell forbids to keep them.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test slow check bench figures docs clean
.DEFAULT_GOAL := help

help: ## Say what can be made
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

demo: $(READY) ## Run programs native and in VMs: prints tables, writes results/first-light
	$(BIN)/python experiments/first-light/figure.py

# Tests of a file share what it sets up: "worksteal" gives each process as long a row of them as it can.
TESTS := $(BIN)/pytest --numprocesses auto --dist worksteal

test: $(READY) ## Run all tests but those that take long
	$(BIN)/python -m tests.warm
	$(TESTS) -m "not slow"

slow: $(READY) ## Run the tests that take long
	$(TESTS) -m slow

check: $(READY) ## Check style, types, layers and the documentation
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	for figure in experiments/*-*/figure.py; do $(BIN)/mypy $$figure || exit 1; done
	$(BIN)/lint-imports
	$(MAKE) --no-print-directory docs

bench: $(READY) ## Measure speed, start-up and memory against their limits
	$(BIN)/python -m benchmarks

figures: $(READY) ## Make the figures of experiments/ again from results/: only what is out of date
	$(BIN)/python -m experiments

docs: $(READY) ## Run the notebooks and build the documentation, docs/_build/index.html; a warning is an error
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going --builder html docs docs/_build

clean: ## Remove the environment and everything cached
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache docs/_build docs/jupyter_execute
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): pyproject.toml uv.lock
ifneq ($(UV),)
	uv sync --frozen
else
	@test -n "$(PYTHON)" || { echo "vmsim needs Python 3.11 to 3.14 on the PATH, and found none." >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --editable . --group dev
endif
	@touch $@
