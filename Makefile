# make demo and make test set themselves up: with Python 3.11+, make and a package index, nothing else is needed.

PYTHON ?= python3
# without compiled files every process would compile torch and all else again: half a minute each
unexport PYTHONDONTWRITEBYTECODE
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: install demo test coverage check format docs clean
.DEFAULT_GOAL := help

help: ## list these commands
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(READY) ## create .venv and install handreid with all extras, versions pinned in constraints.txt

# uv installs the same wheels as pip, several times faster; where it cannot be had, pip does it
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(f"handreid needs Python 3.11 or newer; {sys.executable} is {sys.version.split()[0]}. Try: make PYTHON=python3.12 install" if sys.version_info < (3, 11) else 0)'
	@echo "installing into $(VENV) (once; torch is large)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv || true
	@if [ -x $(BIN)/uv ]; \
	then $(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[dev]'; \
	else $(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'; fi
	@touch $(READY)

demo: $(READY) ## the ladder on rendered hands: zero-shot against stage 1, minutes on two cores
	$(BIN)/handreid demo

test: $(READY) ## all tests
	$(BIN)/pytest --numprocesses auto --dist worksteal

coverage: $(READY) ## all tests, and the lines that none of them runs; slower
	$(BIN)/pytest --numprocesses auto --dist worksteal --cov --cov-report term-missing

check: $(READY) ## format, lint, types, layers, docs fresh
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python docs/refresh.py --check

format: $(READY) ## format and mend what can be mended
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

docs: $(READY) ## write the generated parts of the docs anew
	$(BIN)/python docs/refresh.py

clean: ## remove the environment and caches
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .coverage* dist
