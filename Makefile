# make train     set up .venv and train the default: handwritten digits, minutes on a laptop
# make quick     lint, type check and run the tests that are not marked slow: within 3 minutes on 2 cores
# make test      lint, type check and run all tests but the interop ones: what continuous integration runs
# make test-all  install PyTorch too and run every test
# make lint      only ruff and mypy
# make clean     remove .venv
#
# Another Python: make test PYTHON=python3.13 VENV=.venv-3.13

PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile -q --durations=15

.PHONY: help train quick test test-all lint clean
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

clean:
	rm -rf $(VENV)
