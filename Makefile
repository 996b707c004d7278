# Everything from a fresh clone with only Python, make and a package index: `make help` lists it.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
DEMO := demo

export RAY_AUTH_MODE ?= disabled
export RAY_USAGE_STATS_ENABLED ?= 0
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help env check test test-slow demo lock clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*  ## ' $(MAKEFILE_LIST) | sed -E 's/:.*  ## /\t/' | expand -t 12

env: $(VENV)/.installed  ## create .venv and install what the lock says; at once when it is up to date

# Two stamps: a changed lock builds the environment anew, a changed pyproject.toml only installs the package again.
$(VENV)/.locked: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || { \
	  echo "make: expected Python 3.11 to 3.13, found $$($(PYTHON) --version 2>/dev/null || echo none); name another: make PYTHON=python3.11 ..." >&2; exit 2; }
	$(PYTHON) -m venv --clear $(VENV)
	$(PY) -m pip install --quiet --require-hashes -r requirements.lock
	touch $@

# setuptools comes with the lock, so that the build needs nothing else from the index.
$(VENV)/.installed: $(VENV)/.locked pyproject.toml
	$(PY) -m pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

check: env  ## lint, docstring rules, formatting, types, import rules
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) -m pytest -q tests/test_imports.py

test: env  ## all tests but the slow ones (at most 10 minutes on 2 cores)
	$(PY) -m pytest -m "not slow" --durations=15

test-slow: env  ## the slow tests (at most an hour on 2 cores)
	$(PY) -m pytest -m slow --durations=15

demo: env  ## draw a training set and a plate, train, segment, score; a few minutes
	rm -rf $(DEMO)
	$(PY) jobs/synthesize.py --output $(DEMO)/training --kind training --images 96 --seed 1
	$(PY) jobs/synthesize.py --output $(DEMO)/plate --kind plate --plate demo --scheme imagexpress --wells 24 --empty-wells 3 --seed 2
	$(PY) jobs/train.py --data $(DEMO)/training --output $(DEMO)/model --encoder-weights none --epochs 4 --crops-per-epoch 480
	$(PY) jobs/predict.py --input $(DEMO)/plate/demo --output $(DEMO)/segmented --model $(DEMO)/model
	$(PY) jobs/evaluate.py --masks $(DEMO)/segmented/masks --truth $(DEMO)/plate/truth --output $(DEMO)/scores
	@echo "masks     $(DEMO)/segmented/masks"
	@echo "tables    $(DEMO)/segmented/nuclei, $(DEMO)/segmented/sites"
	@echo "pictures  $(DEMO)/model/learning_curves.png, $(DEMO)/model/before_after.png, $(DEMO)/scores/ap_curve.png"

lock: env  ## resolve requirements.lock anew from pyproject.toml, for Python 3.11 to 3.13 alike
	$(PY) -m pip install --quiet uv
	$(PY) -m uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --fork-strategy fewest \
	  --upgrade --generate-hashes --no-annotate --no-emit-index-url --no-emit-find-links \
	  --custom-compile-command "make lock" --quiet --output-file requirements.lock

clean:  ## remove the environment, the demo and all caches
	rm -rf $(VENV) $(DEMO) build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find nucseg_ray jobs tests -name __pycache__ -type d -prune -exec rm -rf {} +
