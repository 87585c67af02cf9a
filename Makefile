# Predis Lab. `make report` and `make test` set up what they need in .venv; VENV= uses the current Python as it is.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

PYTHON  ?= python3
VENV    ?= .venv
PROFILE ?= smoke
WORKERS ?= 2
PORT    ?= 5010

PY  := $(if $(VENV),$(VENV)/bin/python,$(PYTHON))
NEW := $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check
set_up = $(if $(VENV),$(VENV)/.has-$(1))

report: $(call set_up,lab)  ## run the notebooks against a real Redis and leave a report (PROFILE=smoke|nightly|deep)
	$(PY) -m predis_lab.cli report --profile $(PROFILE)

nightly: PROFILE := nightly
nightly: $(call set_up,lab)  ## run all notebooks at night: goes on where one was cut short, compares, keeps 14 runs
	$(PY) -m predis_lab.cli nightly --profile $(PROFILE)

test: $(call set_up,test)  ## run the tests, then the notebooks as tests
	$(PY) -m pytest -n $(WORKERS) --dist load --maxschedchunk 1 -m "not quiet and not browser"
	$(PY) -m pytest -m "quiet or browser"
	$(PY) -m pytest -n $(WORKERS) --dist loadfile --nbval --nbval-kernel-name python3 --nbval-cell-timeout 300 -p no:cacheprovider notebooks

dashboard: $(call set_up,lab)  ## watch Predis and Redis work side by side, in a browser (PORT=5010)
	$(PY) -m predis_lab.cli dashboard --port $(PORT)

lab: $(call set_up,jupyter)  ## open the notebooks in JupyterLab
	$(PY) -m jupyter lab notebooks

check: $(call set_up,check)  ## lint, formatting, types, notebooks without leftovers
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m nbstripout --verify --extra-keys metadata.language_info notebooks/*.ipynb
	$(PY) -m mypy

readme: $(call set_up,lab)  ## write README's figure and table from the reference run
	$(PY) -m predis_lab.cli readme

lock: $(call set_up,lock)  ## pin every dependency anew
	for lock in "requirements.lock lab jupyter test check" "requirements-cuda12.lock cuda12" "requirements-cuda13.lock cuda13"; do \
	  set -- $$lock; file=$$1; shift; \
	  $(PY) -m uv pip compile --quiet --universal --upgrade --no-header --no-annotate --no-emit-index-url \
	    --no-emit-find-links $${@/#/--extra=} --output-file $$file pyproject.toml; \
	done

clean:  ## remove the set-up and every run but the reference
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache
	find outputs -mindepth 1 -maxdepth 1 ! -name reference -exec rm -rf {} +

help:  ## show this
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 18

# ---- Set-up: one stamp per set of packages, made anew when what it depends on changes.

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Predis Lab needs Python 3.11 or newer, and '$(PYTHON)' is $$($(PYTHON) --version). Name another: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.has-lab: pyproject.toml requirements.lock $(wildcard requirements-cuda*.lock) | $(VENV)/bin/python
	@cuda=$$(scripts/cuda_extra.sh); \
	echo "Setting up in $(VENV) ($${cuda:-no GPU: without CuPy})"; \
	$(NEW) --constraint requirements.lock $${cuda:+--constraint requirements-$$cuda.lock} --editable ".[lab$${cuda:+,$$cuda}]"
	@touch $@

$(VENV)/.has-test $(VENV)/.has-jupyter $(VENV)/.has-check: $(VENV)/.has-%: $(VENV)/.has-lab
	$(NEW) --constraint requirements.lock --editable ".[lab,$*]"
	@test $* != test || scripts/browser.sh
	@touch $@

$(VENV)/.has-lock: | $(VENV)/bin/python
	$(NEW) uv
	@touch $@

.PHONY: report nightly test dashboard lab check readme lock clean help
