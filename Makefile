# make train   set up .venv and train the default: handwritten digits, minutes on a laptop
# make test    set up .venv with the test tools, then lint, type check and run the tests
# make lint    only ruff and mypy

PYTHON ?= python3.11
BIN := .venv/bin

.PHONY: train test lint clean

train: .venv/.installed
	$(BIN)/python main.py

test: .venv/.installed-test lint
	$(BIN)/python -m pytest -n 2 --dist loadfile -q

lint: .venv/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.venv/.installed: requirements.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

# Packages in .venv change with the file that names them.
.venv/.installed-test: requirements-test.txt requirements-export.txt .venv/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-test.txt
	touch $@

clean:
	rm -rf .venv
