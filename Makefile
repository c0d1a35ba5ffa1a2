# make train     set up .venv and train the default: handwritten digits, minutes on a laptop
# make quick     lint, type check and run the tests that are not marked slow: within 3 minutes on 2 cores
# make test      lint, type check and run all tests but the interop ones: what continuous integration runs
# make test-all  install PyTorch and playwright too and run every test; a browser: apt-get install chromium
# make docs      build the site into site/, with warnings as errors
# make lint      only ruff and mypy
# make clean     remove .venv, .venv-docs and site
#
# Another Python: make test PYTHON=python3.13 VENV=.venv-3.13

PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -q --durations=15

.PHONY: help train quick test test-all lint docs clean
.DEFAULT_GOAL := help

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile

train: $(VENV)/.installed
	$(BIN)/python main.py

quick: lint
	$(PYTEST) -m "not slow and not interop"

test: lint
	$(PYTEST) -m "not interop"

test-all: $(VENV)/.installed-interop lint
	$(PYTEST)

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)-docs/.installed
	NO_MKDOCS_2_WARNING=1 $(VENV)-docs/bin/mkdocs build --strict --quiet

# Packages in the environment change with the files that name them.
$(VENV)/.installed: requirements.txt requirements-base.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP_INSTALL) -r requirements.txt
	touch $@

$(VENV)/.installed-test: requirements-test.txt requirements-export.txt $(VENV)/.installed
	$(PIP_INSTALL) -r requirements-test.txt
	touch $@

$(VENV)/.installed-interop: requirements-interop.txt $(VENV)/.installed-test
	$(PIP_INSTALL) -r requirements-interop.txt
	touch $@

$(VENV)-docs/.installed: requirements-docs.txt
	$(PYTHON) -m venv $(VENV)-docs
	$(VENV)-docs/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-docs.txt
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-docs site
