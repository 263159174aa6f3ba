# The only door: `make help` lists what it opens. Everything runs in the environment .venv, which the first call creates.
SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
# The first of these that is Python 3.11 or 3.12; `make PYTHON=/path/to/python test` chooses another.
PYTHON ?= $(shell for p in python3.12 python3.11 python3 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' >/dev/null 2>&1 && echo $$p && break; done)
STAMP := $(VENV)/.installed
REPORTS := reports
# Images of `make paper`: digits, or a folder of CIFAR-10's binary files.
DATA ?= digits
STUDIES := laws moments phase width-depth lyapunov bn-jacobian bn-explosion rank product learning-rates max-rate bn-modes noise-scale

.DEFAULT_GOAL := help
.PHONY: help install format lint type test test-slow reports reports-all paper bench clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-11s %s\n", $$1, $$2}' Makefile

install: $(STAMP) ## create .venv with the pinned dependencies and the package (editable)

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "rmtbn needs Python 3.11 or 3.12 on the PATH (or make PYTHON=...)"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

format: install ## rewrite the code in its standard form
	$(BIN)/ruff check --fix --quiet . || true
	$(BIN)/ruff format .

lint: install ## check style and form
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: install ## check the types
	$(BIN)/mypy

test: install ## run the tests (4 minutes on two cores)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --quiet --numprocesses auto --dist worksteal

test-slow: install ## run the slow checks too
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist worksteal -m 'not gpu'

reports: install ## run the analyses on real images and write reports/index.html
	$(BIN)/rmtbn schemes --preset default --engine local --out $(REPORTS)
	$(BIN)/rmtbn report --out $(REPORTS)

reports-all: reports ## run every study (half an hour on two cores)
	for study in $(STUDIES); do $(BIN)/rmtbn $$study --preset default --engine local --out $(REPORTS) || exit 1; done
	$(BIN)/rmtbn report --out $(REPORTS)

paper: install ## redo the paper at initialisation, its 31 claims on one page (DATA=folder of CIFAR-10; ten minutes on two cores)
	$(BIN)/rmtbn paper --preset default --engine local --data $(DATA) --out $(REPORTS)
	$(BIN)/rmtbn report --out $(REPORTS)

bench: install ## run the benchmarks, each beside what a user would do instead
	@for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

clean: ## remove the environment, caches and reports
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build *.egg-info
	find $(REPORTS) -mindepth 1 ! -name .gitkeep -delete
